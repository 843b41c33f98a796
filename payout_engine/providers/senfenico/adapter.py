"""Senfenico as a `Provider`: traits, wallets, send, look_up, balances.

It promises what `ports.Provider` promises. Dispatches go out as bulk transfers, each payout under its provider key as
`ext_id`; because the bulk answer names no references, and nothing documents that an ext_id is paid only once, what
became of a payout is found in the list of transfers, and an absence from it proves nothing.

Called by the engine through the registration. Facts with their sources: NOTES.md.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

import msgspec

from payout_engine.domain.errors import AmbiguousError, Brake, ConfigError, NotSentError, ProviderError
from payout_engine.domain.limits import CHUNK_SIZE, RECEIPTS_BATCH
from payout_engine.domain.model import Balance, Dispatch, LookUpResult, Query, Receipt
from payout_engine.ports.provider import KeyPromise, LookUpKind, Traits, Wallet
from payout_engine.ports.registration import Account
from payout_engine.providers._http import OpenSession, connections, plain_secret
from payout_engine.providers.senfenico import shown, wire
from payout_engine.providers.senfenico.client import BASE_URL, SenfenicoClient
from payout_engine.providers.senfenico.figures import fee_basis_points

FETCH_QUERIES_MAX = 20
"""Up to this many payouts with known references are asked for one by one; beyond, one sweep of the list is cheaper."""

FEE_PERCENT_DEFAULT = "1.5"
"""What every sample of the document shows. It states no tariff, so an account whose contract differs sets its own."""

TRAITS = Traits(
    batch_limit=wire.BATCH_LIMIT,
    calls_per_second=wire.CALLS_PER_SECOND,
    # Not documented. Five calls per second that take up to three seconds each keep this many on the wire.
    concurrency=16,
    key_promise=KeyPromise.NONE,
    key_lifetime_seconds=None,
    look_up=LookUpKind.SWEEP,
    absence_final_seconds=None,
)

_COMMON = frozenset({"api_key", "base_url", "timeout_seconds"})
"""Settings that stand beside the options in the configuration and are read elsewhere."""

_SOURCE = "Senfenico API document, sections 'single transfer' and 'Note on Provider Constraints', read 2026-11-20"


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The account's settings beyond the ones every account has.

    Attributes:
        batch_limit: payouts in one call.
        rate_per_second: bulk calls per second, if the contract says another figure than the document.
        concurrency: calls on the wire at once.
        fee_percent: the fee on top of each transfer, in percent, as a string or a number.
        extra_prefixes: by wallet, beginnings of numbers that the document does not print for it and that Senfenico has
            said it pays, such as `{ orange_bf = ["44", "45", "46"] }`.
    """

    batch_limit: int = wire.BATCH_LIMIT
    rate_per_second: float = wire.CALLS_PER_SECOND
    concurrency: int = TRAITS.concurrency
    fee_percent: str | int | float = FEE_PERCENT_DEFAULT
    extra_prefixes: Mapping[str, Sequence[str]] = {}


def options_of(written: Mapping[str, Any]) -> Options:
    """Check the options as written in the configuration.

    Raises:
        ConfigError: one is unknown or out of bounds.
    """
    try:
        options = msgspec.convert({key: value for key, value in written.items() if key not in _COMMON}, Options)
    except msgspec.ValidationError as error:
        raise ConfigError(f"senfenico options: {error}") from None
    if not 1 <= options.batch_limit <= CHUNK_SIZE:
        raise ConfigError(f"batch_limit must be 1 to {CHUNK_SIZE}")
    if not 0 < options.rate_per_second <= 1_000_000:
        raise ConfigError("rate_per_second must be above 0")
    if not 1 <= options.concurrency <= 1_000:
        raise ConfigError("concurrency must be 1 to 1000")
    for wallet, prefixes in options.extra_prefixes.items():
        if wallet not in wire.PREFIXES:
            raise ConfigError(f"extra_prefixes: {wallet!r} is none of {', '.join(wire.PREFIXES)}")
        if not all(len(prefix) == 2 and prefix.isascii() and prefix.isdigit() for prefix in prefixes):
            raise ConfigError('extra_prefixes must be texts of two digits, such as { orange_bf = ["44"] }')
    return options


def traits(written: Mapping[str, Any]) -> Traits:
    """Return the documented traits with the account's own figures in place.

    Raises:
        ConfigError: an option cannot be used.
    """
    options = options_of(written)
    return msgspec.structs.replace(
        TRAITS,
        batch_limit=options.batch_limit,
        calls_per_second=options.rate_per_second,
        concurrency=options.concurrency,
    )


def wallets(written: Mapping[str, Any]) -> Sequence[Wallet]:
    """Return where an account with these options can pay to.

    Raises:
        ConfigError: an option cannot be used.
    """
    options = options_of(written)
    points = fee_basis_points(options.fee_percent)

    def wallet(code: str, title: str, **rules: Any) -> Wallet:
        return Wallet(
            code=code,
            title=title,
            country="BF",
            currency=wire.CURRENCY,
            decimals=0,
            amount_minor_min=100,
            fee_basis_points=points,
            source=_SOURCE,
            **rules,
        )

    def prefixes(code: str) -> tuple[str, ...]:
        return (*wire.PREFIXES[code], *options.extra_prefixes.get(code, ()))

    return (
        wallet("orange_bf", "Orange Money", operators=("Orange",), prefixes=prefixes("orange_bf")),
        wallet("moov_bf", "Moov Money", operators=("Moov Africa",), prefixes=prefixes("moov_bf")),
        # Any Burkinabe mobile number may hold a Sank account, so a number never says that it does.
        wallet("sank_bf", "Sank Money", automatic=False),
    )


_OTHER_MODE: Mapping[bool, str] = {
    True: "The key of this account is a live one (sk_live_), but Senfenico shows what was sent with it in test mode "
    "(live_mode: false): no money may have moved. Ask Senfenico about the key before anything more is sent.",
    False: "The key of this account is a test key (sk_test_), but Senfenico shows what was sent with it in live mode "
    "(live_mode: true): money may have moved. Ask Senfenico about the key before anything more is sent.",
}
"""What a person is told, by whether the key is a live one."""


class SenfenicoProvider:
    """One account at Senfenico.

    Args:
        account: its settings.
        open_session: makes the connections; see `HttpClient`.

    Raises:
        ConfigError: the account's key, address or options cannot be used.
    """

    def __init__(self, account: Account, open_session: OpenSession = connections) -> None:
        options = options_of(account.options)
        api_key = plain_secret(account, "api_key")
        self.traits = traits(account.options)
        self._live = shown.live_key(api_key)
        self._client = SenfenicoClient(
            api_key,
            base_url=account.base_url or BASE_URL,
            timeout_seconds=account.timeout_seconds,
            loopback_only=account.loopback_only,
            concurrency=options.concurrency,
            open_session=open_session,
        )

    def __repr__(self) -> str:
        return f"SenfenicoProvider({self._client!r})"

    async def send(self, dispatch: Dispatch) -> Sequence[Receipt]:
        """Pay a dispatch by one bulk call. See `ports.Provider.send`."""
        orders = self._orders(dispatch)
        try:
            return wire.receipts(orders, await self._client.bulk_create(orders))
        except ProviderError:
            raise
        except Exception as error:
            # A fault of ours after the bytes may have left. Its text could show anything, so only its kind is told.
            raise AmbiguousError("fault_after_sending", f"unexpected {type(error).__name__}") from None

    def look_up(self, queries: Sequence[Query]) -> AsyncIterator[Sequence[LookUpResult]]:
        """Fetch a few by reference, or sweep the whole list. See `ports.Provider.look_up`."""
        return self._shown(queries, None)

    def look_up_since(self, queries: Sequence[Query], since: float) -> AsyncIterator[Sequence[LookUpResult]]:
        """Do the same with the list's newer part, where its dates show which that is. See `ports.ListsBack`."""
        return self._shown(queries, since)

    async def _shown(self, queries: Sequence[Query], since: float | None) -> AsyncGenerator[Sequence[LookUpResult]]:
        """Yield what is fetched or listed.

        Where the provider shows one of the payouts that were asked about in the mode that the key does not have, the
        look-up ends with `Brake.CREDENTIALS`: the key is not the one that was meant.
        """
        few = 0 < len(queries) <= FETCH_QUERIES_MAX and all(query.provider_reference for query in queries)
        asked = {query.key for query in queries}
        strange = False
        async with aclosing(self._fetched(queries) if few else self._client.transfers(since)) as pieces:
            async for transfers in pieces:
                strange |= any(shown.other_mode(one, self._live) and one.ext_id in asked for one in transfers)
                for start in range(0, len(transfers), RECEIPTS_BATCH):
                    found = shown.results(transfers[start : start + RECEIPTS_BATCH], self._live)
                    if found:
                        yield found
        if strange:
            raise AmbiguousError("other_mode", _OTHER_MODE[bool(self._live)], brake=Brake.CREDENTIALS)

    async def balances(self) -> Sequence[Balance]:
        """Return what each wallet's transfer balance holds. See `ports.HasBalances`."""
        return [
            Balance(held.wallet, held.available_minor, held.pending_minor, wire.CURRENCY)
            for held in await self._client.balances()
        ]

    async def aclose(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def _fetched(self, queries: Sequence[Query]) -> AsyncGenerator[Sequence[shown.Listed]]:
        failed: AmbiguousError | None = None
        for query in queries:
            try:
                transfer = await self._client.fetch(query.provider_reference)
            except AmbiguousError as error:
                if error.brake is not None:
                    raise  # The others would be answered alike.
                # Not shown is not absent: the payout stays as it is. The others are asked for in any case.
                failed = failed if error.reason == "transaction_not_found" else error
                continue
            if transfer.reference == query.provider_reference:
                yield [transfer]
        if failed is not None:
            raise failed

    def _orders(self, dispatch: Dispatch) -> Sequence[wire.Order]:
        """Spell a dispatch as Senfenico does, refusing what must never have come this far."""
        if not 0 < len(dispatch.payouts) <= self.traits.batch_limit:
            raise NotSentError("dispatch_too_large", f"a call holds 1 to {self.traits.batch_limit} payouts")
        wallet = dispatch.lane.name
        keys = dispatch.keys
        if wallet not in wire.BALANCE_KEYS:
            raise NotSentError("dispatch_malformed", "the wallet is not one of Senfenico's")
        if not len(dispatch.payouts) == len(keys) == len(set(keys)) or not all(keys):
            raise NotSentError("dispatch_malformed", "the keys are not one for each payout")
        start, digits = wire.COUNTRY_DIGITS, len(wire.COUNTRY_DIGITS) + wire.PHONE_DIGITS
        if not all(len(payout.phone) == digits and payout.phone.startswith(start) for payout in dispatch.payouts):
            raise NotSentError("dispatch_malformed", "a phone number is not one of Burkina Faso")
        if not all(payout.currency == wire.CURRENCY and payout.amount_minor > 0 for payout in dispatch.payouts):
            raise NotSentError("dispatch_malformed", "an amount is not a positive number of francs")
        return [
            wire.Order(payout.amount_minor, payout.phone[len(start) :], wallet, key)
            for payout, key in zip(dispatch.payouts, keys, strict=True)
        ]
