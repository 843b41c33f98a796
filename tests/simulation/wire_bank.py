"""A simulated bank that speaks Senfenico's HTTP API in bytes, so that the real adapter and `_http` are simulated too.

`Wire` stands where `aiohttp.ClientSession` stands: below it are a `Bank`, its ledger and its faults, above it runs what
pays in earnest, `SenfenicoProvider`, its client, `wire.py`, `listing.py` and `_http.HttpClient`, in virtual time and
without a socket. A fault of the bank arrives as one of the exceptions that aiohttp raises at that moment, or as a
proxy's page, or as half an answer, as the bank's generator draws it.

What may happen at which moment is written down here once more, and not read from `_http.MEANINGS`: a table that takes
a reset for “not sent” must meet a reset after the money moved. `wired` makes a provider of it; `WiredProvider` is one
that has a witness, for `simulation.py`.
"""

from __future__ import annotations

import ssl
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, NoReturn, cast

import aiohttp
import anyio
import msgspec
import orjson
from yarl import URL

from payout_engine.domain import clock
from payout_engine.domain.errors import Brake, ProviderError, RefusedError
from payout_engine.domain.model import Balance, Dispatch, Lane, LookUpResult, Payout, Query, Receipt
from payout_engine.domain.states import State
from payout_engine.ports.provider import Traits
from payout_engine.ports.registration import Account
from payout_engine.providers.senfenico.adapter import SenfenicoProvider, traits
from payout_engine.providers.senfenico.client import BALANCES, BULK, TRANSFERS
from payout_engine.testing.provider_answers import HTML
from simulation.bank import STARTED_AT, TIMEOUT_SECONDS, Bank, BrokenError, Fault, Transfer
from simulation.crashing import Fuse
from simulation.wire_words import (
    FOREIGN,
    Said,
    balances_body,
    key_refusal,
    listed,
    no_funds,
    queued,
    rate_limit,
    refused_call,
    strange_answer,
    transfer_body,
)
from simulation.witness import Witness

API_KEY = "sk_live_simulated"
WORDLESS = frozenset({Fault.REVERSED})
"""Faults for which Senfenico has no word: a simulation that wants everything to settle leaves them out."""

LISTING_SECONDS_MAX = TIMEOUT_SECONDS * 0.8
"""How long the next piece of a list may take: longer is a time-out."""


class NextReleaseError(aiohttp.ClientConnectorDNSError):
    """An exception of a later aiohttp. That it is a kind of “never connected” proves nothing."""


NEVER_CONNECTED: Sequence[type[Exception]] = (
    aiohttp.ClientConnectorError,
    aiohttp.ClientConnectorDNSError,
    aiohttp.ClientConnectorCertificateError,
    aiohttp.ClientConnectorSSLError,
    aiohttp.ConnectionTimeoutError,
    aiohttp.InvalidURL,
    aiohttp.InvalidUrlClientError,
    aiohttp.NonHttpUrlClientError,
)
"""What aiohttp raises only where no connection was made; the bank has heard nothing then."""

CONNECTED: Sequence[type[Exception]] = (
    *(
        kind
        for name, kind in sorted(vars(aiohttp).items())
        if isinstance(kind, type) and issubclass(kind, Exception) and kind not in NEVER_CONNECTED
    ),
    *(NextReleaseError, TimeoutError, OSError, ConnectionResetError, ssl.SSLError, ValueError, EOFError),
)
"""What may be raised once a request is on the wire, whether or not the bank has heard it."""

USUAL: Sequence[type[Exception]] = (
    aiohttp.ClientOSError,
    aiohttp.ServerDisconnectedError,
    aiohttp.ClientConnectionResetError,
    aiohttp.ClientPayloadError,
)
"""Those of `CONNECTED` that networks bring about every day; they are drawn more often, so that few seeds find much."""

TIMED_OUT: Sequence[type[Exception]] = (TimeoutError, aiohttp.SocketTimeoutError, aiohttp.ServerTimeoutError)


class Wire:
    """Senfenico's API over a bank, as the connections of one client. It offers what `_http` uses of a session.

    Attributes:
        happened: how often each thing happened on the wire, by the moment and the class or the word.
    """

    def __init__(self, bank: Bank, api_key: str = API_KEY, happened: Counter[str] | None = None) -> None:
        self.happened = Counter[str]() if happened is None else happened
        self._bank = bank
        self._api_key = api_key

    def opened(self, headers: Mapping[str, str], limit: int) -> aiohttp.ClientSession:
        """Return itself, as `HttpClient` wants its connections."""
        assert headers["X-API-KEY"] == self._api_key and limit > 0
        return cast(aiohttp.ClientSession, self)

    async def close(self) -> None:
        """Nothing is open."""

    @asynccontextmanager
    async def request(self, method: str, url: URL, *, data: bytes | None = None, **_: Any) -> AsyncIterator[_Response]:
        """Carry one call whose answer is read whole."""
        if method == "POST":
            assert url.path == BULK and data is not None
            yield await self._pay(data)
        else:
            yield await self._ask(url.path)

    async def get(self, url: URL, **_: Any) -> _Response:
        """Carry one call whose answer is read in pieces: the list of transfers."""
        assert url.path == TRANSFERS
        return await self._ask(url.path)

    # ------------------------------------------------------------------------------------------------------- paying

    async def _pay(self, body: bytes) -> _Response:
        dispatch = _read(body)
        told = f"transfers to {', '.join(f'{payout.amount_minor}' for payout in dispatch.payouts)} francs"
        try:
            said: Said = await self._bank.carry(f"a call of {told}", partial(self._execute, dispatch))
        except BrokenError as broken:
            return self._broken(broken)
        self._count("answered", said.what)
        return _Response(said)

    def _broken(self, broken: BrokenError) -> _Response:
        """Break as aiohttp does at that moment, or as a proxy does that stands before the bank."""
        if broken.fault is Fault.NOT_HEARD:
            self._raise("never connected", NEVER_CONNECTED)
        if broken.fault is Fault.SILENT:
            self._raise("silent", TIMED_OUT)
        when = "before" if broken.fault is Fault.LOST else "after"
        how = self._bank.choice(["raised"] * 4 + ["page", "cut", "cut short"])
        if how == "page":
            self._count(when, "page of a proxy")
            return _Response(Said("page", self._bank.choice([401, 403, 429, 500, 502, 503, 504]), HTML))
        if how == "raised" or not isinstance(broken.answer, Said):
            self._raise(when, CONNECTED)
        self._count(when, f"answer {how}")
        answer: Said = broken.answer
        half = answer.body[: int(self._bank.between(0, len(answer.body)))]
        end = self._exception(CONNECTED) if how == "cut" else None
        return _Response(msgspec.structs.replace(answer, body=half), breaks=True, end=end)

    def _execute(self, dispatch: Dispatch) -> Said:
        """Do what is asked, or refuse it before anything was done, and say so, or something else."""
        bank = self._bank
        if len(dispatch.payouts) > bank.traits.batch_limit:
            return refused_call("BATCH_SIZE_LIMIT_EXCEEDED")
        refusal = bank.refusal(dispatch)
        if refusal is not None:
            return self._refused(refusal)
        pairs = zip(dispatch.keys, dispatch.payouts, strict=True)
        receipts = [bank.take(key, payout, dispatch.lane.name) for key, payout in pairs]
        refused = [
            payout for payout, receipt in zip(dispatch.payouts, receipts, strict=True) if receipt.state is State.READY
        ]
        count = len(receipts) - len(refused)
        if bank.happens(Fault.ADAPTER):
            # It contradicts itself: nobody can say of whom it speaks.
            return queued(count + bank.choice([-1, 1]), [*refused, *refused[:1]])
        if bank.happens(Fault.WORDS):
            return strange_answer(bank.choice, dispatch.payouts)
        return queued(count, refused)

    def _refused(self, error: ProviderError) -> Said:
        """Refuse the whole call, in printed words or in others; nothing of it was done."""
        assert isinstance(error, RefusedError)
        if error.brake is Brake.CREDENTIALS:
            return key_refusal(self._bank.choice)
        if error.too_fast:
            return rate_limit(error.retry_after_seconds)
        if error.brake is Brake.FUNDS:
            return no_funds()
        codes = ["BATCH_SIZE_LIMIT_EXCEEDED", "INVALID_DATA", "INVALID_ACCOUNT", "UNSUPPORTED_PROVIDER"]
        return refused_call(self._bank.choice(codes))

    # ------------------------------------------------------------------------------------------------------- asking

    async def _ask(self, path: str) -> _Response:
        await anyio.sleep(self._bank.between(0.05, 0.5))
        problem = self._bank.blind()
        if problem is not None:
            return await self._blind(problem)
        if path == BALANCES:
            return _Response(balances_body(self._bank.balances_minor))
        live_mode = self._api_key.startswith("sk_live_")
        if path == TRANSFERS:
            return self._list(live_mode)
        reference = path.removeprefix(TRANSFERS)
        found = next((transfer for transfer in self._bank.transfers if transfer.number == reference), None)
        return _Response(transfer_body(self._shown(found, live_mode) if found is not None else None))

    async def _blind(self, problem: ProviderError) -> _Response:
        """Fail at the beginning of a look-up, in one of many ways."""
        if isinstance(problem, RefusedError):
            return _Response(key_refusal(self._bank.choice))
        how = self._bank.choice(["never", "raised", "silent", "page", "too fast", "nothing"])
        self._count("blind", how)
        if how == "never":
            self._raise("never connected", NEVER_CONNECTED)
        if how == "raised":
            self._raise("blind", CONNECTED)
        if how == "silent":
            await anyio.sleep(TIMEOUT_SECONDS)
            self._raise("silent", TIMED_OUT)
        if how == "page":
            return _Response(Said("page", self._bank.choice([200, 401, 403, 502, 504]), HTML))
        return _Response(rate_limit(None) if how == "too fast" else Said("nothing", 200, b""))

    def _list(self, live_mode: bool) -> _Response:
        """Show everything that is visible, newest first, in pieces cut anywhere; it may break, or end too early."""
        bank = self._bank
        items: list[dict[str, Any]] = []
        for transfer in reversed(bank.transfers):
            shown = self._shown(transfer, live_mode)
            if shown is None:
                continue
            items.append(shown)
            if bank.happens(Fault.REPEATED):
                items.insert(int(bank.between(0, len(items))), shown)
            if bank.happens(Fault.FOREIGN):
                items.append(dict(bank.choice(FOREIGN)))
        body = listed(items)
        cuts = sorted(int(bank.between(0, len(body))) for _ in range(bank.choice([0, 1, 1, 2, 5])))
        # A list that breaks may end like a whole one: only its own last bracket tells.
        end = bank.choice([None, self._exception(CONNECTED)])
        return _Response(Said("list", 200, body), cuts=[*cuts, len(body)], pause=self._pause, end=end)

    async def _pause(self) -> bool:
        """Let the next piece of a list take its time; True when none comes any more."""
        await anyio.sleep(self._bank.between(0.0, min(self._bank.page_seconds_max, LISTING_SECONDS_MAX)))
        if self._bank.blind() is None:
            return False
        self._count("list", "broke")
        return True

    def _shown(self, transfer: Transfer, live_mode: bool) -> dict[str, Any] | None:
        """A transfer as the API shows it now, or None while it is hidden."""
        seen = self._bank.shown(transfer)
        if seen is None:
            return None
        return {
            "reference": transfer.number,
            "amount": self._bank.choice([seen.amount_minor, f"{seen.amount_minor}.00"]),
            "fees": "1.50",
            "currency": "XOF",
            "ip_address": "172.18.0.1",
            "status": _STATUSES.get(seen.receipt.state, str(seen.receipt.reason or seen.receipt.state)),
            "live_mode": live_mode,
            "recipient_wallet": transfer.payout.wallet,
            "recipient_phone": seen.recipient,
            "ext_id": transfer.key,
            "created_at": clock.text(STARTED_AT + transfer.taken_at),
        }

    # ----------------------------------------------------------------------------------------------------- breaking

    def _exception(self, kinds: Sequence[type[Exception]]) -> Exception:
        if kinds is CONNECTED and self._bank.choice([True, False, False]):
            kinds = USUAL
        kind = self._bank.choice(kinds)
        # Made without its arguments, which differ from class to class: what is caught is told by its class alone.
        return kind.__new__(kind)

    def _raise(self, when: str, kinds: Sequence[type[Exception]]) -> NoReturn:
        error = self._exception(kinds)
        self._count(when, type(error).__name__)
        raise error

    def _count(self, when: str, what: str) -> None:
        self.happened[f"{when}: {what}"] += 1


_STATUSES: Mapping[State, str] = {State.ACCEPTED: "pending", State.PAID: "success", State.FAILED: "failed"}


class _Response:
    """What `_http` uses of `aiohttp.ClientResponse`: status, headers, and the body in pieces.

    Args:
        said: the answer.
        cuts: where the pieces end; none: it comes in one.
        pause: waits before each piece; when it returns True, no other comes.
        breaks: it ends before it was whole.
        end: raised where it breaks, or None if it then ends as whole answers do.
    """

    def __init__(
        self,
        said: Said,
        *,
        cuts: Sequence[int] = (),
        pause: Callable[[], Awaitable[bool]] | None = None,
        breaks: bool = False,
        end: Exception | None = None,
    ) -> None:
        self.status = said.status
        self.headers = said.headers
        self.content = self
        self._body = said.body
        self._cuts = list(cuts) or [len(said.body)]
        self._pause = pause
        self._breaks = breaks
        self._end = end
        self._at = 0

    async def readany(self) -> bytes:
        """Return the next piece; empty at the end."""
        while self._cuts:
            if self._pause is not None and await self._pause():
                self._breaks = True
                self._cuts.clear()
                break
            start, self._at = self._at, self._cuts.pop(0)
            if self._at > start:
                return self._body[start : self._at]
        if self._breaks and self._end is not None:
            raise self._end
        return b""

    def close(self) -> None:
        """Nothing is open."""


def _read(body: bytes) -> Dispatch:
    """Understand the bytes of a bulk call, as the document prints them."""
    items = orjson.loads(body)["transfers"]
    wallets = {item["recipient_wallet"] for item in items}
    assert len(wallets) == 1, "a call of several wallets was not foreseen"
    payouts = [
        Payout(item["ext_id"], item["amount"], "XOF", f"226{item['recipient_phone']}", wallet=item["recipient_wallet"])
        for item in items
    ]
    keys = [item["ext_id"] for item in items]
    return Dispatch(0, 0, Lane("wire", wallets.pop(), "XOF"), range(len(items)), payouts, keys)


# --------------------------------------------------------------------------------------------------------- providers


def wire_traits(drawn: Traits) -> Traits:
    """Return Senfenico's traits with the limits of drawn ones: what a bank behind a wire has to promise."""
    return traits(_options(drawn))


def _options(drawn: Traits) -> dict[str, Any]:
    return {
        "batch_limit": drawn.batch_limit,
        "rate_per_second": drawn.calls_per_second or 1_000,
        "concurrency": drawn.concurrency,
    }


def wired(bank: Bank, api_key: str = API_KEY, happened: Counter[str] | None = None) -> SenfenicoProvider:
    """Return the real adapter, connected to a bank whose traits are of `wire_traits`.

    Args:
        bank: the bank.
        api_key: decides the mode.
        happened: counts what happens on the wire.
    """
    account = Account(
        name="wire",
        secrets={"api_key": api_key},
        base_url="https://bank.invalid",
        timeout_seconds=TIMEOUT_SECONDS,
        options=_options(bank.traits),
    )
    provider = SenfenicoProvider(account, Wire(bank, api_key, happened).opened)
    assert provider.traits == bank.traits, "the bank promises what Senfenico does not"
    # To this adapter a word that it does not know is a transfer under way, also where it was shown as failed before.
    bank.contradicts |= bank.odd_words
    return provider


class WiredProvider:
    """The real adapter over a bank, whose every call has a witness; made and used as `processes.WatchedProvider`.

    Its bank promises what `wire_traits` makes of drawn traits, and has no fault of `WORDLESS`.
    """

    def __init__(self, account: str, bank: Bank, witness: Witness, process: str, fuse: Fuse) -> None:
        self._provider = wired(bank)
        self.traits = self._provider.traits
        self._account = account
        self._witness = witness
        self._process = process
        self._fuse = fuse

    async def send(self, dispatch: Dispatch) -> Sequence[Receipt]:
        """Pay; see `ports.Provider.send`."""
        with self._witness.sending(self._process, self._fuse, dispatch):
            return await self._provider.send(dispatch)

    async def look_up(self, queries: Sequence[Query]) -> AsyncIterator[Sequence[LookUpResult]]:
        """Show what the bank shows; see `ports.Provider.look_up`."""
        with self._witness.asking(self._fuse, self._account):
            async for results in self._provider.look_up(queries):
                yield results

    async def look_up_since(self, queries: Sequence[Query], since: float) -> AsyncIterator[Sequence[LookUpResult]]:
        """Show what the bank shows; see `ports.ListsBack`."""
        with self._witness.asking(self._fuse, self._account):
            async for results in self._provider.look_up_since(queries, since):
                yield results

    async def balances(self) -> Sequence[Balance]:
        """Return what the bank's balances hold."""
        return await self._provider.balances()

    async def aclose(self) -> None:
        """Nothing is open."""
        await self._provider.aclose()
