"""Jemeni as a `Provider` that collects: it asks customers for payments, and finds out which were made.

Jemeni has no payout. What is “sent” is a request, one per call; the answer's id is the only way to ask about it again,
and nothing is refused in words that its document prints. So a request whose answer was lost waits for a person.

Called by the engine through the registration. Facts with their sources: NOTES.md.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, Literal

import anyio
import msgspec

from payout_engine.domain.errors import AmbiguousError, ConfigError, NotSentError, ProviderError
from payout_engine.domain.model import Dispatch, LookUpResult, Query, Receipt
from payout_engine.ports.provider import KeyPromise, LookUpKind, Traits, Wallet
from payout_engine.ports.registration import Account
from payout_engine.providers._http import OpenSession, connections, plain_secret
from payout_engine.providers.jemeni import wire
from payout_engine.providers.jemeni.client import BASE_URL, SANDBOX_PREFIX, JemeniClient
from payout_engine.providers.jemeni.signing import Keys, Scheme

SECRETS = ("public_key", "secret_key", "token")

TRAITS = Traits(
    batch_limit=1,
    calls_per_second=None,
    # Not documented: a few, since a rate limit exists and is not told.
    concurrency=4,
    key_promise=KeyPromise.NONE,
    key_lifetime_seconds=None,
    look_up=LookUpKind.REFERENCE,
    absence_final_seconds=None,
)

WALLET = Wallet(
    code="jemeni_ml",
    title="JemeniPay",
    country="ML",
    currency=wire.CURRENCY,
    decimals=0,
    source="Jemeni API document, sections 'Initiate a Transaction' and 'Webhooks Integration', read 2026-11-20",
)

_COMMON = frozenset({*SECRETS, "base_url", "timeout_seconds"})
"""Settings that stand beside the options in the configuration and are read elsewhere."""

_HTTPS = re.compile(r"https://[^\s/?#]+\S*")
_PREFIX = re.compile(r"(?:/[A-Za-z0-9_-]+)+")


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The account's settings beyond the ones every account has.

    Attributes:
        path_prefix: what stands before every path. The document prints `/sandbox` and none for real money.
        signing: which of the three descriptions of the signature is followed; see `signing.Scheme`.
        concurrency: calls on the wire at once.
        lang: of what the customer reads, `en` or `fr`; empty leaves it to Jemeni.
        return_url: where Jemeni turns to after a payment; empty for nowhere.
    """

    path_prefix: str = ""
    signing: Scheme = Scheme.INTRODUCTION
    concurrency: int = TRAITS.concurrency
    lang: Literal["", "en", "fr"] = ""
    return_url: str = ""


def options_of(written: Mapping[str, Any]) -> Options:
    """Check the options as written in the configuration.

    Raises:
        ConfigError: one is unknown or out of bounds.
    """
    try:
        options = msgspec.convert({key: value for key, value in written.items() if key not in _COMMON}, Options)
    except msgspec.ValidationError as error:
        known = f" (signing is one of {', '.join(Scheme)})" if "signing" in str(error) else ""
        raise ConfigError(f"jemeni options: {error}{known}") from None
    if options.path_prefix and not _PREFIX.fullmatch(options.path_prefix):
        raise ConfigError('path_prefix must be the beginning of a path, such as "/sandbox"')
    if not 1 <= options.concurrency <= 1_000:
        raise ConfigError("concurrency must be 1 to 1000")
    if options.return_url and not _HTTPS.fullmatch(options.return_url):
        raise ConfigError("return_url must begin with https:// and name a host")
    return options


def traits(written: Mapping[str, Any]) -> Traits:
    """Return the traits with the account's own figures in place.

    Raises:
        ConfigError: an option cannot be used.
    """
    return msgspec.structs.replace(TRAITS, concurrency=options_of(written).concurrency)


def wallets(written: Mapping[str, Any]) -> Sequence[Wallet]:
    """Return where an account with these options can collect from: any mobile number of Mali.

    Raises:
        ConfigError: an option cannot be used.
    """
    options_of(written)
    return (WALLET,)


class JemeniCollector:
    """One merchant's account at Jemeni.

    Args:
        account: its settings.
        open_session: makes the connections; see `HttpClient`.

    Raises:
        ConfigError: the account's keys, address or options cannot be used.
    """

    def __init__(self, account: Account, open_session: OpenSession = connections) -> None:
        self._options = options_of(account.options)
        keys = Keys(**{name: plain_secret(account, name) for name in SECRETS})
        _check_mode(keys, self._options.path_prefix)
        self.traits = traits(account.options)
        self._client = JemeniClient(
            keys,
            path_prefix=self._options.path_prefix,
            scheme=self._options.signing,
            base_url=account.base_url or BASE_URL,
            timeout_seconds=account.timeout_seconds,
            loopback_only=account.loopback_only,
            concurrency=self._options.concurrency,
            open_session=open_session,
        )

    def __repr__(self) -> str:
        return f"JemeniCollector({self._client!r})"

    async def send(self, dispatch: Dispatch) -> Sequence[Receipt]:
        """Ask one customer for a payment. See `ports.Provider.send`."""
        request = self._request(dispatch)
        try:
            transaction = await self._client.send_payment(request, request_id=dispatch.keys[0])
            return [wire.requested(transaction, request)]
        except ProviderError:
            raise
        except Exception as error:
            # A fault of ours after the bytes may have left. Its text could show anything, so only its kind is told.
            raise AmbiguousError("fault_after_sending", f"unexpected {type(error).__name__}") from None

    async def look_up(self, queries: Sequence[Query]) -> AsyncGenerator[Sequence[LookUpResult]]:
        """Ask for each payment whose reference is known, a few at a time. See `ports.Provider.look_up`."""
        known = [query for query in queries if query.provider_reference]
        failed: AmbiguousError | NotSentError | None = None
        for start in range(0, len(known), self.traits.concurrency):
            answers = await self._asked(known[start : start + self.traits.concurrency])
            found = [answer for answer in answers if isinstance(answer, LookUpResult)]
            if found:
                yield found
            for error in (answer for answer in answers if not isinstance(answer, LookUpResult)):
                if error.brake is not None:
                    raise error  # The others would be answered alike.
                # Not found is not absent: the payment stays as it is. The others are asked for in any case.
                failed = failed if error.reason == "http_404" else error
        if failed is not None:
            raise failed

    async def _asked(self, queries: Sequence[Query]) -> Sequence[LookUpResult | AmbiguousError | NotSentError]:
        """Ask for these at once, and return what each came to, in their order."""
        answers: dict[int, LookUpResult | AmbiguousError | NotSentError] = {}

        async def ask(place: int, query: Query) -> None:
            try:
                answers[place] = wire.shown(query.key, await self._client.verify_state(query.provider_reference))
            except (AmbiguousError, NotSentError) as error:
                answers[place] = error

        async with anyio.create_task_group() as tasks:
            for place, query in enumerate(queries):
                tasks.start_soon(ask, place, query)
        return [answers[place] for place in range(len(queries))]

    async def aclose(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    def _request(self, dispatch: Dispatch) -> wire.PaymentRequest:
        """Spell a dispatch as Jemeni does, refusing what must never have come this far."""
        if len(dispatch.payouts) != 1 or len(dispatch.keys) != 1:
            raise NotSentError("dispatch_too_large", "a call holds one payment")
        payout, start = dispatch.payouts[0], wire.COUNTRY_DIGITS
        if dispatch.lane.name != WALLET.code or not dispatch.keys[0]:
            raise NotSentError("dispatch_malformed", "the wallet or the key is not one of Jemeni's")
        if len(payout.phone) != len(start) + wire.PHONE_DIGITS or not payout.phone.startswith(start):
            raise NotSentError("dispatch_malformed", "a phone number is not one of Mali")
        if payout.currency != wire.CURRENCY or payout.amount_minor <= 0:
            raise NotSentError("dispatch_malformed", "an amount is not a positive number of francs")
        return wire.PaymentRequest(
            customer_phone=payout.phone[len(start) :],
            amount=payout.amount_minor,
            lang=self._options.lang or msgspec.UNSET,
            return_url=self._options.return_url or msgspec.UNSET,
        )


def _check_mode(keys: Keys, path_prefix: str) -> None:
    """Refuse an account that would speak to nowhere, or to the other world than its key is for."""
    if not path_prefix:
        raise ConfigError(
            f'path_prefix is missing. Write path_prefix = "{SANDBOX_PREFIX}" for tests; for real money, what Jemeni '
            "told you, since its document prints no path for that."
        )
    other = "pk_live_" if path_prefix == SANDBOX_PREFIX else "pk_test_"
    if keys.public_key.startswith(other):
        raise ConfigError(f"a public_key that begins with {other} does not go with path_prefix = {path_prefix!r}")
