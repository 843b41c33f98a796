"""Taking a paid payout back, where the provider can: a person asks, the provider is told once, a look-up says the rest.

Nothing here moves a payout. Who asked and why is in the journal before anything is said to the provider; what came back
is recorded by the same rule as every other look-up. `Engine.recall` is the only caller.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from payout_engine.app.decisions import LINE
from payout_engine.app.locks import holder, require_same_keys
from payout_engine.app.workspace import Workspace
from payout_engine.domain import clock
from payout_engine.domain.errors import (
    AmbiguousError,
    ConfigError,
    DecisionError,
    NotSentError,
    ProviderError,
    RefusedError,
)
from payout_engine.domain.model import Entry, Outcome, Query, Receipt, Run, masked
from payout_engine.domain.states import State
from payout_engine.payment.context import Context
from payout_engine.ports import observer
from payout_engine.ports.journal import Journal
from payout_engine.ports.provider import Recalls


class Recall(msgspec.Struct, frozen=True):
    """What came of asking a payout back.

    Attributes:
        entry: the payout, as it was recorded before.
        shown: what the provider showed of it afterwards, or None where it could not be asked.
        outcomes: what that changed.
        problem: why it is not known that the provider took the asking, or empty.
    """

    entry: Entry
    shown: Receipt | None = None
    outcomes: Sequence[Outcome] = ()
    problem: str = ""


async def recall(workspace: Workspace, run: Run, reference: str, who: str, why: str) -> Recall:
    """Ask a provider to take one paid payout back; see `Engine.recall`."""
    if not who or not why:
        raise DecisionError("Taking a payout back needs a person and a reason. Nothing was asked.")
    journal = await workspace.journal()
    entry = await _paid_entry(journal, run, reference)
    account = entry.lane.account
    provider = await workspace.accounts.connect(account, run.direction)
    if not isinstance(provider, Recalls):
        raise ConfigError(f"The provider of account {account} takes nothing back that it paid. Nothing was asked.")
    async with journal.lease(f"account {account}", holder("recalling from", workspace.settings.journal, run)):
        if not workspace.accounts.sandbox:
            await require_same_keys(journal, run, workspace.accounts.keys, [account], renewed=False)
        query = Query(entry.key, entry.receipt.provider_reference, State.PAID, clock.moment(), entry.payout)
        await _note(journal, run, entry, f"asked back by {who}: {why}")
        asked = Recall(entry)
        error = await _spoken(provider, query)
        if error is not None:
            await _note(journal, run, entry, f"the provider did not confirm it: {masked(str(error))}")
            asked = Recall(entry, problem=str(error))
        if isinstance(error, NotSentError | RefusedError):
            return asked
        return await _looked(Context(journal, provider, run.run_id, account, _publish, _notify), query, asked)


async def _spoken(provider: Recalls, query: Query) -> ProviderError | None:
    """Ask, once; return what went wrong."""
    try:
        await provider.recall(query)
    except ProviderError as error:
        return error
    except Exception as error:
        # A fault of the adapter, perhaps after it was heard. Its text could show anything, so only its kind is told.
        return AmbiguousError("fault_after_sending", f"The asking failed with an unexpected {type(error).__name__}.")
    return None


async def _paid_entry(journal: Journal, run: Run, reference: str) -> Entry:
    """Return the paid payout that is meant: by its reference, or by `line:57`.

    Raises:
        DecisionError: there is none, or several.
    """
    number = reference.removeprefix(LINE)
    line = int(number) if number != reference and number.isdecimal() else 0
    found: list[Entry] = []
    async for entries in journal.entries(run.run_id, frozenset({State.PAID})):
        found += [one for one in entries if one.payout.reference == reference or one.payout.line == line]
    if not found:
        raise DecisionError(f"Run {run.run_id} has no paid line “{reference}”: only what is paid can be taken back.")
    if len(found) > 1:
        lines = ", ".join(f"{LINE}{one.payout.line}" for one in found)
        raise DecisionError(f"Several paid lines of run {run.run_id} have the reference “{reference}”; say {lines}.")
    return found[0]


async def _looked(context: Context, query: Query, asked: Recall) -> Recall:
    """Ask once what became of it, and record what is shown."""
    shown: Receipt | None = None
    outcomes: list[Outcome] = []
    try:
        async for results in context.look_up([query]):
            outcomes += (await context.reconcile(results)).outcomes
            shown = next((result.receipt for result in results if result.key == query.key), shown)
    except ProviderError as error:
        return msgspec.structs.replace(asked, problem=asked.problem or str(error))
    return msgspec.structs.replace(asked, shown=shown, outcomes=outcomes)


async def _note(journal: Journal, run: Run, entry: Entry, text: str) -> None:
    await journal.note(run.run_id, "recall", f"line {entry.payout.line}, reference {entry.payout.reference}: {text}")


async def _publish(_: Sequence[Outcome]) -> None:
    """Outcomes are returned, and are in the journal."""


def _notify(_: observer.Event) -> None:
    """Nobody watches."""
