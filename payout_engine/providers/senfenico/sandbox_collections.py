"""The sandbox's desk for money that is collected: checkouts, charges and settlements. Called by `sandbox.py`.

Only the document's test numbers have accounts, each with the amount that is printed beside it and the printed code.
Where the document is silent, NOTES.md, section 8, says what was chosen.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import uuid4

import msgspec
from aiohttp import web

from payout_engine.domain import clock
from payout_engine.providers._sandbox import Fault, json_answer, json_object
from payout_engine.providers.senfenico.collecting import CHARGE_PROVIDERS
from payout_engine.providers.senfenico.collection_ledger import (
    CollectionLedger,
    LedgerAttempt,
    LedgerCharge,
    LedgerCheckout,
    LedgerSettlement,
)
from payout_engine.providers.senfenico.ledger import created_text
from payout_engine.providers.senfenico.sandbox_answers import (
    Errors,
    error,
    is_live,
    percent,
    success,
)

OTP = "123456"

TEST_ACCOUNTS: Mapping[str, Mapping[str, int]] = {
    "orange_bf": {"76000000": 1_000, "77000000": 1_500, "65000000": 2_000},
    "moov_bf": {"70000000": 1_000, "71000000": 1_500, "72000000": 2_000},
    "coris_bf": {"72000000": 1_000, "75000000": 1_500, "68000000": 2_000},
    "sank_bf": {"72000000": 1_000, "75000000": 1_500, "68000000": 2_000},
}
"""The document's test numbers, with what each can be charged. Source: section "Tester votre intégration"."""

SETTLEMENT_FEE_PERCENT = 2
"""As every sample shows; taken for a percentage here, which the document does not say."""

_BY_USSD = (
    "Composez *144*4*6*{}# pour obtenir un code OTP, puis entrez-le sur notre plateforme pour finaliser la transaction."
)
_BY_SMS = "Veuillez entrer le code OTP reçu sur votre téléphone pour finaliser la transaction."
_OFFLINE = "Composez le code USSD de votre opérateur et suivez les instructions pour finaliser la transaction."
_NOT_PROCESSING = "Validation error: [\"Settlement can only be cancelled if it's in 'processing' status.\"]"
_OTHER_ACCOUNTS = (
    *("iban", "bank_name", "bank_address", "account_holder_name", "account_holder_address", "swift_bic_code"),
    *("provider", "phone", "usdt_wallet_address"),
)


class CollectionDesk:
    """Collects into a ledger and shows what was collected.

    Args:
        ledger: the truth.
        settle_seconds: how long a settlement stays `processing`, and then `in_transit`, and an offline charge pending.
        fee_basis_points: what Senfenico keeps of a charge.
        otp_seconds: how long a customer's code is valid.
        offline_providers: those whose customers confirm on the phone, without a code.
        live_mode: the mode that everything is shown in; None: that of the key that asks.
    """

    def __init__(
        self,
        ledger: CollectionLedger,
        *,
        settle_seconds: float,
        fee_basis_points: int,
        otp_seconds: float,
        offline_providers: Sequence[str],
        live_mode: bool | None,
    ) -> None:
        self.ledger = ledger
        self.base_url = ""
        self._settle_seconds = settle_seconds
        self._fee_basis_points = fee_basis_points
        self._otp_seconds = otp_seconds
        self._offline = frozenset(offline_providers)
        self._live_mode = live_mode

    # -- checkouts

    def initialize(self, request: web.Request, body: bytes, _: Fault | None) -> web.Response:
        """Open a page on which a customer can pay."""
        asked = json_object(body) or {}
        errors = _amount_errors(asked, texts_too=False)
        errors |= {
            name: ["This field is required."] for name in ("success_url", "cancel_url") if not _text(asked, name)
        }
        if errors:
            return error("INVALID_DATA", errors)
        now = clock.now()
        made = LedgerCheckout(
            reference=f"chk_{secrets.token_hex(16)}",
            amount=asked["amount"],
            email=_text(asked, "email") or None,
            success_url=asked["success_url"],
            cancel_url=asked["cancel_url"],
            created_at=now,
            updated_at=now,
        )
        self.ledger.put(made)
        page = f"{self.base_url}/v1/checkout_payment/payment_page/{made.reference}/"
        data = {"reference": made.reference, "authorization_url": page, "live_mode": self._live(request)}
        return success("Checkout initialized", data)

    def fetch_checkout(self, request: web.Request, _: bytes, __: Fault | None) -> web.Response:
        """Show one checkout."""
        found = self.ledger.find(LedgerCheckout, request.match_info["reference"])
        if found is None:
            return error("TRANSACTION_NOT_FOUND")
        return success("Checkout details retrieved", self._checkout(request, found))

    def list_checkouts(self, request: web.Request, _: bytes, __: Fault | None) -> web.Response:
        """Show every checkout, spelled as printed."""
        found = [self._checkout(request, one) for one in self.ledger.all(LedgerCheckout)]
        return success("Checkout list retreived", found)

    def pay_checkout(self, reference: str, provider: str, phone: str) -> str | None:
        """Let a customer pay on the page. No part of the API.

        Returns:
            The reference of the charge, or None where there is no such open checkout or test account.
        """
        found = self.ledger.find(LedgerCheckout, reference)
        if found is None or found.status != "pending" or phone not in TEST_ACCOUNTS.get(provider, {}):
            return None
        charge = self._new_charge(found.amount, provider, phone, "127.0.0.1")
        paid = found.amount <= TEST_ACCOUNTS[provider][phone]
        charge.status = found.status = "success" if paid else "failed"
        charge.settles_at = 0.0
        found.phone, found.provider, found.charge_reference = phone, provider, charge.reference
        found.updated_at = clock.now()
        self.ledger.put(charge)
        self.ledger.put(found)
        return charge.reference

    def _checkout(self, request: web.Request, one: LedgerCheckout) -> dict[str, Any]:
        return {
            "email": one.email,
            "reference": one.reference,
            "charge_reference": one.charge_reference,
            "amount": one.amount,
            "success_url": one.success_url,
            "cancel_url": one.cancel_url,
            "phone": one.phone,
            "provider": one.provider,
            "live_mode": self._live(request),
            "created_at": created_text(one.created_at),
            "updated_at": created_text(one.updated_at),
            "status": one.status,
        }

    # -- charges

    def create_charge(self, request: web.Request, body: bytes, _: Fault | None) -> web.Response:
        """Ask a customer for money."""
        asked = json_object(body) or {}
        details = asked.get("payment_method_details")
        errors = _amount_errors(asked, texts_too=True)
        if asked.get("currency", "XOF") != "XOF":
            errors["currency"] = ["Not a valid choice."]
        if asked.get("payment_method", "mobile_money") != "mobile_money":
            errors["payment_method"] = ["Not a valid choice."]
        if not isinstance(details, dict) or not _text(details, "phone") or not _text(details, "provider"):
            errors["payment_method_details"] = ["This field is required."]
        if errors or not isinstance(details, dict):
            return error("INVALID_DATA", errors)
        provider, phone = details["provider"], details["phone"]
        if provider not in CHARGE_PROVIDERS:
            return error("UNSUPPORTED_PROVIDER")
        if phone not in TEST_ACCOUNTS[provider]:
            return error("INVALID_ACCOUNT")
        made = self._new_charge(int(asked["amount"]), provider, phone, request.remote or "127.0.0.1")
        self.ledger.put(made)
        text = _BY_USSD.format(made.amount) if provider == "orange_bf" else _BY_SMS
        data = {
            "reference": made.reference,
            "status": made.status,
            "display_text": _OFFLINE if made.status == "pay_offline" else text,
            "live_mode": self._live(request),
        }
        return success("Charge attempted", data)

    def submit(self, request: web.Request, body: bytes, _: Fault | None) -> web.Response:
        """Take the code that a customer was given."""
        asked = json_object(body) or {}
        found = self.ledger.find(LedgerCharge, str(asked.get("charge_reference")))
        if found is None:
            return error("CHARGE_NOT_FOUND")
        now = clock.now()
        code = "" if str(asked.get("otp")) == OTP and found.state() == "send_otp" else "OTP_INVALID"
        if not code and now > found.created_at + self._otp_seconds:
            code = "OTP_EXPIRED"
        if not code and found.amount > TEST_ACCOUNTS[found.provider][found.phone]:
            code, found.status = "INSUFFICIENT_FUNDS", "failed"
        if not code:
            found.status = "success"
        found.attempts.append(LedgerAttempt(now, "failed" if code else "success"))
        found.updated_at = now
        self.ledger.put(found)
        if code:
            return error(code, before="Charge operation failed. ")
        shown = self._charge(request, found)
        kept = {name: shown[name] for name in shown if name not in ("phone", "created_at", "updated_at")}
        fees = msgspec.Raw(percent(self._fee_basis_points, digits=1))
        return success("charge completed successfully", {**kept, "fees": fees})

    def fetch_charge(self, request: web.Request, _: bytes, __: Fault | None) -> web.Response:
        """Show one charge."""
        found = self.ledger.find(LedgerCharge, request.match_info["reference"])
        if found is None:
            return json_answer({"status": False, "message": "Charge not found"}, 404)
        return success("Charge attempted", self._charge(request, found))

    def list_charges(self, request: web.Request, _: bytes, __: Fault | None) -> web.Response:
        """Show every charge, spelled as printed."""
        return success("Charge list retreived", [self._charge(request, one) for one in self.ledger.all(LedgerCharge)])

    def _new_charge(self, amount: int, provider: str, phone: str, ip_address: str) -> LedgerCharge:
        now = clock.now()
        offline = provider in self._offline
        return LedgerCharge(
            reference=f"ch_{secrets.token_hex(16)}",
            amount=amount,
            fee=-(-amount * self._fee_basis_points // 10_000),
            phone=phone,
            provider=provider,
            ip_address=ip_address,
            created_at=now,
            updated_at=now,
            status="pay_offline" if offline else "send_otp",
            settles_at=now + self._settle_seconds if offline else 0.0,
        )

    def _charge(self, request: web.Request, one: LedgerCharge) -> dict[str, Any]:
        return {
            "reference": one.reference,
            "amount": one.amount,
            "fees": percent(self._fee_basis_points, digits=2),
            "currency": "XOF",
            "transaction_date": created_text(one.created_at),
            "ip_address": one.ip_address,
            "status": one.state(),
            "live_mode": self._live(request),
            "payment_method": "mobile_money",
            "provider": one.provider,
            "phone": one.phone,
            "cancelled_at": None,
            "cancellation_reason": None,
            "created_at": created_text(one.created_at),
            "updated_at": created_text(one.updated_at),
            "confirmation_attempts": [
                {
                    "ip_address": one.ip_address,
                    "attempt_date": created_text(attempt.at),
                    "confirmation_status": attempt.status,
                }
                for attempt in one.attempts
            ],
        }

    # -- settlements

    def settle(self, request: web.Request, body: bytes, _: Fault | None) -> web.Response:
        """Send collected money home."""
        asked = json_object(body) or {}
        errors = _amount_errors(asked, texts_too=True)
        if errors:
            return error("INVALID_DATA", errors)
        amount = int(asked["amount"])
        fee = -(-amount * SETTLEMENT_FEE_PERCENT // 100)
        if amount + fee > self.ledger.balance()[0]:
            return error("INSUFFICIENT_FUNDS")
        now, wait = clock.now(), self._settle_seconds
        made = LedgerSettlement(
            reference=str(uuid4()),
            amount=amount,
            fee=fee,
            created_at=now,
            updated_at=now,
            leaves_at=now + wait,
            arrives_at=now + 2 * wait,
        )
        self.ledger.put(made)
        return success("Settlement created", self._settlement(request, made))

    def fetch_settlement(self, request: web.Request, _: bytes, __: Fault | None) -> web.Response:
        """Show one settlement."""
        found = self.ledger.find(LedgerSettlement, request.match_info["reference"])
        if found is None:
            return error("TRANSACTION_NOT_FOUND")
        return success("Settlement retrieved", self._settlement(request, found))

    def list_settlements(self, request: web.Request, _: bytes, __: Fault | None) -> web.Response:
        """Show every settlement."""
        found = [self._settlement(request, one) for one in self.ledger.all(LedgerSettlement)]
        return success("settlement list retrieved", found)

    def cancel(self, request: web.Request, _: bytes, __: Fault | None) -> web.Response:
        """Cancel a settlement that has not left."""
        found = self.ledger.find(LedgerSettlement, request.match_info["reference"])
        if found is None:
            return error("TRANSACTION_NOT_FOUND")
        if found.state() != "processing":
            return json_answer({"status": False, "message": _NOT_PROCESSING}, 400)
        found.cancelled, found.updated_at = True, clock.now()
        self.ledger.put(found)
        return success("Settlement cancelled", self._settlement(request, found))

    def _settlement(self, request: web.Request, one: LedgerSettlement) -> dict[str, Any]:
        return {
            "reference": one.reference,
            "amount": one.amount,
            "settlement_fees": SETTLEMENT_FEE_PERCENT,
            "currency": "XOF",
            "status": one.state(),
            "live_mode": self._live(request),
            "created_at": created_text(one.created_at),
            "updated_at": created_text(one.updated_at),
            "account_type": "bank",
            "rib": "YOUR RIB",
            **dict.fromkeys(_OTHER_ACCOUNTS),
        }

    def _live(self, request: web.Request) -> bool:
        return is_live(request, self._live_mode)


def _text(asked: dict[str, Any], name: str) -> str:
    found = asked.get(name)
    return found if isinstance(found, str) else ""


def _amount_errors(asked: dict[str, Any], *, texts_too: bool) -> Errors:
    """What is wrong with an amount, which some samples show as a number and some as a text."""
    amount = asked.get("amount")
    if texts_too and isinstance(amount, str) and amount.isascii() and amount.isdigit():
        amount = int(amount)
    valid = isinstance(amount, int) and not isinstance(amount, bool) and amount > 0
    return {} if valid else {"amount": ["A valid integer is required."]}
