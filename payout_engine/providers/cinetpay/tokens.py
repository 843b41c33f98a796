"""The token that every call of CinetPay carries: fetched once for all who wait for it, renewed before it ends.

It promises that a failed login has moved no money: it ends in `NotSentError` or `RefusedError`, never in a doubt.
Called by `client.py`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio

from payout_engine.domain.errors import ProviderError
from payout_engine.providers.cinetpay.codes import unsent
from payout_engine.providers.cinetpay.wire import TOKEN_SECONDS

AHEAD_SECONDS = 60.0
"""How long before its end a token is renewed: longer than any call takes to arrive, so none is late."""


class Tokens:
    """The token of one account. Its repr does not show it.

    Args:
        log_in: fetches a new one.
    """

    def __init__(self, log_in: Callable[[], Awaitable[str]]) -> None:
        self._log_in = log_in
        self._lock = anyio.Lock()
        self._token = ""
        self._old_at = 0.0
        self._logins = 0
        self._failure: ProviderError | None = None

    def __repr__(self) -> str:
        return "Tokens()"

    async def get(self, refused: str = "") -> str:
        """Return a token that is not the refused one, as far as anybody knows.

        Who waits while another logs in gets what that brought, also if it was a failure: one login for all of them.

        Raises:
            NotSentError, RefusedError: there is none, so nothing was asked for with it.
        """
        if self._token not in ("", refused) and anyio.current_time() < self._old_at:
            return self._token
        logins = self._logins
        async with self._lock:
            if logins == self._logins:
                await self._renew()
            if self._failure is not None:
                raise self._failure
            return self._token

    async def _renew(self) -> None:
        asked_at = anyio.current_time()
        try:
            self._token, self._failure = await self._log_in(), None
            self._old_at = asked_at + TOKEN_SECONDS - AHEAD_SECONDS
        except ProviderError as error:
            self._token, self._failure = "", unsent(error)
        self._logins += 1
