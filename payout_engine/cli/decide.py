"""The commands for people who answer for the money: resolve (what waits for a word, and taking it) and verify."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import msgspec

from payout_engine.app.decisions import LINE, DecisionInput, decisions_meant, read_table
from payout_engine.app.engine import AttentionLine, Engine
from payout_engine.cli import render
from payout_engine.cli.console import data, emit, fail, plain, room, say
from payout_engine.domain.errors import UserError
from payout_engine.domain.model import Choice, Decision, Run, Step, mask, masked
from payout_engine.domain.money import format_amount
from payout_engine.domain.proof import Finding
from payout_engine.domain.rejections import REPEATED
from payout_engine.domain.states import State
from payout_engine.ports.provider import KeyPromise, LookUpKind, Traits
from payout_engine.results.summary import Exit

SHOWN_MAX = 50
"""Lines shown to a person; `--json` gives all of them, and attention.csv has them."""


# ------------------------------------------------------------------------------------------------ what waits for whom


async def attention(engine: Engine, run_id: str, given: str, *, accepted: bool, json: bool) -> int:
    """List what waits for a person, with everything that is known."""
    run = await engine.run(run_id)
    tallies = await engine.tally(run_id)
    amounts: dict[State, dict[str, int]] = {}
    accounts: set[str] = set()
    count = 0
    async for lines in engine.waiting(run_id, accepted=accepted):
        for line in lines:
            payout, state = line.entry.payout, line.entry.receipt.state
            of_state = amounts.setdefault(state, {})
            of_state[payout.currency] = of_state.get(payout.currency, 0) + payout.amount_minor
            accounts.add(line.entry.lane.account)
            count += 1
            if json:
                _emit(line)
                await room()
            elif count <= SHOWN_MAX:
                for text in _told(line):
                    data.print(text, soft_wrap=True)
    if json:
        emit("waiting", run_id=run_id, lines=count, amounts_minor=amounts)
        return Exit.NEEDS_A_PERSON if count else Exit.ALL_PAID
    if count > SHOWN_MAX:
        say(f"and {count - SHOWN_MAX:,} more; attention.csv of the results has them all, as does --json.")
    sending = sum(tally.count for tally in tallies if tally.state is State.SENDING)
    if sending:
        say(f"{render.counted(sending, 'payout')} being sent now, or when the program stopped: resume the run first.")
    for state, of_state in sorted(amounts.items()):
        say(f"[bold]{str(state).capitalize()} money: {render.money(of_state)}[/]")
    for text in _advice(engine, run, sorted(accounts), given, count):
        say(text)
    return Exit.NEEDS_A_PERSON if count else Exit.ALL_PAID


def _told(line: AttentionLine) -> Iterator[str]:
    """Yield what is known of one line, in words."""
    payout, receipt = line.entry.payout, line.entry.receipt
    amount = format_amount(payout.amount_minor, payout.currency)
    since = f" since {render.moment(receipt.at)}" if receipt.at else ""
    yield (
        f"[bold]line {payout.line}  {plain(payout.reference)}[/]  {mask(payout.recipient)}  [bold]{amount}[/]  "
        f"{receipt.state}{since}"
    )
    yield f"   key {line.entry.key}  account {plain(line.entry.lane.account)}"
    if not line.steps and receipt.message:
        yield f"   {plain(receipt.message)}"
    for step in line.steps:
        yield f"   [dim]{render.moment(step.at)}[/]  {plain(_step(step))}"


def _step(step: Step) -> str:
    receipt = step.receipt
    if receipt is None:
        return "sent" if step.kind == "intent" else "sent again under the same key, to ask"
    heads = {"receipts": "answered", "sighting": "look-up", "recover": "interrupted", "decision": "decided"}
    said = ": ".join(part for part in (receipt.reason, receipt.message) if part)
    number = f" [transfer {receipt.provider_reference}]" if receipt.provider_reference else ""
    return f"{heads.get(step.kind, step.kind)}: {receipt.state}{number}{', ' if said else ''}{said}"


def _emit(line: AttentionLine) -> None:
    payout, receipt = line.entry.payout, line.entry.receipt
    emit(
        "waits",
        line=payout.line,
        reference=payout.reference,
        recipient=mask(payout.recipient),
        amount_minor=payout.amount_minor,
        currency=payout.currency,
        status=receipt.state,
        reason=receipt.reason,
        message=masked(receipt.message),
        since=receipt.at,
        account=line.entry.lane.account,
        wallet=line.entry.lane.name,
        key=line.entry.key,
        provider_reference=receipt.provider_reference,
        sent_at=[step.at for step in line.steps if step.receipt is None],
        steps=[
            {
                "at": step.at,
                "kind": step.kind,
                "status": step.receipt and step.receipt.state,
                "said": masked(_step(step)),
            }
            for step in line.steps
        ],
    )


def _advice(engine: Engine, run: Run, accounts: Sequence[str], given: str, count: int) -> Iterator[str]:
    """Yield what a person should know before deciding."""
    if not count:
        yield f"Nothing of run {run.run_id} waits for a person."
        return
    for account in accounts:
        if account in engine.accounts.names:
            yield f"[bold]Account {plain(account)}:[/] {_of_provider(engine.accounts.traits(account))}"
    command = f"payout-engine resolve {run.run_id}{plain(given)}"
    yield (
        f"Decide with: [bold]{command} --send-again REFERENCE --who NAME --why TEXT[/]  (or --paid, --failed, "
        f"--cancel; {LINE}57 names a line; --from FILE takes a table, such as attention.csv with a column decision; "
        "--release-held sends every line that is held only because it repeats another)"
    )


def _of_provider(traits: Traits) -> str:
    asked = _ASKED.get(traits.look_up, "")
    if traits.key_promise is KeyPromise.IDEMPOTENT:
        within = ""
        if traits.key_lifetime_seconds is not None:
            hours = traits.key_lifetime_seconds / 3600
            within = f", but only within {hours:g} h after it was first sent: later it may be paid a second time"
        return f"the provider documents that one key pays once, so sending again is a way of asking{within}.{asked}"
    return (
        "the provider does not promise that one key pays once. Ask it for a transfer with the key shown before a "
        "payout that was sent is sent again: it goes out under the same key, so a late first transfer will show as a "
        f"contradiction, but whoever decides answers for the money.{asked}"
    )


_ASKED = {
    LookUpKind.NONE: " It cannot be asked what became of a payout.",
    LookUpKind.REFERENCE: " It can only be asked by the number of its transfer: of a payout that shows none it can say "
    "nothing, and the account's own pages with the provider may.",
}


# -------------------------------------------------------------------------------------------------------- decisions


class ResolveOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What a person says, and how.

    Attributes:
        words: said of single lines.
        table: a file that says more, or None.
        release_held: send every line that is held only because it repeats another.
        given: the options that find the run again, to be repeated in the commands that we propose.
    """

    words: Sequence[DecisionInput]
    table: Path | None
    who: str
    why: str
    release_held: bool
    json: bool
    given: str

    def __bool__(self) -> bool:
        """Tell whether anything is said."""
        return bool(self.words or self.table is not None or self.release_held)


async def resolve(engine: Engine, run_id: str, options: ResolveOptions) -> int:
    """Record a person's decisions, all of them or none."""
    decisions = await _decisions(engine, run_id, options)
    outcomes = await engine.decide(run_id, decisions)
    for outcome in outcomes:
        if options.json:
            emit("decided", **msgspec.structs.asdict(outcome))
            await room()
        else:
            data.print(
                f"line {outcome.line}  {plain(outcome.reference)}  "
                f"{format_amount(outcome.amount_minor, outcome.currency)}  now [bold]{outcome.status}[/]",
                soft_wrap=True,
            )
    again = any(decision.choice is Choice.SEND_AGAIN for decision in decisions)
    follow_up = f"payout-engine {'resume' if again else 'results'} {run_id}{options.given}"
    if options.json:
        emit("resolved", run_id=run_id, lines=len(outcomes), next=follow_up)
    else:
        say(f"{render.counted(len(outcomes), 'decision')} recorded, by {plain(options.who)}.")
        say(f"{'Send it' if again else 'Write the results again'} with: [bold]{plain(follow_up)}[/]")
    return Exit.ALL_PAID


async def _decisions(engine: Engine, run_id: str, options: ResolveOptions) -> Sequence[Decision]:
    """Return what is decided, of which payouts.

    Raises:
        UserError: nothing is, or nobody says why, or it is not clear which payouts are meant.
    """
    who, why = options.who.strip(), options.why.strip()
    if not who or not why:
        raise UserError("A decision needs a person and a reason: add --who NAME and --why TEXT. Nothing was recorded.")
    await engine.run(run_id)
    table = options.table
    said = [*options.words, *(await read_table(table) if table is not None else ())]
    if not said and not options.release_held:
        raise UserError(f"{table} holds no decision. Write one into its column “decision”. Nothing was recorded.")
    decisions = await decisions_meant(await engine.journal(), run_id, said, who, why)
    if options.release_held:
        decided = {decision.key for decision in decisions}
        repeated = [key async for key in _duplicated(engine, run_id) if key not in decided]
        decisions = [*decisions, *(Decision(key, Choice.SEND_AGAIN, who, why) for key in repeated)]
    if not decisions:
        raise UserError(f"No line of run {run_id} is held because it repeats another. Nothing was recorded.")
    return decisions


async def _duplicated(engine: Engine, run_id: str) -> AsyncIterator[str]:
    """Yield the keys of the lines that are held only because they repeat another."""
    async for lines in engine.waiting(run_id):
        for line in lines:
            receipt = line.entry.receipt
            if receipt.state is State.HELD and receipt.reason in REPEATED:
                yield line.entry.key


# ------------------------------------------------------------------------------------------------------------ verify


async def verify(engine: Engine, run_id: str, kept: str, *, json: bool) -> int:
    """Prove a run from its journal alone, or say what does not hold and where."""
    audit = await engine.verify(run_id, kept)
    code = Exit.ALL_PAID if audit.proven else Exit.NEEDS_A_PERSON
    if json:
        emit("verified", **msgspec.to_builtins(audit), proven=audit.proven)
        return code
    rows = render.table("account", "wallet", "state", "lines", "amount", numbers=["lines", "amount"])
    for total in audit.totals:
        amount = format_amount(total.amount_minor, total.lane.currency) if total.lane.currency else "-"
        rows.add_row(plain(total.lane.account), total.lane.name, str(total.state), f"{total.count:,}", amount)
    data.print(rows)
    if audit.proven:
        data.print(
            f"[green]Proven[/] for run [bold]{run_id}[/]: {audit.entries:,} entries of the log are unbroken; "
            f"{render.counted(audit.payouts, 'line')} are those that were validated, each in the state that follows "
            f"from the log; none of {render.counted(audit.dispatches, 'paying call')} followed another for the same "
            "payout without proof or a person between.",
            soft_wrap=True,
        )
        for sentence in audit.unprovable:
            data.print(f"[yellow]Not proven:[/] {plain(sentence)}", soft_wrap=True)
    for finding in audit.findings:
        fail(_found(finding))
    if audit.found > len(audit.findings):
        say(f"and {audit.found - len(audit.findings):,} more")
    data.print(f"Digest, to be kept with the results: [bold]{audit.digest}[/]", soft_wrap=True)
    return code


def _found(finding: Finding) -> str:
    where = [f"run {finding.run_id}"] if finding.run_id else []
    if finding.first_line:
        lines = f"{finding.first_line} to {finding.last_line}"
        where.append(f"line {finding.first_line}" if finding.first_line == finding.last_line else f"lines {lines}")
    if finding.seq:
        where.append(f"entry {finding.seq} of the log")
    return f"{', '.join(where)}: {finding.what}" if where else finding.what
