"""The commands that steer a run: pause and cancel, also from another terminal, retry, and recall of one payout."""

from __future__ import annotations

import sys
from pathlib import Path

from payout_engine.app.engine import Engine
from payout_engine.cli.console import data, emit, fail, plain, say
from payout_engine.cli.options import asker
from payout_engine.cli.pay import PayOptions, pay_submission
from payout_engine.cli.progress import LineCounter
from payout_engine.cli.render import counted
from payout_engine.domain.errors import UserError
from payout_engine.domain.model import masked
from payout_engine.results.summary import Exit
from payout_engine.sinks import check_format


async def pause(engine: Engine, run_id: str, who: str, why: str, given: str) -> int:
    """Ask that nothing more of a run is sent."""
    heard = await engine.pause(run_id, asker(who), why)
    what = "The paying process has heard it and lets the wire land" if heard else "Nobody is paying it now"
    say(f"Run {run_id} is paused. {what}. To go on: [bold]payout-engine resume {run_id}{plain(given)}[/]")
    return Exit.ALL_PAID


async def cancel(engine: Engine, run_id: str, who: str, why: str, *, json: bool) -> int:
    """Withdraw what was never sent of a run, and say how much that was."""
    done = await engine.cancel(run_id, asker(who), why)
    if json:
        emit("cancelled", run_id=run_id, cancelled=done.cancelled, others=done.others)
        return Exit.ALL_PAID
    data.print(f"{counted(done.cancelled, 'payout')} cancelled.")
    if done.others:
        states = ", ".join(f"{count:,} {state}" for state, count in done.others.items())
        total = counted(sum(done.others.values()), "payout")
        data.print(f"{total} could not be cancelled, because a provider has them or may have them: {states}.")
    return Exit.ALL_PAID


async def recall(engine: Engine, run_id: str, reference: str, who: str, why: str, *, json: bool, given: str) -> int:
    """Ask a provider to take a paid payout back, and say what it shows of it."""
    done = await engine.recall(run_id, reference, who, why)
    payout, shown = done.entry.payout, done.shown
    state = next((outcome.status for outcome in done.outcomes), done.entry.receipt.state)
    follow_up = f"payout-engine follow {run_id} --paid{given}"
    if json:
        emit(
            "recalled",
            run_id=run_id,
            line=payout.line,
            reference=payout.reference,
            status=state,
            reason=shown.reason if shown else "",
            message=masked(shown.message) if shown else "",
            problem=masked(done.problem),
            next=follow_up,
        )
    else:
        said = shown.message if shown else ""
        data.print(
            f"line {payout.line}  {plain(payout.reference)}  now [bold]{state}[/]  {plain(said)}", soft_wrap=True
        )
        if done.problem:
            fail(f"It is not known to be on its way back: {done.problem}")
        say(f"What became of it is told by: [bold]{plain(follow_up)}[/]")
        say("Once it shows as reversed it counts as unpaid: `payout-engine retry` would pay it again.")
    return Exit.NEEDS_A_PERSON if done.problem else Exit.ALL_PAID


async def retry(engine: Engine, run_id: str, options: PayOptions, *, yes: bool) -> int:
    """Plan, confirm and pay the provably unpaid lines of a run as a new run."""
    if not yes and not sys.stdin.isatty():
        raise UserError("Nothing was sent: there is nobody to ask. Pay with `retry --yes`.")
    check_format(options.format)
    watch = LineCounter(json=options.json).watch
    submission = await engine.retry(
        run_id, watch=watch, wait=True, key_renewed=options.key_renewed, journal_lost=options.journal_lost
    )
    out = options.out or Path(f"{submission.run_id}-results")
    return await pay_submission(engine, submission, out, options, yes=yes)
