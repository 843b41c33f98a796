"""Every call of CinetPay's transfer document, typed, one method each.

No slash at the end of any address; the token and the language stand in the query, everything that is sent in a form.
Money moves in `send_money` only, by POST. Whatever is refused for its token was not processed, so it is asked for once
more with a new one, and that is the only repetition. Called by `adapter.py`; usable by itself.

Source: CinetPay transfer document, read 2026-11-20; see NOTES.md.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

from payout_engine.domain.errors import RefusedError
from payout_engine.providers._http import HttpAnswer, HttpClient, OpenSession, connections
from payout_engine.providers.cinetpay import wire
from payout_engine.providers.cinetpay.codes import TOKEN_REASONS
from payout_engine.providers.cinetpay.tokens import Tokens

BASE_URL = "https://client.cinetpay.com"

LOGIN = "/v1/auth/login"
BALANCE = "/v1/transfer/check/balance"
CONTACT = "/v1/transfer/contact"
SEND = "/v1/transfer/money/send/contact"
CHECK = "/v1/transfer/check/money"

T = TypeVar("T")


class CinetPayClient:
    """One account at one address. Its repr shows no secret.

    Args:
        api_key: the account's key.
        password: the password of its API.
        base_url: the provider's address, or a sandbox's.
        lang: the language of descriptions, `en` or `fr`.
        timeout_seconds: for one whole call.
        loopback_only: refuse any host but this machine.
        concurrency: paying calls on the wire at once, at most.
        open_session: makes the connections; see `HttpClient`.

    Raises:
        ConfigError: the address cannot be used.
    """

    def __init__(
        self,
        api_key: str,
        password: str,
        *,
        base_url: str = BASE_URL,
        lang: str = "en",
        timeout_seconds: float = 60.0,
        loopback_only: bool = False,
        concurrency: int = 8,
        open_session: OpenSession = connections,
    ) -> None:
        self._credentials = {"apikey": api_key, "password": password}
        self._lang = lang
        self._tokens = Tokens(self.login)
        self._http = HttpClient(
            base_url,
            {},
            timeout_seconds=timeout_seconds,
            loopback_only=loopback_only,
            concurrency=concurrency,
            open_session=open_session,
        )

    def __repr__(self) -> str:
        return f"CinetPayClient({self._http.host!r})"

    async def login(self) -> str:
        """Return a new token, good for five minutes. The other calls fetch theirs by themselves.

        Raises:
            ProviderError: there is none; `RefusedError` with `Brake.CREDENTIALS` if the key or password is wrong.
        """
        query = {"lang": self._lang}
        return wire.read_token(await self._http.post_form(LOGIN, self._credentials, query=query))

    async def balance(self) -> wire.Funds:
        """Return what the transfer balance holds, in whole units.

        Raises:
            ProviderError: it could not be read.
        """
        return await self._with_token(lambda query: self._http.get(BALANCE, query=query), wire.read_balance)

    async def add_contacts(self, contacts: Sequence[wire.Contact]) -> Sequence[wire.AddedContact]:
        """Add people to the account's contacts: nobody else can be paid. Who is one already stays one.

        Returns:
            What the answer says of each; it need not speak of all.

        Raises:
            RefusedError, AmbiguousError, NotSentError: it was refused, or its answer is none. No money moved.
        """
        fields = wire.form(contacts)
        return await self._with_token(
            lambda query: self._http.post_form(CONTACT, fields, query=query),
            lambda answer: wire.read_contacts(answer, len(contacts)),
        )

    async def send_money(self, transfers: Sequence[wire.Transfer]) -> Sequence[wire.SentTransfer]:
        """Ask for transfers to contacts, in one call. They wait for confirmation by e-mail unless CinetPay waived it.

        Returns:
            What the answer says of each; it need not speak of all.

        Raises:
            NotSentError, RefusedError, AmbiguousError: as `Provider.send`.
        """
        fields = wire.form(transfers)
        return await self._with_token(
            # This is the one line where money leaves.
            lambda query: self._http.post_form(SEND, fields, query=query),
            lambda answer: wire.read_sent(answer, len(transfers)),
        )

    async def check(
        self, *, transaction_id: str = "", client_transaction_id: str = "", lot: str = ""
    ) -> Sequence[wire.CheckedTransfer]:
        """Return what became of transfers, by one of the three: CinetPay's id, ours, or the lot of one call.

        Returns:
            None if CinetPay finds none, which does not prove that there is none.

        Raises:
            ProviderError: it could not be read.
        """
        names = {"transaction_id": transaction_id, "client_transaction_id": client_transaction_id, "lot": lot}
        asked = {name: text for name, text in names.items() if text}
        assert len(asked) == 1, "a look-up is by exactly one of the three"
        return await self._with_token(lambda query: self._http.get(CHECK, query={**query, **asked}), wire.read_checked)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def _with_token(
        self, call: Callable[[Mapping[str, str]], Awaitable[HttpAnswer]], read: Callable[[HttpAnswer], T]
    ) -> T:
        """Call with the token, and once more with a new one if the first is refused in documented words."""
        token = await self._tokens.get()
        try:
            return read(await call({"token": token, "lang": self._lang}))
        except RefusedError as error:
            if error.reason not in TOKEN_REASONS:
                raise
        token = await self._tokens.get(refused=token)
        return read(await call({"token": token, "lang": self._lang}))
