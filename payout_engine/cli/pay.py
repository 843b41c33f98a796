"""The commands that may move money: run, resume, follow."""

from __future__ import annotations

import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from textwrap import fill

import anyio
import msgspec
import typer

from payout_engine.app.engine import Engine
from payout_engine.app.payment_stream import PaymentStream, unwrap_group
from payout_engine.app.submit import Submission
from payout_engine.cli import render
from payout_engine.cli.console import data, emit, fail, hurry, leave, messages, plain, room, say, settle
from payout_engine.cli.options import asker
from payout_engine.cli.progress import LineCounter, metered
from payout_engine.domain.countries import fold
from payout_engine.domain.ending import Ending
from payout_engine.domain.errors import JournalBusyError, JournalError, PayoutEngineError, SinkError, UserError
from payout_engine.domain.facts import ResultsFolder
from payout_engine.domain.model import Direction, Run, RunState, masked
from payout_engine.domain.states import State
from payout_engine.results.summary import Exit, summarize
from payout_engine.sinks import check_format


class PayOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the person asked for, apart from what to pay.

    Attributes:
        given: the options that find the run again, to be repeated in the commands that we propose.
        max_refused: pay nothing if more lines than this are refused; None for any number.
    """

    out: Path | None
    format: str
    json: bool
    follow_for_seconds: float
    given: str = ""
    sheet: str | None = None
    columns: Mapping[str, str] = {}
    max_refused: int | None = None
    direction: Direction = Direction.PAY
    canary: int | None = None
    key_renewed: bool = False
    journal_lost: bool = False
    ask_paid: bool = False


async def run_file(engine: Engine, file: str, options: PayOptions, *, yes: bool) -> int:
    """Plan, confirm, pay, follow, write results; return the exit code."""
    if not yes and (file == "-" or not sys.stdin.isatty()):
        verb, command = ("pay", "run") if options.direction is Direction.PAY else ("ask", "collect")
        raise UserError(
            f"Nothing was sent: there is nobody to ask. Look with `plan`, then {verb} with `{command} --yes`."
        )
    out = options.out or default_folder(file)
    check_format(options.format)
    watch = LineCounter(json=options.json).watch
    submission = await engine.submit(
        file, sheet=options.sheet, watch=watch, wait=True, direction=options.direction, columns=options.columns
    )
    return await pay_submission(engine, submission, out, options, yes=yes)


async def pay_submission(engine: Engine, submission: Submission, out: Path, options: PayOptions, *, yes: bool) -> int:
    """Confirm, pay, follow, write results; return the exit code."""
    run = submission.run
    if submission.known:
        _tell_known(run, options)
    async with _forgotten_unless_approved(engine, run):
        if not submission.known:
            await engine.check_accounts(run.run_id, journal_lost=options.journal_lost)
            try:
                confirmed = await _confirmed(engine, submission, options, yes=yes)
            except typer.Abort:
                say("\nInterrupted. Nothing was sent and nothing was recorded.")
                return Exit.INTERRUPTED
            if not confirmed:
                say("Nothing was sent and nothing was recorded.")
                return Exit.UNUSABLE
        out = options.out or own_folder(out, run.run_id)
        _check_writable(out, options.format)
        await (await engine.journal()).add_fact(run.run_id, ResultsFolder(str(out.absolute())))
        if options.json and not submission.known:
            await _emit_unsent(engine, run)
        return (await pay_and_report(engine, run, out, options, send=True))[0]


@asynccontextmanager
async def _forgotten_unless_approved(engine: Engine, run: Run) -> AsyncIterator[None]:
    """Leave nothing of a run in the journal that nobody said yes to, or that may not be paid."""
    try:
        yield
    finally:
        with suppress(UserError):  # What it says was said before; the next submission of the file cleans up.
            if (await engine.run(run.run_id)).approved_at is None:
                await (await engine.journal()).discard(run.run_id)


def _check_writable(out: Path, format: str) -> None:
    """Find out before anything is paid whether results can be written.

    Raises:
        ConfigError: the format is not known, or needs a package that is not installed.
        SinkError: the folder cannot be used.
    """
    check_format(format)
    try:
        str(out.absolute()).encode()
    except UnicodeEncodeError:
        raise SinkError(
            f"The results folder {out} has a name that is no text. Nothing was sent; name another one with --out."
        ) from None
    try:
        out.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise SinkError(
            f"The results folder {out} cannot be made ({error.strerror}). Nothing was sent; name another "
            "one with --out."
        ) from None


def default_folder(file: str) -> Path:
    """Return where results go when nobody says: beside the file, under its name."""
    return Path("standard-input-results") if file == "-" else Path(f"{file}-results")


def own_folder(folder: Path, run_id: str) -> Path:
    """Return `folder`, or one beside it when it holds the results of another run: last month's are still needed."""
    try:
        with (folder / "events.jsonl").open("rb") as events:
            first = events.readline()
    except OSError:
        return folder
    return folder if not first or run_id.encode() in first else folder.with_name(f"{folder.name}-{run_id}")


def _tell_known(run: Run, options: PayOptions) -> None:
    if options.json:
        emit("known_run", run_id=run.run_id, state=run.state)
        return
    begun = render.moment(run.approved_at or run.created_at)
    verb = "was paid before" if run.state is RunState.FINISHED else "was begun before"
    say(f"This file {verb} as run [bold]{run.run_id}[/] ({plain(run.name)}, begun {begun}). No line is paid twice.")


async def _confirmed(engine: Engine, submission: Submission, options: PayOptions, *, yes: bool) -> bool:
    """Show the plan and ask, unless there is nothing to ask.

    Raises:
        Abort: Ctrl-C, or the end of the input, instead of an answer.
    """
    assert submission.findings is not None
    if options.json:
        render.plan_json(submission)
    else:
        render.plan(submission, engine, to_messages=True)
    refused = submission.findings.rejected
    if options.max_refused is not None and refused > options.max_refused:
        allowed = f"{options.max_refused:,} may be" if options.max_refused else "none may be"
        raise UserError(
            f"Nothing was sent: {render.counted(refused, 'line')} refused, and {allowed} (--strict, --max-refused). "
            "Mend them in the file, or allow more."
        )
    if yes or submission.findings.accepted == 0:
        return True
    settle()
    # The event loop would keep Ctrl-C for later, and the question would go on waiting for an answer.
    kept = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return _said_yes(render.question(submission, engine))
    finally:
        signal.signal(signal.SIGINT, kept)


def _said_yes(question: str) -> bool:
    """Ask until the answer is a yes or a no, in English or French; no answer is a no.

    Raises:
        Abort: Ctrl-C, or the end of the input, instead of an answer.
    """
    shown = fill(f"{question} [y/N]", messages.width - 1)
    while True:
        answer = fold(typer.prompt(shown, default="", show_default=False, err=True))
        if answer in ("y", "yes", "o", "oui"):
            return True
        if answer in ("", "n", "no", "non"):
            return False


async def resume_runs(engine: Engine, run_id: str | None, options: PayOptions, *, send: bool) -> int:
    """Go on with one run, or with every run that is not finished; return the most urgent exit code.

    Of several, one that cannot be used is told, and the others go on.
    """
    if run_id is not None:
        runs: Sequence[Run] = [await engine.run(run_id)]
    else:
        runs = [run for run in reversed(await engine.runs()) if run.state is RunState.PAYING]
    if not runs:
        say("Every run is finished; there is nothing to resume.")
    for run in runs if send else ():
        # All at once: a pause that is asked for later, while another of them is paid or waited for, stands.
        await engine.unpause(run.run_id, asker(""))
    codes: list[int] = []
    for run in runs:
        try:
            code, interrupted = await _resume(engine, run, options, send=send)
        except PayoutEngineError as error:
            if run_id is not None:
                raise
            fail(f"Run {run.run_id} ({run.name}) was not {'paid' if send else 'followed'}: {error}")
            if options.json:
                emit("unusable", run_id=run.run_id, message=masked(str(error)))
            code, interrupted = Exit.UNUSABLE, False
        codes.append(code)
        if interrupted:
            break  # Whoever stops one run means all of them.
    return max(codes, key=_urgency, default=Exit.ALL_PAID)


async def _resume(engine: Engine, run: Run, options: PayOptions, *, send: bool) -> tuple[int, bool]:
    if run.state in (RunState.INTAKE, RunState.VALIDATED):
        again = f"retry {run.retry_of}" if run.retry_of else f"run {run.name}"
        raise UserError(f"Run {run.run_id} was never approved. Begin it again: payout-engine {again}{options.given}")
    facts = await (await engine.journal()).facts(run.run_id)
    out = options.out or Path(facts.results_folder or f"{run.run_id}-results")
    if not options.json:
        say(f"Run [bold]{run.run_id}[/] ({plain(run.name)})")
    return await pay_and_report(engine, run, out, options, send=send)


def _urgency(code: int) -> int:
    order = (
        *(Exit.ALL_PAID, Exit.SOME_NOT_PAID, Exit.NEEDS_A_PERSON, Exit.NOT_SETTLED),
        *(Exit.UNUSABLE, Exit.BRAKE, Exit.INTERRUPTED),
    )
    return order.index(Exit(code))


async def pay_and_report(engine: Engine, run: Run, out: Path, options: PayOptions, *, send: bool) -> tuple[int, bool]:
    """Pay, show progress, write the results folder, print the summary.

    Returns:
        The exit code, and whether a person asked to stop.
    """
    _check_writable(out, options.format)
    try:
        ending = await _pay(engine, run, out, options, send=send)
        if ending.interrupted and (await engine.run(run.run_id)).approved_at is None:
            say("Interrupted. Nothing was sent and nothing was recorded.")
            return Exit.INTERRUPTED, True
        return await _report(engine, run, ending, out, options), ending.interrupted
    except JournalBusyError:
        say("Stopped waiting. Nothing was sent from here; run the same command again to wait again.")
        return Exit.INTERRUPTED, True
    except JournalError as error:
        fail(f"{error} Some payouts may have been sent: run the same command again, which pays nobody twice.")
        return Exit.BRAKE, False


async def _pay(engine: Engine, run: Run, out: Path, options: PayOptions, *, send: bool) -> Ending:
    with metered(json=options.json) as meter:
        stream = engine.pay(
            run,
            follow_for_seconds=options.follow_for_seconds,
            send=send,
            events=out / "events.jsonl",
            watch=meter.watch,
            canary=options.canary,
            wait=True,
            key_renewed=options.key_renewed,
            journal_lost=options.journal_lost,
            ask_paid=options.ask_paid,
        )
        async with _interruptible(stream) as asked:
            async for outcome in stream:
                meter.settle(outcome)
                if options.json:
                    emit("outcome", **msgspec.structs.asdict(outcome) | {"message": masked(outcome.message)})
                    await room(stream.done)
    # Whoever reads slowly may still be reading when all is paid; then it is the reading that was stopped.
    return msgspec.structs.replace(stream.ending, interrupted=stream.ending.interrupted or bool(asked))


async def _emit_unsent(engine: Engine, run: Run) -> None:
    """Give programs an outcome for the lines that are not going to be sent, too: every line comes out."""
    async for entries in (await engine.journal()).entries(run.run_id, frozenset({State.REJECTED, State.HELD})):
        for entry in entries:
            emit(
                "outcome",
                run_id=run.run_id,
                line=entry.payout.line,
                reference=entry.payout.reference,
                status=entry.receipt.state,
                reason=entry.receipt.reason,
            )
            await room()


@asynccontextmanager
async def _interruptible(stream: PaymentStream) -> AsyncIterator[Sequence[bool]]:
    """Let Ctrl-C, a closed terminal and a polite kill finish what is on the wire; a second one stops at once.

    What is yielded is true once somebody has asked.
    """

    async def listen() -> None:
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
            async for _ in signals:
                if asked:
                    stream.cut_off()
                    leave()
                    return
                asked.append(True)
                stream.stop()
                hurry()
                if stream.begun:
                    say("Stopping: finishing what is on the wire, then no more. Press Ctrl-C again to stop at once.")

    asked: list[bool] = []
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listen)
            yield asked
            tasks.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        # The group would hide from the caller that it was the journal that failed.
        raise unwrap_group(group) from None


async def _report(engine: Engine, run: Run, ending: Ending, out: Path, options: PayOptions) -> int:
    """Write the results folder and print the summary; return the exit code."""
    conflicts = (await (await engine.journal()).facts(run.run_id)).conflicts
    summary = summarize(run.run_id, await engine.tally(run.run_id), ending, conflicts=len(conflicts))
    written: Path | None = out
    awaiting = 0
    try:
        awaiting = (await engine.results(run.run_id, out, format=options.format)).awaiting_lines
    except SinkError as error:
        written = None
        again = f"payout-engine results {run.run_id}{options.given}"
        fail(f"{error} The payments are recorded; write the results with: {again}")
    if options.json:
        emit(
            "summary",
            **msgspec.to_builtins(summary),
            results=str(written) if written is not None else None,
            conflicts=list(map(masked, conflicts)),
            stops=msgspec.to_builtins(ending.stops),
        )
    else:
        coming = await engine.forecast(run.run_id) if summary.count(State.READY) else None
        data.print(render.summary(summary, run.direction))
        report = render.Report(
            run=run,
            summary=summary,
            ending=ending,
            forecast=coming,
            conflicts=conflicts,
            out=written,
            given=options.given,
            awaiting=awaiting,
        )
        for line in render.next_steps(report):
            say(line)
    return summary.exit_code if written is not None else summary.exit_code or Exit.UNUSABLE
