"""The real Senfenico adapter and `_http`, in virtual time: the ledger of a simulated bank bears out what they claim."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping

import aiohttp
import anyio
import anyio.abc
import msgspec
import pytest
from simulation import virtual_time
from simulation.bank import HIDDEN_SECONDS_MAX, LATE_SECONDS_MAX, SETTLING_SECONDS_MAX, TIMEOUT_SECONDS, Bank, Fault
from simulation.crashing import Fuse
from simulation.processes import WatchedProvider
from simulation.wire_bank import CONNECTED, NEVER_CONNECTED, WORDLESS, WiredProvider, wire_traits, wired
from simulation.witness import Witness

from payout_engine.domain.clock import Moment
from payout_engine.domain.errors import ProviderError
from payout_engine.domain.model import Dispatch, Lane, LookUpResult, Payout, Query
from payout_engine.domain.states import State
from payout_engine.ports.provider import HasBalances, KeyPromise, LookUpKind, Provider, Traits
from payout_engine.providers._http import MEANINGS
from payout_engine.testing.provider_scene import agrees, attempt, states

SEEDS = 500
CALM_SECONDS = LATE_SECONDS_MAX + HIDDEN_SECONDS_MAX + SETTLING_SECONDS_MAX + TIMEOUT_SECONDS
TRAITS = Traits(
    batch_limit=5,
    calls_per_second=None,
    concurrency=4,
    key_promise=KeyPromise.NONE,
    key_lifetime_seconds=None,
    look_up=LookUpKind.SWEEP,
    absence_final_seconds=None,
)


class World:
    """One seed's bank, what was sent to it, and what the adapter claimed."""

    def __init__(self, seed: int, happened: Counter[str]) -> None:
        self.wrong: list[str] = []
        self._chance = random.Random(f"wire bank {seed}")
        share = self._chance.choice([0.2, 0.4, 0.8])
        self._faults = {
            fault: self._chance.choice([0.05, 0.2, 0.5])
            for fault in Fault
            if fault not in WORDLESS and self._chance.random() < share
        }
        self._happened = happened
        self._sent: dict[str, Payout] = {}
        self._seen: dict[str, set[State]] = {}

    async def run(self) -> list[str]:
        """Send and look up at once for a while, then in peace; return what was claimed wrongly."""
        traits = wire_traits(msgspec.structs.replace(TRAITS, batch_limit=self._chance.choice([1, 3, 5])))
        async with anyio.create_task_group() as tasks:
            bank = self._bank = Bank(self._chance, traits, self._faults, tasks, lambda text: None)
            bank.balances_minor |= {"orange_bf": self._chance.choice([5_000, 500_000]), "moov_bf": 500_000}
            self._provider: Provider = wired(bank, happened=self._happened)
            async with anyio.create_task_group() as both:
                for number in range(16):
                    both.start_soon(self._send, number)
                both.start_soon(self._look_up_often)
            bank.calm()
            await anyio.sleep(CALM_SECONDS)
            await self._look_up(of_all=True)
            self._compare()
            assert isinstance(self._provider, HasBalances)
            held = {balance.lane_name: balance.available_minor for balance in await self._provider.balances()}
            assert held == {"sank_bf": 0, **bank.balances_minor}
            tasks.cancel_scope.cancel()
        return self.wrong

    async def _send(self, number: int) -> None:
        await anyio.sleep(self._chance.uniform(0.0, 10.0))
        wallet, start = self._chance.choice([("orange_bf", "76"), ("moov_bf", "70")])
        count = self._chance.randint(1, self._provider.traits.batch_limit)
        payouts = [
            Payout(f"r{n}", 1_000 + 10 * number + n, "XOF", f"226{start}{number:03d}{n:03d}") for n in range(count)
        ]
        keys = [f"abcdefghijkl-{number}-{n}" for n in range(count)]
        sent = Dispatch(number, number, Lane("bf", wallet, "XOF"), range(count), payouts, keys)
        self._sent |= dict(zip(keys, payouts, strict=True))
        # A sender that is cut off has claimed nothing.
        with anyio.move_on_after(self._chance.choice([None, None, None, 0.1, 2.0])):
            for key, state in states(sent, await attempt(self._provider, sent)).items():
                self._note(key, state)

    async def _look_up_often(self) -> None:
        for _ in range(6):
            await anyio.sleep(self._chance.uniform(0.0, 6.0))
            await self._look_up()

    async def _look_up(self, *, of_all: bool = False) -> None:
        """Ask, and compare; a look-up that came to its end has shown all that was visible when it began."""
        queries = self._queries(of_all=of_all)
        began_at = anyio.current_time()
        shown: set[str] = set()
        try:
            async for batch in self._provider.look_up(queries):
                for seen in batch:
                    shown.add(seen.key)
                    self._saw(seen)
        except ProviderError:
            return
        asked = {query.key for query in queries} if self._few(queries) else set(self._sent)
        visible = {transfer.key for transfer in self._bank.transfers if transfer.visible_at <= began_at}
        if (visible & asked) - shown:
            self.wrong.append(f"{sorted((visible & asked) - shown)} are visible, and a look-up that ended lacks them")

    def _queries(self, *, of_all: bool) -> list[Query]:
        """Ask by reference now and then, as the engine does once all of a few are known."""
        known = {transfer.key: transfer.number for transfer in self._bank.transfers}
        few = not of_all and self._chance.random() < 0.3
        some = [key for key in self._sent if key in known][:3] if few else list(self._sent)
        return [Query(key, known.get(key, ""), State.ACCEPTED, Moment(0.0, "", 0.0), self._sent[key]) for key in some]

    def _few(self, queries: list[Query]) -> bool:
        return 0 < len(queries) <= 20 and all(query.provider_reference for query in queries)

    def _saw(self, seen: LookUpResult) -> None:
        if seen.key not in self._sent:
            return
        if not agrees(seen, self._sent[seen.key]) or seen.conflict:
            self.wrong.append(f"{seen.key} is not shown as it was sent")
        self._note(seen.key, seen.receipt.state)

    def _note(self, key: str, state: State) -> None:
        self._seen.setdefault(key, set()).add(state)

    def _compare(self) -> None:
        """Compare every claim that was ever made with what became of the money."""
        taken = Counter(transfer.key for transfer in self._bank.transfers)
        pays = {transfer.key: transfer.pays for transfer in self._bank.transfers}
        self.wrong += [f"{key} reached the bank {count} times" for key, count in taken.items() if count > 1]
        for key, claims in self._seen.items():
            if State.READY in claims and key in taken:
                self.wrong.append(f"{key} is said to be ready, and the bank took it")
            if State.FAILED in claims and pays.get(key):
                self.wrong.append(f"{key} is said to have failed, and is paid")
            if State.PAID in claims and not pays.get(key):
                self.wrong.append(f"{key} is said to be paid, and is not")
        for key, paid in pays.items():
            if (State.PAID if paid else State.FAILED) not in self._seen.get(key, ()):
                self.wrong.append(f"{key} has settled, and the last look-up does not say so")


def test_what_the_adapter_claims_is_what_the_bank_did() -> None:
    """Over many seeds, with all faults of bank and wire; and the seeds reach every exception of the table."""
    happened: Counter[str] = Counter()
    for seed in range(SEEDS):
        wrong = virtual_time.run(World(seed, happened).run())
        assert not wrong, (seed, wrong)

    assert {f"never connected: {kind.__name__}" for kind in NEVER_CONNECTED} <= set(happened)
    for when in ("before", "after"):
        missing = {kind.__name__ for kind in CONNECTED} - {what.removeprefix(f"{when}: ") for what in happened}
        assert not missing, f"nothing ever broke {when} the bank heard it with {sorted(missing)}"
    assert {"after: page of a proxy", "after: answer cut", "after: answer cut short", "silent: TimeoutError"} <= set(
        happened
    )
    answers = {what.partition(": ")[2] for what in happened if what.startswith("answered")}
    assert {"queued", "no funds", "too fast", "key refused", "401", "BATCH_SIZE_LIMIT_EXCEEDED"} <= answers
    assert sum(answer.startswith("strange") for answer in answers) >= 8
    assert {"blind: never", "blind: silent", "blind: page", "blind: nothing", "list: broke"} <= set(happened)


def test_the_moments_cover_the_table() -> None:
    """Each class that the table names has a moment here, and only one."""
    never, connected = ({kind.__name__ for kind in kinds} for kinds in (NEVER_CONNECTED, CONNECTED))

    assert not never & connected
    assert {name for name in MEANINGS if hasattr(aiohttp, name)} <= never | connected


def test_the_same_seed_gives_the_same_world() -> None:
    """A failure can be looked at again."""
    first, second = Counter[str](), Counter[str]()
    for happened in (first, second):
        virtual_time.run(World(7, happened).run())

    assert first == second and first


def test_a_test_key_hears_of_test_transfers_only() -> None:
    """The wire shows the mode of the key that asks, as far as the document lets one expect."""

    async def story() -> Mapping[str, LookUpResult]:
        async with anyio.create_task_group() as tasks:
            bank = Bank(random.Random(1), wire_traits(TRAITS), {}, tasks, lambda text: None)
            bank.balances_minor["orange_bf"] = 5_000
            provider = wired(bank, "sk_test_simulated")
            payout = Payout("r", 1_000, "XOF", "22676000000")
            await provider.send(Dispatch(1, 1, Lane("bf", "orange_bf", "XOF"), [0], [payout], ["abcdefghijkl-1-0"]))
            found = {seen.key: seen async for batch in provider.look_up([]) for seen in batch}
            tasks.cancel_scope.cancel()
        return found

    (seen,) = virtual_time.run(story()).values()
    assert not seen.conflict


def test_the_watched_one_is_made_as_simulations_make_theirs() -> None:
    """Where a simulated provider stands, the wired one can; the witness sees its calls."""
    told: list[str] = []
    violated: list[str] = []

    async def story() -> None:
        async with anyio.create_task_group() as tasks:
            bank = Bank(random.Random(2), wire_traits(TRAITS), {}, tasks, told.append)
            bank.balances_minor["orange_bf"] = 5_000
            witness = Witness(told.append, violated.append)
            provider: Provider
            for kind in (WatchedProvider, WiredProvider):
                provider = kind("bf", bank, witness, "", Fuse())
                payout = Payout("r", 1_000, "XOF", "22676000000", line=7)
                keys = [f"abcdefghijkl-1-{len(told)}"]
                await provider.send(Dispatch(1, 1, Lane("bf", "orange_bf", "XOF"), [0], [payout], keys))
                async for _ in provider.look_up([]):
                    pass
                await provider.aclose()
            tasks.cancel_scope.cancel()

    virtual_time.run(story())
    assert sum(text == "send lines 7" for text in told) == 2
    assert len(violated) == 2 and all("without an intent" in text for text in violated)


@pytest.mark.parametrize("batch_limit", [1, 100])
def test_the_traits_of_a_wire_are_senfenicos(batch_limit: int) -> None:
    """Only its limits may be drawn."""
    traits = wire_traits(msgspec.structs.replace(TRAITS, batch_limit=batch_limit, key_promise=KeyPromise.IDEMPOTENT))

    assert (traits.batch_limit, traits.key_promise, traits.look_up) == (batch_limit, KeyPromise.NONE, LookUpKind.SWEEP)
