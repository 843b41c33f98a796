"""The sandboxes themselves: strict limits, a truthful ledger, faults over HTTP, all of them served at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from payout_engine import Engine, Payout, Settings, State
from payout_engine.app.sandboxes import open_sandboxes
from payout_engine.app.settings import AccountSettings
from payout_engine.domain import clock
from payout_engine.domain.errors import ConfigError
from payout_engine.providers._sandbox import Fault, FaultKind, Faults, SlidingWindow
from payout_engine.providers.senfenico.ledger import Ledger
from payout_engine.providers.senfenico.sandbox import sandbox

HEADERS = {"X-API-KEY": "sk_test_x"}


async def ask(method: str, url: str, document: object = None, headers: dict[str, str] = HEADERS) -> tuple[int, Any]:
    async with aiohttp.ClientSession() as session, session.request(method, url, json=document, headers=headers) as got:
        return got.status, await got.json()


@settings(deadline=None)
@given(st.lists(st.integers(0, 400), max_size=60), st.integers(1, 6))
def test_no_sliding_second_ever_admits_more_than_the_limit(gaps: list[int], limit: int) -> None:
    """Strict, at every instant, and nothing within the limit is refused."""
    # Whole milliseconds, so that no rounding blurs the edge.
    window = SlidingWindow(limit, seconds=1_000)
    admitted: list[int] = []
    now = 0
    for gap in gaps:
        now += gap
        room = sum(1 for earlier in admitted if now - earlier < 1_000) < limit
        assert window.admit(now) == room
        if room:
            admitted.append(now)


def test_exactly_one_second_later_is_another_second() -> None:
    """Five at once, five a second later, and never a sixth between."""
    window = SlidingWindow(5)

    assert [window.admit(0.0) for _ in range(6)] == [True] * 5 + [False]
    assert not window.admit(0.999)
    assert [window.admit(1.0) for _ in range(6)] == [True] * 5 + [False]
    assert window.refused == 3


def test_faults_are_consumed_in_order_by_their_endpoint() -> None:
    """A fault of one call does not strike another."""
    faults = Faults((Fault(FaultKind.SLOW, "list"), Fault(FaultKind.LATE, "bulk", times=2), Fault(FaultKind.SLOW)))

    taken = [faults.take(endpoint) for endpoint in ("bulk", "bulk", "bulk", "list", "list")]

    assert [fault.kind.value if fault else None for fault in taken] == ["late", "late", "slow", "slow", None]


async def test_answers_are_what_the_document_prints() -> None:
    """Envelope, keys and their order, slashes, fees as a number here and a string there."""
    async with sandbox() as server:
        base = server.base_url + "/v1/payment"
        order = {"amount": 100, "recipient_phone": "63000000", "recipient_wallet": "sank_bf", "ext_id": "x"}
        _, made = await ask("POST", f"{base}/transfers/", order)
        _, bulk = await ask("POST", f"{base}/transfers/bulk/", {"transfers": [{**order, "recipient_wallet": None}]})
        _, slashed = await ask("GET", f"{base}/transfers/")
        _, plain = await ask("GET", f"{base}/transfers")
        _, balances = await ask("GET", f"{base}/balances")
        status, too_many = await ask("POST", f"{base}/transfers/bulk/", {"transfers": [order] * 101})
        _, keyless = await ask("GET", f"{base}/balances", headers={})

    keys = (
        "reference amount fees currency ip_address status live_mode recipient_wallet recipient_phone ext_id created_at"
    )
    assert (made["status"], made["message"], made["data"]["fees"]) == (True, "Transfer has been queued", 1.5)
    assert bulk == {"status": True, "message": "1 transfers queued for processing", "failed_transfers": []}
    assert [list(transfer) for transfer in slashed["data"]] == [keys.split()] * 2
    assert [transfer["recipient_wallet"] for transfer in slashed["data"]] == ["moov_bf", "sank_bf"]
    assert slashed["data"][0]["fees"] == "1.50"
    assert plain["message"] == "Transfer list retrieved"
    assert balances["data"]["transfer_balances"]["sank_money_bf"] == {"available": 99898.0, "pending": 102.0}
    assert balances["data"]["collection_balances"] == {"available": 0.0, "pending": 0.0, "currency": "XOF"}
    assert too_many == {
        "status": False,
        "message": "Maximum of 100 transfers allowed per request",
        "error_code": "BATCH_SIZE_LIMIT_EXCEEDED",
    }
    assert status == 400
    assert keyless == {"status": False, "message": "Invalid API key"}


@pytest.mark.parametrize("document", [None, [], {}, {"transfers": []}, {"transfers": "x"}, {"transfers": [1]}])
async def test_what_is_no_bulk_call_is_invalid_data(document: object) -> None:
    """Nothing is made of it."""
    async with sandbox() as server:
        _, answer = await ask("POST", f"{server.base_url}/v1/payment/transfers/bulk/", document)

        assert answer["error_code"] == "INVALID_DATA"
        assert {"message", "description", "description_fr"} <= set(answer)
        assert server.ledger.transfers() == []


@pytest.mark.parametrize(
    ("item", "field"),
    [
        ({"amount": 99, "recipient_phone": "76000000"}, "amount"),
        ({"amount": "100", "recipient_phone": "76000000"}, "amount"),
        ({"amount": True, "recipient_phone": "76000000"}, "amount"),
        ({"amount": 100}, "recipient_phone"),
        ({"amount": 100, "recipient_phone": "22676000000"}, "recipient_phone"),
        ({"amount": 100, "recipient_phone": "58000000"}, "recipient_wallet"),
        ({"amount": 100, "recipient_phone": "76000000", "recipient_wallet": "coris_bf"}, "recipient_wallet"),
        ({"amount": 100, "recipient_phone": "76000000", "recipient_wallet": "moov_bf"}, "recipient_phone"),
        ({"amount": 100, "recipient_phone": "76000000", "ext_id": 5}, "ext_id"),
    ],
)
async def test_a_bad_item_is_refused_by_field_and_alone(item: dict[str, Any], field: str) -> None:
    """Its neighbour is queued."""
    good = {"amount": 100, "recipient_phone": "76000000"}
    async with sandbox() as server:
        _, answer = await ask("POST", f"{server.base_url}/v1/payment/transfers/bulk/", {"transfers": [item, good]})

        assert answer["message"] == "1 transfers queued for processing"
        assert list(answer["failed_transfers"][0]["errors"]) == [field]
        assert len(server.ledger.transfers()) == 1


async def test_a_failed_transfer_gives_its_money_back_once() -> None:
    """Amount and fee return when it settles, however often anybody looks."""
    time = [1_800_000_000.0]
    with clock.replaced(lambda: time[0]):
        async with sandbox(settle_seconds=1.0) as server:
            order = {"amount": 1_000, "recipient_phone": "76000001"}
            await ask("POST", f"{server.base_url}/v1/payment/transfers/", order)

            assert server.ledger.available()["orange_bf"] == 100_000 - 1_015
            time[0] += 1.5
            assert [server.ledger.available()["orange_bf"] for _ in range(3)] == [100_000] * 3


async def test_faults_and_totals_are_reached_over_http() -> None:
    """So that another process can script a rehearsal."""
    async with sandbox() as server:
        control = server.base_url + "/_sandbox"
        scripted = [{"kind": "low_balance", "endpoint": "bulk", "times": 2}]
        assert await ask("POST", f"{control}/faults", scripted) == (200, {"waiting": 2})
        assert (await ask("POST", f"{control}/faults", [{"kind": "explode"}]))[0] == 400
        body = {"transfers": [{"amount": 100, "recipient_phone": "76000000"}]}
        _, answer = await ask("POST", f"{server.base_url}/v1/payment/transfers/bulk/", body)
        assert await ask("DELETE", f"{control}/faults") == (200, {"waiting": 0})
        await ask("POST", f"{server.base_url}/v1/payment/transfers/bulk/", body)
        _, totals = await ask("GET", f"{control}/ledger")

    assert "Insufficient balance for Orange BF" in answer["failed_transfers"][0]["errors"]["non_field_errors"][0]
    assert totals["transfers"] == {"pending": {"count": 1, "amount": 100}}
    assert totals["calls"] == {"bulk": 2}


def test_a_ledger_survives_the_death_of_its_process(tmp_path: Path) -> None:
    """What was committed before a kill is there after it."""
    path = tmp_path / "ledger.db"
    code = f"""
import os, pathlib
from payout_engine.providers.senfenico.ledger import Ledger, NewTransfer
ledger = Ledger(pathlib.Path({str(path)!r}), {{"orange_bf": 1_000}})
ledger.add([NewTransfer("tr_1", 100, 2, 150, "orange_bf", "76000000", "x", "::1", "success", 0.0, 0.0, 0.0)])
os.kill(os.getpid(), 9)
"""
    root = Path(__file__).parent.parent
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == -9

    ledger = Ledger(path, {"orange_bf": 1_000})
    assert ledger.paid_by_ext_id() == {"x": 1}
    assert ledger.available() == {"orange_bf": 898}
    ledger.close()


@pytest.mark.parametrize("extra", [{}, {"orange_bf": ["44"]}], ids=["as_printed", "extra"])
async def test_a_rehearsal_knows_the_prefixes_of_the_configuration(tmp_path: Path, extra: dict[str, list[str]]) -> None:
    """What the account's options allow, the embedded sandbox pays; what they do not is refused before it is sent."""
    configured = Settings(accounts={"bf": AccountSettings("senfenico", {"extra_prefixes": extra})})
    async with Engine.open(configured, journal=tmp_path / "payouts.db", sandbox=True) as engine:
        run = await engine.submit([Payout("a", 500, phone="44000000"), Payout("b", 500, phone="76000000")])
        outcomes = {outcome.reference: outcome async for outcome in engine.pay(run)}
        journal = await engine.journal()
        entries = [entry async for batch in journal.entries(run.run_id) for entry in batch]

    assert outcomes["b"].status is State.PAID
    assert ("a" in outcomes) is bool(extra)
    told = {entry.payout.reference: entry.receipt.reason for entry in entries}
    assert told["a"] == ("" if extra else "prefix_not_served")


async def test_sandboxes_are_served_together(tmp_path: Path) -> None:
    """Each at an address of its own, with a ledger of its own."""
    async with open_sandboxes(["senfenico"], ledger=tmp_path / "ledgers") as servers:
        status, _ = await ask("GET", servers["senfenico"].base_url + "/v1/payment/balances")

    assert status == 200
    assert (tmp_path / "ledgers" / "senfenico.db").exists()


async def test_a_port_that_is_taken_is_a_plain_error() -> None:
    """The user mends it with another port."""
    async with sandbox() as server:
        port = int(server.base_url.rsplit(":", 1)[1])
        with pytest.raises(ConfigError, match=str(port)):
            async with open_sandboxes(["senfenico"], port=port):
                pass
