"""Every command, its options and an example of its use."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated

import anyio
import typer

from payout_engine import __version__
from payout_engine.app.decisions import DecisionInput
from payout_engine.app.engine import FOLLOW_FOR_SECONDS, Engine
from payout_engine.cli import control, decide, look
from payout_engine.cli import sandbox as sandboxes
from payout_engine.cli import serve as callbacks
from payout_engine.cli.options import (
    Accepted,
    AccountName,
    AnyRunId,
    Asker,
    AskPaid,
    CanaryCount,
    Collect,
    Columns,
    Config,
    Decisions,
    Digest,
    File,
    FollowFor,
    Format,
    JournalLost,
    JournalPath,
    Json,
    KeyRenewed,
    MaxRefused,
    NoFollow,
    Out,
    PlanOut,
    Reason,
    ReleaseHeld,
    RunId,
    Sandbox,
    Sheet,
    Strict,
    Who,
    Why,
    Yes,
    as_given,
    columns_given,
)
from payout_engine.cli.pay import PayOptions, resume_runs, run_file
from payout_engine.domain.model import Choice, Direction

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
    help="Bulk mobile-money payouts that are never paid twice and never lost.",
    epilog="Try it without a key: payout-engine run examples/salaries-bf.csv --sandbox",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"payout-engine {__version__}, Python {sys.version.split()[0]}")
        raise typer.Exit


@app.callback()
def _whole(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and leave.")
    ] = False,
) -> None:
    pass


def _run(main: Callable[[], Awaitable[int]]) -> None:
    """Run a command's coroutine on uvloop and leave with its exit code."""
    raise typer.Exit(anyio.run(main, backend_options={"use_uvloop": True}))


def _on_engine(
    work: Callable[[Engine], Awaitable[int]],
    config: Path | None,
    journal: Path | None,
    account: str | None,
    sandbox: bool,
) -> None:
    """Run a command that needs an engine."""

    async def main() -> int:
        async with Engine.open(config, journal=journal, account=account, sandbox=sandbox) as engine:
            return await work(engine)

    _run(main)


@app.command(epilog="Example: payout-engine plan salaries.xlsx")
def plan(
    file: File,
    config: Config = None,
    journal: JournalPath = None,
    account: AccountName = None,
    out: PlanOut = None,
    sheet: Sheet = None,
    sandbox: Sandbox = False,
    json: Json = False,
    collect: Collect = False,
    column: Columns = None,
) -> None:
    """Validate a file and move nothing: totals, refused lines, fees, balances, the time it will take."""
    direction = Direction.COLLECT if collect else Direction.PAY
    options = look.PlanOptions(out=out, json=json, sheet=sheet, columns=columns_given(column), direction=direction)
    _on_engine(lambda engine: look.plan(engine, file, options), config, journal, account, sandbox)


@app.command(epilog="Example: payout-engine run salaries.xlsx --out results")
def run(
    file: File,
    config: Config = None,
    journal: JournalPath = None,
    account: AccountName = None,
    out: Out = None,
    sheet: Sheet = None,
    sandbox: Sandbox = False,
    yes: Yes = False,
    json: Json = False,
    follow_for: FollowFor = FOLLOW_FOR_SECONDS,
    no_follow: NoFollow = False,
    format: Format = "csv",
    canary: CanaryCount = None,
    journal_lost: JournalLost = False,
    column: Columns = None,
    strict: Strict = False,
    max_refused: MaxRefused = None,
) -> None:
    """Plan, ask, pay, follow, write results. Running the same file again finishes what was begun."""
    options = PayOptions(
        out=out,
        format=format,
        json=json,
        follow_for_seconds=0.0 if no_follow else follow_for,
        given=as_given(config, journal, sandbox),
        sheet=sheet,
        columns=columns_given(column),
        max_refused=0 if strict else max_refused,
        canary=canary,
        journal_lost=journal_lost,
    )
    _on_engine(lambda engine: run_file(engine, file, options, yes=yes), config, journal, account, sandbox)


@app.command(epilog="Example: payout-engine collect contributions.xlsx --out results")
def collect(
    file: File,
    config: Config = None,
    journal: JournalPath = None,
    account: AccountName = None,
    out: Out = None,
    sheet: Sheet = None,
    sandbox: Sandbox = False,
    yes: Yes = False,
    json: Json = False,
    follow_for: FollowFor = FOLLOW_FOR_SECONDS,
    no_follow: NoFollow = False,
    format: Format = "csv",
    canary: CanaryCount = None,
    journal_lost: JournalLost = False,
    column: Columns = None,
    strict: Strict = False,
    max_refused: MaxRefused = None,
) -> None:
    """Ask the people of a file to pay you: each has to agree on their phone. Otherwise as `run`."""
    options = PayOptions(
        out=out,
        format=format,
        json=json,
        follow_for_seconds=0.0 if no_follow else follow_for,
        given=as_given(config, journal, sandbox),
        sheet=sheet,
        columns=columns_given(column),
        max_refused=0 if strict else max_refused,
        direction=Direction.COLLECT,
        canary=canary,
        journal_lost=journal_lost,
    )
    _on_engine(lambda engine: run_file(engine, file, options, yes=yes), config, journal, account, sandbox)


@app.command(epilog="Example: payout-engine resume 7k3m9q")
def resume(
    run: AnyRunId = None,
    config: Config = None,
    journal: JournalPath = None,
    account: AccountName = None,
    out: Out = None,
    sandbox: Sandbox = False,
    json: Json = False,
    follow_for: FollowFor = FOLLOW_FOR_SECONDS,
    no_follow: NoFollow = False,
    format: Format = "csv",
    key_renewed: KeyRenewed = False,
    journal_lost: JournalLost = False,
) -> None:
    """Finish a run that was begun: after a crash, a Ctrl-C, a top-up, or the next morning."""
    options = PayOptions(
        out=out,
        format=format,
        json=json,
        follow_for_seconds=0.0 if no_follow else follow_for,
        given=as_given(config, journal, sandbox),
        key_renewed=key_renewed,
        journal_lost=journal_lost,
    )
    _on_engine(lambda engine: resume_runs(engine, run, options, send=True), config, journal, account, sandbox)


@app.command(epilog="Example: payout-engine pause 7k3m9q --why 'the bank called'")
def pause(
    run: RunId,
    config: Config = None,
    journal: JournalPath = None,
    sandbox: Sandbox = False,
    who: Asker = "",
    why: Reason = "",
) -> None:
    """Send nothing more of a run until it is resumed; what is on the wire lands. Works from another terminal."""
    _on_engine(
        lambda engine: control.pause(engine, run, who, why, as_given(config, journal, sandbox)),
        config,
        journal,
        None,
        sandbox,
    )


@app.command(epilog="Example: payout-engine cancel 7k3m9q --why 'wrong month'")
def cancel(
    run: RunId,
    config: Config = None,
    journal: JournalPath = None,
    sandbox: Sandbox = False,
    who: Asker = "",
    why: Reason = "",
    json: Json = False,
) -> None:
    """Withdraw what was never sent of a run, for good. What was sent is followed to its end."""
    _on_engine(lambda engine: control.cancel(engine, run, who, why, json=json), config, journal, None, sandbox)


@app.command(epilog='Example: payout-engine recall 7k3m9q EMP-1056 --who Awa --why "left the company"')
def recall(
    run: RunId,
    reference: Annotated[str, typer.Argument(metavar="REFERENCE", help="The paid line: its reference, or line:57.")],
    who: Who = "",
    why: Why = "",
    config: Config = None,
    journal: JournalPath = None,
    sandbox: Sandbox = False,
    json: Json = False,
) -> None:
    """Ask the provider to take back what is unspent of a paid line, where it can do that."""
    given = as_given(config, journal, sandbox)
    _on_engine(
        lambda engine: control.recall(engine, run, reference, who, why, json=json, given=given),
        config,
        journal,
        None,
        sandbox,
    )


@app.command(epilog="Example: payout-engine retry 7k3m9q")
def retry(
    run: RunId,
    config: Config = None,
    journal: JournalPath = None,
    out: Out = None,
    sandbox: Sandbox = False,
    yes: Yes = False,
    json: Json = False,
    follow_for: FollowFor = FOLLOW_FOR_SECONDS,
    no_follow: NoFollow = False,
    format: Format = "csv",
    canary: CanaryCount = None,
    key_renewed: KeyRenewed = False,
    journal_lost: JournalLost = False,
) -> None:
    """Pay the lines of a run that are provably unpaid, as a new run; plans and asks like `run`."""
    options = PayOptions(
        out=out,
        format=format,
        json=json,
        follow_for_seconds=0.0 if no_follow else follow_for,
        given=as_given(config, journal, sandbox),
        canary=canary,
        key_renewed=key_renewed,
        journal_lost=journal_lost,
    )
    _on_engine(lambda engine: control.retry(engine, run, options, yes=yes), config, journal, None, sandbox)


@app.command(epilog="Example: payout-engine follow 7k3m9q --follow-for 2h")
def follow(
    run: AnyRunId = None,
    config: Config = None,
    journal: JournalPath = None,
    account: AccountName = None,
    out: Out = None,
    sandbox: Sandbox = False,
    json: Json = False,
    follow_for: FollowFor = FOLLOW_FOR_SECONDS,
    format: Format = "csv",
    key_renewed: KeyRenewed = False,
    paid: AskPaid = False,
) -> None:
    """Ask again for final answers; send nothing."""
    options = PayOptions(
        out=out,
        format=format,
        json=json,
        follow_for_seconds=follow_for,
        given=as_given(config, journal, sandbox),
        key_renewed=key_renewed,
        ask_paid=paid,
    )
    _on_engine(lambda engine: resume_runs(engine, run, options, send=False), config, journal, account, sandbox)


@app.command(epilog="Example: payout-engine runs")
def runs(config: Config = None, journal: JournalPath = None, sandbox: Sandbox = False, json: Json = False) -> None:
    """List the runs in the journal, newest first."""
    _on_engine(lambda engine: look.runs(engine, json=json), config, journal, None, sandbox)


@app.command(epilog="Example: payout-engine show 7k3m9q")
def show(
    run: RunId, config: Config = None, journal: JournalPath = None, sandbox: Sandbox = False, json: Json = False
) -> None:
    """Show where a run stands: counts and amounts by state, and what was noted on the way."""
    _on_engine(lambda engine: look.show(engine, run, json=json), config, journal, None, sandbox)


@app.command(epilog="Example: payout-engine results 7k3m9q --out results")
def results(
    run: RunId,
    config: Config = None,
    journal: JournalPath = None,
    out: Out = None,
    sandbox: Sandbox = False,
    format: Format = "csv",
) -> None:
    """Write the results of a run again, as they are now."""
    _on_engine(lambda engine: look.results(engine, run, out, format), config, journal, None, sandbox)


@app.command(epilog='Example: payout-engine resolve 7k3m9q --send-again EMP-1056 --who Awa --why "second bonus"')
def resolve(
    run: RunId,
    paid: Annotated[
        list[str] | None,
        typer.Option(
            "--paid", metavar="REFERENCE", help="The money arrived: REFERENCE, or line:57; may be given again."
        ),
    ] = None,
    failed: Annotated[
        list[str] | None, typer.Option("--failed", metavar="REFERENCE", help="The money did not arrive and never will.")
    ] = None,
    send_again: Annotated[
        list[str] | None,
        typer.Option(
            "--send-again", metavar="REFERENCE", help="Send it, on your responsibility; also releases what is held."
        ),
    ] = None,
    cancel: Annotated[
        list[str] | None,
        typer.Option("--cancel", metavar="REFERENCE", help="Never send it; only for what was never sent."),
    ] = None,
    table: Decisions = None,
    release_held: ReleaseHeld = False,
    who: Who = "",
    why: Why = "",
    accepted: Accepted = False,
    config: Config = None,
    journal: JournalPath = None,
    sandbox: Sandbox = False,
    json: Json = False,
) -> None:
    """List what needs a person, with all that is known; or record a person's word on it."""
    given = {Choice.PAID: paid, Choice.FAILED: failed, Choice.SEND_AGAIN: send_again, Choice.CANCEL: cancel}
    words = [DecisionInput(name, 0, choice) for choice, names in given.items() for name in names or ()]
    options = decide.ResolveOptions(
        words=words,
        table=table,
        who=who,
        why=why,
        release_held=release_held,
        json=json,
        given=as_given(config, journal, sandbox),
    )
    _on_engine(
        lambda engine: (
            decide.resolve(engine, run, options)
            if options
            else decide.attention(engine, run, options.given, accepted=accepted, json=json)
        ),
        config,
        journal,
        None,
        sandbox,
    )


@app.command(epilog="Example: payout-engine verify 7k3m9q")
def verify(
    run: RunId,
    digest: Digest = "",
    config: Config = None,
    journal: JournalPath = None,
    sandbox: Sandbox = False,
    json: Json = False,
) -> None:
    """Prove from the journal alone that nothing was altered and nobody was sent money twice without proof between."""
    _on_engine(lambda engine: decide.verify(engine, run, digest, json=json), config, journal, None, sandbox)


@app.command(epilog="Example: payout-engine balance --account bf")
def balance(
    config: Config = None,
    account: AccountName = None,
    sandbox: Sandbox = False,
    json: Json = False,
) -> None:
    """Show what the accounts hold, per wallet."""
    _on_engine(lambda engine: look.balance(engine, json=json), config, None, account, sandbox)


@app.command(epilog="Example: payout-engine serve --urls")
def serve(
    host: Annotated[str, typer.Option(metavar="HOST", help="The address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(metavar="PORT", help="Its port; 0 chooses a free one.")] = 8787,
    urls: Annotated[bool, typer.Option("--urls", help="Print each account's secret address and leave.")] = False,
    config: Config = None,
    journal: JournalPath = None,
    account: AccountName = None,
) -> None:
    """Take providers' calls until Ctrl-C: each is stored, and the provider asked about what it says."""
    work = callbacks.urls if urls else callbacks.serve
    _on_engine(lambda engine: work(engine, host, port), config, journal, account, False)


@app.command(epilog="Example: payout-engine providers")
def providers(json: Json = False) -> None:
    """List the providers this installation knows, with their documented limits and wallets."""
    raise typer.Exit(look.providers_known(json=json))


@app.command(epilog="Example: payout-engine countries BF")
def countries(
    code: Annotated[str | None, typer.Argument(metavar="CODE", help="Show one country in full, such as BF.")] = None,
    json: Json = False,
) -> None:
    """Show the phone rules of every country: lengths, operators and their prefixes."""
    raise typer.Exit(look.countries_known(code, json=json))


@app.command(epilog="Example: payout-engine sandbox --port 8400")
def sandbox(
    host: Annotated[str, typer.Option(metavar="HOST", help="A loopback address.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(metavar="PORT", help="The first provider's port; 0 chooses free ones.")] = 0,
    ledger: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep ledgers here; in memory if not given.")
    ] = None,
    balance: Annotated[
        int | None, typer.Option(metavar="AMOUNT", help="What each wallet holds at first; as documented if not given.")
    ] = None,
) -> None:
    """Serve the providers' sandboxes until Ctrl-C: the same API, with a ledger that is the truth."""

    async def main() -> int:
        return await sandboxes.sandbox(host, port, ledger, balance)

    _run(main)
