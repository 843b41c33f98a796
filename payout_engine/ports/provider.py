"""The port of a provider: two verbs, and what its documents promise that changes what the engine does.

A provider states its traits and wallets once, and the stages obey them without knowing it. `Raises` is part of the
contract; what is not listed is not promised. `payout_engine.testing` says whether an adapter keeps it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from enum import StrEnum
from typing import Protocol, runtime_checkable

import msgspec

from payout_engine.domain.model import Balance, Dispatch, LookUpResult, Query, Receipt


class KeyPromise(StrEnum):
    """What the provider documents about our provider key."""

    NONE = "none"  # it is repeated back, nothing more: sending twice may pay twice
    IDEMPOTENT = "idempotent"  # a key pays once, in whatever call it comes: sending again under it is a way of asking


class LookUpKind(StrEnum):
    """How an open payout is found again."""

    SWEEP = "sweep"  # one call shows everything: ask once per interval, for all
    EACH = "each"  # one call per payout (or page of payouts), by our key
    REFERENCE = "reference"  # the same, by the provider's own reference only: a lost answer waits for a person
    NONE = "none"  # cannot be asked: open payouts wait for a person


class Traits(msgspec.Struct, frozen=True, kw_only=True):
    """What the engine does differently for this provider; every field changes its behaviour.

    Attributes:
        batch_limit: payouts in one call.
        calls_per_second: of the paying call, documented; None when nothing is documented.
        concurrency: calls on the wire at once.
        key_promise: what our provider key is worth.
        key_lifetime_seconds: how long that holds, from the first call with the key; None means without end. A provider
            that documents no time must not be given None out of hope: then its key promises nothing.
        look_up: how open payouts are found again.
        absence_final_seconds: a look-up that does not show a payout this long after it was sent (`Query.age_seconds`)
            proves that it was never received; None means never proves anything.
    """

    batch_limit: int
    calls_per_second: float | None
    concurrency: int
    key_promise: KeyPromise
    key_lifetime_seconds: float | None
    look_up: LookUpKind
    absence_final_seconds: float | None

    @property
    def intent_covers_calls(self) -> bool:
        """Whether one durable intent may cover many calls of one payout each.

        A crash leaves all of them in doubt, so only where sending again under the key asks about each. And not where
        an absence proves something after a time, which would count from the intent and not from the later call.
        """
        pays_once = self.key_promise is KeyPromise.IDEMPOTENT
        return self.batch_limit == 1 and pays_once and self.absence_final_seconds is None


KEY_LIFETIME_SECONDS_DEFAULT = 3_600.0
"""How long a key is believed to pay once where the provider promises that and documents no time. An account's option
may say another time; 0 believes nothing."""


class Wallet(msgspec.Struct, frozen=True, kw_only=True):
    """One place where a provider lets money land (or takes it from), with its own rules. One wallet is one lane.

    Attributes:
        code: the provider's word, such as `orange_bf`.
        title: for people, such as `Orange Money`.
        country: ISO 3166 two-letter code.
        currency: ISO 4217 code.
        decimals: digits after the point that the provider accepts.
        recipient: what names who is paid: `phone`, `email` or `account_number`.
        needs: the other fields of a payout that must be filled in: `name`, `email`, `bank`, `document_type`,
            `document_number`, `otp`.
        balance: which of the account's balances it draws on; wallets that name the same one share it. Empty: its own.
        operators: names as in `domain/countries.py` whose numbers it serves, or empty for any mobile number of the
            country.
        automatic: True when it may be chosen from the number; False when the payer has to name it.
        prefixes: the provider's own list of national prefixes, where its document prints one, with what the account's
            option `extra_prefixes` adds; empty otherwise. Other numbers are refused, also of an operator it serves.
        amount_minor_min: the smallest amount; 1 where none is documented.
        amount_minor_max: the largest amount; None where none is documented.
        multiple_of_minor: amounts must be a multiple of this.
        fee_basis_points: the fee on top, in hundredths of a percent, rounded up to the minor unit; None where no
            tariff is documented.
        daily_limit: a limit of a day in words, which nobody here can keep; the payer is told of it.
        source: where these facts come from.
    """

    code: str
    title: str
    country: str
    currency: str
    decimals: int
    recipient: str = "phone"
    needs: Sequence[str] = ()
    balance: str = ""
    operators: Sequence[str] = ()
    automatic: bool = True
    prefixes: Sequence[str] = ()
    amount_minor_min: int = 1
    amount_minor_max: int | None = None
    multiple_of_minor: int = 1
    fee_basis_points: int | None = None
    daily_limit: str = ""
    source: str = ""

    def fee_minor(self, amount_minor: int) -> int:
        """Return the fee for one payout of `amount_minor`, rounded up; 0 where no tariff is documented."""
        return -(-amount_minor * (self.fee_basis_points or 0) // 10_000)

    @property
    def balance_name(self) -> str:
        """The name of the balance it draws on."""
        return self.balance or self.code


class ClosedWallet(msgspec.Struct, frozen=True):
    """A place that the provider serves, and an account cannot use as it is configured. No line ever goes there.

    Attributes:
        wallet: as it would be, for finding the lines that are meant for it.
        remedy: what to write into the account's configuration, such as `extra_currencies = ["XAF"]`.
    """

    wallet: Wallet
    remedy: str


class Provider(Protocol):
    """One account at one company, in one direction: two verbs. Whatever else it can do, it implements.

    Of an account that collects, read “pay” as “request” and “recipient” as “payer”: everything else is the same.
    """

    traits: Traits

    async def send(self, dispatch: Dispatch) -> Sequence[Receipt]:
        """Ask the provider to pay, in one call where it takes batches. This is the only verb that moves money.

        Where the traits promise that a key pays once, it may be called again with keys that were sent before. Each
        receipt is then about the payout and not about the repetition: “already known” alone is `unknown`.

        Returns:
            One receipt per payout, in the dispatch's order. A payout the answer does not speak of clearly is `unknown`.

        Raises:
            NotSentError: the bytes provably never left (also for a dispatch over `batch_limit`).
            RefusedError: the provider documents that it refused the whole call before processing any of it.
            AmbiguousError: anything else. Never any other exception, except cancellation, after which the caller must
                assume that the provider may have heard.
        """
        ...

    def look_up(self, queries: Sequence[Query]) -> AsyncIterator[Sequence[LookUpResult]]:
        """Ask what became of payouts. Moves no money.

        Args:
            queries: open payouts, at most `QUERIES_BATCH`. A sweeping provider may show others as well, or look only
                at these. With no queries, a sweeping provider shows everything it has.

        Yields:
            Batches of look-up results, each of bounded size. A payout that is not shown is not proven absent.

        Raises:
            ProviderError: the look-up did not succeed, or not to its end; what was yielded stands.
        """
        ...

    async def aclose(self) -> None:
        """Let go of connections."""
        ...


@runtime_checkable
class ListsBack(Protocol):
    """A sweeping provider whose list need not be read whole to see what was sent lately."""

    def look_up_since(self, queries: Sequence[Query], since: float) -> AsyncIterator[Sequence[LookUpResult]]:
        """Look up as `look_up` does, and show at least what the provider received after `since`.

        It may leave out what is older, where the answer itself shows that nothing newer follows: in a list whose order
        nobody promises, only as long as that order is seen. What is left out is not absent.

        Args:
            queries: as for `look_up`.
            since: in seconds since 1970, with a margin for clocks that disagree.

        Raises:
            ProviderError: as for `look_up`.
        """
        ...


@runtime_checkable
class Recalls(Protocol):
    """A provider that takes back, when asked, what is left of a payout that it paid."""

    async def recall(self, query: Query) -> None:
        """Ask to take back what is left of a paid payout: one call at most, never repeated.

        It moves no payout: whether, when and how much came back is what a look-up tells.

        Raises:
            NotSentError: the bytes of the asking provably never left.
            RefusedError: the provider does not show the payout as one that it can take back; nothing was asked of it.
            AmbiguousError: anything else, also a refusal: a look-up tells.
        """
        ...


@runtime_checkable
class HasBalances(Protocol):
    """A provider that tells what its balances hold."""

    async def balances(self) -> Sequence[Balance]:
        """Return what each of the account's balances holds.

        Raises:
            ProviderError: it could not be read; `RefusedError` with `Brake.CREDENTIALS` for a key that is not accepted.
        """
        ...
