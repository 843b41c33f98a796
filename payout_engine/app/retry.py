"""Paying again what is provably unpaid: the lines of an earlier run as a source, to be validated by today's rules.

The lines keep their references, so that the journal itself recognises any that has been paid since; what a later retry
has paid, or has in flight, is left out here beforehand. `Engine.retry` is the only caller.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence

from payout_engine.app.accounts import Accounts
from payout_engine.domain.errors import ConfigError, UnansweredError
from payout_engine.domain.limits import BLOCK_ROWS
from payout_engine.domain.model import DATA_LINES, Block, Entry, Outcome, Run, RunState
from payout_engine.domain.states import UNPAID, State
from payout_engine.payment.context import Context
from payout_engine.payment.first_look import look_first
from payout_engine.ports import observer
from payout_engine.ports.journal import Journal

RETRIED = frozenset({State.FAILED, State.CANCELLED})
"""What is provably unpaid and could be paid as it is. A rejected line has to be mended first."""

_COLUMN = "_column"
"""How the entries of a run's dialect end that say which column is which."""


class RetrySource:
    """A `Source` of the unpaid lines of a run, under their own line numbers and with their references filled in.

    Attributes:
        left_out: by run, how many lines a later retry has paid or has in flight; complete when all was read.
        lines: how many lines there were to pay; complete when all was read.
        mapping: which column is which, as the first run understood it.
    """

    def __init__(self, journal: Journal, run: Run, taken: Mapping[str, str]) -> None:
        """Prepare to read.

        Args:
            journal: holds the run.
            run: whose lines are to be paid again.
            taken: references that a later retry has paid or has in flight, and its id.
        """
        self.name = f"retry of {run.run_id} ({run.name})"
        self.digest = ""
        self.mapping = {
            meaning.removesuffix(_COLUMN): header
            for meaning, header in run.dialect.items()
            if meaning.endswith(_COLUMN)
        }
        self._added = "reference" not in self.mapping
        if self._added:
            self.mapping["reference"] = _free("reference", run.columns)
        self.columns: Sequence[str] = [*run.columns, self.mapping["reference"]] if self._added else run.columns
        self.dialect: Mapping[str, str] = {
            name: value for name, value in run.dialect.items() if not name.endswith(_COLUMN) and name != DATA_LINES
        }
        self.left_out: dict[str, int] = {}
        self.lines = 0
        self._journal = journal
        self._run = run
        self._taken = taken
        self._at = list(self.columns).index(self.mapping["reference"])

    async def blocks(self) -> AsyncIterator[Block]:
        """Yield the lines in the first run's order."""
        async for entries in self._journal.entries(self._run.run_id, RETRIED):
            wanted = [entry for entry in entries if not self._is_taken(entry)]
            self.lines += len(wanted)
            for start in range(0, len(wanted), BLOCK_ROWS):
                part = wanted[start : start + BLOCK_ROWS]
                yield Block([entry.payout.line for entry in part], [self._row(entry) for entry in part])

    def _is_taken(self, entry: Entry) -> bool:
        later = self._taken.get(entry.payout.reference)
        if later is not None:
            self.left_out[later] = self.left_out.get(later, 0) + 1
        return later is not None

    def _row(self, entry: Entry) -> Sequence[str]:
        row = [*entry.row, ""] if self._added else list(entry.row)
        row[self._at] = entry.payout.reference
        return row


async def ask_providers(journal: Journal, run: Run, accounts: Accounts, notify: observer.Observer) -> None:
    """Look before paying again: a transfer that the provider shows for an unpaid line takes that word back.

    Raises:
        UnansweredError: a provider could not say what it already has.
    """
    for account in sorted({tally.lane.account for tally in await journal.tally(run.run_id)} - {""}):
        provider = await accounts.connect(account, run.direction)
        looked = await look_first(Context(journal, provider, run.run_id, account, _unheard, notify))
        if looked.problem:
            raise UnansweredError(
                f"Nothing was sent, because account {account} could not say what it already has: {looked.problem}"
            )


async def _unheard(outcomes: Sequence[Outcome]) -> None:
    """Nobody listens to the outcomes of a run that is only about to be retried; its log keeps them."""


async def retry_source(journal: Journal, run: Run) -> RetrySource:
    """Return the lines of a run that may be paid again.

    Raises:
        ConfigError: the run was never approved, or a retry of it is not finished.
    """
    if run.approved_at is None:
        raise ConfigError(
            f"Run {run.run_id} was never approved, so there is nothing to retry. Run its file to begin it."
        )
    taken: dict[str, str] = {}
    for later in await _descendants(journal, run):
        if later.state is not RunState.FINISHED:
            raise ConfigError(
                f"Run {run.run_id} is being retried as run {later.run_id}, which is not finished. Finish it first: "
                f"payout-engine resume {later.run_id}"
            )
        async for entries in journal.entries(later.run_id, frozenset(State) - UNPAID):
            taken |= {entry.payout.reference: later.run_id for entry in entries}
    return RetrySource(journal, run, taken)


async def _descendants(journal: Journal, run: Run) -> Sequence[Run]:
    """Return the approved retries of a run, and theirs, oldest first."""
    family, found = {run.run_id}, []
    for later in reversed(await journal.runs()):
        if later.retry_of in family and later.approved_at is not None:
            family.add(later.run_id)
            found.append(later)
    return found


def _free(name: str, columns: Sequence[str]) -> str:
    """Return a header that no column has yet."""
    taken = {column.strip().casefold() for column in columns}
    while name in taken:
        name = f"{name}_"
    return name
