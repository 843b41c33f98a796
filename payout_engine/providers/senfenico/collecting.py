"""What Senfenico collects and brings home, pure: checkouts, charges and settlements, as asked for and as shown.

A payout needs none of it: these are for programs that use `SenfenicoClient` by itself. No word here moves a payout.

Source: Senfenico API document, sections "checkouts", "charges" and "settlements", read 2026-11-20.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

import msgspec

from payout_engine.domain.model import mask
from payout_engine.providers.senfenico.envelope import REFUSALS, Refusal

CHECKOUT_STATUSES = ("pending", "success", "failed")
CHARGE_STATUSES = ("success", "failed", "send_otp", "pay_offline", "pending", "canceled")
SETTLEMENT_STATUSES = ("processing", "in_transit", "success", "cancelled")
CHARGE_PROVIDERS = ("orange_bf", "moov_bf", "coris_bf", "sank_bf")

SUBMIT_REFUSALS: Mapping[str, Refusal] = {**REFUSALS, "OTP_INVALID": Refusal()}
CHARGE_REFUSALS: Mapping[str, Refusal] = {**REFUSALS, "Charge not found": Refusal(reason="charge_not_found")}
CANCEL_REFUSALS: Mapping[str, Refusal] = {
    **REFUSALS,
    "Validation error: [\"Settlement can only be cancelled if it's in 'processing' status.\"]": Refusal(
        reason="settlement_not_processing"
    ),
}
"""What the document prints as refusals of these calls: by the code, or by the message where there is no code."""


# -------------------------------------------------------------------------------------------------------- checkouts


class NewCheckout(msgspec.Struct, frozen=True, kw_only=True):
    """A page to open on which a customer pays: `amount` in whole francs, and the addresses that it leads back to."""

    email: str | msgspec.UnsetType = msgspec.UNSET
    amount: int
    success_url: str
    cancel_url: str

    def __repr__(self) -> str:
        return f"NewCheckout({self.amount})"


class StartedCheckout(msgspec.Struct, frozen=True, kw_only=True):
    """A checkout that was begun. `authorization_url` is where the customer is sent to."""

    reference: str
    authorization_url: str
    live_mode: bool


class Checkout(msgspec.Struct, frozen=True, kw_only=True):
    """A checkout as it stands, in one of `CHECKOUT_STATUSES`; `phone` and `provider` are empty until it is paid."""

    reference: str
    amount: int
    status: str
    live_mode: bool
    email: str | None = None
    charge_reference: str | None = None
    success_url: str | None = None
    cancel_url: str | None = None
    phone: str | None = None
    provider: str | None = None
    created_at: str | None = None
    updated_at: str | None = None

    def __repr__(self) -> str:
        return f"Checkout({self.reference!r}, {self.status!r})"


# ---------------------------------------------------------------------------------------------------------- charges


class NewCharge(msgspec.Struct, frozen=True, kw_only=True):
    """A payment to take from a customer's wallet. Its repr shows no full phone.

    Attributes:
        amount: in whole francs.
        phone: 8 digits without the country code.
        provider: one of `CHARGE_PROVIDERS`.
    """

    amount: int
    phone: str
    provider: str
    currency: str = "XOF"
    payment_method: str = "mobile_money"

    def body(self) -> bytes:
        """Return the body of the call, its keys in the printed order."""
        document = {
            "amount": self.amount,
            "currency": self.currency,
            "payment_method": self.payment_method,
            "payment_method_details": {"phone": self.phone, "provider": self.provider},
        }
        return msgspec.json.encode(document)

    def __repr__(self) -> str:
        return f"NewCharge({self.amount}, from={mask(self.phone)!r})"


class StartedCharge(msgspec.Struct, frozen=True, kw_only=True):
    """A charge that was begun. `status` says what the customer does next, `display_text` says it to the customer.

    With `send_otp` the customer gets a code, which is handed on by `submit_otp`; with `pay_offline` the customer
    confirms on the phone.
    """

    reference: str
    status: str
    display_text: str
    live_mode: bool


class ConfirmationAttempt(msgspec.Struct, frozen=True, kw_only=True):
    """One time that a customer tried to confirm: from where, when, and `success` or `failed`."""

    ip_address: str
    attempt_date: str
    confirmation_status: str


class Charge(msgspec.Struct, frozen=True, kw_only=True):
    """A charge as it stands: `status` is one of `CHARGE_STATUSES`. Its repr shows no phone.

    Attributes:
        fees: in percent, exactly.
        phone: and the two dates: None in the answer to `submit_otp`, which does not show them.
    """

    reference: str
    amount: int
    status: str
    live_mode: bool
    provider: str
    fees: Decimal
    currency: str = "XOF"
    payment_method: str = "mobile_money"
    transaction_date: str | None = None
    ip_address: str | None = None
    phone: str | None = None
    cancelled_at: str | None = None
    cancellation_reason: str | None = None
    created_at: str | None = None
    updated_at: str | None = None
    confirmation_attempts: list[ConfirmationAttempt] = []

    def __repr__(self) -> str:
        return f"Charge({self.reference!r}, {self.status!r})"


# ------------------------------------------------------------------------------------------------------ settlements


class Settlement(msgspec.Struct, frozen=True, kw_only=True):
    """Money on its way from the collection balance to the merchant: `status` is one of `SETTLEMENT_STATUSES`.

    Attributes:
        settlement_fees: as printed, a number; whether percent or francs is not said.
        account_type: `bank`, `mobile` or `usdt`; of the fields below it those of the others are None.
    """

    reference: str
    amount: int
    status: str
    live_mode: bool
    settlement_fees: Decimal
    currency: str = "XOF"
    created_at: str | None = None
    updated_at: str | None = None
    account_type: str | None = None
    iban: str | None = None
    rib: str | None = None
    bank_name: str | None = None
    bank_address: str | None = None
    account_holder_name: str | None = None
    account_holder_address: str | None = None
    swift_bic_code: str | None = None
    provider: str | None = None
    phone: str | None = None
    usdt_wallet_address: str | None = None

    def __repr__(self) -> str:
        return f"Settlement({self.reference!r}, {self.status!r})"
