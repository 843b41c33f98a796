"""The commands that only look: plan, runs, show, results, balance, providers, countries."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec
from rich.padding import Padding

from payout_engine.app.accounts import known_providers
from payout_engine.app.engine import Engine
from payout_engine.app.submit import Submission
from payout_engine.cli import render
from payout_engine.cli.console import data, emit, plain, say
from payout_engine.cli.progress import LineCounter
from payout_engine.domain.countries import COUNTRIES, Country
from payout_engine.domain.errors import ConfigError
from payout_engine.domain.model import Direction, masked
from payout_engine.domain.money import format_amount
from payout_engine.ports.provider import Traits, Wallet
from payout_engine.results.summary import Exit, summarize


class PlanOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the person asked for, apart from what to plan."""

    out: Path | None
    json: bool
    sheet: str | None
    columns: Mapping[str, str]
    direction: Direction


async def plan(engine: Engine, file: str, options: PlanOptions) -> int:
    """Validate a file and show what paying it would do; with `out`, write the lines that will not be paid there."""
    json, out, watch = options.json, options.out, LineCounter(json=options.json).watch
    submission = await engine.plan(
        file, out=out, sheet=options.sheet, watch=watch, direction=options.direction, columns=options.columns
    )
    if submission.known:
        run = submission.run
        if json:
            emit("known_run", run_id=run.run_id, state=run.state)
        else:
            data.print(
                f"{plain(run.name)} was already begun as run [bold]{run.run_id}[/] ({run.state}); running it again "
                f"only finishes it. See: payout-engine show {run.run_id}",
                soft_wrap=True,
            )
        return Exit.ALL_PAID
    if json:
        render.plan_json(submission)
    else:
        render.plan(submission, engine, to_messages=False)
        if out is not None:
            say(f"Lines that would not be paid, with the reasons in full: [bold]{plain(str(out))}[/]")
    return _would_end(submission)


def _would_end(submission: Submission) -> Exit:
    """Return how the run would end as far as can be seen now, the most urgent first."""
    findings, forecast = submission.findings, submission.forecast
    assert findings is not None
    short = forecast is not None and any(lane.shortfall_minor for lane in forecast.lanes)
    if submission.over_limits or short:
        return Exit.BRAKE
    if findings.held:
        return Exit.NEEDS_A_PERSON
    return Exit.SOME_NOT_PAID if findings.rejected else Exit.ALL_PAID


async def runs(engine: Engine, *, json: bool) -> int:
    """List the runs."""
    found = await engine.runs()
    rows = render.table("run", "file", "begun", "state", "lines", "paid", "amount paid", numbers=["lines", "paid"])
    for run in found:
        summary = summarize(run.run_id, await engine.tally(run.run_id))
        paid = [total for total in summary.totals if total.state == "paid"]
        if json:
            emit("run", **msgspec.to_builtins(run), totals=msgspec.to_builtins(summary.totals))
            continue
        rows.add_row(
            run.run_id,
            plain(run.name) + (" (collects)" if run.direction is Direction.COLLECT else ""),
            render.moment(run.created_at),
            run.state,
            f"{summary.lines:,}",
            f"{paid[0].count:,}" if paid else "0",
            render.money(paid[0].amounts_minor) if paid else "-",
        )
    if not json:
        data.print(rows) if found else say("There are no runs in this journal.")
    return Exit.ALL_PAID


async def show(engine: Engine, run_id: str, *, json: bool) -> int:
    """Show where a run stands."""
    run = await engine.run(run_id)
    summary = summarize(run_id, await engine.tally(run_id))
    notes = await (await engine.journal()).notes(run_id)
    if json:
        notes = [(at, kind, _shown(kind, text)) for at, kind, text in notes]
        emit("run", **msgspec.to_builtins(run), summary=msgspec.to_builtins(summary), notes=notes)
        return Exit.ALL_PAID
    collects = "  collects" if run.direction is Direction.COLLECT else ""
    data.print(f"Run [bold]{run.run_id}[/]  {plain(run.name)}  [dim]{run.state}{collects}[/]")
    data.print(f"begun {render.moment(run.created_at)}, approved {render.moment(run.approved_at)}")
    data.print(render.summary(summary, run.direction))
    for at, kind, text in notes:
        data.print(f"[dim]{render.moment(at)}  {kind}[/]  {plain(_shown(kind, text))}", soft_wrap=True)
    return Exit.ALL_PAID


def _shown(kind: str, text: str) -> str:
    """Return a remark of the journal for a screen. Folders are shown as they are called, or nobody finds them."""
    return text if kind == "results_folder" else masked(text)


async def results(engine: Engine, run_id: str, out: Path | None, format: str) -> int:
    """Write a run's results again."""
    folder = out or Path(f"{run_id}-results")
    await engine.results(run_id, folder, format=format)
    say(f"Results: [bold]{plain(str(folder))}[/]")
    return Exit.ALL_PAID


async def balance(engine: Engine, *, json: bool) -> int:
    """Show what each balance of each account holds."""
    lanes = [lane for name in engine.accounts.names for lane in engine.accounts.lanes(name)]
    read = await engine.accounts.balances(lanes)
    rows = render.table("account", "wallet", "available", "pending", numbers=["available", "pending"])
    shown = set()
    for lane in lanes:
        found = read.found.get(lane)
        if found is None or (lane.account, found.lane_name) in shown:
            continue
        shown.add((lane.account, found.lane_name))
        if json:
            emit("balance", account=lane.account, **msgspec.to_builtins(found))
        amounts = (found.available_minor, found.pending_minor)
        rows.add_row(
            plain(lane.account), found.lane_name, *(format_amount(amount, lane.currency) for amount in amounts)
        )
    if not json and rows.row_count:
        data.print(rows)
    for account, problem in read.problems.items():
        say(f"[red]{plain(account)}:[/] {plain(problem)}")
    return Exit.UNUSABLE if read.problems else Exit.ALL_PAID


def providers_known(*, json: bool) -> int:
    """List the providers with their limits and wallets."""
    for name, entry in known_providers().items():
        if not json:
            data.print(f"[bold]{name}[/]  {entry.title}. {entry.summary}")
        for direction, face in entry.faces.items():
            traits, wallets = face.traits(entry.sandbox_options), face.wallets(entry.sandbox_options)
            if json:
                emit(
                    "provider",
                    name=name,
                    title=entry.title,
                    direction=direction,
                    traits=msgspec.to_builtins(traits),
                    wallets=msgspec.to_builtins(wallets),
                    closed=msgspec.to_builtins(face.closed(entry.sandbox_options)),
                )
                continue
            closed = [one.wallet for one in face.closed(entry.sandbox_options)]
            data.print(_one_face(direction, traits, wallets, closed))
    return Exit.ALL_PAID


def _one_face(direction: Direction, traits: Traits, wallets: Sequence[Wallet], closed: Sequence[Wallet]) -> Padding:
    """Return what a provider does in one direction, where and how much at a time."""
    does = "pays to" if direction is Direction.PAY else "collects by"
    rate = "" if traits.calls_per_second is None else f", {traits.calls_per_second:g} calls per second"
    rows = render.table("", "")
    rows.show_header = False
    rows.add_row(does, _each(wallet.recipient for wallet in wallets))
    rows.add_row("in", _each(wallet.country for wallet in wallets))
    more = _each(one.country for one in closed if one.country not in {wallet.country for wallet in wallets})
    if more:
        rows.add_row("", f"when configured also {more}")
    rows.add_row("currencies", _each(wallet.currency for wallet in [*wallets, *closed]))
    rows.add_row("per call", f"{traits.batch_limit}{rate}")
    return Padding(rows, (0, 0, 1, 2))


def _each(words: Iterable[str]) -> str:
    """Return words, each once, in the order in which they come first."""
    return ", ".join(dict.fromkeys(word.replace("_", " ") for word in words if word))


def countries_known(code: str | None, *, json: bool) -> int:
    """Show the phone rules of all countries, or of one with its prefixes."""
    if code is not None and code.upper() not in COUNTRIES:
        raise ConfigError(f"There are no rules for “{code}”. Known: {', '.join(sorted(COUNTRIES))}.")
    chosen = [COUNTRIES[code.upper()]] if code is not None else list(COUNTRIES.values())
    if json:
        for country in chosen:
            emit("country", **country_fields(country))
    elif code is not None:
        _one_country(chosen[0])
    else:
        _all_countries(chosen)
    return Exit.ALL_PAID


def country_fields(country: Country) -> dict[str, object]:
    """Return what is known of a country, without its compiled pattern."""
    hidden = {"pattern", "operators_by_prefix", "prefix_lengths"}
    return {name: getattr(country, name) for name in country.__struct_fields__ if name not in hidden}


def _all_countries(countries: list[Country]) -> None:
    rows = render.table("code", "country", "dial", "digits", "example", "currency", "operators", numbers=["dial"])
    for country in countries:
        digits = " or ".join(map(str, country.lengths))
        operators = ", ".join(country.operators)
        rows.add_row(
            country.code, country.name, f"+{country.dial_code}", digits, country.example, country.currency, operators
        )
    data.print(rows)


def _one_country(country: Country) -> None:
    data.print(f"[bold]{country.name}[/] ({country.code})  +{country.dial_code}  {country.currency}")
    data.print(f"mobile numbers: {' or '.join(map(str, country.lengths))} digits, such as {country.example}")
    if country.ports_numbers:
        data.print("Subscribers may keep their number when they change the operator, so a prefix proves nothing.")
    rows = render.table("operator", "prefixes")
    for operator, prefixes in country.operators.items():
        rows.add_row(operator, " ".join(prefixes))
    data.print(rows)
