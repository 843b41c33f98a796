"""A bank that holds the truth, the network to it, and a `Provider` over both, for simulations.

Whatever the engine believes, `Bank.transfers` is what became of the money. Requests travel by themselves: one that is
on the wire when its sender dies, is cancelled or loses patience may be carried out all the same, much later. The bank
is slow to show what it took in, shows it out of order and more than once, runs out of funds, answers in words nobody
documented. But it does not lie about final matters: what it calls failed is never paid, and where its `Traits` say when
an absence is final, or how long a key pays once, it keeps to that, and not a moment longer. `simulation.py` calls it,
and tests that plant faults in the engine.
"""

from __future__ import annotations

import math
import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from enum import StrEnum
from functools import partial
from typing import Any, TypeVar

import anyio
import anyio.abc
import msgspec

from payout_engine.domain.errors import AmbiguousError, Brake, NotSentError, ProviderError, RefusedError
from payout_engine.domain.model import Balance, Dispatch, LookUpResult, Payout, Query, Receipt
from payout_engine.domain.states import State
from payout_engine.ports.provider import KeyPromise, LookUpKind, Traits, Wallet

TIMEOUT_SECONDS = 5.0
"""How long the provider waits for an answer."""

TRAVEL_SECONDS = (0.02, 0.04)
"""How long a request takes to the bank's door, at least and at most."""

LATE_SECONDS_MAX = 12.0
"""How long a request may lie at the bank before it is carried out."""

HIDDEN_SECONDS_MAX = 6.0
"""How long the bank may not show what it has taken in."""

SETTLING_SECONDS_MAX = 15.0
"""How long until an accepted transfer is paid or has failed."""

ABSENCE_FINAL_SECONDS = TIMEOUT_SECONDS + LATE_SECONDS_MAX + HIDDEN_SECONDS_MAX + 2.0
"""After this, what the bank does not show was never received: a true statement about this bank."""


FETCHED_MAX = 4
"""Up to this many payouts whose references are known are looked up alone; beyond, the whole list is."""


STARTED_AT = 1_800_000_000.0
"""When the simulated world begins, in seconds since 1970."""


class Fault(StrEnum):
    """What may go wrong. Each simulation draws which of them happen, and how often."""

    NOT_HEARD = "not heard"  # no connection: the bank provably hears nothing
    LOST = "lost on the way"  # the connection breaks before the request was read
    UNANSWERED = "answer lost"  # it breaks after the request was carried out
    SILENT = "silent"  # nothing breaks, and nothing comes back
    LATE = "late"  # carried out after the client has given up
    STUBBORN = "stubborn"  # carried out although its sender is gone
    TOO_FAST = "too fast"  # refused for the rate, rightly or not
    REFUSED = "refused"  # the whole call refused, for good
    BUSY = "busy"  # one payout refused before processing, for a reason that passes
    LOCKED = "locked"  # the key is not accepted for a while
    WORDS = "words"  # status words that nobody documented
    ADAPTER = "adapter"  # the provider breaks its contract: another exception, or a wrong count
    DECLINED = "declined"  # the transfer fails, at once or later
    REVERSED = "reversed"  # paid, and taken back later
    HIDDEN = "hidden"  # visible only some time after it was taken in
    BLIND = "blind"  # a look-up fails, at its beginning or in the middle
    STALE = "stale"  # a look-up shows what was true some seconds ago
    REPEATED = "repeated"  # a look-up shows things more than once
    FOREIGN = "foreign"  # a look-up shows transfers of others


class Transfer(msgspec.Struct):
    """A payment that the bank took in: the truth."""

    number: str
    key: str
    payout: Payout
    pays: bool
    taken_at: float
    visible_at: float
    settles_at: float
    reversed_at: float | None = None
    odd_word: bool = False

    def state_at(self, at: float) -> State:
        """Return what the bank says of it at a time."""
        if at < self.settles_at:
            return State.ACCEPTED
        if self.reversed_at is not None and at >= self.reversed_at:
            return State.REVERSED
        return State.PAID if self.pays else State.FAILED


class BrokenError(Exception):
    """No answer came back whole.

    Attributes:
        fault: `NOT_HEARD` and `LOST` before the bank heard the request, `UNANSWERED` after; `SILENT`: nobody can say.
        answer: of an answer that was lost, what it would have been.
    """

    def __init__(self, fault: Fault, answer: Any = None) -> None:
        super().__init__(str(fault))
        self.fault = fault
        self.answer = answer


class _Request(msgspec.Struct):
    """One call on its way: what it is called in the trace, and what the bank does once it hears it."""

    told: str
    execute: Callable[[], Any]
    answered: anyio.Event
    answer: Any = None
    hung_up: bool = False


Option = TypeVar("Option")


class Bank:
    """One account's bank.

    Attributes:
        transfers: everything it ever took in.
        arrivals: when each paying call came to its door.
        balances_minor: what each lane's balance holds.
        page_seconds_max: how long the bank may take to show the next part of a look-up.
        contradicts: True when a look-up may show as under way what an earlier one showed as failed.
        odd_words: True when it may show anything in words that nobody documented.
        hides: True when it may show what it took in only some time later.
        wallets: by lane name, where it pays to; a lane that is not among them has a balance of its own, in XOF.
    """

    def __init__(
        self,
        chance: random.Random,
        traits: Traits,
        faults: Mapping[Fault, float],
        tasks: anyio.abc.TaskGroup,
        notify: Callable[[str], None],
    ) -> None:
        """Open a bank.

        Args:
            chance: where every decision comes from.
            traits: what it promises, truthfully.
            faults: how likely each is; those that are not named do not happen.
            tasks: outlives the lives of the engine; requests travel in it.
            tell: told of what happens.
        """
        self.traits = traits
        self.transfers: list[Transfer] = []
        self.arrivals: list[float] = []
        self.balances_minor: dict[str, int] = {}
        self.wallets: Mapping[str, Wallet] = {}
        self.contradicts = Fault.STALE in faults
        self.odd_words = Fault.WORDS in faults
        self.hides = Fault.HIDDEN in faults
        self._refuses_whole_calls = chance.random() < 0.5
        self.page_seconds_max = chance.choice([0.1, 1.0, 20.0])
        self._names_transfers = chance.random() < 0.5 or traits.look_up is LookUpKind.REFERENCE
        self._settles_at_once = chance.random() < 0.3
        self._chance = chance
        self._faults = dict(faults)
        self._tasks = tasks
        self._notify = notify
        self._locked_until = 0.0

    def calm(self) -> None:
        """Have no more faults."""
        self._faults.clear()

    def happens(self, fault: Fault) -> bool:
        """Draw whether a fault happens now."""
        likely = self._faults.get(fault, 0.0)
        return likely > 0.0 and self._chance.random() < likely

    def between(self, least: float, most: float) -> float:
        """Draw a number."""
        return self._chance.uniform(least, most)

    def choice(self, options: Sequence[Option]) -> Option:
        """Draw one of several."""
        return self._chance.choice(options)

    def shuffled(self, results: Sequence[LookUpResult]) -> list[LookUpResult]:
        """Return look-up results out of order, some of them twice."""
        again = [result for result in results if self.happens(Fault.REPEATED)]
        mixed = [*results, *again]
        self._chance.shuffle(mixed)
        return mixed

    # ------------------------------------------------------------------------------------------------- the paying call

    async def speak(self, dispatch: Dispatch) -> Sequence[Receipt]:
        """Carry a request to the bank and its answer back, or not. Raises what `Provider.send` may raise."""
        try:
            answer: Sequence[Receipt] | ProviderError = await self.carry(
                _told(dispatch), partial(self._execute, dispatch)
            )
        except BrokenError as broken:
            kind, reason, text = _MEANINGS[broken.fault]
            raise kind(reason, text) from None
        if isinstance(answer, ProviderError):
            raise answer
        return answer

    async def carry(self, told: str, execute: Callable[[], Any]) -> Any:
        """Carry a request to the bank, which then executes it, and the answer back.

        Args:
            told: what to call the request in the trace.
            execute: what the bank does when it hears it; returns the answer.

        Raises:
            BrokenError: no answer came back, whatever became of the request.
        """
        if self.happens(Fault.NOT_HEARD):
            await anyio.sleep(self.between(0.0, 0.1))
            raise BrokenError(Fault.NOT_HEARD)
        if self.happens(Fault.LOST):
            await anyio.sleep(self.between(0.05, TIMEOUT_SECONDS))
            raise BrokenError(Fault.LOST)
        request = _Request(told, execute, anyio.Event())
        stubborn = self.happens(Fault.STUBBORN)
        self._tasks.start_soon(self._journey, request, stubborn, self._thinking_seconds(), self._answer_goes())
        try:
            with anyio.move_on_after(TIMEOUT_SECONDS):
                await request.answered.wait()
        finally:
            request.hung_up = True
        if request.answer is None:
            raise BrokenError(Fault.SILENT)
        if isinstance(request.answer, BrokenError):
            raise request.answer
        return request.answer

    def _thinking_seconds(self) -> float:
        if self.happens(Fault.LATE):
            return self.between(TIMEOUT_SECONDS / 2, LATE_SECONDS_MAX)
        return self.between(0.01, 0.3)

    def _answer_goes(self) -> Fault | None:
        """Draw what becomes of the answer: None when it comes back."""
        return next((fault for fault in (Fault.UNANSWERED, Fault.SILENT) if self.happens(fault)), None)

    async def _journey(self, request: _Request, stubborn: bool, thinking_seconds: float, lost: Fault | None) -> None:
        """One request's way, whatever its sender does."""
        await anyio.sleep(self.between(*TRAVEL_SECONDS))
        if request.hung_up and not stubborn:
            self._notify(f"the wire loses {request.told}")
            return
        self.arrivals.append(anyio.current_time())
        await anyio.sleep(thinking_seconds)
        answer = request.execute()
        late = " after its sender had gone" if request.hung_up else ""
        self._notify(f"the bank answers {request.told}{late}: {_words(answer)}{f' ({lost})' if lost else ''}")
        if lost is Fault.SILENT:
            return
        await anyio.sleep(self.between(0.01, 0.05))
        request.answer = BrokenError(lost, answer) if lost else answer
        request.answered.set()

    def _execute(self, dispatch: Dispatch) -> Sequence[Receipt] | ProviderError:
        """Do what is asked, or refuse it before anything was done."""
        refusal = self.refusal(dispatch)
        if refusal is not None:
            return refusal
        pairs = zip(dispatch.keys, dispatch.payouts, strict=True)
        receipts = [self.take(key, payout, dispatch.lane.name) for key, payout in pairs]
        if self.happens(Fault.ADAPTER):
            return receipts[1:]
        return receipts

    def refusal(self, dispatch: Dispatch) -> ProviderError | None:
        """Return why the whole call is refused, if it is. Nothing of it is processed then."""
        at = anyio.current_time()
        if self.happens(Fault.LOCKED):
            self._locked_until = at + self.between(0.5, 10.0)
        if at < self._locked_until:
            return RefusedError("unauthorized", "The key is not accepted.", brake=Brake.CREDENTIALS)
        if self.happens(Fault.TOO_FAST):
            pause_seconds = self._chance.choice([None, 0.5, 3.0])
            return RefusedError("rate_limited", "Too many calls.", too_fast=True, retry_after_seconds=pause_seconds)
        if self.happens(Fault.REFUSED):
            final = self._chance.random() < 0.5
            return RefusedError("invalid_request", "The call is not understood.", brake=Brake.LIMIT, final=final)
        if self._refuses_whole_calls and dispatch.amount_minor > self.balances_minor.get(
            self._purse(dispatch.lane.name), 0
        ):
            return RefusedError("insufficient_funds", "The balance is too low.", brake=Brake.FUNDS)
        return None

    def take(self, key: str, payout: Payout, lane_name: str) -> Receipt:
        """Take in one payout, or refuse it before processing, and answer for it."""
        at = anyio.current_time()
        known = [transfer for transfer in self.transfers if transfer.key == key and self._remembers(transfer, at)]
        if known:
            return self._answer(known[0], at)
        if payout.amount_minor > self.balances_minor.get(self._purse(lane_name), 0):
            return Receipt(State.READY, "insufficient_funds", "The balance is too low.")
        if self.happens(Fault.BUSY):
            return Receipt(State.READY, "busy", "The recipient's wallet is busy.")
        self.balances_minor[self._purse(lane_name)] -= payout.amount_minor
        transfer = Transfer(
            number=f"T{len(self.transfers) + 1}",
            key=key,
            payout=payout,
            pays=not self.happens(Fault.DECLINED),
            taken_at=at,
            visible_at=at + (self.between(0.0, HIDDEN_SECONDS_MAX) if self.happens(Fault.HIDDEN) else 0.0),
            settles_at=at + (0.0 if self._settles_at_once else self.between(0.0, SETTLING_SECONDS_MAX)),
            odd_word=self.happens(Fault.WORDS),
        )
        if transfer.pays and self.happens(Fault.REVERSED):
            transfer.reversed_at = transfer.settles_at + self.between(0.0, SETTLING_SECONDS_MAX)
        self.transfers.append(transfer)
        return self._answer(transfer, at)

    def _purse(self, lane_name: str) -> str:
        """Return the name of the balance that a lane draws on."""
        return self.wallets[lane_name].balance_name if lane_name in self.wallets else lane_name

    def _remembers(self, transfer: Transfer, at: float) -> bool:
        """Whether the key of a transfer is known here, so that it pays only once."""
        if self.traits.key_promise is not KeyPromise.IDEMPOTENT:
            return False
        lifetime_seconds = self.traits.key_lifetime_seconds
        return lifetime_seconds is None or at < transfer.taken_at + lifetime_seconds

    def _answer(self, transfer: Transfer, at: float) -> Receipt:
        number = transfer.number if self._names_transfers else ""
        if transfer.odd_word:
            return Receipt(self._chance.choice([State.UNKNOWN, State.ACCEPTED]), "ody", "The word “ody”.", number)
        state = transfer.state_at(at)
        return Receipt(state, "declined" if state is State.FAILED else "", "", number)

    # ------------------------------------------------------------------------------------------------------- look-ups

    def shown(self, transfer: Transfer) -> LookUpResult | None:
        """Return how a look-up shows a transfer now, or None while it is hidden."""
        at = anyio.current_time()
        if at < transfer.visible_at:
            return None
        if self.happens(Fault.STALE):
            at = max(transfer.taken_at, at - self.between(0.0, 5.0))
        state = State.UNKNOWN if self.happens(Fault.WORDS) else transfer.state_at(at)
        reason = "ody" if state is State.UNKNOWN else ""
        return LookUpResult(
            transfer.key,
            Receipt(state, reason, "", transfer.number),
            transfer.payout.amount_minor,
            transfer.payout.phone[3:],
        )

    def blind(self) -> ProviderError | None:
        """Return why a look-up fails now, if it does."""
        if anyio.current_time() < self._locked_until:
            return RefusedError("unauthorized", "The key is not accepted.", brake=Brake.CREDENTIALS)
        if self.happens(Fault.BLIND):
            return AmbiguousError("timeout", "The look-up was not answered.")
        return None


class SimulatedProvider:
    """A `Provider` (and `HasBalances`) over a bank.

    Args:
        bank: the bank.
        sending: told of every dispatch before anything else happens to it.
    """

    def __init__(self, bank: Bank, sending: Callable[[Dispatch], None]) -> None:
        self.traits = bank.traits
        self._bank = bank
        self._sending = sending

    async def send(self, dispatch: Dispatch) -> Sequence[Receipt]:
        """Pay; see `ports.Provider.send`."""
        self._sending(dispatch)
        if len(dispatch.payouts) > self.traits.batch_limit:
            raise NotSentError("dispatch_too_large", "The call holds too many payouts.")
        if self._bank.happens(Fault.ADAPTER):
            await anyio.sleep(0.01)
            raise KeyError("a fault of the adapter")
        return await self._bank.speak(dispatch)

    def look_up(self, queries: Sequence[Query]) -> AsyncIterator[Sequence[LookUpResult]]:
        """Show what the bank shows; see `ports.Provider.look_up`."""
        return self._look_up(queries, -math.inf)

    def look_up_since(self, queries: Sequence[Query], since: float) -> AsyncIterator[Sequence[LookUpResult]]:
        """Show of a list only what it is asked for; see `ports.ListsBack`."""
        return self._look_up(queries, since)

    async def _look_up(self, queries: Sequence[Query], since: float) -> AsyncIterator[Sequence[LookUpResult]]:
        assert self.traits.look_up is not LookUpKind.NONE, "a provider that cannot be asked is not asked"
        await anyio.sleep(self._bank.between(0.05, 0.5))
        self._see_through()
        found = self._swept(since) if self._sweeps(queries) else self._asked(queries)
        results = self._bank.shuffled([*found, *self._absent(queries)])
        size = 1 + len(results) // 3
        for start in range(0, len(results), size):
            yield results[start : start + size]
            await anyio.sleep(self._bank.between(0.0, self._bank.page_seconds_max))
            self._see_through()

    def _sweeps(self, queries: Sequence[Query]) -> bool:
        """Whether a look-up shows everything: an adapter may fetch a few known transfers instead."""
        if self.traits.look_up is not LookUpKind.SWEEP:
            return False
        return not 0 < len(queries) <= FETCHED_MAX or not all(query.provider_reference for query in queries)

    async def balances(self) -> Sequence[Balance]:
        """Return what the bank's balances hold."""
        await anyio.sleep(self._bank.between(0.02, 0.1))
        self._see_through()
        currencies = {wallet.balance_name: wallet.currency for wallet in self._bank.wallets.values()}
        held = sorted(self._bank.balances_minor.items())
        return [Balance(name, amount_minor, 0, currencies.get(name, "XOF")) for name, amount_minor in held]

    async def aclose(self) -> None:
        """Nothing is open."""

    def _see_through(self) -> None:
        problem = self._bank.blind()
        if problem is not None:
            raise problem

    def _swept(self, since: float) -> list[LookUpResult]:
        """Return everything that is visible and was taken since then, ours and that of others."""
        lately = [transfer for transfer in self._bank.transfers if STARTED_AT + transfer.taken_at >= since]
        # Where nothing is as new as it should be, the dates are of another clock, and all is shown.
        found = [result for transfer in lately or self._bank.transfers if (result := self._bank.shown(transfer))]
        if self._bank.happens(Fault.FOREIGN):
            found += [
                LookUpResult("order-1", Receipt(State.PAID, provider_reference="F1"), 500, "70000000"),
                LookUpResult("zzzzzzzzzzzz-1-0", Receipt(State.FAILED, "declined", provider_reference="F2"), 500),
                LookUpResult("", Receipt(State.ACCEPTED)),
            ]
        return found

    def _asked(self, queries: Sequence[Query]) -> list[LookUpResult]:
        """Return what is visible of these payouts, by our key or by the bank's own number."""
        if self.traits.look_up is LookUpKind.REFERENCE:
            assert all(query.provider_reference for query in queries), "only what it gave a number can be asked about"
            numbers = {query.provider_reference for query in queries}
            transfers = [transfer for transfer in self._bank.transfers if transfer.number in numbers]
        else:
            keys = {query.key for query in queries}
            transfers = [transfer for transfer in self._bank.transfers if transfer.key in keys]
        return [result for transfer in transfers if (result := self._bank.shown(transfer))]

    def _absent(self, queries: Sequence[Query]) -> list[LookUpResult]:
        """Return which of these payouts the bank has provably never received."""
        final_seconds = self.traits.absence_final_seconds
        if final_seconds is None:
            return []
        at = anyio.current_time()
        visible = {transfer.key for transfer in self._bank.transfers if transfer.visible_at <= at}
        absent = Receipt(State.READY, "absent", "The provider never received it.")
        return [
            LookUpResult(query.key, absent)
            for query in queries
            if query.key not in visible and query.age_seconds >= final_seconds
        ]


def _told(dispatch: Dispatch) -> str:
    """Name a dispatch by the lines it holds: keys are random and would make two traces of one seed differ."""
    return f"lines {', '.join(str(payout.line) for payout in dispatch.payouts)} of chunk {dispatch.chunk_id & 0xFFFFFF}"


def _words(answer: object) -> str:
    """Tell an answer: an error, or one receipt for each payout, or the bytes of a wire."""
    if isinstance(answer, ProviderError):
        return f"{type(answer).__name__} {answer}"
    if not isinstance(answer, Sequence):
        return str(answer)
    return " ".join(f"{receipt.state}{f'({receipt.reason})' if receipt.reason else ''}" for receipt in answer)


_BROKEN = (AmbiguousError, "connection_reset", "The connection broke.")
_MEANINGS: Mapping[Fault, tuple[type[ProviderError], str, str]] = {
    Fault.NOT_HEARD: (NotSentError, "connect_failed", "The provider cannot be reached."),
    Fault.LOST: _BROKEN,
    Fault.UNANSWERED: _BROKEN,
    Fault.SILENT: (AmbiguousError, "timeout", "No answer came in time."),
}
"""What a client without a wire makes of a request that was not answered."""
