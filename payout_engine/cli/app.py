"""Every command, its options and an example of its use."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated

import anyio
import typer

from payout_engine.cli import looking, serving
from payout_engine.cli.options import (
    AccountName,
    AnyRunId,
    Config,
    File,
    FollowFor,
    Format,
    JournalPath,
    Json,
    NoFollow,
    Out,
    RunId,
    Sandbox,
    Yes,
)
from payout_engine.cli.paying import Wishes, resume_runs, run_file
from payout_engine.engine import FOLLOW_FOR_SECONDS, Engine

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
    help="Bulk mobile-money payouts that are never paid twice and never lost.",
    epilog="Try it without a key: payout-engine run examples/salaries-bf.csv --sandbox",
)


def _run(main: Callable[[], Awaitable[int]]) -> None:
    """Run a command's coroutine on uvloop and leave with its exit code."""
    raise typer.Exit(anyio.run(main, backend_options={"use_uvloop": True}))


@app.command(epilog="Example: payout-engine plan salaries.xlsx")
def plan(
    file: File,
    config: Config = None,
    journal: JournalPath = None,
    account: AccountName = None,
    sandbox: Sandbox = False,
    json: Json = False,
) -> None:
    """Judge a file and move nothing: totals, refused lines, fees, balances, the time it will take."""

    async def main() -> int:
        async with Engine.open(config, journal=journal, account=account, sandbox=sandbox) as engine:
            return await looking.plan(engine, file, json=json)

    _run(main)


@app.command(epilog="Example: payout-engine run salaries.xlsx --out results")
def run(
    file: File,
    config: Config = None,
    journal: JournalPath = None,
    account: AccountName = None,
    out: Out = None,
    sandbox: Sandbox = False,
    yes: Yes = False,
    json: Json = False,
    follow_for: FollowFor = FOLLOW_FOR_SECONDS,
    no_follow: NoFollow = False,
    format: Format = "csv",
) -> None:
    """Plan, ask, pay, follow, write results. Running the same file again finishes what was begun."""
    wishes = Wishes(out=out, format=format, json=json, follow_for_seconds=0.0 if no_follow else follow_for)

    async def main() -> int:
        async with Engine.open(config, journal=journal, account=account, sandbox=sandbox) as engine:
            return await run_file(engine, file, wishes, yes=yes)

    _run(main)


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
) -> None:
    """Finish a run that was begun: after a crash, a Ctrl-C, a top-up, or the next morning."""
    wishes = Wishes(out=out, format=format, json=json, follow_for_seconds=0.0 if no_follow else follow_for)

    async def main() -> int:
        async with Engine.open(config, journal=journal, account=account, sandbox=sandbox) as engine:
            return await resume_runs(engine, run, wishes, send=True)

    _run(main)


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
) -> None:
    """Ask again for final answers; send nothing."""
    wishes = Wishes(out=out, format=format, json=json, follow_for_seconds=follow_for)

    async def main() -> int:
        async with Engine.open(config, journal=journal, account=account, sandbox=sandbox) as engine:
            return await resume_runs(engine, run, wishes, send=False)

    _run(main)


@app.command(epilog="Example: payout-engine runs")
def runs(config: Config = None, journal: JournalPath = None, sandbox: Sandbox = False, json: Json = False) -> None:
    """List the runs in the journal, newest first."""

    async def main() -> int:
        async with Engine.open(config, journal=journal, sandbox=sandbox) as engine:
            return await looking.runs(engine, json=json)

    _run(main)


@app.command(epilog="Example: payout-engine show 7k3m9q")
def show(
    run: RunId, config: Config = None, journal: JournalPath = None, sandbox: Sandbox = False, json: Json = False
) -> None:
    """Show where a run stands: counts and amounts by state, and what was noted on the way."""

    async def main() -> int:
        async with Engine.open(config, journal=journal, sandbox=sandbox) as engine:
            return await looking.show(engine, run, json=json)

    _run(main)


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

    async def main() -> int:
        async with Engine.open(config, journal=journal, sandbox=sandbox) as engine:
            return await looking.results(engine, run, out, format)

    _run(main)


@app.command(epilog="Example: payout-engine balance --account bf")
def balance(
    config: Config = None,
    account: AccountName = None,
    sandbox: Sandbox = False,
    json: Json = False,
) -> None:
    """Show what the accounts hold, per wallet."""

    async def main() -> int:
        async with Engine.open(config, account=account, sandbox=sandbox) as engine:
            return await looking.balance(engine, json=json)

    _run(main)


@app.command(epilog="Example: payout-engine providers")
def providers(json: Json = False) -> None:
    """List the providers this installation knows, with their documented limits and wallets."""
    raise typer.Exit(looking.providers_known(json=json))


@app.command(epilog="Example: payout-engine countries BF")
def countries(
    code: Annotated[str | None, typer.Argument(metavar="[CODE]", help="Show one country in full, such as BF.")] = None,
    json: Json = False,
) -> None:
    """Show the phone rules of every country: lengths, operators and their prefixes."""
    raise typer.Exit(looking.countries_known(code, json=json))


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
        return await serving.sandbox(host, port, ledger, balance)

    _run(main)
