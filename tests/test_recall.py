"""Taking paid payouts back, and hearing of what came back: the whole engine against JumiaPay's sandbox, over real HTTP.

The sandbox's ledger is the truth. Nothing here is paid again; what is said to be reversed is on the Credit account.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import apsw
import msgspec
import pytest
from processes import call

from payout_engine import Brake, ConfigError, Engine, Exit, Outcome, Payout, Settings, State, summarize
from payout_engine.app.settings import AccountSettings
from payout_engine.domain.errors import DecisionError, JournalBusyError
from payout_engine.domain.model import Run
from payout_engine.providers._sandbox import Fault, FaultKind
from payout_engine.providers.jumiapay.sandbox import JumiaPaySandbox, sandbox
from payout_engine.providers.senfenico.sandbox import SenfenicoSandbox

OPTIONS = {"business_area": "area", "credit_account": "account", "currency": "KES", "api_key": "jumiapay_test_key"}
EVERYBODY = ("awa", "moussa", "fatou", "ali")


def payouts(*names: str) -> list[Payout]:
    return [
        Payout(name, 10_000 + place, currency="KES", email=f"{name}@example.com")
        for place, name in enumerate(names or EVERYBODY)
    ]


@asynccontextmanager
async def paid(
    tmp_path: Path, *names: str, **settings: Any
) -> AsyncIterator[tuple[Engine, JumiaPaySandbox, Run, Settings]]:
    """An engine whose run was paid by credits, all delivered."""
    async with sandbox(tmp_path / "ledger.db", **{"settle_seconds": 0.0, **settings}) as server:
        account = AccountSettings("jumiapay", OPTIONS | {"base_url": server.base_url, "concurrency": 2})
        configured = Settings(
            journal=tmp_path / "payouts.db", accounts={"vouchers": account}, unknown_patience_seconds=1.0
        )
        async with Engine.open(configured) as engine:
            run = (await engine.submit(payouts(*names))).run
            await said(engine, run)
            assert await states(engine, run) == dict.fromkeys(names or EVERYBODY, "paid")
            yield engine, server, run, configured


async def said(engine: Engine, run: Run, **terms: Any) -> tuple[dict[str, Outcome], Exit, Sequence[Brake]]:
    """Pay or follow to the end; return what was told, the exit code and the brakes."""
    stream = engine.pay(run, **terms)
    told = {outcome.reference: outcome async for outcome in stream}
    summary = summarize(run.run_id, await engine.tally(run.run_id), stream.ending)
    return told, Exit(summary.exit_code), [stop.brake for stop in stream.ending.stops]


async def states(engine: Engine, run: Run) -> dict[str, str]:
    """Where each payout stands, with the reason if there is one."""
    journal = await engine.journal()
    return {
        entry.payout.reference: " ".join(filter(None, (entry.receipt.state, entry.receipt.reason)))
        async for page in journal.entries(run.run_id)
        for entry in page
    }


async def key_of(engine: Engine, run: Run, reference: str) -> str:
    journal = await engine.journal()
    pages = [page async for page in journal.entries(run.run_id)]
    return next(entry.key for page in pages for entry in page if entry.payout.reference == reference)


async def notes(engine: Engine, run: Run) -> list[str]:
    return [text for _, kind, text in await (await engine.journal()).notes(run.run_id) if kind == "recall"]


async def proven(engine: Engine, run: Run) -> bool:
    return (await engine.verify(run.run_id)).proven


# ------------------------------------------------------------------------------------------------------- follow --paid


async def test_what_came_back_is_heard_of_only_when_it_is_asked(tmp_path: Path) -> None:
    """Whole: reversed. In part: still paid, with both amounts. Not at all: nothing is recorded."""
    async with paid(tmp_path) as (engine, server, run, _):
        for name, spent in (("awa", 0), ("moussa", 1), ("fatou", 10_002)):
            key = await key_of(engine, run, name)
            assert server.ledger.use(key, spent) and server.ledger.expire(key)
        told, _, _ = await said(engine, run, send=False)
        assert not told and set((await states(engine, run)).values()) == {"paid"}
        told, code, brakes = await said(engine, run, send=False, ask_paid=True)
        assert {name: outcome.status for name, outcome in told.items()} == {"awa": State.REVERSED}
        assert (code, brakes) == (Exit.SOME_NOT_PAID, [])
        assert await states(engine, run) == {
            "awa": "reversed expired",
            "moussa": "paid partly_returned",
            "fatou": "paid partly_returned",
            "ali": "paid",
        }
        assert server.calls["create"] == 4 and await proven(engine, run)


async def test_asking_again_records_nothing_new(tmp_path: Path) -> None:
    """A second round over the same changes nothing."""
    async with paid(tmp_path) as (engine, server, run, _):
        key = await key_of(engine, run, "awa")
        assert server.ledger.use(key, 5) and server.ledger.expire(key)
        await said(engine, run, send=False, ask_paid=True)
        before = await (await engine.journal()).trace(run.run_id, [key])
        told, code, _ = await said(engine, run, send=False, ask_paid=True)
        assert not told and code is Exit.ALL_PAID
        assert await (await engine.journal()).trace(run.run_id, [key]) == before


async def test_a_round_that_failed_for_a_moment_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has to notice."""
    monkeypatch.setattr("payout_engine.payment.paid.PAUSE_SECONDS", 0.01)
    async with paid(tmp_path) as (engine, server, run, _):
        server.ledger.expire(await key_of(engine, run, "ali"))
        server.faults.add(Fault(FaultKind.STATUS_BEFORE, "find", times=4))
        told, _, brakes = await said(engine, run, send=False, ask_paid=True)
        assert told["ali"].status is State.REVERSED and not brakes


async def test_a_person_learns_when_what_is_paid_could_not_be_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends with the exit code of a brake, so that nobody takes silence for good news."""
    monkeypatch.setattr("payout_engine.payment.paid.PAUSE_SECONDS", 0.01)
    async with paid(tmp_path) as (engine, server, run, _):
        server.faults.add(Fault(FaultKind.STATUS_BEFORE, "find", times=1_000))
        _, code, brakes = await said(engine, run, send=False, ask_paid=True)
        assert (code, brakes) == (Exit.BRAKE, [Brake.PROVIDER_DOWN])
        server.faults.clear()
        server.faults.add(Fault(FaultKind.SLOW_BEFORE, "find", seconds=30.0, times=1_000))
        with anyio.fail_after(20):
            _, code, brakes = await said(engine, run, send=False, ask_paid=True, follow_for_seconds=0.2)
        assert (code, brakes) == (Exit.BRAKE, [Brake.PROVIDER_DOWN])


async def test_what_contradicts_what_is_paid_moves_nothing(tmp_path: Path) -> None:
    """A credit that is shown as failed after it was delivered is told to a person, and stays paid."""
    async with paid(tmp_path) as (engine, server, run, _):
        key = await key_of(engine, run, "awa")
        server.ledger._connection.execute("update credits set status = 'failed' where partner_credit_id = ?", (key,))
        await said(engine, run, send=False, ask_paid=True)
        assert (await states(engine, run))["awa"] == "paid"
        (conflict,) = (await (await engine.journal()).facts(run.run_id)).conflicts
        assert "shows it as failed" in conflict


async def test_a_provider_with_a_list_is_asked_by_its_list(
    bank: Callable[..., AbstractAsyncContextManager[SenfenicoSandbox]],
    engine_for: Callable[..., AbstractAsyncContextManager[Engine]],
) -> None:
    """It takes nothing back, so a round over it changes nothing, and is no error."""
    async with bank() as server, engine_for(server) as engine:
        run = (await engine.submit([Payout("one", 1_000, currency="XOF", phone="70123456")])).run
        await said(engine, run)
        lists = server.calls["list"]
        told, code, brakes = await said(engine, run, send=False, ask_paid=True)
        assert (told, code, brakes) == ({}, Exit.ALL_PAID, []) and server.calls["list"] > lists
        with pytest.raises(ConfigError, match="takes nothing back"):
            await engine.recall(run.run_id, "one", "Awa", "why")


# -------------------------------------------------------------------------------------------------------------- recall


async def test_a_recalled_credit_is_asked_back_once_and_comes_back_by_a_look_up(tmp_path: Path) -> None:
    """Who and why are in the journal, before and apart from what the provider says; the money is on the account."""
    async with paid(tmp_path, balances={"jumiapay_ke": 1_000}) as (engine, server, run, _):
        held = server.ledger.available()["KES"]
        done = await engine.recall(run.run_id, "moussa", "Awa", "left the company")
        assert done.shown is not None and done.shown.state is State.REVERSED and not done.problem
        assert [outcome.status for outcome in done.outcomes] == [State.REVERSED]
        assert server.calls["cancel"] == 1 and server.ledger.available()["KES"] == held + 10_001
        assert await notes(engine, run) == ["line 2, reference moussa: asked back by Awa: left the company"]
        assert await states(engine, run) == {
            "awa": "paid",
            "moussa": "reversed cancelled",
            "fatou": "paid",
            "ali": "paid",
        }
        assert await proven(engine, run)
        with pytest.raises(DecisionError, match="no paid line"):
            await engine.recall(run.run_id, "moussa", "Awa", "again")
        assert server.calls["cancel"] == 1


async def test_a_recall_moves_nothing_until_a_look_up_shows_it(tmp_path: Path) -> None:
    """While it is being processed the payout is paid, with the word; a later round finds what became of it."""
    async with paid(tmp_path) as (engine, server, run, _):
        server._settle_seconds = 60.0
        key = await key_of(engine, run, "fatou")
        server.ledger.use(key, 4_000)
        done = await engine.recall(run.run_id, "line:3", "Awa", "why")
        assert done.shown is not None and done.shown.reason == "processing_cancellation" and len(done.outcomes) <= 1
        assert (await states(engine, run))["fatou"] == "paid processing_cancellation"
        server.ledger._connection.execute("update credits set due_at = 0 where partner_credit_id = ?", (key,))
        await said(engine, run, send=False, ask_paid=True)
        assert (await states(engine, run))["fatou"] == "paid partly_returned"


@pytest.mark.parametrize(
    ("kind", "seconds"),
    [
        (FaultKind.STATUS_BEFORE, 0.0),
        (FaultKind.STATUS_AFTER, 0.0),
        (FaultKind.RESET_BEFORE, 0.0),
        (FaultKind.RESET_AFTER, 0.0),
        (FaultKind.TRUNCATED, 0.0),
    ],
)
async def test_a_recall_whose_answer_is_lost_is_not_repeated(tmp_path: Path, kind: FaultKind, seconds: float) -> None:
    """One call, whatever comes of it; what it did is seen, and what went wrong is told and noted."""
    async with paid(tmp_path) as (engine, server, run, _):
        server.faults.add(Fault(kind, "cancel", seconds))
        done = await engine.recall(run.run_id, "awa", "Awa", "why")
        happened = kind not in (FaultKind.STATUS_BEFORE, FaultKind.RESET_BEFORE)
        assert done.problem and server.calls["cancel"] == 1
        assert (await states(engine, run))["awa"] == ("reversed cancelled" if happened else "paid")
        assert ["asked back by Awa" in text for text in await notes(engine, run)] == [True, False]


async def test_what_is_not_delivered_is_not_asked_back(tmp_path: Path) -> None:
    """The journal says paid, the provider says expired: nothing is asked of it."""
    async with paid(tmp_path) as (engine, server, run, _):
        server.ledger.expire(await key_of(engine, run, "awa"))
        done = await engine.recall(run.run_id, "awa", "Awa", "why")
        assert "only what is delivered" in done.problem and "cancel" not in server.calls
        assert len(await notes(engine, run)) == 2


async def test_who_asked_is_recorded_before_anything_is_said(tmp_path: Path) -> None:
    """Whatever happens on the wire: the note stands when the provider hears of it."""
    async with paid(tmp_path) as (engine, server, run, settings):
        noted: list[Sequence[str]] = []

        class Listening(type(server.ledger)):  # type: ignore[misc]
            def cancel(self, uuid: str, due_at: float) -> Any:
                noted.append(_notes_on_disk(settings.journal))
                return super().cancel(uuid, due_at)

        server.ledger.__class__ = Listening
        await engine.recall(run.run_id, "awa", "Awa", "why")
        assert [any("asked back by Awa" in text for text in texts) for texts in noted] == [True]


def _notes_on_disk(journal: Path) -> Sequence[str]:
    return [body for (body,) in apsw.Connection(str(journal)).execute("select body from log where kind = 'note'")]


@pytest.mark.parametrize(("who", "why"), [("", "why"), ("Awa", ""), (" ", "why")])
async def test_nobody_recalls_without_a_name_and_a_reason(tmp_path: Path, who: str, why: str) -> None:
    """And nothing is asked then."""
    async with paid(tmp_path) as (engine, server, run, _):
        with pytest.raises(DecisionError, match="a person and a reason"):
            await engine.recall(run.run_id, "awa", who, why)
        assert "cancel" not in server.calls and not await notes(engine, run)


@pytest.mark.parametrize("reference", ["nobody", "line:9", "line:x", ""])
async def test_a_recall_means_one_paid_line(tmp_path: Path, reference: str) -> None:
    """A word that means none is refused."""
    async with paid(tmp_path) as (engine, server, run, _):
        with pytest.raises(DecisionError, match="no paid line"):
            await engine.recall(run.run_id, reference, "Awa", "why")
        assert "cancel" not in server.calls


async def test_nobody_recalls_beside_somebody_who_pays(tmp_path: Path) -> None:
    """Who follows or pays from the account ends first."""
    async with paid(tmp_path) as (engine, server, run, settings):
        server.faults.add(Fault(FaultKind.SLOW_BEFORE, "find", seconds=2.0, times=100))
        stream = engine.pay(run, send=False, ask_paid=True)
        async with Engine.open(settings) as other:
            with anyio.fail_after(5):
                while not server.calls["find"] > 4:
                    await anyio.sleep(0.01)
            with pytest.raises(JournalBusyError):
                await other.recall(run.run_id, "awa", "Awa", "why")
        server.faults.clear()
        stream.stop()
        await stream.done.wait()
        assert "cancel" not in server.calls


async def test_another_key_recalls_nothing(tmp_path: Path) -> None:
    """A key of another account would not know these credits, or worse."""
    async with paid(tmp_path) as (_, server, run, settings):
        other = OPTIONS | {"api_key": "jumiapay_test_other", "base_url": server.base_url}
        changed = msgspec.structs.replace(settings, accounts={"vouchers": AccountSettings("jumiapay", other)})
        async with Engine.open(changed) as engine:
            with pytest.raises(ConfigError, match="another key"):
                await engine.recall(run.run_id, "awa", "Awa", "why")
        assert "cancel" not in server.calls


# ------------------------------------------------------------------------------------------------------- the commands


def test_the_commands_ask_back_and_tell_what_came_of_it(tmp_path: Path) -> None:
    """From a terminal, in an embedded sandbox; the proposed command is the one that tells the rest."""
    (tmp_path / "payouts.toml").write_text('[accounts.vouchers]\nprovider = "jumiapay"\ncurrency = "KES"\n')
    (tmp_path / "v.csv").write_text("reference,amount,email\na,100.50,awa@example.com\nb,200,moussa@example.com\n")
    begun = call(tmp_path, "run", "v.csv", "--sandbox", "--yes", "--json")
    assert begun.returncode == 0
    run_id = next(
        record["run_id"] for record in map(msgspec.json.decode, begun.stdout.splitlines()) if "run_id" in record
    )
    nobody = call(tmp_path, "recall", run_id, "a", "--sandbox")
    assert nobody.returncode == 2 and b"a person and a reason" in nobody.stderr
    asked = call(tmp_path, "recall", run_id, "a", "--who", "Awa", "--why", "left", "--sandbox", "--json")
    (record,) = map(msgspec.json.decode, asked.stdout.splitlines())
    assert (asked.returncode, record["status"], record["reason"]) == (0, "paid", "processing_cancellation")
    assert record["next"] == f"payout-engine follow {run_id} --paid --sandbox"
    told = call(tmp_path, "recall", run_id, "b", "--who", "Awa", "--why", "left", "--sandbox")
    assert told.returncode == 0 and b"would pay it again" in told.stderr
    followed = call(tmp_path, "follow", run_id, "--paid", "--sandbox")
    assert followed.returncode == 1 and b"reversed" in followed.stdout
    gone = call(tmp_path, "recall", run_id, "line:2", "--who", "Awa", "--why", "left", "--sandbox")
    assert gone.returncode == 2 and b"only what is paid" in gone.stderr
