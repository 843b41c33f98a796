"""JumiaPay's credits API from the other side, with a ledger that is the truth.

The four calls as the document prints them: both headers, every limit of a creation, a `partner_credit_id` that is
refused a second time within its Credit account, a balance that is looked at only when the credit is delivered, and a
cancellation that only a delivered credit can have. Refusals have the printed status and no body, since none is printed.

Customers spend and credits expire by control calls: POST /_sandbox/usage and /_sandbox/expire. `FATES` are the endings
of the name before the @ that make something else than a delivery of a credit. Where the document is silent, NOTES.md,
section 6, says what was chosen. Used by embedded sandbox runs, by `payout-engine sandbox` and by tests.
"""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
from aiohttp import web

from payout_engine.domain import clock
from payout_engine.domain.money import DECIMALS, to_major
from payout_engine.providers._sandbox import (
    LATE_SETTLE_FACTOR,
    NEVER,
    SETTLE_SECONDS_DEFAULT,
    Fault,
    FaultKind,
    ProviderSandbox,
    SlidingWindow,
    json_answer,
    json_object,
    late_seconds,
    running,
)
from payout_engine.providers.jumiapay.adapter import may_be_called, wallet_code
from payout_engine.providers.jumiapay.ledger import Fate, Ledger, StoredCredit
from payout_engine.providers.jumiapay.sandbox_callbacks import Teller
from payout_engine.providers.jumiapay.wire import DESCRIPTION_CHARS_MAX, MARKETS, NAME_CHARS_MAX, moment_of

BALANCE_DEFAULT = 1_000_000
"""What the Credit account of each currency holds, in whole units."""

KEYS_BEGIN = "jumiapay_test_"
"""The API keys that are accepted unless some are named begin so."""

FATES: Mapping[str, Fate] = {
    ".fails": Fate.FAILS,
    ".stays": Fate.STAYS_PROCESSING,
    ".refused": Fate.REFUSED,
    ".late": Fate.SETTLES_LATE,
    ".odd": Fate.UNDOCUMENTED_STATUS,
    ".hidden": Fate.NOT_SHOWN,
    ".returned": Fate.RETURNED,
    ".partly": Fate.PARTLY_RETURNED,
    ".kept": Fate.KEPT,
}
"""The endings of the name before the @ that decide what becomes of a credit to it; all others are delivered."""

_AMOUNT = re.compile(r"[0-9]{1,12}(?:\.[0-9]+)?")
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s.]+")


class JumiaPaySandbox(ProviderSandbox[Ledger]):
    """One running sandbox. See `ProviderSandbox`. Its endpoints are create, fetch, find and cancel."""

    paying_endpoint = "create"
    asking_endpoints: Sequence[str] = ("find",)
    own_faults: frozenset[str] = frozenset({FaultKind.LATE})
    fates: Mapping[str, str] = FATES

    def __init__(
        self,
        ledger: Ledger,
        *,
        settle_seconds: float,
        keys: Sequence[str],
        limit: int | None,
        faults: Sequence[Fault],
    ) -> None:
        super().__init__(ledger, faults)
        self._settle_seconds = settle_seconds
        self._keys = frozenset(keys)
        self._limiter = None if limit is None else SlidingWindow(limit)
        self._teller = Teller(_document, self._callbacks, retry_seconds=max(0.05, settle_seconds))

    # -- the API

    def add_calls(self, app: web.Application) -> None:
        """Add the calls of the API, below the root, since the prefix `/b2ccredits` is part of a real address."""
        credits = "/api/v1/single-credits/{account}"
        app.router.add_post(credits, self.handler("create", self._create))
        app.router.add_get(credits + "/{uuid}", self.handler("fetch", self._fetch))
        app.router.add_get(credits + "/partner-id/{partner_credit_id}", self.handler("find", self._find))
        app.router.add_post(credits + "/{uuid}/cancel", self.handler("cancel", self._cancel))
        app.router.add_post("/_sandbox/usage", self._use)
        app.router.add_post("/_sandbox/expire", self._expire)

    def refusal(self, endpoint: str, request: web.Request, _: bytes, __: Fault | None) -> web.Response | None:
        """See `ProviderSandbox.refusal`."""
        key = request.headers.get("apikey", "")
        accepted = key in self._keys if self._keys else key.startswith(KEYS_BEGIN)
        if not accepted or not request.headers.get("X-Business-Area"):
            return web.Response(status=401)
        if endpoint == "create" and self._limiter is not None and not self._limiter.admit(time.monotonic()):
            return web.Response(status=429)  # No rate is documented; this is what an account's owner may want to try.
        return None

    def _create(self, request: web.Request, body: bytes, fault: Fault | None) -> web.Response:
        wanted = json_object(body)
        fields = None if wanted is None else _fields(wanted)
        if fields is None:
            return web.Response(status=400)
        now = clock.now()
        name, _, _ = str(fields["customer_email"]).partition("@")
        fate = next((fate for ending, fate in FATES.items() if name.endswith(ending)), Fate.SUCCEEDS)
        factor = LATE_SETTLE_FACTOR if fate is Fate.SETTLES_LATE else 1
        made = None
        if fate is not Fate.REFUSED:
            made = self.ledger.add(
                {
                    **fields,
                    "uuid": str(uuid4()),
                    "account": request.match_info["account"],
                    "fate": fate,
                    "due_at": NEVER if fate is Fate.STAYS_PROCESSING else now + self._settle_seconds * factor,
                    "visible_at": NEVER if fate is Fate.NOT_SHOWN else now + late_seconds(fault),
                }
            )
        if made is None:
            return web.Response(status=400)
        for moment in (made.due_at, made.expires_at):
            if moment < NEVER:
                self._watch(made, moment - now)
        return _answer(made, 201)

    def _fetch(self, request: web.Request, _: bytes, __: Fault | None) -> web.Response:
        return _shown(self.ledger.fetch(request.match_info["account"], request.match_info["uuid"]))

    def _find(self, request: web.Request, _: bytes, __: Fault | None) -> web.Response:
        return _shown(self.ledger.find(request.match_info["account"], request.match_info["partner_credit_id"]))

    def _cancel(self, request: web.Request, _: bytes, __: Fault | None) -> web.Response:
        known = self.ledger.fetch(request.match_info["account"], request.match_info["uuid"])
        if known is None:
            return web.Response(status=404)
        begun = self.ledger.cancel(known.uuid, clock.now() + self._settle_seconds)
        if begun is None:
            return web.Response(status=400)
        self._watch(begun, self._settle_seconds)
        return _answer(begun, 200)

    def _watch(self, credit: StoredCredit, seconds: float) -> None:
        """Have its callback address told when it has changed its status by then."""
        self._teller.watch(credit, seconds, self.ledger.current)

    # -- control: what customers and time do

    async def _use(self, request: web.Request) -> web.Response:
        """The customer has spent so much in all: {"partner_credit_id": ..., "usage_minor": ...}."""
        wanted = json_object(await request.read()) or {}
        usage_minor, key = wanted.get("usage_minor"), str(wanted.get("partner_credit_id"))
        before = self._delivered(key)
        if before is None or not isinstance(usage_minor, int) or not self.ledger.use(key, usage_minor):
            return web.Response(status=404)
        self._teller.spent(before, msgspec.structs.replace(before, usage_minor=usage_minor))
        return web.Response()

    async def _expire(self, request: web.Request) -> web.Response:
        """A credit expires now: {"partner_credit_id": ...}."""
        key = str((json_object(await request.read()) or {}).get("partner_credit_id"))
        before = self._delivered(key)
        if before is None or not self.ledger.expire(key):
            return web.Response(status=404)
        self._watch(before, 0.0)
        return web.Response()

    def _delivered(self, partner_credit_id: str) -> StoredCredit | None:
        found = (one for one in self.ledger.credits() if one.partner_credit_id == partner_credit_id)
        return next((one for one in found if one.status == "delivered"), None)


def _fields(wanted: Mapping[str, Any]) -> dict[str, str | float | None] | None:
    """Return the columns of a credit that may be made, or None where the document forbids it."""
    required = ("name", "description", "amount", "currency", "customer_email")
    texts = {key: wanted.get(key) for key in (*required, "expiration_date", "callback_url", "partner_credit_id")}
    if not all(isinstance(text, str) for key, text in texts.items() if text is not None or key in required):
        return None
    name, description, currency = str(texts["name"]), str(texts["description"]), str(texts["currency"])
    amount_minor = _minor(str(texts["amount"]), currency)
    callback_url, expiration_date = texts["callback_url"], texts["expiration_date"]
    expires_at = NEVER
    if expiration_date is not None:
        try:
            expires_at = moment_of(expiration_date)
        except ValueError:
            return None
    fine = (
        0 < len(name) <= NAME_CHARS_MAX
        and 0 < len(description) <= DESCRIPTION_CHARS_MAX
        and amount_minor
        and _EMAIL.fullmatch(str(texts["customer_email"]))
        and expires_at > clock.now()
        and (callback_url is None or may_be_called(callback_url))
        and texts["partner_credit_id"] != ""
    )
    if not fine:
        return None
    amount = texts.pop("amount")
    assert amount is not None
    return {**texts, "amount_minor": amount_minor, "expires_at": expires_at}


def _minor(text: str, currency: str) -> int:
    """Return an amount in minor units, 0 for what the document does not allow."""
    if currency not in MARKETS or not _AMOUNT.fullmatch(text):
        return 0
    whole, _, rest = text.partition(".")
    if len(rest) > MARKETS[currency].decimals:
        return 0
    return int(whole + rest.ljust(DECIMALS[currency], "0"))


def _shown(credit: StoredCredit | None) -> web.Response:
    return web.Response(status=404) if credit is None else _answer(credit, 200)


def _answer(credit: StoredCredit, status: int) -> web.Response:
    return json_answer(_document(credit), status)


def _document(credit: StoredCredit) -> dict[str, Any]:
    """A credit with the keys of the document's samples, in their order; their dates are printed without content."""
    return {
        "uuid": credit.uuid,
        "partner_credit_id": credit.partner_credit_id,
        "name": credit.name,
        "description": credit.description,
        "source_wallet_account_id": credit.account,
        "amount": _sum(credit.amount_minor, credit.currency),
        "usage": _sum(credit.usage_minor, credit.currency),
        "customer_email": credit.customer_email,
        "status": {"id": credit.status, "label": credit.status.replace("_", " ").title()},
        "in_approval": False,
        "expiration_date": credit.expiration_date,
        "callback_url": credit.callback_url,
        "created": {},
        "updated": {},
        "submitted": {},
        "approved": None,
        "declined": None,
        "cancelled": {} if credit.cancelled else None,
    }


def _sum(amount_minor: int, currency: str) -> dict[str, object]:
    """An amount as printed: a number, without ever being a float."""
    text = to_major(amount_minor, currency)
    value = text.rstrip("0").rstrip(".") if "." in text else text
    return {
        "value": msgspec.Raw(value.encode()),
        "currency": currency,
        "symbol": currency,
        "formatted_value": f"{currency} {value}",
    }


@asynccontextmanager
async def sandbox(
    ledger: Path | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    balances: Mapping[str, int] | None = None,
    settle_seconds: float = SETTLE_SECONDS_DEFAULT,
    calls_per_second: int | None = None,
    keys: Sequence[str] = (),
    faults: Sequence[Fault] = (),
) -> AsyncIterator[JumiaPaySandbox]:
    """Serve JumiaPay's credits API on this machine until the block ends.

    Args:
        ledger: the file that holds the truth, and goes on where it ended; None keeps it in memory.
        host: the address to listen at.
        port: 0 takes a free one.
        balances: whole units by wallet code, for a new ledger; a million in each currency unless told.
        settle_seconds: how long a credit, or its cancellation, is being processed.
        calls_per_second: creations in any sliding second; None, since the document knows no limit, for any number.
        keys: the API keys that are accepted; none: every key that begins with `KEYS_BEGIN`.
        faults: what goes wrong, in order.
    """
    held = {
        currency: (balances or {}).get(wallet_code(currency), BALANCE_DEFAULT) * 10 ** DECIMALS[currency]
        for currency in MARKETS
    }
    truth = Ledger(ledger, held)
    server = JumiaPaySandbox(truth, settle_seconds=settle_seconds, keys=keys, limit=calls_per_second, faults=faults)
    async with running(server, host, port):
        yield server
