"""A file that was saved again is the same file: what another program writes otherwise pays nobody a second time.

Real files, a real journal, and the Senfenico sandbox.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
from test_engine import collect, paid_at_the_bank
from test_steering import states

from payout_engine import Engine, State
from payout_engine.providers.senfenico.sandbox import SenfenicoSandbox

Bank = Callable[..., AbstractAsyncContextManager[SenfenicoSandbox]]
EngineFor = Callable[..., AbstractAsyncContextManager[Engine]]

WITH_REFERENCES = "reference,phone,amount,name\n0001,70120001,1500,Awa Ouédraogo\n0002,70120002,2500,Paul Dao\n"
WITHOUT = "phone,amount,name\n70120001,1500,Awa\n70120002,2500,Paul\n"

SAVED_AGAIN = {
    "zeros lost": "reference,phone,amount,name\n1,70120001,1500,A\n2,70120002,2500,P\n",
    "spaces and apostrophes": "reference,phone,amount,name\n 00 01,70120001,1500,A\n'0002,70120002,2500,P\n",
    "numbers with decimals": "reference;phone;amount\n1.0;+226 70120001;1500\n2.0;+226 70120002;2500\n",
    "other columns": "name;amount;phone;reference\nAwa Ouédraogo;1500;70120001;0001\nPaul Dao;2500;70120002;0002\n",
    "another reference": "matricule,phone,amount,reference\n"
    "0001,70120001,1500,Awa Oue\u0301draogo\n0002,70120002,2500,PAUL DAO\n",
    "no reference": "code,phone,amount,beneficiary\n0001,70120001,1500,Awa Ouédraogo\n0002,70120002,2500,Paul Dao\n",
}


async def paid(engine: Engine, path: Path, text: str) -> None:
    """Pay a file whole."""
    path.write_text(text)
    run = await engine.submit(path)
    await collect(engine.pay(run))
    assert set(await states(engine, run.run_id)) == {State.PAID}


@pytest.mark.parametrize("text", SAVED_AGAIN.values(), ids=SAVED_AGAIN.keys())
async def test_a_file_saved_again_pays_nobody_again(
    bank: Bank, engine_for: EngineFor, tmp_path: Path, text: str
) -> None:
    """Every line is held, and named; nothing is sent."""
    again = tmp_path / "again.csv"
    if "reference" not in text or "matricule" in text:
        # Which column is the reference is the payer's word, and that may change.
        text = text.replace("matricule", "code")
    again.write_text(text)
    async with bank() as server, engine_for(server) as engine:
        await paid(engine, tmp_path / "first.csv", WITH_REFERENCES)
        plan = await engine.plan(again)
        assert plan.findings is not None
        assert (plan.findings.accepted, plan.findings.held) == (0, 2)
        assert all("line 2" in kind.examples[0].message for kind in plan.findings.held_by_code.values())
        run = await engine.submit(again)
        await collect(engine.pay(run))
        assert await states(engine, run.run_id) == {State.HELD: 2}
        assert set(paid_at_the_bank(server).values()) == {1}


@pytest.mark.parametrize("references", ["first", "second"])
async def test_payee_and_amount_hold_where_one_line_has_no_reference(
    bank: Bank, engine_for: EngineFor, tmp_path: Path, references: str
) -> None:
    """A list that has got references since, or lost them, repeats the lines of the one before."""
    texts = [WITHOUT, WITH_REFERENCES.replace(",Awa Ouédraogo", ",x").replace(",Paul Dao", ",y")]
    if references == "first":
        texts.reverse()
    async with bank() as server, engine_for(server) as engine:
        await paid(engine, tmp_path / "first.csv", texts[0])
        (tmp_path / "second.csv").write_text(texts[1])
        plan = await engine.plan(tmp_path / "second.csv")
        assert plan.findings is not None
        assert (plan.findings.accepted, plan.findings.held) == (0, 2)
        assert set(plan.findings.held_by_code) == {"payee_amount_repeated"}


async def test_people_are_paid_the_same_every_day(bank: Bank, engine_for: EngineFor, tmp_path: Path) -> None:
    """Under references of their own in both files, an equal payee and amount is told and paid."""
    async with bank() as server, engine_for(server) as engine:
        await paid(engine, tmp_path / "monday.csv", WITH_REFERENCES)
        path = tmp_path / "tuesday.csv"
        path.write_text(WITH_REFERENCES.replace("\n00", "\n01"))
        plan = await engine.plan(path)
        assert plan.findings is not None
        assert (plan.findings.accepted, plan.findings.held) == (2, 0)
        assert plan.findings.warnings_by_code["payee_amount_twice"].count == 2


async def test_the_same_reference_for_another_person_is_another_payment(
    bank: Bank, engine_for: EngineFor, tmp_path: Path
) -> None:
    """Only to the letter does a reference alone hold a line; `1` and `0001` may be two people."""
    async with bank() as server, engine_for(server) as engine:
        await paid(engine, tmp_path / "first.csv", WITH_REFERENCES)
        path = tmp_path / "other.csv"
        path.write_text("reference,phone,amount\n1,70129999,1500\n0002,70128888,900\n")
        plan = await engine.plan(path)
        assert plan.findings is not None
        assert (plan.findings.accepted, list(plan.findings.held_by_code)) == (1, ["reference_already_used"])
