"""Jemeni's API from the other side, with a ledger that is the truth.

Every call that the document prints: paths, headers by each of the three schemes with the signature computed anew, the
printed envelopes, and two states. A customer confirms after a delay, worked out when somebody looks. `FATES` are the
endings of phone numbers whose customers do something else; faults are scripted in `faults`.

A request carries no reference of the caller's, so nothing is ever compared: sent twice, asked twice. The ledger tells
by the header that names the request. Where the document is silent, NOTES.md, section 6, says what was chosen. Used by
embedded sandbox runs, by `payout-engine sandbox` and by tests.
"""

from __future__ import annotations

import hmac
import re
import secrets
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from aiohttp import web

from payout_engine.domain import clock
from payout_engine.providers._sandbox import (
    LATE_SETTLE_FACTOR,
    NEVER,
    SETTLE_SECONDS_DEFAULT,
    Fault,
    ProviderSandbox,
    SlidingWindow,
    json_answer,
    json_object,
    running,
)
from payout_engine.providers.jemeni.client import SANDBOX_PREFIX
from payout_engine.providers.jemeni.ledger import Fate, Ledger, LedgerPayment
from payout_engine.providers.jemeni.signing import Keys, Scheme, Signable, signature, written

SANDBOX_KEYS = Keys("pk_sandbox", "sk_sandbox", "tk_sandbox")
"""The credentials that a sandbox accepts unless it is told others. They name no mode, so that they go with any prefix:
an account for real money can be rehearsed as it is."""

CLOCK_SECONDS_MAX = 300.0
"""How far the caller's clock may be off. Source: jemeni.net/docs, by way of the notes."""

FATES: Mapping[str, Fate] = {
    "000001": Fate.NEVER_CONFIRMED,
    "000002": Fate.UNDOCUMENTED_STATE,
    "000003": Fate.WORDS_DISAGREE,
    "000004": Fate.SETTLES_LATE,
    "000005": Fate.REFUSED,
    "000006": Fate.NOT_SHOWN,
}
"""The last six digits of a phone number that decide what becomes of a request to it; all others pay."""

PLANS: Sequence[Mapping[str, Any]] = (
    {"id": "01zedqfdfqsdfqfqfsqdf", "name": "Basic Plan", "price": "2000.00", "frequency_id": 1},
    {"id": "01zedqfdfqsdfqfqfsqdg", "name": "Premium Plan", "price": "5000.00", "frequency_id": 1},
)
_MERCHANT = {"id": "01jwvrvjswcex8n3ajv0njfpx6", "name": "KTM SHOP", "client_type_code": "shop", "location": "Segou"}
_PHONE = re.compile(r"(?:\+?223)?([2-9]\d{7})")


class JemeniSandbox(ProviderSandbox[Ledger]):
    """One running sandbox. See `ProviderSandbox`. Its endpoints are payment, state, subscribe, plans and disable."""

    paying_endpoint = "payment"
    asking_endpoints: Sequence[str] = ("state",)
    own_faults: frozenset[str] = frozenset()
    fates: Mapping[str, str] = FATES

    def __init__(
        self,
        ledger: Ledger,
        *,
        keys: Keys,
        schemes: Sequence[Scheme],
        settle_seconds: float,
        calls_per_second: int | None,
        faults: Sequence[Fault],
    ) -> None:
        super().__init__(ledger, faults)
        self._keys = keys
        self._schemes = frozenset(schemes)
        self._settle_seconds = settle_seconds
        self._limiter = None if calls_per_second is None else SlidingWindow(calls_per_second)

    def add_calls(self, app: web.Application) -> None:
        """Add the calls of the API, paths as printed, behind any prefix."""
        app.router.add_post("/{prefix:.+}/send/payment", self.handler("payment", self._send_payment))
        app.router.add_get("/{prefix:.+}/payment/verify/state", self.handler("state", self._verify_state))
        app.router.add_post("/{prefix:.+}/subscriptions/create", self.handler("subscribe", self._subscribe))
        app.router.add_post("/{prefix:.+}/subscriptions/plans", self.handler("plans", self._plans))
        app.router.add_post("/{prefix:.+}/subscriptions/disable", self.handler("disable", self._disable))

    # -- who asks

    def refusal(self, _: str, request: web.Request, body: bytes, __: Fault | None) -> web.Response | None:
        """See `ProviderSandbox.refusal`: of a caller who does not sign by any of the schemes that are served."""
        if self._limiter is not None and not self._limiter.admit(time.monotonic()):
            return _refusal(429, "Too Many Requests")
        headers = request.headers
        if "Authorization" in headers:
            scheme, timestamp = Scheme.INTRODUCTION, headers.get("Timestamp", "")
            named = headers["Authorization"] == f"Bearer {self._keys.token}"
        else:
            timestamp = headers.get("auth-timestamp", "")
            scheme = Scheme.HMAC if timestamp.isdecimal() else Scheme.ENDPOINTS
            named = (headers.get("auth-apiKey"), headers.get("auth-token")) == (self._keys.public_key, self._keys.token)
        call = Signable(request.method, _address(request), body)
        expected = signature(scheme, self._keys, call, timestamp)
        signed = hmac.compare_digest(headers.get("auth-signature", "").encode(), expected.encode())
        if scheme not in self._schemes or not (named and signed and _is_now(scheme, timestamp)):
            return _refusal(401, "Unauthorized")
        told = "true" if "/" + request.match_info["prefix"] == SANDBOX_PREFIX else None
        if scheme is Scheme.HMAC and (headers.get("sandbox") != told or "json" not in headers.get("Accept", "")):
            return _refusal(403, "Forbidden")
        return None

    # -- payments

    def _send_payment(self, request: web.Request, body: bytes, _: Fault | None) -> web.Response:
        asked = json_object(body) or {}
        phone = _PHONE.fullmatch(str(asked.get("customer_phone")))
        amount, country = asked.get("amount"), str(asked.get("country_code")).lower()
        fate = FATES.get(str(asked.get("customer_phone"))[-6:], Fate.PAID)
        valid = phone is not None and isinstance(amount, int) and not isinstance(amount, bool) and amount > 0
        if not valid or country != "ml" or fate is Fate.REFUSED or not _options_are_texts(asked):
            return _invalid()
        assert phone is not None and isinstance(amount, int)
        now = clock.now()
        delay = self._settle_seconds * (LATE_SETTLE_FACTOR if fate is Fate.SETTLES_LATE else 1)
        payment = LedgerPayment(
            id=_ulid(),
            request_id=request.headers.get("X-Request-Id"),
            reference=secrets.token_hex(12),
            payment_reference=f"JP-{secrets.token_hex(5).upper()}",
            phone=phone[1],
            amount=amount,
            fate=fate,
            created_at=now,
            settles_at=NEVER if fate is Fate.NEVER_CONFIRMED else now + delay,
        )
        self.ledger.add(payment)
        shown = {
            "id": payment.id,
            "amount": payment.amount,
            "state": 1,
            "reference": payment.reference,
            "created_at": _moment(now),
            "customer": {**_customer(payment.phone), "country_code": "ml"},
            "client": _MERCHANT,
            "payment": {**_payment(payment), "status": "pending"},
        }
        return _success("Payment initiated successfully.", shown)

    def _verify_state(self, request: web.Request, _: bytes, __: Fault | None) -> web.Response:
        payment = self.ledger.fetch(request.query.get("transaction_id", ""))
        if payment is None or payment.fate is Fate.NOT_SHOWN:
            return _refusal(404, "Not Found")
        state, status = payment.words
        shown = {
            "id": payment.id,
            "amount": f"{payment.amount}.00",
            "state": state,
            # As printed: with the country code here, and the country as a number.
            "customer": {**_customer("+223" + payment.phone), "country_code": 1},
            "client_merchants": [],
            "client": {"id": 8, "name": "Acme Corp", "status": 1},
            "payment": {**_payment(payment), "due_at": _moment(payment.created_at), "status": status},
        }
        return _success("Transaction retrieved successfully.", shown)

    # -- subscriptions

    def _subscribe(self, _: web.Request, body: bytes, __: Fault | None) -> web.Response:
        asked = json_object(body) or {}
        start, phone = _day(asked.get("start_at")), str(asked.get("phone"))
        plan, frequency = asked.get("plan_id"), asked.get("frequency_id")
        if start is None or not _PHONE.fullmatch(phone) or not isinstance(plan, int) or not isinstance(frequency, int):
            return _invalid()
        new = _ulid()
        self.ledger.subscribe(new, phone, str(plan), str(frequency), start.isoformat())
        shown = {
            "id": new,
            "client_id": 3,
            "plan_id": plan,
            "customer_id": 2,
            "status": "active",
            "start_at": f"{start} 00:00:00",
            "expire_at": f"{start + timedelta(days=30)} 00:00:00",
            "archived": False,
            "renewal_date": None,
            "renewed": False,
        }
        return _success("Subscription created successfully", shown)

    def _plans(self, _: web.Request, __: bytes, ___: Fault | None) -> web.Response:
        plans = [{**plan, "client_id": "01sdsd3123sdsdsdsd", "archived": False} for plan in PLANS]
        return _success("List of subscription plans", plans)

    def _disable(self, _: web.Request, body: bytes, __: Fault | None) -> web.Response:
        phone = str((json_object(body) or {}).get("phone"))
        if not self.ledger.disable(phone):
            return _refusal(404, "Not Found")
        return _success("Customer subscription disabled successfully", {**_customer(phone), "country_code": "ml"})


# ---------------------------------------------------------------------------------------------------- what is said


def _success(message: str, data: object) -> web.Response:
    return json_answer({"status": "success", "message": message, "data": data})


def _refusal(status: int, message: str, code: int | None = None) -> web.Response:
    return json_answer({"status": "error", "message": message, **({} if code is None else {"code": code})}, status)


def _invalid() -> web.Response:
    """The document's code for invalid data, in a place of our choosing: it names none."""
    return _refusal(400, "Invalid Input Data", 4001)


def _options_are_texts(asked: dict[str, Any]) -> bool:
    return all(isinstance(asked.get(name, ""), str) for name in ("device", "lang", "version", "return_url"))


def _customer(phone: str) -> dict[str, Any]:
    named = {"first_name": "Kadiatou", "last_name": "Maiga", "email": "kmaiga@example.com"}
    return {"id": "01jxk881aztej3mnd5aj4yt7hk", **named, "phone": phone}


def _payment(payment: LedgerPayment) -> dict[str, Any]:
    return {
        "id": payment.id,
        "subscription_id": None,
        "amount": f"{payment.amount}.00",
        "payment_reference": payment.payment_reference,
    }


def _address(request: web.Request) -> str:
    """The address as the caller knows it, also behind something that hands calls on, and so says which it was."""
    host = request.headers.get("X-Forwarded-Host", request.host)
    return f"{request.scheme}://{host}{request.raw_path}"


def _is_now(scheme: Scheme, timestamp: str) -> bool:
    """Whether a timestamp is written as its scheme has it, and of about now."""
    now = clock.now()
    try:
        at = datetime.strptime(timestamp, "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC).timestamp()
    except ValueError:
        at = float(timestamp) if timestamp.isdecimal() else -1.0
    return abs(now - at) <= CLOCK_SECONDS_MAX and written(scheme, at) == timestamp


def _day(text: object) -> date | None:
    try:
        return date.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        return None


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _ulid() -> str:
    """An id like those of the samples, such as `01jz0p4y6g5jxe0abeazw12j55`."""
    return "01" + "".join(secrets.choice("0123456789abcdefghjkmnpqrstvwxyz") for _ in range(24))


@asynccontextmanager
async def sandbox(
    ledger: Path | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    balances: Mapping[str, int] | None = None,
    settle_seconds: float = SETTLE_SECONDS_DEFAULT,
    calls_per_second: int | None = None,
    keys: Keys = SANDBOX_KEYS,
    schemes: Sequence[Scheme] = tuple(Scheme),
    faults: Sequence[Fault] = (),
) -> AsyncIterator[JemeniSandbox]:
    """Serve Jemeni's API on this machine until the block ends.

    Args:
        ledger: the file that holds the truth, and goes on where it ended; None keeps it in memory.
        host: the address to listen at.
        port: 0 takes a free one.
        balances: taken as every sandbox takes it, and of no effect: nobody is paid from a balance here.
        settle_seconds: how long a payment stays pending.
        calls_per_second: calls in any sliding second; None for any number, since no limit is documented.
        keys: the credentials that are accepted.
        schemes: the ways of signing that are accepted.
        faults: what goes wrong, in order.
    """
    server = JemeniSandbox(
        Ledger(ledger),
        keys=keys,
        schemes=schemes,
        settle_seconds=settle_seconds,
        calls_per_second=calls_per_second,
        faults=faults,
    )
    async with running(server, host, port):
        yield server
