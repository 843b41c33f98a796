"""The HTTP client: what each failure proves, and what is never done or shown."""

from __future__ import annotations

import contextlib
import inspect
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import anyio
import anyio.abc
import pytest

from payout_engine.domain.errors import AmbiguousError, ConfigError, NotSentError, ProviderError
from payout_engine.domain.limits import ANSWER_BYTES_MAX
from payout_engine.providers._http import MEANINGS, HttpAnswer, HttpClient, Proof, Stream, classify, connections

SECRET = "sk_live_very_secret"
BODY = b'{"secret":"22670123456"}'

Behave = Callable[[anyio.abc.SocketStream, bytes], Awaitable[None]]


@asynccontextmanager
async def server(behave: Behave) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A server that reads one request whole and then does as it is told; yields its address and what it read."""
    seen: list[bytes] = []

    async def handle(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            with contextlib.suppress(anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
                while True:
                    received = await stream.receive()
                    while b"\r\n\r\n" not in received or (b"POST" in received and BODY not in received):
                        received += await stream.receive()
                    seen.append(received)
                    await behave(stream, received)

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(anyio.abc.SocketAttribute.local_port)
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, handle)
        yield f"http://127.0.0.1:{port}", seen
        tasks.cancel_scope.cancel()


@asynccontextmanager
async def client(base_url: str, timeout_seconds: float = 5.0) -> AsyncIterator[HttpClient]:
    http = HttpClient(
        base_url, {"X-API-KEY": SECRET}, timeout_seconds=timeout_seconds, loopback_only=False, concurrency=2
    )
    try:
        yield http
    finally:
        await http.aclose()


async def failure(base_url: str, timeout_seconds: float = 5.0) -> ProviderError:
    """POST once and return how it failed."""
    async with client(base_url, timeout_seconds) as http:
        with pytest.raises(ProviderError) as caught:
            await http.post_json("/pay", BODY)
    assert SECRET not in repr(caught.value) and "70123456" not in repr(caught.value)
    return caught.value


def test_every_exception_of_aiohttp_is_classified() -> None:
    """A new exception class in aiohttp fails here until somebody says what it proves."""
    exported = {
        name
        for name, value in vars(aiohttp).items()
        if inspect.isclass(value) and issubclass(value, BaseException) and not name.startswith("_")
    }

    assert exported - set(MEANINGS) == set()


def test_the_exact_class_decides_and_the_default_is_ambiguous() -> None:
    """A subclass of a class that proves something proves nothing itself."""

    class Invented(aiohttp.ClientConnectorDNSError):
        pass

    invented = Invented.__new__(Invented)

    assert classify(invented)[0] is Proof.AMBIGUOUS
    assert classify(ValueError("x")) == (Proof.AMBIGUOUS, "http_error")
    assert classify(aiohttp.ClientOSError())[0] is Proof.AMBIGUOUS
    assert classify(aiohttp.ConnectionTimeoutError())[0] is Proof.NOT_SENT


def test_only_failures_before_a_connection_prove_that_nothing_was_sent() -> None:
    """The list of what is safe to send again is short, and growing it is a decision."""
    safe = {name for name, (proof, _) in MEANINGS.items() if proof is Proof.NOT_SENT}

    assert safe == {
        "ClientConnectorError",
        "ClientConnectorDNSError",
        "ClientConnectorCertificateError",
        "ClientConnectorSSLError",
        "ConnectionTimeoutError",
        "InvalidURL",
        "InvalidUrlClientError",
        "NonHttpUrlClientError",
    }


async def test_a_closed_port_proves_that_nothing_was_sent() -> None:
    """No connection, no request."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        error = await failure(f"http://127.0.0.1:{reserved.getsockname()[1]}")

    assert isinstance(error, NotSentError)
    assert error.reason == "connection_refused"
    assert re.match(r"127\.0\.0\.1:\d+ could not be reached", str(error))


async def test_an_unknown_host_proves_that_nothing_was_sent() -> None:
    """A name under .invalid never resolves."""
    error = await failure("https://payouts.invalid")

    assert isinstance(error, NotSentError)
    assert error.reason == "host_unknown"


async def test_a_failed_tls_handshake_proves_that_nothing_was_sent() -> None:
    """The certificate is always checked, and the request waits for it."""

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(anyio.abc.SocketAttribute.local_port)
    heard: list[bytes] = []

    async def handle(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            heard.append(await stream.receive())
            await stream.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, handle)
        error = await failure(f"https://127.0.0.1:{port}")
        tasks.cancel_scope.cancel()

    assert isinstance(error, NotSentError)
    assert SECRET.encode() not in b"".join(heard)


async def test_a_close_after_the_request_was_read_is_ambiguous() -> None:
    """The server read the request; whether it acted is anybody's guess. It is not sent again."""

    async def close(stream: anyio.abc.SocketStream, _: bytes) -> None:
        await stream.aclose()

    async with server(close) as (base_url, seen):
        error = await failure(base_url)

    assert isinstance(error, AmbiguousError)
    assert len(seen) == 1


async def test_a_post_on_a_stale_connection_is_not_sent_twice() -> None:
    """A kept connection that breaks at its second request fails ambiguously instead of being retried quietly."""

    async def answer_once(stream: anyio.abc.SocketStream, _: bytes) -> None:
        if len(seen) > 1:
            await stream.aclose()
        else:
            await stream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    async with server(answer_once) as (base_url, seen), client(base_url) as http:
        await http.post_json("/pay", BODY)
        with pytest.raises(AmbiguousError):
            await http.post_json("/pay", BODY)

    assert len(seen) == 2


async def test_silence_is_ambiguous() -> None:
    """No answer in time says nothing about the money."""

    async def say_nothing(_: anyio.abc.SocketStream, __: bytes) -> None:
        await anyio.sleep(5)

    async with server(say_nothing) as (base_url, _):
        error = await failure(base_url, timeout_seconds=0.2)

    assert isinstance(error, AmbiguousError)
    assert error.reason == "timeout"
    assert re.match(r"127\.0\.0\.1:\d+ may have acted on the call", str(error))


async def test_half_an_answer_is_ambiguous() -> None:
    """A body shorter than promised is no answer."""

    async def send_half(stream: anyio.abc.SocketStream, _: bytes) -> None:
        await stream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
        await stream.aclose()

    async with server(send_half) as (base_url, _):
        error = await failure(base_url)

    assert isinstance(error, AmbiguousError)
    assert error.reason == "answer_truncated"


async def test_an_endless_answer_is_ambiguous() -> None:
    """An answer over the bound is cut off instead of filling the memory."""

    async def send_much(stream: anyio.abc.SocketStream, _: bytes) -> None:
        await stream.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        block = b"100000\r\n" + b"x" * 0x100000 + b"\r\n"
        for _piece in range(ANSWER_BYTES_MAX // 0x100000 + 2):
            await stream.send(block)

    async with server(send_much) as (base_url, _):
        error = await failure(base_url)

    assert isinstance(error, AmbiguousError)
    assert error.reason == "answer_too_long"


async def ok(stream: anyio.abc.SocketStream, _: bytes) -> None:
    await stream.send(b"HTTP/1.1 200 OK\r\nSet-Cookie: who=we\r\nContent-Length: 6\r\n\r\nxxxxxx")


async def test_what_is_asked_arrives_as_it_was_written() -> None:
    """Method, path below the base address, and headers, the key among them; and nothing that a server left with us."""
    async with server(ok) as (base_url, seen), client(f"{base_url}/apiX/") as http:
        await http.post_json("/pay%7E", BODY)
        await http.get("/list?a=%7E")
    post, get = ({*one.decode().lower().split("\r\n")} for one in seen)
    assert seen[0].startswith(b"POST /apiX/pay%7E HTTP/1.1\r\n")
    assert seen[1].startswith(b"GET /apiX/list?a=%7E HTTP/1.1\r\n")
    assert {"accept: application/json", f"x-api-key: {SECRET}"} <= post & get
    assert "content-type: application/json" in post
    assert not any(line.startswith(("content-type", "cookie")) for line in get)


async def test_connections_are_as_many_as_wanted_and_nobody_elses() -> None:
    """No proxy that the environment names sees a key, and a payment waits for no list."""
    async with connections({"X-API-KEY": SECRET}, 3) as session:
        assert session.connector is not None and session.connector.limit == 3
        assert not session.trust_env


async def test_a_connection_that_never_opens_proves_that_nothing_was_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is given up long before the call is, for a payment as for a list."""
    monkeypatch.setattr("payout_engine.providers._http.CONNECT_SECONDS_MAX", 0.3)
    with socket.socket() as full, contextlib.ExitStack() as waiting:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):
            one = waiting.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        base_url = f"http://127.0.0.1:{full.getsockname()[1]}"
        async with client(base_url, 30.0) as http:
            with anyio.fail_after(10), pytest.raises(NotSentError, match="connect timeout"):
                await http.post_json("/pay", BODY)
            with anyio.fail_after(10), pytest.raises(NotSentError, match="connect timeout"):
                async with http.stream("/list"):
                    pass


async def test_a_list_that_falls_silent_is_given_up() -> None:
    """After the time of one call, long before that of the whole list is over."""

    async def begin(stream: anyio.abc.SocketStream, _: bytes) -> None:
        await stream.send(CHUNKED + b"1\r\nx\r\n")
        await anyio.sleep(30)

    async with server(begin) as (base_url, _), client(base_url, 0.3) as http:
        with anyio.fail_after(10), pytest.raises(AmbiguousError) as caught:
            async with http.stream("/") as list_:
                async for _piece in list_.chunks():
                    pass

    assert caught.value.reason == "timeout"


async def test_the_bounds_of_an_answer_are_met_exactly() -> None:
    """As many bytes as there may be are read, and one more is not; nor is anything once the time is over."""

    async def read(**bounds: Any) -> str:
        async with aiohttp.ClientSession() as session, session.get(base_url) as response:
            try:
                return b"".join([piece async for piece in Stream(response, "host", **bounds).chunks()]).decode()
            except AmbiguousError as error:
                return error.reason

    async with server(ok) as (base_url, _):
        assert await read(bytes_max=6) == "xxxxxx"
        assert await read(bytes_max=5) == "answer_too_long"
        assert await read(ends_at=anyio.current_time() - 1) == "answer_too_slow"

    async def say_nothing(stream: anyio.abc.SocketStream, _: bytes) -> None:
        await stream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    async with server(say_nothing) as (base_url, _):
        assert await read(ends_at=anyio.current_time() - 1) == "", "it had come to its end"


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


async def drip(stream: anyio.abc.SocketStream, _: bytes) -> None:
    """HttpAnswer a byte now and then, for ever."""
    await stream.send(CHUNKED)
    while True:
        await stream.send(b"1\r\nx\r\n")
        await anyio.sleep(0.02)


@pytest.mark.parametrize(
    ("bounds", "reason"),
    [({"seconds_max": 0.5}, "answer_too_slow"), ({"bytes_max": 10}, "answer_too_long")],
    ids=["seconds", "bytes"],
)
async def test_a_list_without_end_is_given_up(bounds: dict[str, Any], reason: str) -> None:
    """Each piece comes in time, and no bound on the time between two pieces would ever end it; the whole has one."""
    async with server(drip) as (base_url, _), client(base_url) as http:
        with anyio.fail_after(5), pytest.raises(AmbiguousError, match=r"^127\.0\.0\.1:.*given up") as caught:
            async with http.stream("/", **bounds) as stream:
                async for _piece in stream.chunks():
                    pass

    assert caught.value.reason == reason


async def test_a_head_that_never_ends_is_given_up() -> None:
    """The time for the whole begins with the request, not with the first byte of the list."""

    async def drip_heads(stream: anyio.abc.SocketStream, _: bytes) -> None:
        await stream.send(b"HTTP/1.1 200 OK\r\n")
        while True:
            await stream.send(b"X: x\r\n")
            await anyio.sleep(0.02)

    async with server(drip_heads) as (base_url, _), client(base_url) as http:
        with anyio.fail_after(5), pytest.raises(AmbiguousError) as caught:
            async with http.stream("/", seconds_max=0.3):
                pass

    assert caught.value.reason == "timeout"


async def test_a_list_that_is_slow_but_ends_is_read() -> None:
    """Slower than one call may be, within the time for the whole."""

    async def slowly(stream: anyio.abc.SocketStream, _: bytes) -> None:
        await stream.send(CHUNKED)
        for _piece in range(6):
            await anyio.sleep(0.1)
            await stream.send(b"1\r\nx\r\n")
        await stream.send(b"0\r\n\r\n")

    async with (
        server(slowly) as (base_url, _),
        client(base_url, timeout_seconds=0.4) as http,
        http.stream("/") as list_,
    ):
        assert b"".join([piece async for piece in list_.chunks()]) == b"xxxxxx"


async def test_a_redirect_is_an_answer_and_is_not_followed() -> None:
    """Money is never sent where somebody points."""

    async def redirect(stream: anyio.abc.SocketStream, _: bytes) -> None:
        await stream.send(b"HTTP/1.1 307 Temporary Redirect\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n")

    async with server(redirect) as (base_url, seen), client(base_url) as http:
        answer = await http.post_json("/pay", BODY)

        async with http.stream("/list") as list_:
            assert list_.status == 307

    assert answer.status == 307
    assert len(seen) == 2


@pytest.mark.parametrize(("text", "seconds"), [("3", 3.0), ("999999", 3600.0), ("soon", None), ("-1", None)])
async def test_retry_after_is_read_in_seconds(text: str, seconds: float | None) -> None:
    """Only a plain number of seconds counts, and never more than an hour."""

    async def slow_down(stream: anyio.abc.SocketStream, _: bytes) -> None:
        await stream.send(f"HTTP/1.1 429 No\r\nRetry-After: {text}\r\nContent-Length: 0\r\n\r\n".encode())

    async with server(slow_down) as (base_url, _), client(base_url) as http:
        assert (await http.get("/")).retry_after_seconds == seconds


@pytest.mark.parametrize(
    "base_url",
    [
        "http://api.example.com",
        "ftp://localhost",
        "https://",
        "https://user:word@example.com",
        "https://user@a.b",
        "https://:word@a.b",
        "https://a.b/?k=1",
        "https://a.b/#k",
        "https://[",
        "x",
    ],
)
def test_an_unsafe_address_is_refused_at_once(base_url: str) -> None:
    """Plain HTTP to another machine, and addresses that could carry secrets, never become a client."""
    with pytest.raises(ConfigError):
        HttpClient(base_url, {}, timeout_seconds=1, loopback_only=False, concurrency=1)


@pytest.mark.parametrize("base_url", ["https://api.senfenico.com", "https://127.0.0.1.example.com", "http://10.0.0.1"])
def test_a_sandbox_run_reaches_only_this_machine(base_url: str) -> None:
    """The refusal comes before any name is resolved."""
    with pytest.raises(ConfigError):
        HttpClient(base_url, {}, timeout_seconds=1, loopback_only=True, concurrency=1)


@pytest.mark.parametrize(
    "base_url", ["http://127.0.0.1:1", "http://localhost", "http://[::1]:8080", "http://127.9.9.9"]
)
def test_this_machine_may_be_spoken_to_in_the_clear(base_url: str) -> None:
    """Sandboxes have no certificate."""
    HttpClient(base_url, {}, timeout_seconds=1, loopback_only=True, concurrency=1)


def test_no_secret_and_no_body_is_shown() -> None:
    """Reprs end up in logs."""
    http = HttpClient("https://a.example", {"X-API-KEY": SECRET}, timeout_seconds=1, loopback_only=False, concurrency=1)

    assert SECRET not in repr(http)
    assert "70123456" not in repr(HttpAnswer(200, BODY))
