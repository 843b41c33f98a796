"""JumiaPay credits as a `Provider`: traits, wallets, send, look_up, recall, and what its callbacks are about.

It promises what `ports.Provider` promises. Each payout is one call and one credit, to an e-mail address, under its
provider key as `partner_credit_id`, by which it is looked up. That such a key is refused a second time is documented,
but neither for how long nor in which words: so a key promises nothing unless the account's owner says that it does.

Called by the engine through the registration. Facts with their sources: NOTES.md.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import anyio
import msgspec
from yarl import URL

from payout_engine.domain import clock
from payout_engine.domain.errors import AmbiguousError, Brake, ConfigError, NotSentError, ProviderError, RefusedError
from payout_engine.domain.model import Dispatch, LookUpResult, Payout, Query, Receipt
from payout_engine.domain.money import to_decimals
from payout_engine.domain.states import State
from payout_engine.ports.callbacks import Callback, Heard
from payout_engine.ports.provider import (
    KEY_LIFETIME_SECONDS_DEFAULT,
    KeyPromise,
    LookUpKind,
    Traits,
    Wallet,
)
from payout_engine.ports.registration import Account, is_loopback
from payout_engine.providers._http import OpenSession, connections
from payout_engine.providers.jumiapay import wire
from payout_engine.providers.jumiapay.client import BASE_URL, JumiaPayClient

CREDIT_NAME_DEFAULT = "JumiaPay credit"
"""What the customer may see as the name of the credit, unless the account's option says another."""

TRAITS = Traits(
    batch_limit=1,
    calls_per_second=None,
    # Not documented. The option says another number.
    concurrency=8,
    key_promise=KeyPromise.NONE,
    key_lifetime_seconds=None,
    look_up=LookUpKind.EACH,
    absence_final_seconds=None,
)

_COMMON = frozenset({"api_key", "base_url", "timeout_seconds"})
"""Settings that stand beside the options in the configuration and are read elsewhere."""

_SOURCE = "JumiaPay Credits API document (v1), section 'Create a single credit', read 2026-11-20"
_KEY = re.compile(r"[A-Za-z0-9_-]{1,64}")
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+")


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The account's settings beyond the ones every account has.

    Attributes:
        business_area: the business account's id, for the header `X-Business-Area`.
        credit_account: the id of the Credit account that the money comes from.
        currency: of the Credit account: one of `wire.MARKETS`.
        credit_name: the name of every credit; the customer may see it.
        description: of every credit, for the business; empty: the payout's reference.
        expiration_date: when what is unspent goes back, in UTC, such as `2027-03-27T23:59:59Z`; empty: never.
        callback_url: an https address that JumiaPay tells of changes; empty: the one that the server of callbacks has
            for this account, if there is one.
        concurrency: calls on the wire at once.
        duplicates_refused: JumiaPay has said that it refuses a `partner_credit_id` that it knows, for at least
            `key_lifetime_seconds`: then sending again under the same key is a way of asking.
        key_lifetime_seconds: for how long that is believed; 0: not at all.
    """

    business_area: str = ""
    credit_account: str = ""
    currency: str = ""
    credit_name: str = CREDIT_NAME_DEFAULT
    description: str = ""
    expiration_date: str = ""
    callback_url: str = ""
    concurrency: int = TRAITS.concurrency
    duplicates_refused: bool = False
    key_lifetime_seconds: float = KEY_LIFETIME_SECONDS_DEFAULT


def options_of(written: Mapping[str, Any]) -> Options:
    """Check the options as written in the configuration; those that only paying needs may be missing.

    Raises:
        ConfigError: one is unknown or out of bounds.
    """
    try:
        options = msgspec.convert({key: value for key, value in written.items() if key not in _COMMON}, Options)
    except msgspec.ValidationError as error:
        raise ConfigError(f"jumiapay options: {error}") from None
    if options.currency and options.currency not in wire.MARKETS:
        raise ConfigError(f"currency must be one of {', '.join(wire.MARKETS)}: that of the Credit account")
    if not 0 < len(options.credit_name) <= wire.NAME_CHARS_MAX:
        raise ConfigError(f"credit_name must have 1 to {wire.NAME_CHARS_MAX} characters")
    if len(options.description) > wire.DESCRIPTION_CHARS_MAX:
        raise ConfigError(f"description must have at most {wire.DESCRIPTION_CHARS_MAX} characters")
    if options.expiration_date:
        try:
            wire.moment_of(options.expiration_date)
        except ValueError:
            raise ConfigError("expiration_date must be a time in UTC, such as 2027-03-27T23:59:59Z") from None
    if options.callback_url and not may_be_called(options.callback_url):
        raise ConfigError("callback_url must begin with https:// and name a host, or be of this machine in a sandbox")
    if not 1 <= options.concurrency <= 1_000:
        raise ConfigError("concurrency must be 1 to 1000")
    if not 0 <= options.key_lifetime_seconds <= 10**9:
        raise ConfigError("key_lifetime_seconds must be 0 or more")
    return options


def may_be_called(callback_url: str) -> bool:
    """Return whether a callback address is https, as the document wants it, or of this machine, for a sandbox."""
    try:
        url = URL(callback_url)
    except ValueError:
        return False
    return bool(url.host) and (url.scheme == "https" or is_loopback(url.host))


def traits(written: Mapping[str, Any]) -> Traits:
    """Return the documented traits with what the account's owner says in place.

    Raises:
        ConfigError: an option cannot be used.
    """
    options = options_of(written)
    changed = msgspec.structs.replace(TRAITS, concurrency=options.concurrency)
    if not options.duplicates_refused or not options.key_lifetime_seconds:
        return changed
    return msgspec.structs.replace(
        changed, key_promise=KeyPromise.IDEMPOTENT, key_lifetime_seconds=options.key_lifetime_seconds
    )


def wallets(written: Mapping[str, Any]) -> Sequence[Wallet]:
    """Return where an account with these options can pay to: one wallet, since a Credit account has one currency.

    Raises:
        ConfigError: an option cannot be used, or the currency is missing.
    """
    currency = options_of(written).currency
    if not currency:
        raise ConfigError(f"currency is missing: say that of the Credit account, one of {', '.join(wire.MARKETS)}")
    market = wire.MARKETS[currency]
    return (
        Wallet(
            code=wallet_code(currency),
            title="JumiaPay credit",
            country=market.country,
            currency=currency,
            decimals=market.decimals,
            recipient="email",
            source=_SOURCE,
        ),
    )


def wallet_code(currency: str) -> str:
    """Return the code of the wallet in a currency, such as `jumiapay_ng`."""
    return f"jumiapay_{wire.MARKETS[currency].country.lower()}"


class JumiaPayProvider:
    """One Credit account at JumiaPay.

    Args:
        account: its settings.
        open_session: makes the connections; see `HttpClient`.

    Raises:
        ConfigError: the account's key, address or options cannot be used.
    """

    def __init__(self, account: Account, open_session: OpenSession = connections) -> None:
        options = options_of(account.options)
        api_key = account.secrets.get("api_key", "")
        if not _one_word(api_key):
            raise ConfigError(f"the api_key of account {account.name!r} is missing or is not one word of plain letters")
        if not _one_word(options.business_area):
            raise ConfigError("business_area is missing: the business account's id, from its profile page at JumiaPay")
        if not _one_word(options.credit_account):
            raise ConfigError("credit_account is missing: the id of the Credit account, which JumiaPay gives")
        self.traits = traits(account.options)
        (self._wallet,) = wallets(account.options)
        self._options = options
        base_url = account.base_url or BASE_URL
        self._callback_url = options.callback_url or account.callback_url or ""
        if self._callback_url.startswith("http:") and not is_loopback(URL(base_url).host):
            raise ConfigError("callback_url must begin with https://: JumiaPay calls no other")
        self._client = JumiaPayClient(
            api_key,
            business_area=options.business_area,
            credit_account=options.credit_account,
            base_url=base_url,
            timeout_seconds=account.timeout_seconds,
            loopback_only=account.loopback_only,
            concurrency=options.concurrency,
            open_session=open_session,
        )

    def __repr__(self) -> str:
        return f"JumiaPayProvider({self._client!r})"

    async def send(self, dispatch: Dispatch) -> Sequence[Receipt]:
        """Ask for one credit. See `ports.Provider.send`."""
        asked = self._asked(dispatch)
        try:
            made = await self._client.create(asked)
            if made.partner_credit_id != asked.partner_credit_id or not _agrees(made, dispatch.payouts[0]):
                raise AmbiguousError("answer_disagrees", "JumiaPay answered with another credit than the one asked for")
            # Whatever its status says: 201 accepts, and only a look-up pays or fails.
            return [Receipt(State.ACCEPTED, provider_reference=made.uuid)]
        except ProviderError:
            raise
        except Exception as error:
            # A fault of ours after the bytes may have left. Its text could show anything, so only its kind is told.
            raise AmbiguousError("fault_after_sending", f"unexpected {type(error).__name__}") from None

    def look_up(self, queries: Sequence[Query]) -> AsyncIterator[Sequence[LookUpResult]]:
        """Ask for each by our key, a few at a time. See `ports.Provider.look_up`."""
        return self._shown([query.key for query in queries])

    def hear(self, callback: Callback) -> Heard:
        """Return which credit a call is about. JumiaPay signs nothing. See `ports.HearsCallbacks.hear`."""
        key = wire.called_about(callback.body)
        return Heard((key,)) if _KEY.fullmatch(key) else Heard()

    def re_read(self, heard: Heard, queries: Sequence[Query] = ()) -> AsyncIterator[Sequence[LookUpResult]]:
        """Ask for what calls were about, as a look-up does. See `ports.HearsCallbacks.re_read`."""
        return self._shown(heard.keys)

    async def _shown(self, keys: Sequence[str]) -> AsyncIterator[Sequence[LookUpResult]]:
        failed: ProviderError | None = None
        at_once = self._options.concurrency
        for start in range(0, len(keys), at_once):
            said = await self._all_found(keys[start : start + at_once])
            found = [one for one in said if isinstance(one, LookUpResult)]
            errors = [one for one in said if isinstance(one, ProviderError)]
            if found:
                yield found
            for error in errors:
                if error.brake is not None or len(errors) == len(said):
                    raise error  # The others would be answered alike.
                failed = failed or error
        if failed is not None:
            raise failed

    async def _all_found(self, keys: Sequence[str]) -> Sequence[LookUpResult | ProviderError | None]:
        """Return what is shown of each, why it could not be asked, or None: not shown, which proves nothing."""
        said: list[LookUpResult | ProviderError | None] = [None] * len(keys)

        async def ask(place: int, key: str) -> None:
            try:
                said[place] = wire.result(key, await self._found(key), self._wallet.currency)
            except ProviderError as error:
                said[place] = None if error.reason == "not_found" else error

        async with anyio.create_task_group() as tasks:
            for place, key in enumerate(keys):
                tasks.start_soon(ask, place, key)
        return said

    async def _found(self, key: str) -> wire.Credit:
        """Return the credit under our key.

        Raises:
            ProviderError: it could not be read, or is not shown, or what is shown has another key.
        """
        credit = await self._client.find(key)
        if credit.partner_credit_id != key:
            raise AmbiguousError("answer_disagrees", "JumiaPay answered with another credit than the one asked for")
        return credit

    async def recall(self, query: Query) -> None:
        """Ask to take back what is unspent of a delivered credit. See `ports.Recalls`."""
        credit = await self._found(query.key)
        if credit.status.id != "delivered" or not _agrees(credit, query.payout):
            raise RefusedError(
                "not_recallable",
                "JumiaPay takes back only what is delivered, and does not show this payout as delivered credit of its "
                "amount to its recipient. Nothing was asked of it.",
            )
        await self._client.cancel(credit.uuid)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    def _asked(self, dispatch: Dispatch) -> wire.NewCredit:
        """Spell a dispatch as JumiaPay does, refusing what must never have come this far."""
        if len(dispatch.payouts) != 1 or len(dispatch.keys) != 1:
            raise NotSentError("dispatch_too_large", "a call holds exactly one payout, and its key")
        payout, key, wallet = dispatch.payouts[0], dispatch.keys[0], self._wallet
        if dispatch.lane.name != wallet.code or payout.currency != wallet.currency:
            raise NotSentError("dispatch_malformed", "the wallet or the currency is not that of the Credit account")
        if not _KEY.fullmatch(key):
            raise NotSentError("dispatch_malformed", "the key is not one of plain letters and digits")
        if not _EMAIL.fullmatch(payout.email) or payout.recipient != payout.email:
            raise NotSentError("dispatch_malformed", "the recipient is not an e-mail address")
        if payout.amount_minor <= 0:
            raise NotSentError("dispatch_malformed", "the amount is not positive")
        try:
            amount = to_decimals(payout.amount_minor, wallet.currency, wallet.decimals)
        except ValueError as error:
            raise NotSentError("dispatch_malformed", str(error)) from None
        expires = self._options.expiration_date
        if expires and wire.moment_of(expires) <= clock.now():
            raise NotSentError(
                "expiry_past",
                f"The option expiration_date of this account ({expires}) is over, and JumiaPay takes only what lies "
                "ahead. Nothing was sent; change or remove it.",
                brake=Brake.LIMIT,
            )
        return wire.NewCredit(
            name=self._options.credit_name,
            description=(self._options.description or payout.reference or key)[: wire.DESCRIPTION_CHARS_MAX],
            amount=amount,
            currency=wallet.currency,
            customer_email=payout.email,
            partner_credit_id=key,
            expiration_date=expires or None,
            callback_url=self._callback_url or None,
        )


def _one_word(text: str) -> bool:
    """Whether a text can be a header's value: one with a line break would become a header of its own."""
    return bool(text) and text.isascii() and text.isprintable() and " " not in text


def _agrees(credit: wire.Credit, payout: Payout) -> bool:
    """Whether a credit is of a payout's amount and currency, to its e-mail address."""
    return (
        credit.amount.currency == payout.currency
        and wire.minor_units(credit.amount) == payout.amount_minor
        and credit.customer_email.casefold() == payout.email.casefold()
    )
