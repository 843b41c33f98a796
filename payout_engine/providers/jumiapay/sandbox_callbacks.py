"""What the sandbox calls back with: changes of status and of usage, as the document prints them, each tried six times.

Nothing is signed, since the document knows no signature. Only addresses of this machine are ever called. What is still
to be told is forgotten when the sandbox ends; a look-up tells it then.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import aiohttp
import msgspec

from payout_engine.domain import clock
from payout_engine.providers._callbacks import CALL_SECONDS_MAX, CallBack, Callbacks
from payout_engine.providers.jumiapay.ledger import StoredCredit

RETRIES = 5
"""How often a call is repeated that was not answered with 2xx."""

SLACK_SECONDS = 0.01
"""So much later than it happens it is looked, since the clock that says when is not the one that waits."""

TOLD = frozenset({"delivered", "failed", "cancelled", "expired", "cancellation_failed", "expiration_failed"})
"""The statuses that are told of when a credit changes to them."""

Shown = Callable[[StoredCredit], dict[str, Any]]
"""How answers show a credit."""


class Teller:
    """Tells the callback addresses of credits what happened to them.

    Args:
        shown: how answers show a credit.
        callbacks: those of the sandbox.
        retry_seconds: how long after a failed call it is repeated.
    """

    def __init__(self, shown: Shown, callbacks: Callbacks, retry_seconds: float) -> None:
        self._shown = shown
        self._retry_seconds = retry_seconds
        self._callbacks = callbacks
        self._known: dict[str, str] = {}

    def watch(self, credit: StoredCredit, seconds: float, current: Callable[[str], StoredCredit | None]) -> None:
        """Look in so many seconds whether a credit has another status than was told last, and tell of it."""
        self._known.setdefault(credit.uuid, credit.status)

        async def call(_: aiohttp.ClientSession) -> None:
            found = current(credit.uuid)
            old_status = self._known[credit.uuid]
            if found is not None and found.status != old_status and found.status in TOLD:
                self._known[credit.uuid] = found.status
                self._tell(found, self._status_change(found, old_status))

        if credit.callback_url:
            self._callbacks.after(seconds + SLACK_SECONDS, credit.callback_url, call)

    def spent(self, before: StoredCredit, after: StoredCredit) -> None:
        """Tell that a customer spent something."""
        old, new = self._shown(before)["usage"], self._shown(after)["usage"]
        told = self._simplified(after) | {"usage": None, "old_usage": old, "new_usage": new}
        document = {"type": "CREDIT_USAGE_UPDATE", "status": after.status, "old_status": None, "new_status": None}
        self._tell(after, document | {"credit": told})

    def _status_change(self, credit: StoredCredit, old_status: str) -> dict[str, Any]:
        document = {"type": "CREDIT_STATUS_CHANGE", "status": None, "old_status": old_status}
        return document | {"new_status": credit.status, "credit": self._simplified(credit)}

    def _simplified(self, credit: StoredCredit) -> dict[str, Any]:
        whole = self._shown(credit)
        kept = ("uuid", "partner_credit_id", "name", "description", "source_wallet_account_id", "amount", "usage")
        rest = ("customer_email", "status", "expiration_date")
        told = {key: whole[key] for key in kept} | {"old_usage": None, "new_usage": None}
        return told | {key: whole[key] for key in rest} | {"error_message": None}

    def _tell(self, credit: StoredCredit, document: dict[str, Any]) -> None:
        at = datetime.fromtimestamp(clock.now(), UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        body = msgspec.json.encode(document | {"datetime": at})
        if credit.callback_url:
            self._callbacks.after(0.0, credit.callback_url, self._call(credit.callback_url, body, RETRIES))

    def _call(self, url: str, body: bytes, retries_left: int) -> CallBack:
        async def call(session: aiohttp.ClientSession) -> None:
            headers = {"Content-Type": "application/json"}
            patience = aiohttp.ClientTimeout(total=CALL_SECONDS_MAX)
            heard = False
            try:
                async with session.post(url, data=body, headers=headers, timeout=patience) as answer:
                    heard = 200 <= answer.status < 300
            except (aiohttp.ClientError, OSError, TimeoutError):
                pass  # Nobody listens, or not in time.
            if not heard and retries_left:
                self._callbacks.after(self._retry_seconds, url, self._call(url, body, retries_left - 1))

        return call
