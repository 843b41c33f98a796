"""What the command line shows: plans, summaries and what to do next, in a finance person's words."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec
from rich.table import Table

from payout_engine.app.engine import Engine
from payout_engine.app.submit import Forecast, IntakeFindings, Kind, LaneForecast, Submission
from payout_engine.cli.console import data, emit, messages, plain
from payout_engine.domain.clock import minute
from payout_engine.domain.ending import Ending
from payout_engine.domain.errors import Brake
from payout_engine.domain.model import DATA_LINES, Direction, Run, masked
from payout_engine.domain.money import format_amount
from payout_engine.domain.states import State
from payout_engine.results.summary import Summary

COLUMN_OF = "_column"
"""How the entries of a run's dialect end that say which column is which."""

EXAMPLES_SHOWN = 3
"""Lines shown for each kind of problem; the result files hold all of them."""

STATE_WORDS: Mapping[State, tuple[str, str]] = {
    State.PAID: ("green", "the money arrived"),
    State.ACCEPTED: ("cyan", "the provider took the order; no final answer yet"),
    State.SENDING: ("cyan", "being sent"),
    State.READY: ("yellow", "not sent yet"),
    State.UNKNOWN: ("bold red", "sent, and no answer says what became of it"),
    State.HELD: ("bold yellow", "waits for a person's word; not sent"),
    State.FAILED: ("red", "the provider states that it did not pay"),
    State.REJECTED: ("red", "refused by our checks; not sent"),
    State.CANCELLED: ("dim", "withdrawn before it was sent"),
    State.REVERSED: ("magenta", "was paid, then taken back"),
}

COLLECTED_WORDS: Mapping[State, tuple[str, str]] = {
    State.PAID: ("collected", "the money came in"),
    State.ACCEPTED: ("requested", "the person was asked; no final answer yet"),
    State.FAILED: ("failed", "the person did not pay, as the provider states"),
    State.REVERSED: ("reversed", "came in, then was given back"),
}
"""What is said otherwise of a run that collects: the word for the state, and what it means."""


def state_words(state: State, direction: Direction) -> tuple[str, str, str]:
    """Return the word for a state, its colour, and what it means."""
    colour, meaning = STATE_WORDS[state]
    word: str = state
    if direction is Direction.COLLECT:
        word, meaning = COLLECTED_WORDS.get(state, (word, meaning))
    return word, colour, meaning


def money(amounts_minor: Mapping[str, int], between: str = " + ") -> str:
    """Return amounts by currency as text, such as `1,240,000 XOF + 300.00 KES`."""
    return between.join(format_amount(amount, currency) for currency, amount in sorted(amounts_minor.items())) or "-"


def moment(at: float | None) -> str:
    """Return a time as a person in UTC reads it, or a dash."""
    return minute(at) if at else "-"


def span(seconds: float) -> str:
    """Return a duration in words."""
    if seconds < 90:
        return f"{max(1, math.ceil(seconds))} s"
    minutes = math.ceil(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02} min"


def counted(count: int, noun: str) -> str:
    """Return a count with its noun, such as `1 line` or `2,000 lines`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def table(*columns: str, numbers: Iterable[str] = ()) -> Table:
    """Return an empty table without lines; the columns in `numbers` are set to the right."""
    made = Table(box=None, pad_edge=False, header_style="bold dim", padding=(0, 2, 0, 0))
    right = set(numbers)
    for column in columns:
        number = column in right
        made.add_column(column, justify="right" if number else "left", overflow="fold", no_wrap=number)
    return made


# -------------------------------------------------------------------------------------------------------------- plan


def plan(submission: Submission, engine: Engine, *, to_messages: bool) -> None:
    """Show what a file holds and what paying it would need."""
    findings, forecast = submission.findings, submission.forecast
    assert findings is not None
    assert forecast is not None
    out = messages if to_messages else data
    sandbox = "  [black on yellow] sandbox: no real money [/]" if engine.accounts.sandbox else ""
    out.print(f"\n[bold]{plain(submission.run.name)}[/]{sandbox}")
    out.print(_counts(findings, submission.run.direction))
    for line in _columns(submission.run):
        out.print(line, soft_wrap=not out.is_terminal)
    if findings.data_lines != findings.lines:
        out.print(_lines(findings), soft_wrap=not out.is_terminal)
    for title, kinds in (
        ("Refused", findings.rejected_by_code),
        ("Held for a person", findings.held_by_code),
        ("Please look", findings.warnings_by_code),
    ):
        if kinds:
            out.print(f"\n[bold]{title}[/]")
            out.print(_problems(kinds.values()))
    if forecast.lanes:
        out.print()
        out.print(_lanes(forecast, submission.run.direction))
        for line in _money_and_time(forecast, submission.run.direction):
            out.print(line, soft_wrap=not out.is_terminal)
    for sentence in submission.over_limits:
        out.print(f"[red]Not allowed:[/] {plain(sentence)} `run` would refuse it.", soft_wrap=not out.is_terminal)
    for later, count in submission.left_out.items():
        out.print(f"{counted(count, 'line')} left out: run {later} has paid them, or has them in flight.")
    out.print()


def question(submission: Submission, engine: Engine) -> str:
    """Return what a person has to say yes to: how much, from where, to how many, and whether it is real."""
    findings, forecast, run = submission.findings, submission.forecast, submission.run
    assert findings is not None
    assert forecast is not None
    accounts = ", ".join(dict.fromkeys(lane.lane.account for lane in forecast.lanes))
    fees = {currency: fee for currency, fee in forecast.fees_minor.items() if fee}
    kind = "sandbox, no real money" if engine.accounts.sandbox else "real money"
    verb, preposition = ("Pay", "from") if run.direction is Direction.PAY else ("Request", "for")
    on_top = f" and fees of {money(fees)}" if fees and run.direction is Direction.PAY else ""
    left = [f"{count:,} {word}" for count, word in ((findings.rejected, "refused"), (findings.held, "held")) if count]
    beside = f" ({', '.join(left)})" if left else ""
    return (
        f"{verb} {counted(findings.accepted, 'payout')}, {money(forecast.totals_minor)}{on_top}, {preposition} "
        f"{accounts} ({kind}){beside}, now?"
    )


def _columns(run: Run) -> list[str]:
    """Say which column is what, and which were not used, so that nobody pays by the wrong one."""
    meanings = {name: header for name, header in run.dialect.items() if name.endswith(COLUMN_OF)}
    used = [f"{name.removesuffix(COLUMN_OF)} ← {plain(header)}" for name, header in meanings.items()]
    ignored = [plain(header) for header in run.columns if header not in meanings.values()]
    found = [f"[dim]Columns:[/] {', '.join(used)}"] if used else []
    return found + ([f"[dim]Not used:[/] {', '.join(ignored)}"] if ignored else [])


def _counts(findings: IntakeFindings, direction: Direction) -> str:
    to_do = "to pay" if direction is Direction.PAY else "to request"
    parts = [counted(findings.lines, "line"), f"[green]{findings.accepted:,} {to_do}[/]"]
    if findings.rejected:
        parts.append(f"[red]{findings.rejected:,} refused[/]")
    if findings.held:
        parts.append(f"[yellow]{findings.held:,} held[/]")
    return ", ".join(parts)


def _lines(findings: IntakeFindings) -> str:
    """Say why a file has more lines than payouts: whoever counts them should find them all."""
    parts = []
    if continued := findings.continued_lines:
        belong = "belongs" if continued == 1 else "belong"
        parts.append(f"{counted(continued, 'line')} {belong} to cells that span several lines")
    if totals := findings.total_lines:
        parts.append(f"{counted(totals, 'line')} {'sums' if totals == 1 else 'sum'} up the others")
    if blank := findings.blank_lines:
        parts.append(f"{counted(blank, 'line')} {'is' if blank == 1 else 'are'} blank")
    return f"{counted(findings.lines, 'payout')} on {counted(findings.data_lines, 'line')}: {', '.join(parts)}."


def _problems(kinds: Iterable[Kind]) -> Table:
    rows = table("line", "column", "what is wrong, and how to mend it", numbers=["line"])
    for kind in sorted(kinds, key=lambda kind: -kind.count):
        for example in kind.examples[:EXAMPLES_SHOWN]:
            rows.add_row(str(example.line), plain(example.column), plain(masked(example.message)))
        if kind.count > EXAMPLES_SHOWN:
            rows.add_row("", "", f"[dim]and {kind.count - EXAMPLES_SHOWN:,} more like this ({kind.code})[/]")
    return rows


def _lanes(forecast: Forecast, direction: Direction) -> Table:
    if direction is Direction.COLLECT:
        numbers = ["requests", "amount"]  # What comes in needs no balance.
    else:
        numbers = ["payouts", "amount", "fees", "needed", "balance"]
    several = len({lane.lane.account for lane in forecast.lanes}) > 1
    rows = table("wallet", *numbers, "", numbers=numbers)
    for lane in forecast.lanes:
        title = f"{lane.title} ({lane.lane.account})" if several else lane.title
        balance = "not read" if lane.balance_minor is None else _number(lane.balance_minor, lane)
        cells = [
            f"{lane.count:,}",
            _number(lane.amount_minor, lane),
            _number(lane.fee_minor, lane) if lane.fee_known else "not known",
            _number(lane.need_minor, lane),
            f"[red]{balance}[/]" if lane.shortfall_minor else balance,
        ]
        rows.add_row(plain(title), *cells[: len(numbers)], lane.lane.currency)
    return rows


def _number(amount_minor: int, lane: LaneForecast) -> str:
    """Return an amount without its currency, which the table names once in each row."""
    return format_amount(amount_minor, lane.lane.currency).removesuffix(lane.lane.currency).strip()


def _money_and_time(forecast: Forecast, direction: Direction) -> Iterable[str]:
    if direction is Direction.COLLECT:
        yield f"\nTo request: [bold]{money(forecast.totals_minor)}[/] from {counted(forecast.count, 'payer')}."
    else:
        fees = {currency: fee for currency, fee in forecast.fees_minor.items() if fee}
        yield (
            f"\nTo pay: [bold]{money(forecast.totals_minor)}[/] to {counted(forecast.count, 'recipient')}, "
            f"fees {money(fees)}, together [bold]{money(forecast.needs_minor)}[/]."
        )
    untold = [lane.title for lane in forecast.lanes if not lane.fee_known]
    if untold:
        yield f"No fees are documented for {plain(', '.join(dict.fromkeys(untold)))}; the provider may take some."
    for lane in forecast.lanes:
        if lane.shortfall_minor:
            yield f"[red]Not enough money:[/] {_short(lane)} The money would run out at line {lane.runs_out_at_line}."
    for account, problem in forecast.balance_problems.items():
        yield f"[yellow]The balance of {plain(account)} could not be read:[/] {plain(problem)}"
    if forecast.estimated_seconds is None:
        yield "No call rate is documented, so the time cannot be foreseen."
    else:
        calls = sum(lane.calls for lane in forecast.lanes)
        takes = span(forecast.estimated_seconds)
        yield f"Sending takes about {takes} ({counted(calls, 'call')} at the documented rate)."


def _short(lane: LaneForecast) -> str:
    short = format_amount(lane.shortfall_minor, lane.lane.currency)
    return f"top up {plain(lane.title)} of account {plain(lane.lane.account)} by [bold]{short}[/]."


def plan_json(submission: Submission) -> None:
    """Print a plan as one JSON line."""
    fields = msgspec.to_builtins(submission.findings)
    for kinds in ("rejected_by_code", "held_by_code", "warnings_by_code"):
        for kind in fields[kinds].values():
            for example in kind["examples"]:
                example["message"] = masked(example["message"])
    emit(
        "plan",
        **{**fields, "run_id": submission.run_id, "name": submission.run.name, "digest": submission.run.digest},
        forecast=msgspec.to_builtins(submission.forecast),
        over_limits=submission.over_limits,
        left_out=submission.left_out,
    )


# ----------------------------------------------------------------------------------------------------------- summary


def summary(found: Summary, direction: Direction) -> Table:
    """Return a table of what became of a run's lines."""
    rows = table("", "lines", "amount", "meaning", numbers=["lines", "amount"])
    for total in sorted(found.totals, key=lambda total: list(STATE_WORDS).index(total.state)):
        word, colour, meaning = state_words(total.state, direction)
        amount = "-" if total.state is State.REJECTED else money(total.amounts_minor, between="\n")
        rows.add_row(f"[{colour}]{word}[/]", f"{total.count:,}", amount, meaning)
    rows.add_row("[bold]all lines[/]", f"[bold]{found.lines:,}[/]", "", "")
    return rows


def _lines_of_file(run: Run, found: Summary) -> list[str]:
    """Say how many lines of the file are no payout of their own, if any; what each of them is was said by the plan."""
    data_lines = int(run.dialect.get(DATA_LINES, found.lines))
    others = data_lines - found.lines
    if not others:
        return []
    are = "is blank, a total, or belongs" if others == 1 else "are blank, totals, or belong"
    lines = f"{counted(found.lines, 'payout')} on {counted(data_lines, 'line')} of the file"
    return [f"{lines}: {counted(others, 'line')} {are} to cells that span several lines."]


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What is told of a run when paying it has ended.

    Attributes:
        forecast: what the lines that were not sent will need; None without any.
        conflicts: what the provider says against the journal.
        out: the results folder; None if it could not be written.
        given: the options that find the run again, to be repeated in the commands that we propose.
        awaiting: accepted payouts that wait for the payer's confirmation at the provider.
    """

    run: Run
    summary: Summary
    ending: Ending
    forecast: Forecast | None
    conflicts: Sequence[str]
    out: Path | None
    given: str
    awaiting: int = 0


def next_steps(report: Report) -> Sequence[str]:
    """Return what a person should know or do now, in the order of urgency, and where the results are."""
    run, found, ending, forecast = report.run, report.summary, report.ending, report.forecast
    conflicts, out, given = report.conflicts, report.out, report.given
    again = f"[bold]payout-engine resume {run.run_id}{plain(given)}[/]"
    pays = run.direction is Direction.PAY
    again_words = ("pays it again", "Pay them") if pays else ("is asked again", "Ask for them")
    steps = _lines_of_file(run, found)
    steps += [f"[red]Stopped:[/] {plain(stop.message)}" for stop in ending.stops]
    if forecast is not None and any(stop.brake is Brake.FUNDS for stop in ending.stops):
        steps += [f"To go on, {_short(lane)}" for lane in forecast.lanes if lane.shortfall_minor]
    for conflict in conflicts[:EXAMPLES_SHOWN]:
        steps.append(f"[bold red]The provider contradicts the journal:[/] {plain(masked(conflict))}")
    if len(conflicts) > EXAMPLES_SHOWN:
        more = f"and {len(conflicts) - EXAMPLES_SHOWN:,} more; see: payout-engine show {run.run_id}"
        steps.append(more + plain(given))
    if found.count(State.READY):
        when = "To go on" if ending.interrupted else "When the cause is gone"
        steps.append(f"{counted(found.count(State.READY), 'payout')} not sent. {when}: {again}")
    elif any(stop.brake is Brake.ASKED for stop in ending.stops):
        steps.append(f"To go on: {again}")
    unknown = found.count(State.UNKNOWN)
    if unknown:
        steps.append(
            f"[bold red]Unknown money: {money(found.amounts_minor(State.UNKNOWN))}[/] in {counted(unknown, 'payout')}. "
            f"Ask the provider about each before anyone {again_words[0]}; they are in attention.csv, and what is known "
            f"of them is shown by: [bold]payout-engine resolve {run.run_id}{plain(given)}[/]"
        )
    if found.count(State.HELD):
        decide = f"[bold]payout-engine resolve {run.run_id}{plain(given)}[/]"
        held = counted(found.count(State.HELD), "payout")
        steps.append(f"{held} held for a person; why is in attention.csv. Release or withdraw with: {decide}")
    if report.awaiting:
        steps.append(
            f"[bold yellow]{counted(report.awaiting, 'payout')} not paid until you confirm them to the provider[/] (it "
            "has asked you, by e-mail or in its portal); which ones is in results.csv."
        )
    if found.count(State.ACCEPTED, State.SENDING):
        steps.append(f"Some have no final answer yet. Ask again with: {again.replace('resume', 'follow', 1)}")
    if found.count(State.REJECTED):
        steps.append("Refused lines are in rejected.csv with what to mend; mend a copy of that file and run it.")
    if found.count(State.FAILED):
        retry = f"[bold]payout-engine retry {run.run_id}{plain(given)}[/]"
        steps.append(f"Lines that were provably not paid are in failed.csv. {again_words[1]} again with: {retry}")
    if out is not None:
        steps.append(f"Results: [bold]{plain(str(out))}[/]")
    return steps
