"""The sandbox's desk for transfers: what is asked for is judged, made and shown. Called by `sandbox.py`.

An ext_id is repeated back and never compared. Where the document is silent, NOTES.md, section 8, says what was chosen.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from aiohttp import web

from payout_engine.domain import clock
from payout_engine.providers._sandbox import (
    LATE_SETTLE_FACTOR,
    NEVER,
    Fault,
    FaultKind,
    json_answer,
    json_object,
    late_seconds,
)
from payout_engine.providers.senfenico.ledger import Fate, Ledger, LedgerTransfer, NewTransfer
from payout_engine.providers.senfenico.sandbox_answers import (
    WALLET_TITLES,
    Errors,
    error,
    field_errors,
    is_live,
    percent,
    repeated,
    shown,
    single_refusal,
    success,
)
from payout_engine.providers.senfenico.wire import BALANCE_KEYS, BATCH_LIMIT

STATUS_UNDOCUMENTED = "in_review"
"""A status word that the document does not list, for the numbers that get one."""

FATES: Mapping[str, Fate] = {
    "000001": Fate.FAILS,
    "000002": Fate.STAYS_PENDING,
    "000003": Fate.REFUSED,
    "000004": Fate.SETTLES_LATE,
    "000005": Fate.UNDOCUMENTED_STATUS,
    "000006": Fate.NOT_LISTED,
}
"""The last six digits of a phone number that decide what becomes of a transfer to it; all others succeed. The
document's own test numbers end in 000000."""


class TransferDesk:
    """Makes transfers in a ledger and shows them.

    Args:
        ledger: the truth.
        settle_seconds: how long a transfer stays pending.
        fee_basis_points: the fee on top.
        extra_prefixes: by wallet, beginnings of numbers that it takes beside those that the document prints.
        live_mode: the mode that every transfer is shown in; None: that of the key that asks.
    """

    def __init__(
        self,
        ledger: Ledger,
        *,
        settle_seconds: float,
        fee_basis_points: int,
        extra_prefixes: Mapping[str, Sequence[str]],
        live_mode: bool | None,
    ) -> None:
        self.ledger = ledger
        self._settle_seconds = settle_seconds
        self._fee_basis_points = fee_basis_points
        self._extra_prefixes = extra_prefixes
        self._live_mode = live_mode

    def fetch(self, request: web.Request, _: bytes, __: Fault | None) -> web.Response:
        transfer = self.ledger.fetch(request.match_info["reference"])
        if transfer is None:
            return error("TRANSACTION_NOT_FOUND")
        return success("Transfer details retrieved", self.shown(request, transfer))

    def shown(self, request: web.Request, transfer: LedgerTransfer) -> dict[str, Any]:
        return shown(transfer, live_mode=is_live(request, self._live_mode))

    def create(self, request: web.Request, body: bytes, fault: Fault | None) -> web.Response:
        item = json_object(body)
        if item is None:
            return error("INVALID_DATA")
        made, errors = self._judge(request, [item], fault)
        if errors[0]:
            return single_refusal(errors[0])
        self.ledger.add(made)
        transfer = self.ledger.fetch(made[0].reference)
        assert transfer is not None
        document = {
            **self.shown(request, transfer),
            "fees": msgspec.Raw(percent(transfer.fee_basis_points, digits=1)),
        }
        return success("Transfer has been queued", document)

    def queue(self, request: web.Request, body: bytes, fault: Fault | None) -> web.Response:
        document = json_object(body)
        items = document.get("transfers") if document else None
        if not isinstance(items, list) or not items or not all(isinstance(item, dict) for item in items):
            return error("INVALID_DATA")
        if len(items) > BATCH_LIMIT:
            message = f"Maximum of {BATCH_LIMIT} transfers allowed per request"
            return json_answer({"status": False, "message": message, "error_code": "BATCH_SIZE_LIMIT_EXCEEDED"}, 400)
        made, errors = self._judge(request, items, fault)
        if made:
            self.ledger.add(made)
        refused = [
            {"data": repeated(item), "errors": found} for item, found in zip(items, errors, strict=True) if found
        ]
        message = f"{len(made)} transfers queued for processing"
        return json_answer({"status": True, "message": message, "failed_transfers": refused})

    def _judge(
        self, request: web.Request, items: Sequence[dict[str, Any]], fault: Fault | None
    ) -> tuple[list[NewTransfer], list[Errors]]:
        """Return the transfers that can be made, and the errors of each item, empty for those."""
        drained = fault is not None and fault.kind is FaultKind.LOW_BALANCE
        hidden_seconds = late_seconds(fault)
        available = dict.fromkeys(BALANCE_KEYS, 0) if drained else self.ledger.available()
        made: list[NewTransfer] = []
        errors: list[Errors] = []
        for item in items:
            found, wallet = field_errors(item, self._extra_prefixes)
            if FATES.get(str(item.get("recipient_phone"))[-6:]) is Fate.REFUSED:
                found.setdefault("recipient_phone", ["The phone number is not associated with an account."])
            if not found:
                cost = item["amount"] + self._fee(item["amount"])
                if cost > available.get(wallet, 0):
                    text = f"Insufficient balance for {WALLET_TITLES[wallet]} transfer including fees."
                    found = {"non_field_errors": [text]}
                else:
                    available[wallet] -= cost
                    made.append(self._new(request, item, wallet, hidden_seconds))
            errors.append(found)
        return made, errors

    def _new(self, request: web.Request, item: dict[str, Any], wallet: str, hidden_seconds: float) -> NewTransfer:
        now = clock.now()
        fate = FATES.get(item["recipient_phone"][-6:], Fate.SUCCEEDS)
        factor = LATE_SETTLE_FACTOR if fate is Fate.SETTLES_LATE else 1
        verdicts = {Fate.FAILS: "failed", Fate.UNDOCUMENTED_STATUS: STATUS_UNDOCUMENTED}
        return NewTransfer(
            reference=f"tr_{secrets.token_hex(16)}",
            amount=item["amount"],
            fee=self._fee(item["amount"]),
            fee_basis_points=self._fee_basis_points,
            wallet=wallet,
            phone=item["recipient_phone"],
            ext_id=item.get("ext_id"),
            ip_address=request.remote or "127.0.0.1",
            verdict=verdicts.get(fate, "success"),
            created_at=now,
            settles_at=NEVER if fate is Fate.STAYS_PENDING else now + self._settle_seconds * factor,
            visible_at=NEVER if fate is Fate.NOT_LISTED else now + hidden_seconds,
        )

    def _fee(self, amount: int) -> int:
        """The fee in francs, rounded up; how the provider rounds is not documented."""
        return -(-amount * self._fee_basis_points // 10_000)
