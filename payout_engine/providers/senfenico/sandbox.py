"""Senfenico's API from the other side, with a ledger that is the truth.

Every call as the document prints it: slashes, envelope, error codes and messages, a bulk answer without references, one
balance per wallet with percentage fees on top, 100 transfers per call, 5 bulk calls in any sliding second; and what
collects money or brings it home. An ext_id is repeated back and never compared: sending it twice pays twice, and the
ledger shows it.

Transfers settle after a delay, worked out when somebody looks. `FATES` are the endings of phone numbers that do
something else than succeed; faults are scripted in `faults`. Where the document is silent, NOTES.md, section 8, says
what was chosen. Used by embedded sandbox runs, by `payout-engine sandbox` and by tests.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path

import anyio
import msgspec
from aiohttp import web

from payout_engine.providers._sandbox import (
    SETTLE_SECONDS_DEFAULT,
    Fault,
    FaultKind,
    ProviderSandbox,
    Served,
    SlidingWindow,
    Working,
    cut,
    json_answer,
    json_object,
    running,
)
from payout_engine.providers.senfenico.collection_ledger import CollectionLedger
from payout_engine.providers.senfenico.figures import fee_basis_points
from payout_engine.providers.senfenico.ledger import Ledger
from payout_engine.providers.senfenico.sandbox_answers import error, money, success
from payout_engine.providers.senfenico.sandbox_collections import CollectionDesk
from payout_engine.providers.senfenico.sandbox_transfers import FATES as FATES
from payout_engine.providers.senfenico.sandbox_transfers import TransferDesk
from payout_engine.providers.senfenico.wire import BALANCE_KEYS, CALLS_PER_SECOND

BALANCE_DEFAULT = 100_000
"""What each wallet of a test account holds. Source: section "Tester votre intégration"."""

OTP_SECONDS_DEFAULT = 300.0


class SenfenicoSandbox(ProviderSandbox[Ledger]):
    """One running sandbox. See `ProviderSandbox`. NOTES.md, section 8, has the names of its endpoints.

    Attributes:
        collections: checkouts, charges and settlements, with their own truth in its `ledger`.
        limiter: the bulk calls of the last second; `refused` counts those over the limit.
    """

    paying_endpoint = "bulk"
    asking_endpoints: Sequence[str] = ("list", "fetch")
    own_faults: frozenset[str] = frozenset({FaultKind.LATE, FaultKind.LOW_BALANCE, FaultKind.RATE_LIMITED})
    fates: Mapping[str, str] = FATES

    def __init__(
        self,
        ledger: Ledger,
        transfers: TransferDesk,
        collections: CollectionDesk,
        *,
        keys: Sequence[str],
        limit: int,
        jitter_seconds: float,
        faults: Sequence[Fault],
    ) -> None:
        super().__init__(ledger, faults)
        self.limiter = SlidingWindow(limit)
        self._keys = frozenset(keys)
        self._jitter_seconds = jitter_seconds
        self._transfers = transfers
        self.collections = collections

    def attach(self, served: Served) -> None:
        """See `ProviderSandbox.attach`."""
        super().attach(served)
        self.collections.base_url = served.base_url

    # -- the API

    def add_calls(self, app: web.Application) -> None:
        """Add the calls of the API, slashes as printed; the PHP client lists without one."""
        app.router.add_post("/v1/payment/transfers/", self.handler("create", self._transfers.create))
        app.router.add_post("/v1/payment/transfers/bulk/", self._bulk)
        app.router.add_get("/v1/payment/transfers/", self._list)
        app.router.add_get("/v1/payment/transfers", self._list)
        app.router.add_get("/v1/payment/transfers/{reference}", self.handler("fetch", self._transfers.fetch))
        app.router.add_get("/v1/payment/balances", self.handler("balances", self._balances))
        self._add_collecting(app, self.collections)

    def _add_collecting(self, app: web.Application, desk: CollectionDesk) -> None:
        """Add what collects money or brings it home, and the control by which a customer pays a checkout."""
        base = "/v1/payment"
        posts: Mapping[str, tuple[str, Working]] = {
            "/checkouts/initialize/": ("checkout_initialize", desk.initialize),
            "/charges/": ("charge_create", desk.create_charge),
            "/charges/submit": ("charge_submit", desk.submit),
            "/settlements/": ("settlement_create", desk.settle),
        }
        gets: Mapping[str, tuple[str, Working]] = {
            "/checkouts": ("checkout_list", desk.list_checkouts),
            "/checkouts/{reference}": ("checkout_fetch", desk.fetch_checkout),
            "/charges": ("charge_list", desk.list_charges),
            "/charges/{reference}": ("charge_fetch", desk.fetch_charge),
            "/settlements": ("settlement_list", desk.list_settlements),
            "/settlements/{reference}": ("settlement_fetch", desk.fetch_settlement),
            "/settlements/{reference}/cancel/": ("settlement_cancel", desk.cancel),
        }
        for path, (endpoint, work) in posts.items():
            app.router.add_post(base + path, self.handler(endpoint, work))
        for path, (endpoint, work) in gets.items():
            app.router.add_get(base + path, self.handler(endpoint, work))
        app.router.add_post("/_sandbox/checkouts/{reference}/pay", self._pay_checkout)

    async def _pay_checkout(self, request: web.Request) -> web.Response:
        told = json_object(await request.read()) or {}
        reference = request.match_info["reference"]
        charge = self.collections.pay_checkout(reference, str(told.get("provider")), str(told.get("phone")))
        return json_answer({"charge_reference": charge}, 200 if charge else 400)

    async def _bulk(self, request: web.Request) -> web.StreamResponse:
        if self._jitter_seconds:
            # Stands for the network: calls that left evenly arrive unevenly.
            await anyio.sleep(self._jitter_seconds * secrets.randbelow(1_001) / 1_000)
        arrived = time.monotonic()

        async def process(body: bytes, fault: Fault | None) -> web.StreamResponse:
            refusal = self.refusal("bulk", request, body, fault)
            if refusal is not None:
                return refusal
            if not self.limiter.admit(arrived):
                self.ledger.count("bulk_over_limit")
                return error("RATE_LIMIT_EXCEEDED")
            return self._transfers.queue(request, body, fault)

        return await self._endpoints.answer("bulk", request, process)

    async def _list(self, request: web.Request) -> web.StreamResponse:
        async def process(body: bytes, fault: Fault | None) -> web.StreamResponse:
            refusal = self.refusal("list", request, body, fault)
            if refusal is not None:
                return refusal
            broken = fault is not None and fault.kind is FaultKind.TRUNCATED
            slow_seconds = fault.seconds if fault is not None and fault.kind is FaultKind.SLOW else 0.0
            return await self._stream_list(request, broken=broken, slow_seconds=slow_seconds)

        return await self._endpoints.answer("list", request, process)

    async def _stream_list(self, request: web.Request, *, broken: bool, slow_seconds: float) -> web.StreamResponse:
        """Write the list page by page, so that a ledger of any size can be shown."""
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        await response.write(b'{"status":true,"message":"Transfer list retrieved","data":[')
        separator = b""
        for page in self.ledger.pages():
            text = b",".join([msgspec.json.encode(self._transfers.shown(request, transfer)) for transfer in page])
            if broken:
                await response.write(separator + text[: len(text) // 2])
                cut(request)
                return response
            await response.write(separator + text)
            separator = b","
            await anyio.sleep(slow_seconds)
        await response.write(b"]}")
        await response.write_eof()
        return response

    def _balances(self, _: web.Request, __: bytes, ___: Fault | None) -> web.Response:
        available, pending = self.ledger.available(), self.ledger.pending()
        held = {
            key: {"available": money(available.get(wallet, 0)), "pending": money(pending.get(wallet, 0))}
            for wallet, key in BALANCE_KEYS.items()
        }
        totals = {
            "total_available": money(sum(available.values())),
            "total_pending": money(sum(pending.values())),
        }
        ours, leaving = self.collections.ledger.balance()
        collected = {"available": money(ours), "pending": money(leaving), "currency": "XOF"}
        data = {"collection_balances": collected, "transfer_balances": {**totals, **held}}
        return success("Balance retrieved", data)

    def refusal(self, _: str, request: web.Request, __: bytes, fault: Fault | None) -> web.Response | None:
        """See `ProviderSandbox.refusal`."""
        key = request.headers.get("X-API-KEY", "")
        accepted = key in self._keys if self._keys else key.startswith("sk_test_")
        if not accepted:
            return json_answer({"status": False, "message": "Invalid API key"}, 401)
        rate_limited = fault is not None and fault.kind is FaultKind.RATE_LIMITED
        return error("RATE_LIMIT_EXCEEDED") if rate_limited else None


@asynccontextmanager
async def sandbox(
    ledger: Path | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    balances: Mapping[str, int] | None = None,
    settle_seconds: float = SETTLE_SECONDS_DEFAULT,
    fee_percent: str = "1.5",
    charge_fee_percent: str = "3.5",
    otp_seconds: float = OTP_SECONDS_DEFAULT,
    offline_providers: Sequence[str] = (),
    keys: Sequence[str] = (),
    calls_per_second: int = int(CALLS_PER_SECOND),
    jitter_seconds: float = 0.0,
    faults: Sequence[Fault] = (),
    extra_prefixes: Mapping[str, Sequence[str]] = {},
    live_mode: bool | None = None,
) -> AsyncIterator[SenfenicoSandbox]:
    """Serve Senfenico's API on this machine until the block ends.

    Args:
        ledger: the file that holds the truth, and goes on where it ended; None keeps it in memory.
        host: the address to listen at.
        port: 0 takes a free one.
        balances: francs by wallet code, for a new ledger; 100,000 each unless told.
        settle_seconds: how long a transfer stays pending, and a settlement `processing`.
        fee_percent: the fee on top of each transfer.
        charge_fee_percent: what is kept of each charge.
        otp_seconds: how long a customer's code is valid.
        offline_providers: those whose customers confirm a charge on the phone, without a code.
        keys: the API keys that are accepted; none: every key that begins with `sk_test_`.
        calls_per_second: bulk calls in any sliding second.
        jitter_seconds: each bulk call arrives up to this much later than it came.
        faults: what goes wrong, in order.
        extra_prefixes: by wallet, beginnings of numbers that it takes beside those that the document prints.
        live_mode: the mode that every transfer is shown in; None: that of the key that asks.
    """
    truth = Ledger(ledger, {**dict.fromkeys(BALANCE_KEYS, BALANCE_DEFAULT), **(balances or {})})
    collected = CollectionLedger(ledger)
    transfers = TransferDesk(
        truth,
        settle_seconds=settle_seconds,
        fee_basis_points=fee_basis_points(fee_percent),
        extra_prefixes=extra_prefixes,
        live_mode=live_mode,
    )
    collections = CollectionDesk(
        collected,
        settle_seconds=settle_seconds,
        fee_basis_points=fee_basis_points(charge_fee_percent),
        otp_seconds=otp_seconds,
        offline_providers=offline_providers,
        live_mode=live_mode,
    )
    server = SenfenicoSandbox(
        truth,
        transfers,
        collections,
        keys=keys,
        limit=calls_per_second,
        jitter_seconds=jitter_seconds,
        faults=faults,
    )
    with closing(collected):
        async with running(server, host, port):
            yield server
