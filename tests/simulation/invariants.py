"""What must hold when a simulation has come to rest: the journals, the event files and the bank's truth agree.

Each check returns sentences about what does not hold; none means that all is well. `simulation.py` calls them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from itertools import combinations
from pathlib import Path

import msgspec

from payout_engine.domain.model import REJECTED_LANE, Choice, Entry, Outcome, Run, RunState
from payout_engine.domain.rejections import REPEATED
from payout_engine.domain.states import State
from payout_engine.journal.requests import ONCE_SENT_REASON
from payout_engine.journal.rules import CONTRADICTION
from payout_engine.ports.journal import Journal
from payout_engine.ports.provider import LookUpKind, Traits
from simulation.bank import Bank, Transfer
from simulation.random_file import RandomFile
from simulation.shelf import JournalFile
from simulation.witness import Meant, Witness

NEVER_PAID = frozenset({State.READY, State.HELD, State.FAILED, State.REJECTED, State.CANCELLED})
"""States in which the bank must not have paid. `unknown` promises nothing, and is checked for patience instead."""


class Book(msgspec.Struct):
    """Everything known of one run at the end."""

    file: RandomFile
    run: Run
    entries: Sequence[Entry]
    log: Sequence[tuple[int, Outcome]]
    events: Path


async def open_book(journal: Journal, file: RandomFile, run: Run, events: Path) -> Book:
    """Read a run from the journal."""
    entries = [entry async for batch in journal.entries(run.run_id) for entry in batch]
    log = [(seq, outcome) async for seq, outcomes in journal.outcomes(run.run_id) for outcome in outcomes]
    return Book(file, run, entries, log, events)


def broken(books: Sequence[Book], banks: Mapping[str, Bank], file: JournalFile, *, ages_known: bool) -> Iterator[str]:
    """Yield what does not hold of the runs of a journal that nothing kept from paying.

    Args:
        books: the runs.
        banks: by account.
        file: the journal.
        ages_known: whether the clock was right enough to say how old a payout is.
    """
    transfers = _by_key(banks)
    traits = {account: bank.traits for account, bank in banks.items()}
    for book in books:
        yield from states_agree(book, transfers, traits, ages_known=ages_known)
        yield from lines_come_out(book, banks, file)
        yield from log_replays(book)
        yield from events_tell_all(book)
    yield from sums_agree(books, transfers)
    yield from retries_are_of_the_unpaid(books)
    yield from people_are_heeded(books, banks, file)


def untrue(books: Sequence[Book], banks: Mapping[str, Bank]) -> Iterator[str]:
    """Yield what does not hold of a journal that was kept from paying, or is behind: what it says of money is true."""
    transfers = _by_key(banks)
    for book in books:
        yield from log_replays(book)
        for entry in book.entries:
            seen = transfers.get(entry.key, ())
            if entry.receipt.state is State.PAID and not any(transfer.pays for transfer in seen):
                yield f"{_name(book, entry)} is paid, and the bank never paid it"
            if entry.receipt.state is State.REVERSED and not any(transfer.reversed_at for transfer in seen):
                yield f"{_name(book, entry)} is reversed, and the bank never took it back"


def over_all(banks: Mapping[str, Bank], witness: Witness, unprotected: Set[int]) -> Iterator[str]:
    """Yield what does not hold over all journals that are there or ever were.

    Args:
        banks: by account.
        witness: knows what each transfer was meant for.
        unprotected: the amounts of which nobody promised that they are paid once.
    """
    transfers = _by_key(banks)
    strangers = set(transfers) - set(witness.meant)
    if strangers:
        yield f"the bank has {len(strangers)} transfers that nobody meant to be sent"
    yield from paid_twice(transfers, witness, unprotected)
    for account, bank in {id(bank): (account, bank) for account, bank in banks.items()}.values():
        yield from rate_is_kept(account, bank)


def _by_key(banks: Mapping[str, Bank]) -> Mapping[str, Sequence[Transfer]]:
    """Return everything that the banks took in. Two accounts with one key are one bank."""
    found: dict[str, list[Transfer]] = {}
    for bank in {id(bank): bank for bank in banks.values()}.values():
        for transfer in bank.transfers:
            found.setdefault(transfer.key, []).append(transfer)
    return found


def paid_twice(transfers: Mapping[str, Sequence[Transfer]], witness: Witness, unprotected: Set[int]) -> Iterator[str]:
    """No line is paid twice: not under its key, and not under two keys that one journal, or one content, has for it.

    What one journal pays of a content, no other knows of another content: only the same is refused.
    """
    paid: dict[int, list[tuple[Meant | None, str]]] = {}
    for key, of_key in transfers.items():
        amount_minor, pays = of_key[0].payout.amount_minor, [transfer for transfer in of_key if transfer.pays]
        if amount_minor in unprotected or not pays:
            continue
        if len(pays) > 1:
            yield f"PAID TWICE: {amount_minor} francs by {', '.join(transfer.number for transfer in pays)}"
        if any(transfer.reversed_at is None for transfer in pays):
            paid.setdefault(amount_minor, []).append((witness.meant.get(key), pays[0].number))
    for amount_minor, found in paid.items():
        for (one, number), (other, again) in combinations(found, 2):
            if one is None or other is None or one.journal == other.journal or one.digest == other.digest:
                yield f"PAID TWICE: {amount_minor} francs by {number} and by {again}"


def states_agree(
    book: Book, transfers: Mapping[str, Sequence[Transfer]], traits: Mapping[str, Traits], *, ages_known: bool
) -> Iterator[str]:
    """`paid` exactly when the bank paid, nothing is left in the middle, and nobody was given up too early."""
    for entry in book.entries:
        state, name = entry.receipt.state, _name(book, entry)
        seen = transfers.get(entry.key, ())
        paid = sum(transfer.pays for transfer in seen)
        asked = entry.lane != REJECTED_LANE and _can_be_asked(traits[entry.lane.account], entry)
        if state is State.PAID and not paid:
            yield f"{name} is paid, and the bank never paid it"
        elif state is State.REVERSED and not any(transfer.reversed_at for transfer in seen):
            yield f"{name} is reversed, and the bank never took it back"
        elif state in NEVER_PAID and paid:
            yield f"{name} is {state}, and the bank paid it"
        elif state in (State.READY, State.SENDING) or (state is State.ACCEPTED and asked):
            yield f"{name} was left {state}"
        elif state is State.UNKNOWN and asked and seen:
            yield f"{name} was left unknown, and the bank shows it"
        elif state is State.UNKNOWN and asked and ages_known and traits[entry.lane.account].absence_final_seconds:
            yield f"{name} was left unknown, and its absence can be proved"


def _can_be_asked(traits: Traits, entry: Entry) -> bool:
    """Whether the bank can be asked what became of a payout."""
    if traits.look_up is LookUpKind.REFERENCE:
        return bool(entry.receipt.provider_reference)
    return traits.look_up is not LookUpKind.NONE


def lines_come_out(book: Book, banks: Mapping[str, Bank], file: JournalFile) -> Iterator[str]:
    """Every line in comes out once, refused or held exactly when it should be."""
    if not book.run.retry_of:
        yield from _all_lines_come_out(book, file)
    elif max(Counter(entry.payout.line for entry in book.entries).values()) > 1:
        yield f"{book.file.name}: a line came out of a retry more than once"
    for entry in book.entries:
        written = book.file.lines[entry.payout.line - 2]
        if written.good and entry.payout.amount_minor != int(written.amount):
            yield f"{_name(book, entry)} has another amount than its line"
        withdrawn = book.run.run_id in file.withdrawn
        if entry.receipt.state is State.HELD and not _held_with_cause(entry, banks, withdrawn=withdrawn):
            yield f"{_name(book, entry)} is held without cause: {entry.receipt.reason} {entry.receipt.message}"
    if book.run.approved_at is None:
        yield f"{book.file.name}: a run was left behind without anybody's yes"
    left = any(entry.receipt.state in (State.READY, State.ACCEPTED) for entry in book.entries)
    if book.run.state is not RunState.FINISHED and not left:
        yield f"{book.file.name}: the run is {book.run.state}, and nothing of it is left to do"


def _all_lines_come_out(book: Book, file: JournalFile) -> Iterator[str]:
    lines = Counter(entry.payout.line for entry in book.entries)
    wanted = Counter(range(2, 2 + len(book.file.lines)))
    if lines != wanted:
        yield f"{book.file.name}: lines {sorted((wanted - lines) + (lines - wanted))} came out not once"
    refused = {entry.payout.line for entry in book.entries if entry.receipt.state is State.REJECTED}
    if refused != book.file.refused():
        yield f"{book.file.name}: lines {sorted(refused ^ book.file.refused())} were refused wrongly or not at all"
    waiting = frozenset({State.HELD, State.CANCELLED})
    heeded = {
        entry.payout.line for entry in book.entries if entry.receipt.state in waiting or entry.key in file.decided
    }
    if not book.file.repeated() <= heeded:
        yield f"{book.file.name}: lines {sorted(book.file.repeated() - heeded)} repeat others and were not held"


def _held_with_cause(entry: Entry, banks: Mapping[str, Bank], *, withdrawn: bool) -> bool:
    reason = entry.receipt.reason
    return reason in REPEATED or (withdrawn and reason == ONCE_SENT_REASON) or _contradicted(entry, banks)


def _contradicted(entry: Entry, banks: Mapping[str, Bank]) -> bool:
    """Whether the bank has contradicted itself. What was never sent it cannot show."""
    receipt, account = entry.receipt, entry.lane.account
    if receipt.state is not State.HELD or receipt.reason != CONTRADICTION or "never sent" in receipt.message:
        return False
    return banks[account].contradicts


def retries_are_of_the_unpaid(books: Sequence[Book]) -> Iterator[str]:
    """A retry holds only what the run before it was not going to pay; a contradiction may hold that since."""
    unpaid = {State.FAILED, State.CANCELLED, State.HELD}
    states = {(book.run.run_id, entry.payout.line): entry.receipt.state for book in books for entry in book.entries}
    for book in books:
        for entry in book.entries if book.run.retry_of else ():
            before = states[book.run.retry_of, entry.payout.line]
            if before not in unpaid:
                yield f"{_name(book, entry)} was paid again as a retry, and the run before has it as {before}"


def people_are_heeded(books: Sequence[Book], banks: Mapping[str, Bank], file: JournalFile) -> Iterator[str]:
    """A person's last word stands, unless the bank contradicts it; and nothing is cancelled without a person's word."""
    for book in books:
        for entry in book.entries:
            state, choice = entry.receipt.state, file.decided.get(entry.key)
            stands = {Choice.PAID: {State.PAID, State.REVERSED}, Choice.FAILED: {State.FAILED}}
            stands[Choice.CANCEL] = {State.CANCELLED}
            if choice in stands and state not in stands[choice] and not _contradicted(entry, banks):
                yield f"{_name(book, entry)} was decided to be {choice}, and is {state}"
            if state is State.CANCELLED and choice is not Choice.CANCEL and book.run.run_id not in file.withdrawn:
                yield f"{_name(book, entry)} is cancelled, and nobody cancelled it"


def log_replays(book: Book) -> Iterator[str]:
    """The log alone gives the final state of every line that ever moved, and only moves that exist."""
    last = {outcome.line: outcome.status for _, outcome in book.log}
    for entry in book.entries:
        # A line that was refused, or never sent, has no outcome in the log.
        replayed = last.get(entry.payout.line)
        if replayed is None and entry.receipt.state in (State.REJECTED, State.READY):
            continue
        if replayed is not entry.receipt.state:
            yield f"{_name(book, entry)} is {entry.receipt.state}, and the log ends with {replayed}"


class _Event(msgspec.Struct, frozen=True):
    seq: int
    line: int
    status: State


def events_tell_all(book: Book) -> Iterator[str]:
    """The event file holds every entry of the log once, in order."""
    text = book.events.read_bytes() if book.events.exists() else b""
    told = [msgspec.json.decode(line, type=_Event) for line in text.splitlines()]
    happened = [_Event(seq, outcome.line, outcome.status) for seq, outcome in book.log]
    if told != happened:
        missing = [event for event in happened if event not in told]
        yield f"{book.file.name}: {len(told)} events were told of {len(happened)}; missing: {missing[:3]}"


def sums_agree(books: Sequence[Book], transfers: Mapping[str, Sequence[Transfer]]) -> Iterator[str]:
    """What the journal calls paid is what left the bank, to the franc, but for what is unknown or unasked."""
    settled = {State.PAID, State.REVERSED}
    entries = [entry for book in books for entry in book.entries]
    ours = sum(entry.payout.amount_minor for entry in entries if entry.receipt.state in settled)
    settled_keys = {entry.key for entry in entries if entry.receipt.state not in (State.UNKNOWN, State.ACCEPTED)}
    theirs = sum(
        transfer.payout.amount_minor for key in settled_keys for transfer in transfers.get(key, ()) if transfer.pays
    )
    if ours != theirs:
        yield f"the journal says that {ours} was paid, and the bank paid {theirs}"


def rate_is_kept(account: str, bank: Bank) -> Iterator[str]:
    """No sliding window at the bank's door held more calls than its documented rate."""
    rate = bank.traits.calls_per_second
    if rate is None:
        return
    calls = max(1, int(rate))
    window_seconds = calls / rate
    for first, at in zip(bank.arrivals, bank.arrivals[calls:], strict=False):
        if at - first < window_seconds:
            yield f"{account}: {calls + 1} calls within {at - first:.4f} s, ending at {at:.3f} s"


def _name(book: Book, entry: Entry) -> str:
    return f"{book.file.name}:{entry.payout.line}"
