"""What a seed decides beforehand: the files, the banks' promises and their faults, and how each life goes and ends.

`simulation.py` draws one plan for each seed and lives it.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

import msgspec

from payout_engine.ports.provider import KeyPromise, LookUpKind, Traits
from simulation.bank import ABSENCE_FINAL_SECONDS, Fault
from simulation.crashing import Moment, Step
from simulation.people import Errand, Visit
from simulation.random_file import RandomFile, long_file, random_files, rival_files
from simulation.shelf import COPY, HOME, MOVED, OTHER, Deed
from simulation.wire_bank import WORDLESS, wire_traits

STEPS: Mapping[str, int] = {
    **dict.fromkeys(["begin", "add", "hold", "discard", "find_digest", "balances", "ready", "tally"], 1),
    **dict.fromkeys(["open_queries", "finish", "lease", "outcomes", "duplicates", "look_up"], 1),
    **dict.fromkeys(["seal", "approve", "recover", "reconcile", "intend_resend", "remember"], 5),
    "keep": 3,
    **dict.fromkeys(["intend", "send", "record"], 14),
}
"""Steps at which a life may end, and how often each is chosen."""

MOMENTS = tuple(Moment)

ERRANDS: Mapping[Errand, int] = {
    Errand.PAUSE: 3,
    Errand.RESUME: 2,
    Errand.CANCEL: 2,
    Errand.RETRY: 4,
    Errand.RESOLVE: 4,
}
"""What people come for, and how often."""

PEOPLES_STEPS = (
    "request",
    "request",
    "cancel",
    "cancel",
    "acknowledge",
    "note",
    "decide",
    "decide",
    "finish",
    "approve",
    "intend",
)
"""Steps at which a person's process may end."""


class Life(msgspec.Struct, frozen=True, kw_only=True):
    """How one life of the engine goes, and ends. Times are in seconds from its beginning; None means: not so.

    Attributes:
        step: it crashes at this step.
        crash_at: it crashes at this time, whatever it is doing.
        stop_at: a person asks it to stop.
        cut_off_at: a person insists.
        leave_at: its caller is cancelled, or stops listening, and closes the engine.
        disk_full_after: so many of SQLite's writes find room, and then the disk is full for `disk_full_seconds`.
        follow_for_seconds: how long it follows after the last send.
        listener_seconds: how long its caller takes for each outcome.
        validates_all_first: it validates all files before it pays any.
        backwards: it pays the last file first.
        resumes_all: it also goes on with runs whose file has begun a new one since.
        lifts: its command is `resume`: what a person paused, or a canary stopped, goes on.
        twin: another process that gives the same commands at the same time; its world is this one's.
        begins_at: of a twin, when it begins.
        tries: how often the commands are given when another process is in the way.
        try_again_seconds: how soon they are given again.
        waits: they wait for the other process instead.
        visits: people with errands, each from a process of their own.
        balance_share: what the balances are topped up to, as a share of all that is to be paid.
        clock_offset_seconds: how wrong the machine's clock is.
        restarted: the machine was started anew before it.
        journal: the name of the journal that the commands name.
        deeds: what somebody does to the journals before it.
        keep_at: when somebody copies the journal, while it is in use.
        says_lost: a person says that another journal, or a newer copy, is lost for good, where that does no harm.
        downtime_seconds: until the next life.
        calls_at: when the banks call back, about some of their transfers, and about what is none.
    """

    step: Step | None = None
    crash_at: float | None = None
    stop_at: float | None = None
    cut_off_at: float | None = None
    leave_at: float | None = None
    disk_full_after: int | None = None
    disk_full_seconds: float = 4.0
    follow_for_seconds: float = 600.0
    calls_at: Sequence[float] = ()
    listener_seconds: float = 0.0
    validates_all_first: bool = False
    backwards: bool = False
    resumes_all: bool = False
    lifts: bool = False
    twin: Life | None = None
    begins_at: float = 0.0
    tries: int = 1
    try_again_seconds: float = 2.0
    waits: bool = False
    visits: Sequence[Visit] = ()
    balance_share: float | None = None
    clock_offset_seconds: float = 0.0
    restarted: bool = False
    journal: str = HOME
    deeds: Sequence[Deed] = ()
    keep_at: float | None = None
    says_lost: bool = False
    downtime_seconds: float = 1.0


class Wallets(StrEnum):
    """What the two wallets of an account have in common."""

    OWN = "own"  # nothing: a balance each
    SHARED = "shared"  # one balance
    ABROAD = "abroad"  # nothing, not even the currency


class Plan(msgspec.Struct, kw_only=True):
    """Everything that a seed decides beforehand.

    Attributes:
        keys: by account, the key that it is used with; accounts with one key are one bank's.
        wallets: what their wallets have in common.
        wired: the real adapter speaks to the banks.
    """

    files: Sequence[RandomFile]
    keys: Mapping[str, str]
    wired: bool
    traits: Mapping[str, Traits]
    faults: Mapping[str, Mapping[Fault, float]]
    lives: Sequence[Life]
    commit_seconds: float
    patience_seconds: float
    canary: int | None
    max_failure_share: float
    wallets: Wallets = Wallets.OWN


def draw_plan(chance: random.Random, *, plain: bool = False) -> Plan:
    """Draw a world and its lives.

    Args:
        chance: decides.
        plain: draw a world with one journal, one key for each account, and no wire.
    """
    accounts = chance.choice([("bf",), ("bf",), ("orange", "moov")])
    traits = {account: _draw_traits(chance) for account in accounts}
    plan = Plan(
        files=random_files(chance),
        keys={account: f"simulated-{account}" for account in accounts},
        wired=False,
        traits=traits,
        faults={account: _draw_faults(chance) for account in accounts},
        lives=[_draw_company(chance) for _ in range(chance.choice([1, 2, 3, 4, 6, 8]))],
        commit_seconds=chance.choice([0.0, 0.01, 0.1, 0.4]),
        patience_seconds=chance.choice([5.0, 20.0, 90.0]),
        canary=chance.choice([None, None, None, 1, 3]),
        max_failure_share=chance.choice([0.05, 0.2, 1.0]),
        wallets=chance.choice([Wallets.OWN, Wallets.OWN, Wallets.SHARED, Wallets.ABROAD]),
    )
    special = chance.random()
    if special < 0.06:
        plan = _with_many_failures(plan, chance)
    elif special < 0.16:
        plan = with_rivals(plan, chance)
    elif special < 0.48 and not plain:
        plan = with_journals(_with_one_key(plan, chance), chance, chance.choice(list(Story)))
    elif special < 0.58 and not plain:
        plan = _with_one_key(plan, chance)
    return over_a_wire(plan) if chance.random() < 0.2 and not plain else plan


def called_back(chance: random.Random) -> Plan:
    """Draw a plain world whose banks call back: early, late, twice, and about payouts that are none of ours."""
    plan = draw_plan(chance, plain=True)
    lives = [
        msgspec.structs.replace(life, calls_at=sorted(chance.uniform(0.0, 60.0) for _ in range(chance.randint(1, 8))))
        for life in plan.lives
    ]
    return msgspec.structs.replace(plan, lives=lives)


def over_a_wire(plan: Plan) -> Plan:
    """Return a plan in which the banks are Senfenico."""
    return msgspec.structs.replace(
        plan,
        wired=True,
        wallets=Wallets.OWN,
        traits={account: wire_traits(drawn) for account, drawn in plan.traits.items()},
        faults={
            account: {fault: likely for fault, likely in faults.items() if fault not in WORDLESS}
            for account, faults in plan.faults.items()
        },
    )


def _with_one_key(plan: Plan, chance: random.Random) -> Plan:
    """Return a plan in which two accounts, if there are two and chance wills it, are two names of one."""
    if len(plan.traits) == 1 or chance.random() < 0.3:
        return plan
    traits, faults = next(iter(plan.traits.values())), next(iter(plan.faults.values()))
    return msgspec.structs.replace(
        plan,
        keys=dict.fromkeys(plan.keys, "simulated-both"),
        traits=dict.fromkeys(plan.traits, traits),
        faults=dict.fromkeys(plan.faults, faults),
    )


class Story(StrEnum):
    """What becomes of journals in a world that has several, or copies of one."""

    SECOND = "second"  # the same commands with another journal, and the same key
    COPIES = "copies"  # copies are put back, or used beside the original
    GONE = "gone"  # deleted or moved, and begun anew
    CARRIED = "carried"  # an older copy goes to a machine where nothing is remembered


_NAMES: Mapping[Story, Sequence[str]] = {
    Story.SECOND: (HOME, OTHER),
    Story.COPIES: (HOME, HOME, COPY),
    Story.GONE: (HOME, OTHER, MOVED),
    Story.CARRIED: (HOME,),
}
"""The journals that commands name in each story."""


def with_journals(plan: Plan, chance: random.Random, story: Story) -> Plan:
    """Return a plan in which a journal is not the only one, or not the newest."""
    says_lost, dry = chance.random() < 0.4, chance.random() < 0.5
    drawn = [*plan.lives, *(_draw_company(chance) for _ in range(3))][: max(3, min(4, len(plan.lives)))]
    lives: list[Life] = []
    for number, life in enumerate(drawn):
        changes = _draw_deeds(story, number, chance, dry=dry)
        if life.twin is not None:
            changes["twin"] = msgspec.structs.replace(life.twin, journal=chance.choice(_NAMES[story]))
        lives.append(msgspec.structs.replace(life, says_lost=says_lost, **changes))
    plan = msgspec.structs.replace(plan, lives=lives)
    return _that_shows_all(plan, chance) if story is Story.CARRIED or says_lost else plan


def _draw_deeds(story: Story, number: int, chance: random.Random, *, dry: bool) -> dict[str, Any]:
    """Draw what is done to the journals before a life, and which of them it names.

    Args:
        story: which.
        number: which life, counted from 0.
        chance: decides.
        dry: whether it is for want of money that the copy which is kept has something left to send.
    """
    changes: dict[str, Any] = {"journal": chance.choice(_NAMES[story]) if number else HOME}
    deeds: list[Deed] = []
    if story in (Story.COPIES, Story.CARRIED):
        if number == 0 and dry:
            # The money runs out, so that the copy has something left to send; which is sent then, and again by a copy.
            changes |= {"balance_share": chance.choice([0.2, 0.5]), "step": None, "crash_at": None, "twin": None}
        if number == 1 and dry:
            changes["balance_share"] = 1.0
            deeds.append(Deed.KEEP)
        if number > dry and chance.random() < 0.8:
            deeds.append(chance.choice([Deed.PUT_BACK, Deed.PUT_BACK, Deed.LAY_BESIDE]))
        if number > 1 and chance.random() < 0.3:
            deeds.append(Deed.KEEP)
        if (number == 0 and not dry) or chance.random() < 0.2:
            changes["keep_at"] = _moment(chance)
    if story is Story.CARRIED and number == 2:
        deeds = [Deed.PUT_BACK, Deed.LEAVE] if chance.random() < 0.8 else [Deed.LEAVE]
        changes["restarted"] = True
    if story is Story.GONE and number and chance.random() < 0.5:
        deeds.append(chance.choice([Deed.DELETE, Deed.MOVE]))
    if story is Story.SECOND and number == 0 and chance.random() < 0.4:
        # All is sent, and nothing is waited for.
        changes |= {"follow_for_seconds": 0.0, "balance_share": 1.0, "step": None, "crash_at": None, "visits": ()}
        changes["downtime_seconds"] = 0.5
    return {**changes, "deeds": deeds}


def _that_shows_all(plan: Plan, chance: random.Random) -> Plan:
    """Return a plan whose banks mostly can be asked and show everything at once: all that protects the forgetful."""
    if chance.random() < 0.2:
        return plan
    traits = {
        account: drawn
        if drawn.look_up in (LookUpKind.SWEEP, LookUpKind.EACH)
        else msgspec.structs.replace(drawn, look_up=LookUpKind.SWEEP)
        for account, drawn in plan.traits.items()
    }
    faults = {
        account: {fault: likely for fault, likely in drawn.items() if fault is not Fault.HIDDEN}
        for account, drawn in plan.faults.items()
    }
    # What left is carried out, or is lost, before the next life.
    lives = [msgspec.structs.replace(life, downtime_seconds=chance.choice([5.0, 20.0, 60.0])) for life in plan.lives]
    return msgspec.structs.replace(plan, traits=traits, faults=faults, lives=lives)


def _with_many_failures(plan: Plan, chance: random.Random) -> Plan:
    """Return a plan in which the brake that counts failures has something to count: it wants fifty in a lane."""
    faults = {account: {**faults, Fault.DECLINED: 0.5} for account, faults in plan.faults.items()}
    slowly = {
        account: msgspec.structs.replace(traits, batch_limit=3, calls_per_second=2.0)
        for account, traits in plan.traits.items()
    }
    return msgspec.structs.replace(
        plan,
        files=[long_file(chance)],
        traits=slowly,
        faults=faults,
        lives=[Life(), *plan.lives[1:]],
        canary=None,
        max_failure_share=0.2,
    )


def with_rivals(plan: Plan, chance: random.Random) -> Plan:
    """Return a plan in which two processes begin two files at once that nobody may pay both, from different accounts.

    No right keeps them apart: only the approval of one finds out about the other.
    """
    accounts = ("orange", "moov")
    first, second = (msgspec.structs.replace(_draw_life(chance), disk_full_after=None) for _ in accounts)
    return msgspec.structs.replace(
        plan,
        files=rival_files(chance),
        keys={account: f"simulated-{account}" for account in accounts},
        traits={account: _draw_traits(chance) for account in accounts},
        faults={account: _draw_faults(chance) for account in accounts},
        lives=[
            msgspec.structs.replace(first, twin=msgspec.structs.replace(second, backwards=True)),
            *plan.lives[1:],
        ],
        commit_seconds=chance.choice([0.01, 0.1, 0.4]),
    )


def _draw_traits(chance: random.Random) -> Traits:
    kinds = [LookUpKind.SWEEP, LookUpKind.EACH, LookUpKind.NONE, LookUpKind.REFERENCE]
    look_up = chance.choices(kinds, [5, 4, 2, 1])[0]
    shows_keys = look_up in (LookUpKind.SWEEP, LookUpKind.EACH)
    proves_absence = shows_keys and chance.random() < 0.5
    # A repetition finds most where nothing else does.
    pays_once = chance.random() < (0.4 if shows_keys else 0.7)
    key_promise = KeyPromise.IDEMPOTENT if pays_once else KeyPromise.NONE
    # More than twice the time that a call may lie at the bank.
    key_lifetime_seconds = chance.choice([None, None, 30.0, 60.0, 240.0])
    return Traits(
        batch_limit=chance.choice([1, 1, 2, 3, 5, 5, 10, 100]),
        calls_per_second=chance.choice([None, 0.5, 2.0, 5.0, 20.0]),
        concurrency=chance.choice([1, 2, 4, 8]),
        key_promise=key_promise,
        key_lifetime_seconds=key_lifetime_seconds if key_promise is KeyPromise.IDEMPOTENT else None,
        look_up=look_up,
        absence_final_seconds=ABSENCE_FINAL_SECONDS if proves_absence else None,
    )


def _draw_faults(chance: random.Random) -> Mapping[Fault, float]:
    """Draw which faults happen. Few at a time find more than all at once, which mostly stop the engine early."""
    share = chance.choice([0.0, 0.2, 0.4, 0.8])
    rare = {Fault.ADAPTER, Fault.LOCKED, Fault.REFUSED, Fault.BUSY}
    return {
        fault: chance.choice([0.05, 0.2, 0.5]) * (0.1 if fault in rare else 1.0)
        for fault in Fault
        if chance.random() < share
    }


def _draw_company(chance: random.Random) -> Life:
    """Draw a life, and who else is about while it lasts."""
    life = _draw_life(chance)
    twin = None
    if chance.random() < 0.2:
        begins_at = chance.choice([0.0, 0.0, _moment(chance)])
        twin = msgspec.structs.replace(_draw_life(chance), begins_at=begins_at, disk_full_after=None)
    visits = [_draw_visit(chance) for _ in range(chance.choice([0, 0, 0, 1, 1, 2]))]
    return msgspec.structs.replace(life, twin=twin, visits=visits)


def _draw_visit(chance: random.Random) -> Visit:
    step = None
    if chance.random() < 0.3:
        name = chance.choice(["", *PEOPLES_STEPS])
        number = chance.choice([1, 1, 2]) if name else chance.randint(1, 40)
        step = Step(number, chance.choice(MOMENTS), name)
    return Visit(
        at=_moment(chance),
        errand=chance.choices(list(ERRANDS), list(ERRANDS.values()))[0],
        whim=chance.getrandbits(32),
        step=step,
    )


def _moment(chance: random.Random) -> float:
    """Draw a moment of a life, early ones as often as late ones."""
    return math.exp(chance.uniform(math.log(0.05), math.log(60.0)))


def _draw_life(chance: random.Random) -> Life:
    """Draw how a life goes."""
    common: dict[str, Any] = {
        "follow_for_seconds": chance.choice([0.0, 5.0, 120.0, 600.0]),
        "listener_seconds": chance.choice([0.0, 0.0, 0.0, 2.0]),
        "validates_all_first": chance.random() < 0.3,
        "lifts": chance.random() < 0.3,
        "tries": chance.choice([1, 4, 12]),
        "try_again_seconds": chance.choice([0.01, 0.2, 2.0]),
        "waits": chance.random() < 0.5,
        "balance_share": chance.choice([None, 0.2, 0.5, 1.0, 1.0, 1.0]),
        "clock_offset_seconds": chance.choice([0.0, 0.0, -3600.0, 86_400.0]),
        "restarted": chance.random() < 0.2,
        "downtime_seconds": chance.choice([0.5, 5.0, 60.0]),
    }
    ends = {"peace": 4, "step": 4, "named": 10, "time": 4, "stop": 1, "cut_off": 1, "leave": 1, "full": 3}
    end = chance.choices(list(ends), list(ends.values()))[0]
    at = _moment(chance)
    if end == "step":
        number = int(math.exp(chance.uniform(0.0, math.log(400.0))))
        return Life(step=Step(number, chance.choice(MOMENTS)), **common)
    if end == "named":
        number = chance.choice([1, 1, 1, 2, 3, 6])
        name = chance.choices(list(STEPS), list(STEPS.values()))[0]
        return Life(step=Step(number, chance.choice(MOMENTS), name), **common)
    when = {"time": "crash_at", "stop": "stop_at", "cut_off": "cut_off_at", "leave": "leave_at"}
    if end == "full":
        common["disk_full_after"] = int(math.exp(chance.uniform(0.0, math.log(3000.0))))
    if end in when:
        common[when[end]] = at
    return Life(**common)
