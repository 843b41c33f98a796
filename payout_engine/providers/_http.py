"""The one HTTP client that all providers speak through, and the table that says what a failure proves.

It promises: money moves by POST and no POST is ever sent twice; redirects are not followed; certificates are always
verified; `https` is required except on this machine; in a sandbox run no other host is ever connected to. Every
failure is `NotSentError` (the bytes provably never left) or `AmbiguousError`, by the exact class of aiohttp's
exception, and a class that is not in the table is ambiguous. No message shows a header or a body.

Called by the providers' `client.py` only.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from enum import Enum
from urllib.parse import urlencode

import aiohttp
import anyio
import msgspec
from yarl import URL

from payout_engine.domain.errors import AmbiguousError, ConfigError, NotSentError, ProviderError
from payout_engine.domain.limits import ANSWER_BYTES_MAX, LIST_BYTES_MAX, LIST_SECONDS_MAX
from payout_engine.domain.model import masked
from payout_engine.ports.registration import Account, is_loopback

KEEPALIVE_SECONDS = 10.0
"""How long an idle connection is kept. A connection that the server closed meanwhile fails ambiguously, because the
request may have been read before the close; a time below the usual 15-75 s of servers makes that rare."""

CONNECT_SECONDS_MAX = 10.0
"""How long one connection may take to open, TLS included. Failing in this phase is safe: nothing was sent."""

STREAM_BUFFER_BYTES = 256 * 1024
"""How much of a streamed answer is read ahead."""

CONNECTIONS_SPARE = 4
"""Connections beyond the paying ones, so that a long list or a balance never makes a payment wait for its turn."""

RETRY_AFTER_SECONDS_MAX = 3600
"""A longer wait asked for by a provider is cut to this; a person will have looked by then."""


JSON = "application/json"
FORM = "application/x-www-form-urlencoded"

TEXT_CHARS_MAX = 300
"""A provider's own words are cut to this before they are recorded."""

UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What the decoder raises of bytes that are not what is documented; the last, of JSON nested a thousand deep."""


class Proof(Enum):
    """What a failure proves about the request."""

    NOT_SENT = NotSentError
    AMBIGUOUS = AmbiguousError


# Matched on the exact class, because the hierarchy lies for our purpose: ClientConnectorError (never sent) is a
# subclass of ClientOSError (also a reset after the server has read the request).
# Source: aiohttp 3.14.5, client.py, connector.py and client_exceptions.py; tried against local servers.
MEANINGS: dict[str, tuple[Proof, str]] = {
    # The connection was never made, so no byte of a request left.
    "ClientConnectorError": (Proof.NOT_SENT, "connection_refused"),
    "ClientConnectorDNSError": (Proof.NOT_SENT, "host_unknown"),
    "ClientConnectorCertificateError": (Proof.NOT_SENT, "certificate_invalid"),
    "ClientConnectorSSLError": (Proof.NOT_SENT, "tls_failed"),
    "ConnectionTimeoutError": (Proof.NOT_SENT, "connect_timeout"),
    "InvalidURL": (Proof.NOT_SENT, "url_invalid"),
    "InvalidUrlClientError": (Proof.NOT_SENT, "url_invalid"),
    "NonHttpUrlClientError": (Proof.NOT_SENT, "url_invalid"),
    # The request may have been read.
    "ServerDisconnectedError": (Proof.AMBIGUOUS, "connection_closed"),
    "ClientOSError": (Proof.AMBIGUOUS, "connection_reset"),
    "ClientConnectionResetError": (Proof.AMBIGUOUS, "connection_reset"),
    "SocketTimeoutError": (Proof.AMBIGUOUS, "timeout"),
    "ServerTimeoutError": (Proof.AMBIGUOUS, "timeout"),
    "ClientPayloadError": (Proof.AMBIGUOUS, "answer_truncated"),
    "ClientResponseError": (Proof.AMBIGUOUS, "answer_unreadable"),
    "ContentTypeError": (Proof.AMBIGUOUS, "answer_unreadable"),
    # Never raised to us as such, or not in this use; classified so that a new class stands out.
    "ClientError": (Proof.AMBIGUOUS, "http_error"),
    "ClientConnectionError": (Proof.AMBIGUOUS, "http_error"),
    "ClientSSLError": (Proof.AMBIGUOUS, "http_error"),
    "ServerConnectionError": (Proof.AMBIGUOUS, "http_error"),
    "ServerFingerprintMismatch": (Proof.AMBIGUOUS, "http_error"),
    "ClientProxyConnectionError": (Proof.AMBIGUOUS, "http_error"),
    "ClientHttpProxyError": (Proof.AMBIGUOUS, "http_error"),
    "RedirectClientError": (Proof.AMBIGUOUS, "http_error"),
    "InvalidUrlRedirectClientError": (Proof.AMBIGUOUS, "http_error"),
    "NonHttpUrlRedirectClientError": (Proof.AMBIGUOUS, "http_error"),
    "TooManyRedirects": (Proof.AMBIGUOUS, "http_error"),
    "UploadAbortedError": (Proof.AMBIGUOUS, "http_error"),
    "EofStream": (Proof.AMBIGUOUS, "http_error"),
    "WSServerHandshakeError": (Proof.AMBIGUOUS, "http_error"),
    "WSMessageTypeError": (Proof.AMBIGUOUS, "http_error"),
    "WebSocketError": (Proof.AMBIGUOUS, "http_error"),
    "BadContentDispositionHeader": (Proof.AMBIGUOUS, "http_error"),
    "BadContentDispositionParam": (Proof.AMBIGUOUS, "http_error"),
}

# Older releases of aiohttp lack some of the names.
_BY_CLASS = {getattr(aiohttp, name): meaning for name, meaning in MEANINGS.items() if hasattr(aiohttp, name)}
# What aiohttp raises when the time for the whole call is over.
_BY_CLASS[TimeoutError] = (Proof.AMBIGUOUS, "timeout")


def classify(error: Exception) -> tuple[Proof, str]:
    """Return what `error` proves about the request, and a stable reason. The default is ambiguous."""
    return _BY_CLASS.get(type(error), (Proof.AMBIGUOUS, "http_error"))


class HttpAnswer(msgspec.Struct, frozen=True):
    """A whole HTTP answer. Its repr shows no body.

    Attributes:
        status: the HTTP status.
        body: as received.
        retry_after_seconds: from the header of that name if it is a number of seconds, else None.
    """

    status: int
    body: bytes
    retry_after_seconds: float | None = None

    def __repr__(self) -> str:
        return f"HttpAnswer({self.status}, {len(self.body)} bytes)"


class Stream:
    """An answer that is read piece by piece.

    Args:
        response: the answer.
        host: who answers.
        bytes_max: more is no answer.
        ends_at: after this, on the loop's clock, it is given up.
    """

    def __init__(
        self,
        response: aiohttp.ClientResponse,
        host: str,
        *,
        bytes_max: int = LIST_BYTES_MAX,
        ends_at: float = math.inf,
    ) -> None:
        self.status = response.status
        self._response = response
        self._host = host
        self._bytes_left = bytes_max
        self._ends_at = ends_at

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body in pieces of any size.

        Raises:
            AmbiguousError: it did not come to its end, or is too long, or took too long.
        """
        while True:
            failure: ProviderError | None = None
            chunk = b""
            try:
                chunk = await self._response.content.readany()
            except Exception as error:
                failure = _translated(error, self._host)
            if failure is not None and (failure.reason != "timeout" or anyio.current_time() < self._ends_at):
                raise failure
            if failure is not None or (chunk and anyio.current_time() >= self._ends_at):
                raise AmbiguousError("answer_too_slow", self._unended("all the time that it may take"))
            if not chunk:
                return
            self._bytes_left -= len(chunk)
            if self._bytes_left < 0:
                raise AmbiguousError("answer_too_long", self._unended("more bytes than any answer should have"))
            yield chunk

    def _unended(self, after: str) -> str:
        return f"{self._host} did not come to the end of its answer after {after}, so it was given up."

    async def answer(self) -> HttpAnswer:
        """Read the rest as one answer.

        Raises:
            AmbiguousError: it did not come to its end, or is longer than `ANSWER_BYTES_MAX`.
        """
        body = bytearray()
        async for chunk in self.chunks():
            body += chunk
            if len(body) > ANSWER_BYTES_MAX:
                raise AmbiguousError("answer_too_long", f"{self._host} answered more than {ANSWER_BYTES_MAX} bytes")
        return HttpAnswer(self.status, bytes(body), _retry_after_seconds(self._response.headers.get("Retry-After", "")))


OpenSession = Callable[[Mapping[str, str], int], aiohttp.ClientSession]
"""Makes the connections, given the headers of every request and how many connections there may be at once."""


def connections(headers: Mapping[str, str], limit: int) -> aiohttp.ClientSession:
    """Return real connections: the ones that every run uses."""
    return aiohttp.ClientSession(
        headers=headers,
        connector=aiohttp.TCPConnector(limit=limit, keepalive_timeout=KEEPALIVE_SECONDS),
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
    )


class HttpClient:
    """Keep-alive connections to one base address.

    Args:
        base_url: scheme and host, and a path prefix if there is one; no query, no user, no fragment.
        headers: sent with every request; they hold the secrets and are never shown.
        timeout_seconds: for one whole call; for a stream, between two pieces.
        loopback_only: refuse any host but this machine.
        concurrency: paying calls on the wire at once, at most.
        open_session: makes the connections; a simulation gives its own, which lead to a simulated bank.

    Raises:
        ConfigError: the address cannot be used.
    """

    def __init__(
        self,
        base_url: str,
        headers: Mapping[str, str],
        *,
        timeout_seconds: float,
        loopback_only: bool,
        concurrency: int,
        open_session: OpenSession = connections,
    ) -> None:
        self._base = _checked_url(base_url, loopback_only=loopback_only)
        self._prefix = str(self._base).rstrip("/")
        self._headers = {"Accept": "application/json", **headers}
        self._timeout_seconds = timeout_seconds
        self._connect_seconds = min(CONNECT_SECONDS_MAX, timeout_seconds)
        self._whole = aiohttp.ClientTimeout(total=timeout_seconds, sock_connect=self._connect_seconds)
        self._connections = concurrency + CONNECTIONS_SPARE
        self._open_session = open_session
        self._session: aiohttp.ClientSession | None = None
        self._post_urls: dict[str, URL] = {}
        self.host = f"{self._base.host}:{self._base.port}"

    def __repr__(self) -> str:
        return f"HttpClient({self.host!r})"

    async def post_json(
        self,
        path: str,
        body: bytes,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> HttpAnswer:
        """POST an encoded JSON document, once, and return the whole answer whatever its status.

        Args:
            path: where to.
            body: the document.
            query: what stands behind the question mark of this call, not yet quoted.
            headers: of this call alone, beside those of every call.

        Raises:
            NotSentError: no connection was made.
            AmbiguousError: anything else that is not a whole answer.
        """
        return await self._call("POST", self._post_url(path), query, body, {"Content-Type": JSON, **(headers or {})})

    async def post_form(
        self, path: str, fields: Mapping[str, str], *, query: Mapping[str, str] | None = None
    ) -> HttpAnswer:
        """POST the fields of a form, once. Otherwise as `post_json`."""
        return await self._call("POST", self._post_url(path), query, urlencode(fields).encode(), {"Content-Type": FORM})

    async def get(
        self, path: str, *, query: Mapping[str, str] | None = None, headers: Mapping[str, str] | None = None
    ) -> HttpAnswer:
        """GET `path` and return the whole answer whatever its status. Otherwise as `post_json`."""
        return await self._call("GET", self._url(path), query, None, headers)

    def address(self, path: str) -> str:
        """Return the whole address of a path, for providers that have it signed."""
        return str(self._url(path))

    def _post_url(self, path: str) -> URL:
        """The address of a paying call, parsed once. What stands in a query may be a token, and is never kept."""
        url = self._post_urls.get(path)
        if url is None:
            url = self._post_urls[path] = self._url(path)
        return url

    @asynccontextmanager
    async def stream(
        self, path: str, *, bytes_max: int = LIST_BYTES_MAX, seconds_max: float = LIST_SECONDS_MAX
    ) -> AsyncIterator[Stream]:
        """GET `path` and hand out the answer to be read piece by piece. Raises as `post_json` does.

        Args:
            path: what to get.
            bytes_max: a longer answer ends in `AmbiguousError`.
            seconds_max: so does one that takes longer, whatever takes the time.
        """
        # A list may take minutes in all; before that it is dead when nothing comes for the length of one call.
        patience = aiohttp.ClientTimeout(
            total=seconds_max, sock_connect=self._connect_seconds, sock_read=self._timeout_seconds
        )
        ends_at = anyio.current_time() + seconds_max
        failure: ProviderError | None = None
        try:
            response = await self._opened().get(
                self._url(path), allow_redirects=False, timeout=patience, read_bufsize=STREAM_BUFFER_BYTES
            )
        except Exception as error:
            failure = _translated(error, self.host)
        if failure is not None:
            raise failure
        try:
            yield Stream(response, self.host, bytes_max=bytes_max, ends_at=ends_at)
        finally:
            # Closing, not releasing: an unread rest would otherwise be read by the next call.
            response.close()

    async def aclose(self) -> None:
        """Close all connections. The client may not be used after this."""
        if self._session is not None:
            await self._session.close()

    async def _call(
        self,
        method: str,
        url: URL,
        query: Mapping[str, str] | None,
        body: bytes | None,
        headers: Mapping[str, str] | None,
    ) -> HttpAnswer:
        if query:
            url = url.with_query(dict(query))
        try:
            async with self._opened().request(
                method, url, data=body, headers=headers, allow_redirects=False, timeout=self._whole
            ) as response:
                return await Stream(response, self.host).answer()
        except ProviderError:
            raise
        except Exception as error:
            failure = _translated(error, self.host)
        # Raised outside the handler, since `from None` would only hide what stays behind it in `__context__`: some of
        # aiohttp's exceptions hold the request's headers, where the key is.
        raise failure

    def _url(self, path: str) -> URL:
        return URL(self._prefix + path, encoded=True)

    def _opened(self) -> aiohttp.ClientSession:
        """Open the session at first use: it belongs to the running loop, and accounts are configured before it runs."""
        if self._session is None:
            self._session = self._open_session(self._headers, self._connections)
        return self._session


def plain_secret(account: Account, name: str) -> str:
    """Return a secret of an account that can be sent in a header.

    Raises:
        ConfigError: it is missing, or not one word: a line break in it would be refused in words that show it.
    """
    secret = account.secrets.get(name, "")
    if not secret or not secret.isascii() or not secret.isprintable() or " " in secret:
        raise ConfigError(f"the {name} of account {account.name!r} is missing or is not one word of plain letters")
    return secret


def fit_to_show(text: str) -> str:
    """Return a provider's own words without full phones and e-mails, in plain characters, not longer than is useful."""
    shown = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(masked(shown).split())[:TEXT_CHARS_MAX]


def _checked_url(base_url: str, *, loopback_only: bool) -> URL:
    """Parse an account's base address, refusing what could leak a key or reach a real host from a sandbox run."""
    try:
        url = URL(base_url)
    except ValueError:
        raise ConfigError("base_url is not an address.") from None
    if url.scheme not in ("http", "https") or not url.host:
        raise ConfigError("base_url must begin with https:// and name a host.")
    if url.user or url.password or url.query_string or url.fragment:
        raise ConfigError("base_url must be scheme, host and path only: no user, no query, no fragment.")
    if loopback_only and not is_loopback(url.host):
        raise ConfigError(f"A sandbox run never connects to {url.host}, only to this machine.")
    if url.scheme != "https" and not is_loopback(url.host):
        raise ConfigError(f"base_url must begin with https:// because {url.host} is another machine.")
    return url


def _translated(error: Exception, host: str) -> ProviderError:
    """Turn a failure into what it proves. The words are ours, since the library's may show more than they should."""
    proof, reason = classify(error)
    happened = "could not be reached" if proof is Proof.NOT_SENT else "may have acted on the call"
    translated: ProviderError = proof.value(reason, f"{host} {happened} ({reason.replace('_', ' ')}).")
    return translated


def _retry_after_seconds(text: str) -> float | None:
    """The header as seconds; its date form is not worth a clock comparison."""
    return float(min(int(text), RETRY_AFTER_SECONDS_MAX)) if text.isascii() and text.isdigit() else None
