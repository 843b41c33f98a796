"""Files paid through CinetPay by the whole engine: what is refused, sent, looked up, sent again, and found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from payout_engine import Engine, Payout, Settings, State
from payout_engine.app.settings import AccountSettings
from payout_engine.domain.errors import ConfigError
from payout_engine.domain.model import Entry
from payout_engine.providers._sandbox import Fault, FaultKind
from payout_engine.providers.cinetpay import REGISTRATION
from payout_engine.providers.cinetpay.sandbox import CinetPaySandbox, sandbox


def configured(server: CinetPaySandbox, **options: Any) -> Settings:
    """One account at a sandbox."""
    given = {**REGISTRATION.sandbox_secrets, **REGISTRATION.sandbox_options, "contact_email": "pay@example.com"}
    return Settings(accounts={"ci": AccountSettings("cinetpay", {**given, **options, "base_url": server.base_url})})


async def carried_out(settings: Settings, journal: Path, payouts: Sequence[Payout]) -> dict[str, Entry]:
    """Submit and pay, prove the journal, and return what became of each."""
    async with Engine.open(settings, journal=journal) as engine:
        run = await engine.submit(payouts)
        async for _ in engine.pay(run):
            pass
        kept = await engine.journal()
        entries = [entry async for batch in kept.entries(run.run_id) for entry in batch]
        assert (await kept.verify(run.run_id)).findings == []
    return {entry.payout.reference: entry for entry in entries}


PAYOUTS = [
    *(Payout(f"ci{n}", 1_000 + 5 * n, phone=f"22507{11_500_000 + n}", name="Awa Koné") for n in range(110)),
    *(Payout(f"sn{n}", 1_000 + 5 * n, phone=f"22177{1_100_000 + n}", name="Modou Fall") for n in range(3)),
    *(Payout(f"wave{n}", 500, phone=f"22505{11_500_000 + n}", name="Koffi", wallet="wave") for n in range(3)),
]
CALLS = 4
"""110 to one wallet, in two calls, and one call for each of the two others."""


async def test_two_countries_and_wave_are_paid_from_one_account(tmp_path: Path) -> None:
    """Each once, in calls of a hundred, and found by a look-up or two for each call."""
    async with sandbox(settle_seconds=0.0) as server:
        entries = await carried_out(configured(server), tmp_path / "payouts.db", PAYOUTS)

        assert {entry.receipt.state for entry in entries.values()} == {State.PAID}
        paid = {entry.payout.reference: server.paid()[entry.key] for entry in entries.values()}
        assert paid == {payout.reference: (1, payout.amount_minor) for payout in PAYOUTS}
        assert {entry.lane.name for entry in entries.values()} == {"CI", "SN", "WAVECI"}
        assert (server.calls["login"], server.calls["send"], server.calls["contact"]) == (1, CALLS, CALLS)
        assert server.calls["check"] <= 3 * CALLS


@pytest.mark.parametrize("kind", [FaultKind.RESET_AFTER, FaultKind.STATUS_AFTER, FaultKind.TRUNCATED])
async def test_a_lost_answer_is_looked_up_and_never_sent_again(tmp_path: Path, kind: FaultKind) -> None:
    """All of its call are found."""
    async with sandbox(settle_seconds=0.0) as server:
        server.faults.add(Fault(kind, "send", times=2))
        entries = await carried_out(configured(server), tmp_path / "payouts.db", PAYOUTS)

        assert {entry.receipt.state for entry in entries.values()} == {State.PAID}
        assert {count for count, _ in server.paid().values()} == {1} and len(server.paid()) == len(PAYOUTS)
        assert server.calls["send"] == CALLS


@pytest.mark.parametrize("kind", [FaultKind.RESET_BEFORE, FaultKind.RESET_AFTER])
async def test_where_ids_pay_once_a_lost_call_is_sent_again(tmp_path: Path, kind: FaultKind) -> None:
    """Only on the owner's word, and only what no look-up shows."""
    async with sandbox(settle_seconds=0.0, duplicates_refused=True) as server:
        server.faults.add(Fault(kind, "send"))
        settings = configured(server, duplicates_refused=True)
        entries = await carried_out(settings, tmp_path / "payouts.db", PAYOUTS[-6:])

        assert {entry.receipt.state for entry in entries.values()} == {State.PAID}
        assert {count for count, _ in server.paid().values()} == {1} and len(server.paid()) == 6
        assert server.calls["send"] == 2 + (kind is FaultKind.RESET_BEFORE)


@pytest.mark.parametrize("endpoint", ["login", "contact", "send", "check"])
async def test_tokens_that_expire_and_calls_that_come_before_cost_nothing(tmp_path: Path, endpoint: str) -> None:
    """Whatever fails before a payment, or for its token, is made good without a doubt."""
    async with sandbox(settle_seconds=0.0) as server:
        before = endpoint in ("login", "contact")
        server.faults.add(Fault(FaultKind.RESET_AFTER if before else FaultKind.EXPIRED, endpoint))
        entries = await carried_out(configured(server), tmp_path / "payouts.db", PAYOUTS[-6:])

        assert {entry.receipt.state for entry in entries.values()} == {State.PAID}
        assert {count for count, _ in server.paid().values()} == {1} and len(server.paid()) == 6


async def test_a_short_balance_stops_its_country_alone(tmp_path: Path) -> None:
    """What was refused is ready, and Senegal is paid."""
    async with sandbox(settle_seconds=0.0, balances={"CI": 100, "SN": 10_000}) as server:
        entries = await carried_out(configured(server), tmp_path / "payouts.db", PAYOUTS[-6:])

        states = {reference[:2]: entry.receipt.state for reference, entry in entries.items()}
        assert states == {"sn": State.PAID, "wa": State.READY} and len(server.paid()) == 3


async def test_lines_that_cinetpay_would_refuse_never_leave(tmp_path: Path) -> None:
    """Without a name, off the multiple of five, below the smallest amount."""
    wrong = [
        Payout("name", 1_000, phone="2250711000001"),
        Payout("step", 1_001, phone="2250711000002", name="Awa"),
        Payout("least", 100, phone="2250711000003", name="Awa"),
    ]
    async with sandbox(settle_seconds=0.0) as server:
        entries = await carried_out(configured(server), tmp_path / "payouts.db", [*wrong, PAYOUTS[0]])

        assert [entries[payout.reference].receipt.state for payout in wrong] == [State.REJECTED] * 3
        assert len(server.paid()) == 1


async def test_an_account_without_notify_url_is_refused_by_name(tmp_path: Path) -> None:
    """Before anything is recorded."""
    async with sandbox() as server:
        with pytest.raises(ConfigError, match=r"\[accounts\.ci\] notify_url"):
            await carried_out(configured(server, notify_url=""), tmp_path / "payouts.db", PAYOUTS[:1])
        assert not server.calls
