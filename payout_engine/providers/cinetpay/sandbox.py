"""CinetPay's transfer API from the other side, with a ledger that is the truth.

Every call as the document prints it: a token of five minutes in the query, form bodies, contacts before payments,
amounts in multiples of 5, codes as numbers or texts as in the samples, one balance for each country. A repeated
`client_transaction_id` pays twice, and the ledger shows it. What notify_url is called with comes from CinetPay's pages.

Transfers settle after a delay, worked out when somebody looks. `FATES` are the endings of phone numbers that do
something else than succeed; faults are scripted in `faults`. Where the document is silent, NOTES.md, section 7, says
what was chosen. Used by embedded sandbox runs, by `payout-engine sandbox` and by tests.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import aiohttp
import msgspec
from aiohttp import web

from payout_engine.domain import clock
from payout_engine.domain.countries import COUNTRIES, Country, country_of
from payout_engine.providers._callbacks import CallBack
from payout_engine.providers._http import UNREADABLE
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
    late_seconds,
    running,
)
from payout_engine.providers.cinetpay.codes import REFUSALS
from payout_engine.providers.cinetpay.ledger import Fate, Ledger, LedgerTransfer, NewTransfer
from payout_engine.providers.cinetpay.wire import MULTIPLE_OF, TOKEN_SECONDS, WAVE

PASSWORD = "password_test_sandbox"  # noqa: S105 - nobody else's
"""One that the sandbox accepts, as it does all with `_test_` in them."""

BALANCE_DEFAULT = 1_000_000

STATUS_UNDOCUMENTED = "NOS"
"""A word that the document does not list."""

FATES: Mapping[str, Fate] = {
    "000001": Fate.FAILS,
    "000002": Fate.STAYS,
    "000003": Fate.REFUSED,
    "000004": Fate.SETTLES_LATE,
    "000005": Fate.UNDOCUMENTED_STATUS,
    "000006": Fate.NOT_SHOWN,
    "000007": Fate.NO_CONTACT,
    "000008": Fate.NOT_VALID,
}
"""The last six digits of a phone number that decide what becomes of a transfer to it; all others succeed."""

TEXT_CODES = frozenset({"701", "702", "703", "704", "705", "706", "707", "708"})
"""Codes that are written as texts. The document prints 701 and 706 so, and 0, 602 and 723 as numbers."""

DESCRIPTIONS: Mapping[str, str] = {
    "-1": "Undefined index: country",
    "701": "Identifiant de connexion incorrect",
    "706": "Votre token est invalide",
    "709": "This IP is not allow to execute this action",
    "723": "Aucun element trouvé",
}

_WORDS = {"-1": "OPERATION_ERROR", "709": "EXECUTION_ERROR", "723": "NOT_FOUND", "805": "CLIENT_TRANSACTION_ID_EXIST"}
_ASKED_BY = {"transaction_id": "transaction_id", "client_transaction_id": "client_id", "lot": "lot"}

Item = dict[str, Any]


class CinetPaySandbox(ProviderSandbox[Ledger]):
    """One running sandbox. See `ProviderSandbox`. Its endpoints are login, balance, contact, send and check.

    Attributes:
        ip_allowed: False answers each transfer with code 709.
        confirmation: True lets new transfers wait for `confirm`, as CinetPay does unless it was asked not to.
    """

    paying_endpoint = "send"
    asking_endpoints: Sequence[str] = ("check",)
    own_faults: frozenset[str] = frozenset({FaultKind.LATE, FaultKind.LOW_BALANCE, FaultKind.EXPIRED})
    fates: Mapping[str, str] = FATES

    def __init__(
        self,
        ledger: Ledger,
        *,
        settle_seconds: float,
        token_seconds: float,
        limit: int | None,
        confirmation: bool,
        duplicates_refused: bool,
        faults: Sequence[Fault],
    ) -> None:
        super().__init__(ledger, faults)
        self.ip_allowed = True
        self.confirmation = confirmation
        self._settle_seconds = settle_seconds
        self._token_seconds = token_seconds
        self._limiter = None if limit is None else SlidingWindow(limit)
        self._duplicates_refused = duplicates_refused
        self._tokens: dict[str, float] = {}

    def confirm(self) -> int:
        """Confirm all transfers that wait, as the account's owner does by e-mail; return how many."""
        confirmed = self.ledger.confirm()
        for transfer in confirmed:
            self._call_back(transfer)
        return len(confirmed)

    # -- the API

    def add_calls(self, app: web.Application) -> None:
        """Add the calls of the API, none with a slash at its end, and the two controls."""
        app.router.add_post("/v1/auth/login", self.handler("login", self._login))
        app.router.add_get("/v1/transfer/check/balance", self.handler("balance", self._balance))
        app.router.add_post("/v1/transfer/contact", self.handler("contact", self._contact))
        app.router.add_post("/v1/transfer/money/send/contact", self.handler("send", self._send))
        app.router.add_get("/v1/transfer/check/money", self.handler("check", self._check))
        app.router.add_post("/_sandbox/confirm", self._confirm)
        app.router.add_post("/_sandbox/ip", self._ip)

    async def _confirm(self, _: web.Request) -> web.Response:
        return web.json_response({"confirmed": self.confirm()})

    async def _ip(self, request: web.Request) -> web.Response:
        self.ip_allowed = msgspec.json.decode(await request.read(), type=dict[str, bool]).get("allowed", True)
        return web.json_response({"allowed": self.ip_allowed})

    def refusal(self, endpoint: str, request: web.Request, _: bytes, fault: Fault | None) -> web.Response | None:
        """See `ProviderSandbox.refusal`."""
        if request.query.get("lang") not in ("en", "fr"):
            return refused("704")
        if endpoint == "login":
            return None
        ends_at = self._tokens.get(request.query.get("token", ""))
        if ends_at is None:
            return refused("706")
        if time.monotonic() >= ends_at or (fault is not None and fault.kind is FaultKind.EXPIRED):
            return refused("705")
        if endpoint == "send" and self._limiter is not None and not self._limiter.admit(time.monotonic()):
            return html(429)  # No limit is documented, so it is some proxy that says so.
        return refused("709") if endpoint == "send" and not self.ip_allowed else None

    def _login(self, _: web.Request, body: bytes, __: Fault | None) -> web.Response:
        fields = _form(body)
        if not all("_test_" in fields.get(name, "") for name in ("apikey", "password")):
            return refused("701")
        token = secrets.token_urlsafe(48)
        self._tokens[token] = time.monotonic() + self._token_seconds
        return succeeded({"token": token})

    def _balance(self, _: web.Request, __: bytes, ___: Fault | None) -> web.Response:
        available, in_using = self.ledger.available(), self.ledger.in_using()
        held = {code: {"available": free, "inUsing": in_using.get(code, 0)} for code, free in available.items()}
        free, used = sum(available.values()), sum(in_using.values())
        return succeeded({"amount": free + used, "inUsing": used, "available": free, "countryBalance": held})

    def _check(self, request: web.Request, _: bytes, __: Fault | None) -> web.Response:
        named = [name for name in _ASKED_BY if request.query.get(name)]
        if len(named) != 1:
            return refused("704")
        found = self.ledger.find(_ASKED_BY[named[0]], request.query[named[0]])
        return succeeded([checked(transfer, clock.now()) for transfer in found]) if found else refused("723")

    def _contact(self, _: web.Request, body: bytes, __: Fault | None) -> web.Response:
        items = _items(body)
        if items is None:
            return refused("718")
        lot = _new_lot()
        answers = []
        for item in items:
            number = f"{item.get('prefix')}{item.get('phone')}"
            code = _contact_code(item) or ("726" if self.ledger.is_contact(number) else "0")
            if code == "0":
                self.ledger.add_contacts([number])
            answers.append({**item, **_item_words(code), "lot": lot})
        return succeeded([answers])

    # -- making transfers

    def _send(self, _: web.Request, body: bytes, fault: Fault | None) -> web.Response:
        items = _items(body)
        if items is None:
            return refused("718")
        if not all(item.get("notify_url") for item in items):
            return refused("725")
        codes = [self._transfer_code(item) for item in items]
        lot = _new_lot()
        hidden_seconds = late_seconds(fault)
        made = [
            self._new(item, lot, hidden_seconds) if code == "0" else None
            for item, code in zip(items, codes, strict=True)
        ]
        transfers = [transfer for transfer in made if transfer is not None]
        low = fault is not None and fault.kind is FaultKind.LOW_BALANCE
        short = self._short(transfers, drained=low)
        if short:
            return refused("602", short)
        self.ledger.add(transfers)
        for transfer in transfers:
            self._call_back(transfer)
        answers = []
        for item, code, new in zip(items, codes, made, strict=True):
            told = {} if new is None else {"treatment_status": "NEW", "transaction_id": new.transaction_id, "lot": lot}
            answers.append({**item, **_item_words(code), **told})
        return succeeded([answers])

    def _transfer_code(self, item: Item) -> str:
        """Why one transfer is refused, or 0."""
        country = _country(item)
        amount, method = item.get("amount"), item.get("payment_method", "")
        if country is None:
            return "-1"
        if not isinstance(amount, int) or amount <= 0 or amount % MULTIPLE_OF:
            return "801"
        if method and method != WAVE.get(country.code):
            return "716"
        if not self.ledger.is_contact(f"{item['prefix']}{item['phone']}"):
            return "724"
        if self._duplicates_refused and self.ledger.has_had(str(item.get("client_transaction_id"))):
            return "805"
        return "717" if FATES.get(item["phone"][-6:]) is Fate.REFUSED else "0"

    def _short(self, transfers: Sequence[NewTransfer], *, drained: bool) -> str:
        """What is said where a country's balance does not suffice, or nothing."""
        available = {} if drained else self.ledger.available()
        for country in {transfer.country for transfer in transfers}:
            free = available.get(country, 0)
            wanted = sum(transfer.amount for transfer in transfers if transfer.country == country)
            if wanted > free:
                shown = f"disponible {_french(free)}, Total de l'operation à effectuer : {_french(wanted)}"
                return f"Fonds Insuffisant :{shown}"
        return ""

    def _new(self, item: Item, lot: str, hidden_seconds: float) -> NewTransfer:
        now, country = clock.now(), _country(item)
        assert country is not None
        fate = FATES.get(item["phone"][-6:], Fate.SUCCEEDS)
        settle_seconds = self._settle_seconds * (LATE_SETTLE_FACTOR if fate is Fate.SETTLES_LATE else 1)
        settle_seconds = NEVER if fate is Fate.STAYS else settle_seconds
        return NewTransfer(
            transaction_id=f"EA{datetime.fromtimestamp(now, UTC):%y%m%d.%H%M%S}.{secrets.token_hex(8).upper()}",
            client_id=item.get("client_transaction_id"),
            lot=lot,
            country=country.code,
            prefix=item["prefix"],
            phone=item["phone"],
            amount=item["amount"],
            method=item.get("payment_method", ""),
            notify_url=str(item["notify_url"]),
            verdict={Fate.FAILS: "REJ", Fate.UNDOCUMENTED_STATUS: STATUS_UNDOCUMENTED}.get(fate, "VAL"),
            valid="N" if fate is Fate.NOT_VALID else "Y",
            created_at=now,
            settle_seconds=settle_seconds,
            settles_at=NEVER if self.confirmation else now + settle_seconds,
            visible_at=NEVER if fate is Fate.NOT_SHOWN else now + hidden_seconds,
            confirmed=int(not self.confirmation),
        )

    # -- calling back

    def _call_back(self, transfer: NewTransfer) -> None:
        """Have notify_url called when the transfer is done: a GET to see whether it is there, then a form."""
        if transfer.settles_at < NEVER:
            done_in_seconds = max(0.0, transfer.settles_at - clock.now())
            self._callbacks.after(done_in_seconds, transfer.notify_url, self._callback(transfer.transaction_id))

    def _callback(self, transaction_id: str) -> CallBack:
        async def call(session: aiohttp.ClientSession) -> None:
            for transfer in self.ledger.find("transaction_id", transaction_id):
                async with session.get(transfer.notify_url) as ping:
                    if ping.status != 200:
                        return
                async with session.post(transfer.notify_url, data=told(transfer, clock.now())):
                    return

        return call


# ------------------------------------------------------------------------------------------------------------- answers


def succeeded(data: object) -> web.Response:
    """An answer that says success."""
    return json_answer({"code": 0, "message": "OPERATION_SUCCES", "data": data})


def refused(code: str, description: str = "") -> web.Response:
    """An answer that says anything else, under HTTP 200: no other status is documented."""
    number: object = code if code in TEXT_CODES else int(code)
    description = description or DESCRIPTIONS.get(code, "")
    return json_answer({"code": number, "message": word_of(code), "description": description, "data": []})


def word_of(code: str) -> str:
    """Return the word that stands beside a code."""
    return _WORDS.get(code) or REFUSALS[code].words[0]


def checked(transfer: LedgerTransfer, at: float) -> dict[str, object]:
    """A transfer as a look-up shows it."""
    status = transfer.status(at)
    done = transfer.settles_at <= at
    operator = COUNTRIES[transfer.country].operator_of(transfer.phone)
    return {
        "transaction_id": transfer.transaction_id,
        "client_transaction_id": transfer.client_id,
        "lot": transfer.lot,
        "amount": str(transfer.amount),
        "receiver": transfer.phone,
        "receiver_e164": f"+{transfer.prefix}{transfer.phone}",
        "operator": transfer.method or operator or "OM",
        "sending_status": "CONFIRM" if transfer.confirmed else "PENDING",
        "transfer_valid": transfer.valid,
        "treatment_status": status,
        "comment": {"VAL": "Transfert effectué avec succès", "REJ": "Transfert rejeté"}.get(status, ""),
        "validated_at": f"{datetime.fromtimestamp(transfer.settles_at, UTC):%Y-%m-%d %H:%M:%S}" if done else None,
    }


def told(transfer: LedgerTransfer, at: float) -> dict[str, str]:
    """What notify_url is called with: no signature, so it proves nothing."""
    shown = checked(transfer, at)
    names = ("transaction_id", "client_transaction_id", "lot", "amount", "receiver", "sending_status", "comment")
    fields = {name: str(shown[name] or "") for name in (*names, "treatment_status", "validated_at")}
    return {**fields, "operator_transaction_id": transfer.transaction_id[::-1]}


def _item_words(code: str) -> dict[str, object]:
    """The code of a contact or transfer with its word, which stands in `status`."""
    if code == "0":
        return {"code": 0, "status": "success"}
    status = {"726": "ERROR_PHONE_ALREADY_MY_CONTACT", "-1": DESCRIPTIONS["-1"]}.get(code) or word_of(code)
    return {"code": int(code), "status": status}


def _form(body: bytes) -> dict[str, str]:
    try:
        return dict(parse_qsl(body.decode(), keep_blank_values=True))
    except ValueError:
        return {}


def _items(body: bytes) -> list[Item] | None:
    """The objects of the field `data`; None where it holds something else. Some callers do not quote it."""
    text = _form(body).get("data", "")
    try:
        items = msgspec.json.decode(text, type=list[Item])
    except UNREADABLE:
        return None
    return items or None


def _country(item: Item) -> Country | None:
    """The country of a number that could be one, with its prefix as it has to be."""
    prefix, phone = item.get("prefix"), item.get("phone")
    if not isinstance(prefix, str) or not isinstance(phone, str):
        return None
    country = country_of(prefix)
    return country if country and country.dial_code == prefix and country.is_mobile(phone) else None


def _contact_code(item: Item) -> str:
    """Why somebody cannot be a contact, or nothing."""
    if _country(item) is None:
        return "-1"
    if not all(isinstance(item.get(name), str) and item[name].strip() for name in ("name", "surname", "email")):
        return "716"
    return "802" if FATES.get(item["phone"][-6:]) is Fate.NO_CONTACT else ""


def _new_lot() -> str:
    return f"{secrets.randbelow(10**20):022d}"


def _french(amount: int) -> str:
    """An amount as the document prints it: `4 233,00`."""
    return f"{amount:,}".replace(",", " ") + ",00"


@asynccontextmanager
async def sandbox(
    ledger: Path | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    balances: Mapping[str, int] | None = None,
    settle_seconds: float = SETTLE_SECONDS_DEFAULT,
    calls_per_second: int | None = None,
    token_seconds: float = TOKEN_SECONDS,
    confirmation: bool = False,
    duplicates_refused: bool = False,
    faults: Sequence[Fault] = (),
) -> AsyncIterator[CinetPaySandbox]:
    """Serve CinetPay's API on this machine until the block ends.

    Args:
        ledger: the file that holds the truth, and goes on where it ended; None keeps it in memory.
        host: the address to listen at.
        port: 0 takes a free one.
        balances: whole units by wallet code, for a new ledger; a country's wallets share what its own code has.
        settle_seconds: how long a transfer takes once it is confirmed.
        calls_per_second: transfers in any sliding second beyond which a proxy answers HTTP 429; None: any number.
        token_seconds: how long a token lives.
        confirmation: whether transfers wait until they are confirmed by `POST /_sandbox/confirm`.
        duplicates_refused: whether an id that was there before is refused (805) instead of paid again.
        faults: what goes wrong, in order.
    """
    held = dict.fromkeys(COUNTRIES, BALANCE_DEFAULT) | {k: v for k, v in (balances or {}).items() if k in COUNTRIES}
    server = CinetPaySandbox(
        Ledger(ledger, held),
        settle_seconds=settle_seconds,
        token_seconds=token_seconds,
        limit=calls_per_second,
        confirmation=confirmation,
        duplicates_refused=duplicates_refused,
        faults=faults,
    )
    async with running(server, host, port):
        yield server
