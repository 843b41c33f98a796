"""Unipesa's gateway from the other side, with a ledger that is the truth.

The three documented calls: signatures are verified over the order received, an order id that comes again is answered as
it was and pays nobody twice, and provider ids insist on what the document prints of them: currency, limits, further
fields, the form of phones. Where a limit table may be another id's, any of them will do.

Orders settle after a delay, worked out when somebody looks; those of the simulator never do. `FATES` are the endings of
customers that do something else than succeed; faults are scripted in `faults`. Where the document is silent, NOTES.md,
section 8, says what was chosen. Used by embedded sandbox runs, by `payout-engine sandbox` and by tests.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
from aiohttp import web

from payout_engine.domain import clock
from payout_engine.domain.countries import COUNTRIES
from payout_engine.providers._callbacks import CallBack
from payout_engine.providers._sandbox import (
    LATE_SETTLE_FACTOR,
    NEVER,
    SETTLE_SECONDS_DEFAULT,
    Fault,
    FaultKind,
    ProviderSandbox,
    SlidingWindow,
    html,
    json_answer,
    json_object,
    late_seconds,
    running,
)
from payout_engine.providers.unipesa.ledger import Fate, Ledger, LedgerOrder
from payout_engine.providers.unipesa.signature import SIGNATURE, sign, verify_callback
from payout_engine.providers.unipesa.tables import B2C, C2B, IDS, SIMULATOR, Place, place, takes
from payout_engine.providers.unipesa.wire import ORDER_ID

PUBLIC_ID = "f54ec96649be11ebb3780242ac130002"
MERCHANT_ID = "e0fecd91fcb24f348048193b3fb34875ba3722b4"
SECRET_KEY = "unipesa_test_secret_key"  # noqa: S105 - the sandbox's own

BALANCE_DEFAULT = 1_000_000_000

FATES: Mapping[str, Fate] = {
    "000001": Fate.FAILS,
    "000002": Fate.STAYS_IN_PROGRESS,
    "000003": Fate.REFUSED,
    "000004": Fate.SETTLES_LATE,
    "000005": Fate.UNDOCUMENTED_STATUS,
    "000006": Fate.NOT_FOUND,
    "000007": Fate.CANCELLED,
    "000008": Fate.WAITS_FOR_CONFIRMATION,
    "000009": Fate.AT_ONCE,
}
"""The last six digits of a customer that decide what becomes of an order for them; all others succeed."""

WRONG_SIGNATURE = (10201, "MERCHANT AUTHENTICATION ERROR")
WRONG_MERCHANT = (10105, "WRONG MERCHANT_ID")
WRONG_CUSTOMER = (10401, "MSISDN INCORRECT")
WRONG_FIELD = 10400
OPERATOR_REFUSED = (10301, "REQUEST SENDING ERROR")

_CALLS: Mapping[str, str] = {"payment_b2c": B2C, "payment_c2b": C2B}
_AMOUNT = re.compile(r"\d{1,12}\.\d\d")
_REDIRECTS = frozenset({"RW", "UG", "EG"})
"""Countries whose payers are sent to a page, which a status call names."""


class UnipesaSandbox(ProviderSandbox[Ledger]):
    """One running sandbox. See `ProviderSandbox`. Its endpoints are payment, which both calls are, and status."""

    paying_endpoint = "payment"
    asking_endpoints: Sequence[str] = ("status",)
    own_faults: frozenset[str] = frozenset({FaultKind.LATE})
    fates: Mapping[str, str] = FATES

    def __init__(
        self, ledger: Ledger, *, settle_seconds: float, limit: int, secret_key: str, faults: Sequence[Fault]
    ) -> None:
        super().__init__(ledger, faults)
        self._settle_seconds = settle_seconds
        self._limiter = SlidingWindow(limit)
        self._secret_key = secret_key

    def add_calls(self, app: web.Application) -> None:
        """Add the calls of the API."""
        for call in _CALLS:
            app.router.add_post(f"/{{public_id}}/{call}", self.handler("payment", partial(self._payment, call)))
        app.router.add_post("/{public_id}/status", self.handler("status", self._status))

    def refusal(self, endpoint: str, request: web.Request, body: bytes, _: Fault | None) -> web.Response | None:
        """See `ProviderSandbox.refusal`: of whoever is not the merchant."""
        if endpoint == "payment" and not self._limiter.admit(time.monotonic()):
            return html(429)
        document = json_object(body)
        if document is None:
            return _refused("", WRONG_FIELD, "NOT A JSON OBJECT")
        order_id = str(document.get("order_id", ""))
        if request.match_info["public_id"] != PUBLIC_ID or document.get("merchant_id") != MERCHANT_ID:
            return _refused(order_id, *WRONG_MERCHANT)
        return None if verify_callback(self._secret_key, document) else _refused(order_id, *WRONG_SIGNATURE)

    # ------------------------------------------------------------------------------------------------------- payments

    def _payment(self, call: str, _: web.Request, body: bytes, fault: Fault | None) -> web.Response:
        document = msgspec.json.decode(body, type=dict[str, Any])
        order_id = document.get("order_id")
        if not isinstance(order_id, str) or not ORDER_ID.fullmatch(order_id):
            return _refused(str(order_id), WRONG_FIELD, "ORDER_ID")
        known = self.ledger.find(order_id)
        if known is not None:
            self.ledger.count("repeated")
            return json_answer(msgspec.Raw(known.answer))
        of, wrong = _judged(call, document)
        if of is None or wrong:
            return _refused(order_id, *(WRONG_CUSTOMER if wrong == "customer_id" else (WRONG_FIELD, wrong.upper())))
        fate = FATES.get(document["customer_id"][-6:], Fate.SUCCEEDS)
        if fate is Fate.REFUSED:
            return _refused(order_id, *OPERATOR_REFUSED)
        order = self._made(call, document, of, fate, fault)
        self.ledger.add(order)
        if order.callback_url and order.settles_at < NEVER:
            self._callbacks.after(order.settles_at - clock.now(), order.callback_url, self._call(order))
        return json_answer(msgspec.Raw(order.answer))

    def _call(self, order: LedgerOrder) -> CallBack:
        async def call(session: aiohttp.ClientSession) -> None:
            body = _told(order)
            body[SIGNATURE] = sign(self._secret_key, body)
            async with session.post(order.callback_url, json=body):
                return  # Nothing is documented of who answers otherwise than 200.

        return call

    def _made(self, call: str, document: dict[str, Any], of: Place, fate: Fate, fault: Fault | None) -> LedgerOrder:
        now, hundredths = clock.now(), int(document["amount"].replace(".", ""))
        if of.id == SIMULATOR:
            fate = Fate.STAYS_IN_PROGRESS
        elif call == "payment_b2c" and fate is Fate.SUCCEEDS and hundredths > self.ledger.available(of.code):
            fate = Fate.FAILS
        never = fate in (Fate.STAYS_IN_PROGRESS, Fate.WAITS_FOR_CONFIRMATION)
        delay = 0.0 if fate is Fate.AT_ONCE else self._settle_seconds
        order = LedgerOrder(
            order_id=document["order_id"],
            call=call,
            place=of.code,
            provider_id=of.id,
            country=of.country,
            currency=of.currency,
            customer_id=document["customer_id"],
            hundredths=hundredths,
            callback_url=str(document.get("callback_url", "")),
            transaction_id=str(10**11 + secrets.randbelow(9 * 10**11)),
            fate=fate,
            answer=b"",
            settles_at=NEVER if never else now + delay * (LATE_SETTLE_FACTOR if fate is Fate.SETTLES_LATE else 1),
            visible_at=NEVER if fate is Fate.NOT_FOUND else now + late_seconds(fault),
        )
        answer = _shown(order, 2 if fate is Fate.AT_ONCE else 1)
        if call == "payment_b2c":
            answer["confirm_type"] = 1 if fate is Fate.WAITS_FOR_CONFIRMATION else 0
        elif of.country == "NG" and of.operator.code == "bank":
            details = {"account_name": "Test Ltd / Test Limited", "account_number": "4000000000"}
            answer["extra"] = {"transfer_amount": hundredths // 100, **details, "bank_name": "Premium Trust Bank"}
        return msgspec.structs.replace(order, answer=msgspec.json.encode(answer))

    # --------------------------------------------------------------------------------------------------------- status

    def _status(self, _: web.Request, body: bytes, __: Fault | None) -> web.Response:
        order_id = str(msgspec.json.decode(body, type=dict[str, Any]).get("order_id", ""))
        order, now = self.ledger.find(order_id), clock.now()
        if order is None or order.visible_at > now:
            return _refused(order_id, -1, "PARENT OPERATION NOT FOUND")
        status = order.status(now)
        answer = _shown(order, status)
        if status == 1 and order.call == "payment_c2b" and order.country in _REDIRECTS:
            answer["extra"] = {"customer_redirect": f"https://pay.example/{order.transaction_id}"}
        return json_answer(answer)


def _judged(call: str, document: dict[str, Any]) -> tuple[Place | None, str]:
    """Return whose the provider id is, and the first field that is wrong, or an empty text."""
    customer, amount, given = (document.get(name) for name in ("customer_id", "amount", "provider_id"))
    if not isinstance(customer, str) or not customer:
        return None, "customer_id"
    if not isinstance(amount, str) or not _AMOUNT.fullmatch(amount) or Decimal(amount) <= 0:
        return None, "amount"
    of = _place(call, given, document.get("country"), document.get("currency"))
    if of is None:
        return None, "provider_id"
    if document.get("currency") != of.currency or document.get("country", of.country) != of.country:
        return of, "currency"
    if of.id == SIMULATOR:
        return of, ""
    if not takes(of, Decimal(amount)):
        return of, "amount"
    if not _has_form(of, customer):
        return of, "customer_id"
    extra = document.get("extra") or {}
    wanted = {
        "name": "customer_name",
        "email": "customer_email",
        "bank": of.operator.bank_field,
        "otp": "otp",
    }
    fields = [wanted[need] for need in of.needs] + (["return_url"] if of.return_url else [])
    return of, next((field for field in fields if not isinstance(extra.get(field), str)), "")


def _place(call: str, given: object, country: object, currency: object) -> Place | None:
    """Find a provider id, given as a number or a text; the simulator is any operator's of the country."""
    text = str(given) if isinstance(given, int | str) and not isinstance(given, bool) else ""
    id = int(text) if re.fullmatch(r"[1-9]\d{0,8}", text) else 0
    name = IDS.get(id, "")
    if id == SIMULATOR:
        name = next((found for found in IDS.values() if found.startswith(f"{country}/")), "")
    found = place(name, id, _CALLS[call]) if name else None
    return found if found is not None and found.face in found.operator.faces else None


def _has_form(of: Place, customer: str) -> bool:
    """Whether a customer is written as the provider id wants it."""
    if of.recipient == "account_number":
        return re.fullmatch(r"[A-Za-z0-9]{4,40}", customer) is not None
    country, lead = COUNTRIES[of.country], of.operator.phone_lead
    start = country.dial_code if lead is None else lead
    rest = customer.removeprefix(start)
    return customer.startswith(start) and rest.isdecimal() and len(rest) in country.lengths


# ------------------------------------------------------------------------------------------------------------ answers


def _shown(order: LedgerOrder, status: int) -> dict[str, Any]:
    """An order as a payment and a status call show it."""
    done = status == 2
    failed = status in (3, 4)
    operator = {"code": 0, "message": "OK"} if done else {"code": -8888, "message": "" if failed else "Good"}
    result = (
        {"code": OPERATOR_REFUSED[0], "message": OPERATOR_REFUSED[1]} if status == 3 else {"code": 0, "message": "OK"}
    )
    return {
        "order_id": order.order_id,
        "transaction_id": order.transaction_id,
        "transaction_ref": f"MP.{order.transaction_id[:5]}.CP33" if done else "",
        "status": status,
        "result": result,
        "provider_result": operator,
        "service_id": 1,
        "service_version": "1.03/1.14|1.0/1.26|1.0/1.0|1.01/1.01|1.01/1.01||1.01/1.27",
        "service_date_time": datetime.fromtimestamp(clock.now(), UTC).strftime("%Y-%m-%d %H:%M:%S.%f"),
    }


def _told(order: LedgerOrder) -> dict[str, Any]:
    """What a callback states of an order once it has settled, as printed: numbers are numbers, no currency."""
    shown = _shown(order, order.status(NEVER))
    whole, cents = divmod(order.hundredths, 100)
    return {
        "merchant_id": MERCHANT_ID,
        "operation_type": {"payment_b2c": 16, "payment_c2b": 17}[order.call],
        "customer_id": order.customer_id,
        "amount": whole + cents / 100 if cents else whole,
        "order_id": order.order_id,
        "transaction_id": order.transaction_id,
        "transaction_ref": shown["transaction_ref"],
        "status": shown["status"],
        "provider_id": order.provider_id,
        "destination_id": "",
        "result": shown["result"],
    }


def _refused(order_id: str, code: int, message: str) -> web.Response:
    """What a call is answered of which nothing comes."""
    document = {
        "order_id": order_id,
        "transaction_id": "",
        "transaction_ref": "",
        "status": -1,
        "result": {"code": code, "message": message},
        "provider_result": {"code": -8888, "message": ""},
    }
    return json_answer(document)


@asynccontextmanager
async def sandbox(
    ledger: Path | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    balances: Mapping[str, int] | None = None,
    settle_seconds: float = SETTLE_SECONDS_DEFAULT,
    calls_per_second: int = 100_000,
    secret_key: str = SECRET_KEY,
    faults: Sequence[Fault] = (),
) -> AsyncIterator[UnipesaSandbox]:
    """Serve Unipesa's API on this machine until the block ends.

    Args:
        ledger: the file that holds the truth, and goes on where it ended; None keeps it in memory.
        host: the address to listen at.
        port: 0 takes a free one.
        balances: whole units by wallet code, for a new ledger; others hold a thousand million.
        settle_seconds: how long an order stays in progress.
        calls_per_second: payments in any sliding second; more are answered HTTP 429, which the document does not know.
        secret_key: what calls have to be signed with.
        faults: what goes wrong, in order.
    """
    server = UnipesaSandbox(
        Ledger(ledger, balances or {}, BALANCE_DEFAULT),
        settle_seconds=settle_seconds,
        limit=calls_per_second,
        secret_key=secret_key,
        faults=faults,
    )
    async with running(server, host, port):
        yield server
