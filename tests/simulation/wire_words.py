"""What a simulated bank says on Senfenico's wire: the answers that the document prints, and others. Pure.

`wire_bank.py` decides which is said when. Kept apart from the adapter's tables and from the sandbox on purpose: what
reads these words must not have written them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import orjson

from payout_engine.domain.model import Payout
from payout_engine.testing.provider_answers import HTML

TITLES: Mapping[str, str] = {"orange_bf": "Orange BF", "moov_bf": "Moov BF", "sank_bf": "Sank BF"}
BALANCES: Mapping[str, str] = {"orange_bf": "orange_money_bf", "moov_bf": "moov_money_bf", "sank_bf": "sank_money_bf"}

Choice = Callable[[Sequence[Any]], Any]


class Said(msgspec.Struct, frozen=True):
    """One answer: what to call it, its HTTP status, its body, its headers."""

    what: str
    status: int
    body: bytes
    headers: Mapping[str, str] = {}

    def __str__(self) -> str:
        return f"HTTP {self.status}, {self.what}"


def _json(what: str, status: int, document: object, headers: Mapping[str, str] = {}) -> Said:
    return Said(what, status, orjson.dumps(document), headers)


def queued(count: int, refused: Sequence[Payout]) -> Said:
    """So many transfers were queued, and these were refused because the balance does not cover them."""
    items = [
        {
            "data": {
                "amount": payout.amount_minor,
                "recipient_phone": payout.phone[3:],
                "recipient_wallet": None,
                "ext_id": payout.reference,
            },
            "errors": {
                "non_field_errors": [f"Insufficient balance for {TITLES[payout.wallet]} transfer including fees."]
            },
        }
        for payout in refused
    ]
    message = f"{count} transfers queued for processing"
    return _json("queued", 200, {"status": True, "message": message, "failed_transfers": items})


def refused_call(code: str) -> Said:
    """A code for the whole call."""
    return _json(code, 400, {"status": False, "message": "No.", "error_code": code})


def no_funds() -> Said:
    """What the document prints for a single creation, in answer to a bulk call."""
    message = "Insufficient balance for Orange BF transfer including fees."
    return _json("no funds", 400, {"status": False, "message": message, "error_code": "INSUFFICIENT_FUNDS"})


def rate_limit(retry_after_seconds: float | None) -> Said:
    """The printed refusal for the rate."""
    headers = {} if retry_after_seconds is None else {"Retry-After": f"{retry_after_seconds:.0f}"}
    message = "You have exceeded the rate limit for API requests."
    return _json("too fast", 429, {"status": False, "message": message, "error_code": "RATE_LIMIT_EXCEEDED"}, headers)


def key_refusal(choice: Choice) -> Said:
    """A key that is not accepted: as printed, or as whoever stands before the provider says it."""
    printed = _json("key refused", 401, {"status": False, "message": "Invalid API key"})
    other: Said = choice([printed, printed, Said("401", 401, HTML), Said("401", 401, b"")])
    return other


def strange_answer(choice: Choice, payouts: Sequence[Payout]) -> Said:
    """What nobody documented, after all was taken in: none of it may free anybody."""
    every = queued(0, payouts)
    answers = [
        *(refused_call(code) for code in ("INSUFFICIENT_FUNDS", "INVALID_DATA", "INVALID_ACCOUNT", "INTERNAL_ERROR")),
        *(refused_call(code) for code in ("UNSUPPORTED_PROVIDER", "NETWORK_ERROR", "TRY_LATER", "")),
        _json("no key", 401, {"status": False, "message": "Unauthorized"}),
        _json("no key", 403, {"status": False, "message": "This API key may not do that"}),
        _json("no words", 200, {"status": True, "message": "OK"}),
        _json("no", 200, {"status": False, "message": "No"}),
        _json("another shape", 200, [{"status": True}]),
        Said("page", 200, HTML),
        Said("too late", 503, every.body),
    ]
    said: Said = choice(answers)
    return msgspec.structs.replace(said, what=f"strange: {said.what}")


def listed(items: Sequence[Mapping[str, Any]]) -> bytes:
    """The list of transfers."""
    return orjson.dumps({"status": True, "message": "Transfer list retrieved", "data": items})


def transfer_body(shown: Mapping[str, Any] | None) -> Said:
    """One transfer, or that there is none."""
    if shown is None:
        return _json(
            "no such transfer",
            404,
            {"status": False, "message": "Transaction not found.", "error_code": "TRANSACTION_NOT_FOUND"},
        )
    return _json("transfer", 200, {"status": True, "message": "Transfer details retrieved", "data": shown})


def balances_body(held: Mapping[str, int]) -> Said:
    """The balances, with a point as the document prints them."""
    wallets = {
        key: {"available": orjson.Fragment(f"{held.get(wallet, 0)}.0"), "pending": orjson.Fragment("0.0")}
        for wallet, key in BALANCES.items()
    }
    data = {"collection_balances": {"currency": "XOF"}, "transfer_balances": wallets}
    return _json("balances", 200, {"status": True, "message": "Balance retrieved", "data": data})


def _other(**changes: Any) -> dict[str, Any]:
    common = {"reference": "tr_0", "amount": 500, "currency": "XOF", "status": "success", "live_mode": True}
    return {**common, "recipient_phone": "70000000", "recipient_wallet": "moov_bf", "ext_id": "order-1", **changes}


FOREIGN: Sequence[Mapping[str, Any]] = (
    _other(),
    _other(ext_id=None),
    _other(ext_id="", recipient_phone="70xxxxxx"),
    _other(ext_id="zzzzzzzzzzzz-1-0", status="failed"),
    _other(ext_id='},{"reference', note={"inner": [{"a": "]}"}]}),
    _other(live_mode=False, status="in_review"),
    {"reference": "tr_1", "kind": "of another release", "lines": [[], {}]},
)
"""Transfers of others, as a list may show them among ours."""
