"""What the provider suite plays with: an adapter, its sandbox, dispatches made from the registration alone.

Every payout here is made from what the registration says of its wallets, and everything an adapter claims is compared
with the sandbox's ledger: `contradictions` is the suite's one judge. Used by the provider suite.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import islice
from typing import Any

import anyio
import msgspec
import pytest

from payout_engine.domain import clock
from payout_engine.domain.countries import COUNTRIES
from payout_engine.domain.errors import AmbiguousError, NotSentError, ProviderError, RefusedError
from payout_engine.domain.limits import QUERIES_BATCH
from payout_engine.domain.model import Direction, Dispatch, Lane, LookUpResult, Payout, Query, Receipt
from payout_engine.domain.money import DECIMALS
from payout_engine.domain.states import State
from payout_engine.intake.route import amounts_of
from payout_engine.ports.provider import LookUpKind, Provider, Traits, Wallet
from payout_engine.ports.registration import Account, Face, Registration, SandboxServer
from payout_engine.providers._sandbox import Fault, FaultKind
from payout_engine.testing.provider_relay import Relay, relaying
from payout_engine.testing.suite import Suite

PLENTY = 10**9
"""What each wallet of the sandbox holds, in whole units: no test exhausts it by accident."""

UNLIMITED_CALLS_PER_SECOND = 100_000
"""For tests that are not about the rate."""

TIMEOUT_SECONDS = 10.0
SETTLING_SECONDS_MAX = 3.0
"""How long a sandbox that settles at once may take until a look-up shows it."""

ACCOUNT = "suite"

Said = Sequence[Receipt] | ProviderError
"""What an adapter made of a dispatch: receipts, or one of the three errors."""


class ProviderTests(Suite):
    """The base of the provider suite's parts: what they ask of whoever runs them."""

    direction = Direction.PAY
    """Which face is tested. A provider with both has a subclass for each."""

    @pytest.fixture
    def payer(self, registration: Registration) -> Side:
        """Return the face that is tested."""
        return Side(registration, self.direction)


class Side(msgspec.Struct, frozen=True):
    """One face of a provider, with the options that its sandbox accepts."""

    registration: Registration
    direction: Direction

    @property
    def title(self) -> str:
        """The provider's name for people."""
        return self.registration.title

    @property
    def face(self) -> Face:
        """What the provider does in this direction."""
        return self.registration.face(self.direction)

    @property
    def traits(self) -> Traits:
        """What the engine does differently for its sandbox's account."""
        return self.face.traits(self.registration.sandbox_options)

    @property
    def wallets(self) -> Sequence[Wallet]:
        """Where its sandbox's account can pay to."""
        return self.face.wallets(self.registration.sandbox_options)


class Scene(msgspec.Struct, frozen=True):
    """An adapter and the other side.

    Attributes:
        provider: speaks to the sandbox itself.
        relayed: another connection of the same account, through the relay.
    """

    side: Side
    server: SandboxServer
    relay: Relay
    provider: Provider
    relayed: Provider

    @property
    def wallet(self) -> Wallet:
        """The provider's first wallet."""
        return self.side.wallets[0]

    def dispatch(self, count: int = 0, *, wallet: Wallet | None = None, first: int = 0, ending: str = "") -> Dispatch:
        """Return a dispatch of `count` payouts (0: three, or as many as one call takes). See `dispatch`."""
        count = count or min(3, self.provider.traits.batch_limit)
        return dispatch(wallet or self.wallet, self.server.fates, count, first=first, ending=ending)

    def strike(self, kind: FaultKind, *, at: str = "", seconds: float = 0.0, status: int = 502) -> None:
        """Let the next paying call go wrong, or the next call to another endpoint."""
        self.server.faults.add(Fault(kind, at or self.server.paying_endpoint, seconds, status))

    @property
    def paying_calls(self) -> int:
        """How many paying calls the sandbox has had."""
        return self.server.calls.get(self.server.paying_endpoint, 0)


def account(side: Side, base_url: str | None, **changes: Any) -> Account:
    """Return an account that the provider's sandbox accepts, with changes."""
    made = Account(
        name=ACCOUNT,
        secrets=side.registration.sandbox_secrets,
        options=side.registration.sandbox_options,
        base_url=base_url,
        timeout_seconds=TIMEOUT_SECONDS,
        loopback_only=True,
    )
    return msgspec.structs.replace(made, **changes)


@asynccontextmanager
async def connected(side: Side, base_url: str | None, **changes: Any) -> AsyncIterator[Provider]:
    """Connect an account, with changes, until the block ends."""
    provider = side.face.connect(account(side, base_url, **changes))
    try:
        yield provider
    finally:
        await provider.aclose()


@asynccontextmanager
async def playing(side: Side, *, changes: Mapping[str, Any] = {}, **options: Any) -> AsyncIterator[Scene]:
    """Start the provider's sandbox, rich and quick to settle, and connect to it.

    Args:
        side: whose.
        changes: to the account that connects.
        options: for the sandbox.
    """
    balances = dict.fromkeys([wallet.code for wallet in side.wallets], PLENTY)
    settled = {"balances": balances, "settle_seconds": 0.0, "calls_per_second": UNLIMITED_CALLS_PER_SECOND, **options}
    async with (
        side.registration.sandbox(None, **settled) as server,
        relaying(server) as relay,
        connected(side, server.base_url, **changes) as provider,
        connected(side, relay.base_url, **changes) as relayed,
    ):
        yield Scene(side, server, relay, provider, relayed)


def skip_unless_played(scene: Scene, kind: str) -> None:
    """Skip a test of something that this provider does not know, such as tokens that expire."""
    if kind not in scene.server.own_faults:
        pytest.skip(f"the sandbox of {scene.side.title} does not play the fault {kind!r}")


def skip_unless_asked(scene: Scene) -> None:
    """Skip a test of looking up, for a provider that cannot be asked."""
    if scene.provider.traits.look_up is LookUpKind.NONE:
        pytest.skip(f"{scene.side.title} cannot be asked what became of a payout")


# ------------------------------------------------------------------------------------------------------------ payouts


def dispatch(wallet: Wallet, fates: Mapping[str, str], count: int, *, first: int, ending: str) -> Dispatch:
    """Return a dispatch to distinct recipients of a wallet, with distinct amounts.

    Args:
        wallet: where the money goes.
        fates: the sandbox's special endings, which no recipient has by accident.
        count: how many payouts.
        first: the number of the first; other numbers are other recipients and other keys.
        ending: what the recipient ends with, for one payout with a fate of its own.
    """
    found = list(islice(_recipients(wallet, fates, first, ending), count))
    assert len(found) == count, f"the wallet {wallet.code} has no {count} recipients that the suite could think of"
    payouts = [
        msgspec.structs.replace(
            payee,
            reference=f"SAL-{first + place:05d}",
            amount_minor=amount_minor(wallet, first + place),
            currency=wallet.currency,
            country=wallet.country,
            wallet=wallet.code,
            name=f"Payee {first + place}",
            line=first + place + 1,
            **{need: _FILLED[need] for need in wallet.needs if need != "name"},
        )
        for place, payee in enumerate(found)
    ]
    # As the journal makes them: a token of the run, the chunk and the place in it.
    keys = [f"conformance0-{first + 1}-{place}" for place in range(count)]
    return Dispatch(1, 1, Lane(ACCOUNT, wallet.code, wallet.currency), list(range(count)), payouts, keys)


_FILLED = {
    "email": "payee@example.com",
    "bank": "ABNGNGLA",
    "document_type": "passport",
    "document_number": "A1234567",
    "otp": "123456",
}
"""What a payout of the suite holds where a wallet wants it."""


def amount_minor(wallet: Wallet, number: int) -> int:
    """Return an amount that the wallet takes; another number gives another one while there is room."""
    amounts = amounts_of(wallet)
    wanted: int = max(amounts.start, 500 * 10 ** DECIMALS[wallet.currency]) + number % 1_000 * amounts.step
    least = amounts.start or amounts.step
    return max(least, min(wanted // amounts.step * amounts.step, amounts[-1]))


def _recipients(wallet: Wallet, fates: Mapping[str, str], first: int, ending: str) -> Iterator[Payout]:
    """Payouts to nobody but their recipients."""
    if wallet.recipient == "phone":
        dial_code = COUNTRIES[wallet.country].dial_code
        for national in _numbers(wallet, fates, first, ending):
            yield Payout("", 0, phone=dial_code + national)
    elif wallet.recipient == "email":
        for number in range(first, first + 1_000):
            yield Payout("", 0, email=f"payee{100_000 + number}{ending}@example.com")
    else:
        for number in range(first, first + 1_000):
            yield Payout("", 0, account_number=f"{1_000_000_000 + number}{ending}")


def _numbers(wallet: Wallet, fates: Mapping[str, str], first: int, ending: str) -> Iterator[str]:
    """National mobile numbers that the wallet serves, in the shape its country has."""
    country = COUNTRIES[wallet.country]
    given = [prefix for name in wallet.operators or country.operators for prefix in country.operators.get(name, ())]
    # Of a short prefix only some numbers may be in use.
    given += [prefix + more for prefix in given for more in map(str, range(10))]
    for prefix in wallet.prefixes or given or [country.example[:3]]:
        for length in country.lengths:
            room = length - len(prefix) - len(ending)
            # Counting from one and zeros keeps clear of special endings, which are small numbers.
            for number in range(first, first + 1_000 if room >= 4 else first + 1):
                filler = f"{10 ** (room - 1) + number}"[:room] if room > 0 else ""
                national = prefix + filler + ending
                special = not ending and national.endswith(tuple(fates))
                if len(national) == length and country.is_mobile(national) and not special:
                    yield national


# ---------------------------------------------------------------------------------------------------- what was said


async def attempt(provider: Provider, sent: Dispatch) -> Said:
    """Send a dispatch once, and return what the adapter says of it; an error no contract lists comes through."""
    try:
        receipts = await provider.send(sent)
    except (NotSentError, RefusedError, AmbiguousError) as error:
        return error
    assert len(receipts) == len(sent.payouts)
    return receipts


def states(sent: Dispatch, said: Said) -> dict[str, State]:
    """Return what the engine would record of each payout, by key."""
    if isinstance(said, ProviderError):
        return dict.fromkeys(sent.keys, _state_of(said))
    return {key: receipt.state for key, receipt in zip(sent.keys, said, strict=True)}


def _state_of(error: ProviderError) -> State:
    if isinstance(error, NotSentError):
        return State.READY
    if isinstance(error, RefusedError):
        return State.FAILED if error.final else State.READY
    return State.UNKNOWN


def contradictions(claimed: Mapping[str, State], server: SandboxServer) -> list[str]:
    """Return where what an adapter claims and what the ledger holds cannot both be true."""
    paid = server.paid()
    found = [f"{key} was paid {count} times" for key, (count, _) in paid.items() if count > 1]
    for key, state in claimed.items():
        moved = key in paid
        if moved and state in (State.READY, State.FAILED):
            found.append(f"{key} is said to be {state}, and was paid")
        if not moved and state in (State.PAID, State.REVERSED):
            found.append(f"{key} is said to be {state}, and was not paid")
    return found


def is_doubt(said: Said) -> bool:
    """Return whether nothing was claimed: the call is ambiguous, or each of its payouts is."""
    if isinstance(said, ProviderError):
        return isinstance(said, AmbiguousError)
    return {receipt.state for receipt in said} <= {State.UNKNOWN, State.ACCEPTED}


async def ask(provider: Provider, sent: Dispatch, said: Said = ()) -> dict[str, LookUpResult]:
    """Look a dispatch up, and return what is shown of its keys.

    Raises:
        ProviderError: as `look_up`; nothing else.
    """
    receipts = [] if isinstance(said, ProviderError) else said
    references = {key: receipt.provider_reference for key, receipt in zip(sent.keys, receipts, strict=False)}
    queries = [
        Query(key, references.get(key, ""), State.UNKNOWN, clock.moment(), payout)
        for key, payout in zip(sent.keys, sent.payouts, strict=True)
    ]
    found: dict[str, LookUpResult] = {}
    for start in range(0, len(queries), QUERIES_BATCH):
        async for batch in provider.look_up(queries[start : start + QUERIES_BATCH]):
            found |= {seen.key: seen for seen in batch if seen.key in sent.keys}
    return found


async def ask_until_paid(
    provider: Provider, sent: Dispatch, said: Said, keys: Sequence[str]
) -> dict[str, LookUpResult]:
    """Look a dispatch up until these keys are shown as paid, and return what was shown at last."""
    found: dict[str, LookUpResult] = {}
    if provider.traits.look_up is LookUpKind.NONE:
        return found
    with anyio.move_on_after(SETTLING_SECONDS_MAX):
        while True:
            found = await ask(provider, sent, said)
            if all(key in found and found[key].receipt.state is State.PAID for key in keys):
                break
            await anyio.sleep(0.02)
    return found


def known_by(provider: Provider, said: Said) -> Said:
    """Return what a look-up is told of a payment: nothing, unless only the provider's own reference finds it again."""
    return said if provider.traits.look_up is LookUpKind.REFERENCE else ()


def findable(provider: Provider, sent: Dispatch, said: Said) -> Sequence[str]:
    """Return the keys that a look-up can find: all, or those whose reference the provider has told."""
    match provider.traits.look_up:
        case LookUpKind.NONE:
            return ()
        case LookUpKind.REFERENCE:
            receipts = [] if isinstance(said, ProviderError) else said
            return [key for key, receipt in zip(sent.keys, receipts, strict=False) if receipt.provider_reference]
    return sent.keys


def agrees(seen: LookUpResult, payout: Payout) -> bool:
    """Return whether a look-up result is of this payout, by the rule of `model.Look-up result`."""
    if seen.amount_minor not in (None, payout.amount_minor):
        return False
    if seen.recipient is None:
        return True
    stated, ours = seen.recipient.casefold(), payout.recipient.casefold()
    return bool(stated) and (ours.endswith(stated) or stated.endswith(ours))
