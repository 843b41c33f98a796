"""What the sandbox says: of one transfer that is asked for, of one that is shown, and of a call that is refused. Pure.

Called by `sandbox.py`, which keeps the ledger. Where the document is silent, NOTES.md, section 8, says what was chosen.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from aiohttp import web

from payout_engine.domain import clock
from payout_engine.providers._sandbox import json_answer
from payout_engine.providers.senfenico.codes import DESCRIPTIONS
from payout_engine.providers.senfenico.ledger import LedgerTransfer, created_text
from payout_engine.providers.senfenico.wire import BALANCE_KEYS

MINIMUM = 100
WALLET_TITLES: Mapping[str, str] = {"orange_bf": "Orange BF", "moov_bf": "Moov BF", "sank_bf": "Sank BF"}
_MOBILE = re.compile(r"(?:0[1-7]|4[4-6]|5[0-8]|[67]\d)\d{6}")
_PRINTED: Mapping[str, re.Pattern[str]] = {
    "orange_bf": re.compile(r"0[4-7]|5[4-7]|6[4-7]|7[4-7]"),
    "moov_bf": re.compile(r"0[1-3]|5[0-3]|6[0-3]|7[0-3]"),
}

_STATUSES: Mapping[str, int] = {"RATE_LIMIT_EXCEEDED": 429, "TRANSACTION_NOT_FOUND": 404, "CHARGE_NOT_FOUND": 404}
"""The HTTP statuses we chose, since none is documented; 400 for the other codes."""

Errors = dict[str, list[str]]


def field_errors(item: dict[str, Any], extra_prefixes: Mapping[str, Sequence[str]]) -> tuple[Errors, str]:
    """What is wrong with one transfer, by field, and the wallet it goes to.

    Args:
        item: the transfer as it came.
        extra_prefixes: by wallet, beginnings of numbers that it takes beside those that the document prints.
    """
    errors: Errors = {}
    amount, phone, wallet = item.get("amount"), item.get("recipient_phone"), item.get("recipient_wallet")
    if not isinstance(amount, int) or isinstance(amount, bool):
        errors["amount"] = ["A valid integer is required."]
    elif amount < MINIMUM:
        errors["amount"] = [f"Ensure this value is greater than or equal to {MINIMUM}."]
    if not isinstance(item.get("ext_id"), str | None):
        errors["ext_id"] = ["Not a valid string."]
    if not isinstance(phone, str) or not _MOBILE.fullmatch(phone):
        errors["recipient_phone"] = ["Enter a valid Burkina Faso phone number."]
        return errors, ""
    own = _own_wallet(phone, extra_prefixes)
    if wallet is None:
        wallet = own
        if wallet is None:
            errors["recipient_wallet"] = ["No wallet could be determined from this phone number."]
    elif wallet not in BALANCE_KEYS:
        errors["recipient_wallet"] = ["Not a valid choice."]
    elif wallet not in ("sank_bf", own):
        errors["recipient_phone"] = ["The phone number does not belong to this wallet."]
    return errors, str(wallet)


def _own_wallet(phone: str, extra_prefixes: Mapping[str, Sequence[str]]) -> str | None:
    """The wallet that a number says by its beginning, as printed; Sank's is any number's, so none says it."""
    for wallet, printed in _PRINTED.items():
        if printed.match(phone) or phone.startswith(tuple(extra_prefixes.get(wallet, ()))):
            return wallet
    return None


def single_refusal(errors: Errors) -> web.Response:
    """The answer to a single creation that is refused."""
    texts = errors.get("non_field_errors")
    if texts:
        return json_answer({"status": False, "message": texts[0], "error_code": "INSUFFICIENT_FUNDS"}, 400)
    return error("INVALID_DATA", errors)


def repeated(item: dict[str, Any]) -> dict[str, Any]:
    """A refused transfer as a bulk answer repeats it."""
    return {key: item.get(key) for key in ("amount", "recipient_phone", "recipient_wallet", "ext_id")}


def shown(transfer: LedgerTransfer, *, live_mode: bool) -> dict[str, Any]:
    """A transfer as a list shows it: these keys and no other, since the official client takes no other."""
    return {
        "reference": transfer.reference,
        "amount": transfer.amount,
        "fees": percent(transfer.fee_basis_points, digits=2),
        "currency": "XOF",
        "ip_address": transfer.ip_address,
        "status": transfer.status(clock.now()),
        "live_mode": live_mode,
        "recipient_wallet": transfer.wallet,
        "recipient_phone": transfer.phone,
        "ext_id": transfer.ext_id,
        "created_at": created_text(transfer.created_at),
    }


def percent(basis_points: int, *, digits: int) -> str:
    """Basis points as a percentage: `1.50`, or `1.5` where one digit is enough."""
    text = f"{basis_points // 100}.{basis_points % 100:02d}"
    return text[:-1] if digits == 1 and text.endswith("0") else text


def money(francs: int) -> msgspec.Raw:
    """Francs as the document prints balances, with a point, without ever being a float."""
    return msgspec.Raw(f"{francs}.0")


def error(code: str, errors: Errors | None = None, *, before: str = "") -> web.Response:
    """The refusal that a code stands for, with both descriptions; `before` begins the message, as one sample does."""
    told = DESCRIPTIONS[code]
    document: dict[str, Any] = {"status": False, "message": before + told.english, "error_code": code}
    if errors:
        document["errors"] = errors
    document |= {"description": told.english, "description_fr": told.french}
    return json_answer(document, _STATUSES.get(code, 400))


def success(message: str, data: object) -> web.Response:
    return json_answer({"status": True, "message": message, "data": data})


def is_live(request: web.Request, configured: bool | None) -> bool:
    """The mode that is shown: the configured one, or that of the key that asks."""
    return request.headers.get("X-API-KEY", "").startswith("sk_live_") if configured is None else configured
