"""A server that speaks enough of Senfenico to be paid against, as fast as Python can: no framework, one process.

    python -m benchmarks.stub --limit 5 --jitter-ms 10

prints the port it listens on (this machine only) and serves until its standard input closes. Beside the documented
paths it answers GET /ledger (the audit), GET /calls (how many have arrived) and POST /reset; each API key has a ledger
of its own. With `--jitter-ms` every paying call arrives later by a random delay, as on a real network; with `--limit`
calls over a strict sliding second are refused and counted; with `--older` the list is long from the start.

Source of paths and shapes: Senfenico API document, 'balance' and 'transfers', read 2026-11-20.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from collections.abc import Iterator
from typing import cast

import msgspec

from benchmarks.ledger import Audit, Ledger, TooManyError, merged

BULK = b"/v1/payment/transfers/bulk/"
TRANSFERS = b"/v1/payment/transfers/"
BALANCES = b"/v1/payment/balances"
LEDGER = b"/ledger"
CALLS = b"/calls"
RESET = b"/reset"

_HEAD = b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
_LIST_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
LIST_START = b'{"status": true, "message": "Transfer list retrieved", "data": ['
LIST_END = b"]}"
QUEUED = b'{"status": true, "message": "%d transfers queued for processing", "failed_transfers": []}'
_CREATED = b'{"status": true, "message": "Transfer has been queued", "data": %s}'
_REFUSED = b'{"status": false, "message": "%s", "error_code": "%s"}'
_WALLET = b'{"available": 1000000000000.0, "pending": 0.0}'
BALANCES_BODY = (
    b'{"status": true, "message": "Balance retrieved", "data": {"collection_balances": {"available": 0.0, '
    b'"pending": 0.0, "currency": "XOF"}, "transfer_balances": {"total_available": 3000000000000.0, '
    b'"total_pending": 0.0, "orange_money_bf": %s, "moov_money_bf": %s, "sank_money_bf": %s}}}'
) % (_WALLET, _WALLET, _WALLET)


class Stub:
    """What all connections share: a ledger for each key, and the network's moods.

    Args:
        limit: calls of one key allowed in any sliding second; 0 means any number.
        older: transfers of each key that were there before.
        jitter_seconds: the longest extra delay of an arrival.
        answer_jitter_seconds: the longest extra delay of an answer, which blurs what the client can learn from it.
        seed: of the delays, so that two runs meet the same network.
    """

    def __init__(
        self,
        *,
        limit: int = 0,
        older: int = 0,
        jitter_seconds: float = 0.0,
        answer_jitter_seconds: float = 0.0,
        seed: int = 1,
    ) -> None:
        self._limit = limit
        self._older = older
        self._jitter_seconds = jitter_seconds
        self._answer_jitter_seconds = answer_jitter_seconds
        self._random = random.Random(seed)
        self._ledgers: dict[bytes, Ledger] = {}

    def ledger(self, key: bytes) -> Ledger:
        """Return the transfers of one key."""
        if key not in self._ledgers:
            self._ledgers[key] = Ledger(self._limit, self._older)
        return self._ledgers[key]

    def audit(self) -> Audit:
        """Count what all ledgers hold."""
        return merged([ledger.audit() for ledger in self._ledgers.values()] or [Ledger().audit()])

    @property
    def calls(self) -> int:
        """How many paying calls have arrived."""
        return sum(ledger.calls for ledger in self._ledgers.values())

    def delay_seconds(self) -> float:
        """Return how much later the next paying call arrives."""
        return self._random.uniform(0.0, self._jitter_seconds) if self._jitter_seconds else 0.0

    def answer_delay_seconds(self) -> float:
        """Return how much later the next answer to one arrives."""
        return self._random.uniform(0.0, self._answer_jitter_seconds) if self._answer_jitter_seconds else 0.0

    def reset(self) -> None:
        """Forget everything."""
        self._ledgers.clear()

    def pay(self, path: bytes, key: bytes, body: bytes) -> bytes:
        """Answer a paying call that arrives now."""
        ledger = self.ledger(key)
        if not ledger.arrive(time.monotonic()):
            return answer(_REFUSED % (b"Rate limit exceeded", b"RATE_LIMIT_EXCEEDED"), b"429 Too Many Requests")
        try:
            if path == BULK:
                return answer(QUEUED % ledger.take(body))
            ledger.take(b'{"transfers":[' + body + b"]}")
            return answer(_CREATED % next(ledger.listed()))
        except TooManyError:
            words = b"Maximum of 100 transfers allowed per request"
            return answer(_REFUSED % (words, b"BATCH_SIZE_LIMIT_EXCEEDED"), b"400 Bad Request")
        except msgspec.DecodeError:
            return answer(_REFUSED % (b"Invalid data", b"INVALID_DATA"), b"400 Bad Request")


def answer(body: bytes, status: bytes = b"200 OK") -> bytes:
    """Return a whole HTTP answer."""
    return _HEAD % (status, len(body), body)


class Connection(asyncio.Protocol):
    """One keep-alive connection, one request at a time."""

    def __init__(self, stub: Stub) -> None:
        self._stub = stub
        self._loop = asyncio.get_running_loop()
        self._buffer = bytearray()
        self._busy = False
        self._list: Iterator[bytes] | None = None
        self._ledger = Ledger()
        self._paused = False
        self._scheduled = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way back."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but name.

    def data_received(self, data: bytes) -> None:
        """Collect bytes until a request is whole."""
        self._buffer += data
        self._next()

    def pause_writing(self) -> None:
        """The client reads slower than the list is written: wait."""
        self._paused = True

    def resume_writing(self) -> None:
        """Go on with the list."""
        self._paused = False
        self._schedule_list()

    def _next(self) -> None:
        """Handle every whole request in the buffer, unless one is being answered."""
        while not self._busy:
            head_end = self._buffer.find(b"\r\n\r\n")
            if head_end < 0:
                return
            head = bytes(self._buffer[:head_end])
            end = head_end + 4 + _content_length(head)
            if len(self._buffer) < end:
                return
            body = bytes(self._buffer[head_end + 4 : end])
            del self._buffer[:end]
            method, path, _ = head.split(b" ", 2)
            self._handle(method, path, _header(head, b"x-api-key"), body)

    def _handle(self, method: bytes, path: bytes, key: bytes, body: bytes) -> None:
        if method == b"POST" and path in (BULK, TRANSFERS):
            self._pay_later(path, key, body)
        elif method == b"GET" and path == TRANSFERS:
            self._busy = True
            self._ledger = self._stub.ledger(key)
            self._list = self._ledger.listed()
            self._transport.write(_LIST_HEAD)
            self._write_piece(LIST_START)
            self._schedule_list()
        elif method == b"GET" and path == BALANCES:
            self._transport.write(answer(BALANCES_BODY))
        elif method == b"GET" and path == LEDGER:
            self._transport.write(answer(msgspec.json.encode(self._stub.audit())))
        elif method == b"GET" and path == CALLS:
            self._transport.write(answer(b"%d" % self._stub.calls))
        elif method == b"POST" and path == RESET:
            self._stub.reset()
            self._transport.write(answer(b"{}"))
        else:
            self._transport.write(answer(b'{"status": false, "message": "Not found"}', b"404 Not Found"))

    def _pay_later(self, path: bytes, key: bytes, body: bytes) -> None:
        delay_seconds = self._stub.delay_seconds()
        if not delay_seconds:
            self._transport.write(self._stub.pay(path, key, body))
            return
        self._busy = True
        self._loop.call_later(delay_seconds, self._pay_now, path, key, body)

    def _pay_now(self, path: bytes, key: bytes, body: bytes) -> None:
        # A call whose client has gone meanwhile arrives all the same.
        self._loop.call_later(self._stub.answer_delay_seconds(), self._answer_now, self._stub.pay(path, key, body))

    def _answer_now(self, whole: bytes) -> None:
        self._busy = False
        if not self._transport.is_closing():
            self._transport.write(whole)
            self._next()

    def _schedule_list(self) -> None:
        if self._list is not None and not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._write_list)

    def _write_list(self) -> None:
        """Write one piece of the list, and come back for the next when the loop and the client have had their turn."""
        self._scheduled = False
        if self._paused or self._list is None or self._transport.is_closing():
            return
        piece = next(self._list, None)
        if piece is not None:
            self._ledger.listed_bytes += len(piece)
            self._write_piece(piece)
            self._schedule_list()
            return
        self._list = None
        self._write_piece(LIST_END)
        self._transport.write(b"0\r\n\r\n")
        self._busy = False
        self._next()

    def _write_piece(self, piece: bytes) -> None:
        self._transport.write(b"%x\r\n%b\r\n" % (len(piece), piece))


def _content_length(head: bytes) -> int:
    return int(_header(head, b"content-length") or 0)


def _header(head: bytes, name: bytes) -> bytes:
    """Return the value of a header, in lower case."""
    lowered = head.lower()
    start = lowered.find(b"\r\n" + name + b":")
    return lowered[start + len(name) + 3 :].split(b"\r\n", 1)[0].strip() if start >= 0 else b""


async def serve(stub: Stub, port: int) -> None:
    """Serve on this machine, print the port, and end when standard input closes."""
    loop = asyncio.get_running_loop()
    closed = asyncio.Event()
    server = await loop.create_server(lambda: Connection(stub), "127.0.0.1", port)
    print(server.sockets[0].getsockname()[1], flush=True)
    # The benchmark holds the other end, so that this process never outlives it.
    loop.add_reader(sys.stdin.fileno(), closed.set)
    await closed.wait()
    server.close()


def main() -> None:
    """Read the options and serve."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stub", description="A small Senfenico on this machine.")
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    parser.add_argument("--jitter-ms", type=float, default=0.0, help="the longest extra delay of an arrival")
    parser.add_argument("--answer-jitter-ms", type=float, default=0.0, help="the longest extra delay of an answer")
    parser.add_argument("--limit", type=int, default=0, help="calls in any sliding second; 0: any number")
    parser.add_argument("--older", type=int, default=0, help="transfers of each key that were there before")
    parser.add_argument("--seed", type=int, default=1, help="of the delays")
    options = parser.parse_args()
    stub = Stub(
        limit=options.limit,
        older=options.older,
        jitter_seconds=options.jitter_ms / 1000,
        answer_jitter_seconds=options.answer_jitter_ms / 1000,
        seed=options.seed,
    )
    with asyncio.Runner(loop_factory=_new_loop) as runner:
        runner.run(serve(stub, options.port))


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


if __name__ == "__main__":
    main()
