"""Files paid and collected through Unipesa by the whole engine: what is refused, told, sent, sent again, and found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from payout_engine import Engine, Payout, Settings, State
from payout_engine.app.settings import AccountSettings
from payout_engine.domain.model import Direction, Entry
from payout_engine.intake.intake import IntakeFindings
from payout_engine.providers._sandbox import Fault, FaultKind
from payout_engine.providers.unipesa import REGISTRATION
from payout_engine.providers.unipesa.sandbox import UnipesaSandbox, sandbox

COUNTRIES = {"provider_ids": {"KE/mpesa": 2390, "UG/mtn": 2106, "CI/mtn": 2303, "TG/moov": 2358}}


def configured(server: UnipesaSandbox, **options: Any) -> Settings:
    """One account at a sandbox, with the ids of a few operators."""
    given = {**REGISTRATION.sandbox_secrets, **REGISTRATION.sandbox_options, **COUNTRIES, **options}
    return Settings(accounts={"africa": AccountSettings("unipesa", {**given, "base_url": server.base_url})})


async def carried_out(
    settings: Settings, journal: Path, payouts: Sequence[Payout], direction: Direction = Direction.PAY
) -> tuple[IntakeFindings, dict[str, Entry]]:
    """Submit and pay (or collect), prove the journal, and return what was found and what became of each."""
    async with Engine.open(settings, journal=journal) as engine:
        run = await engine.submit(payouts, direction=direction)
        async for _ in engine.pay(run):
            pass
        assert run.findings is not None
        kept = await engine.journal()
        entries = [entry async for batch in kept.entries(run.run_id) for entry in batch]
        assert (await kept.verify(run.run_id)).findings == []
    return run.findings, {entry.payout.reference: entry for entry in entries}


PAYOUTS = [
    Payout("ke", 100_000, phone="254712345678"),
    Payout("ug", 5_000, phone="256772345678", name="Awa"),
    Payout("ci", 1_000, phone="2250505145655", name="Awa"),
    Payout("bj", 1_000, phone="2290142345678"),
    Payout("tz", 1_000_000, account_number="0123456789", country="TZ", name="Awa", bank="CORUTZTZ"),
]


async def test_five_countries_are_paid_from_one_account(tmp_path: Path) -> None:
    """Each in its currency, to a phone or an account, once."""
    async with sandbox(settle_seconds=0.0) as server:
        _, entries = await carried_out(configured(server), tmp_path / "payouts.db", PAYOUTS)

        assert {entry.receipt.state for entry in entries.values()} == {State.PAID}
        assert {reference: entry.lane.name for reference, entry in entries.items()} == {
            "ke": "mpesa_ke_2390",
            "ug": "mtn_ug_2106",
            "ci": "mtn_ci_2303",
            "bj": "mtn_bj_9210",
            "tz": "bank_tz_2405",
        }
        paid = {entry.payout.reference: server.paid()[entry.key] for entry in entries.values()}
        assert paid == {payout.reference: (1, payout.amount_minor) for payout in PAYOUTS}
        assert server.calls["payment"] == len(PAYOUTS)


@pytest.mark.parametrize("kind", [FaultKind.RESET_BEFORE, FaultKind.RESET_AFTER, FaultKind.STATUS_AFTER])
async def test_a_lost_answer_is_asked_about_and_pays_once(tmp_path: Path, kind: FaultKind) -> None:
    """Heard or not heard: a look-up, or the same order id again, ends with one payment."""
    async with sandbox(settle_seconds=0.0) as server:
        server.faults.add(Fault(kind, "payment", times=2))
        _, entries = await carried_out(configured(server), tmp_path / "payouts.db", PAYOUTS)

        assert {entry.receipt.state for entry in entries.values()} == {State.PAID}
        assert {count for count, _ in server.paid().values()} == {1} and len(server.paid()) == len(PAYOUTS)
        assert server.calls["payment"] == len(PAYOUTS) + (2 if kind is FaultKind.RESET_BEFORE else 0)


async def test_without_a_promise_nothing_is_sent_again(tmp_path: Path) -> None:
    """An account that believes nothing of its order ids leaves what is lost to a person."""
    async with sandbox(settle_seconds=0.0) as server:
        server.faults.add(Fault(FaultKind.RESET_BEFORE, "payment"))
        settings = configured(server, key_lifetime_seconds=0)
        settings = Settings(accounts=settings.accounts, unknown_patience_seconds=0.5)
        _, entries = await carried_out(settings, tmp_path / "payouts.db", PAYOUTS[3:4])

        assert [entry.receipt.state for entry in entries.values()] == [State.UNKNOWN]
        assert server.calls["payment"] == 1 and not server.paid()


async def test_a_confirmation_that_nobody_describes_waits_and_is_never_sent_again(tmp_path: Path) -> None:
    """Accepted with its reason, however long it is followed."""
    async with (
        sandbox(settle_seconds=0.0) as server,
        Engine.open(configured(server), journal=tmp_path / "payouts.db") as engine,
    ):
        run = await engine.submit([Payout("a", 1_000, phone="2290142000008")])
        async for _ in engine.pay(run, follow_for_seconds=2.0):
            pass
        kept = await engine.journal()
        (entry,) = [entry async for batch in kept.entries(run.run_id) for entry in batch]

        assert (entry.receipt.state, entry.receipt.reason) == (State.ACCEPTED, "confirmation_needed")
        assert server.calls["payment"] == 1 and server.calls["status"] >= 1


async def test_a_key_that_is_not_accepted_stops_before_much_is_in_doubt(tmp_path: Path) -> None:
    """What was on the wire is unknown, the rest was never sent."""
    many = [Payout(f"r{number}", 1_000 + number, phone=f"22901423{number:05d}") for number in range(10_100, 10_150)]
    async with sandbox(settle_seconds=0.0) as server:
        settings = configured(server, secret_key="wrong_test_key", concurrency=2)
        settings = Settings(accounts=settings.accounts, unknown_patience_seconds=0.5)
        _, entries = await carried_out(settings, tmp_path / "payouts.db", many)

        states = [entry.receipt.state for entry in entries.values()]
        assert set(states) == {State.UNKNOWN, State.READY} and states.count(State.UNKNOWN) <= 2
        assert not server.paid()


# ------------------------------------------------------------------------------------------------------ before sending

LINES = {
    "closed_by_number": (
        Payout("", 1_000, phone="2250705145655", name="Awa"),
        "wallet_closed",
        'provider_ids = { "CI/orange"',
    ),
    "closed_by_name": (Payout("", 1_000, phone="221771234567", wallet="wave"), "wallet_closed", '"SN/wave"'),
    "closed_currency": (Payout("", 1_000, phone="237671234567"), "wallet_closed", 'extra_currencies = ["XAF"]'),
    "closed_bank": (
        Payout("", 10_000, account_number="0123456789", country="NG"),
        "wallet_closed",
        'provider_ids = { "NG/bank"',
    ),
    "no_name": (Payout("", 1_000, phone="2250505145655"), "name_needed", "name"),
    "no_bank": (Payout("", 1_000_000, account_number="012345", country="TZ", name="Awa"), "bank_needed", "BIC"),
    "off_its_step": (Payout("", 1_001, phone="2250505145655", name="Awa"), "amount_multiple", "multiples of 5 XOF"),
    "too_little": (Payout("", 495, phone="2250505145655", name="Awa"), "amount_below_minimum", "500 XOF"),
    "too_much": (Payout("", 860_000, phone="254712345678"), "amount_above_limit", "8,500.00 KES"),
    "no_id_printed": (Payout("", 1_000, phone="22670123456"), "operator_not_served", "Orange"),
    "no_country": (Payout("", 1_000_000, account_number="0123456789"), "wallet_ambiguous", "bank_tz_2405"),
}


@pytest.mark.parametrize("name", LINES)
async def test_a_line_that_cannot_be_paid_is_refused_with_its_remedy(tmp_path: Path, name: str) -> None:
    """Before anything is sent; what has to be configured is named as it is written."""
    payout, code, named = LINES[name]
    payout = Payout("x", *[getattr(payout, field) for field in Payout.__struct_fields__[1:]])
    async with sandbox() as server:
        findings, _ = await carried_out(configured(server), tmp_path / "payouts.db", [payout])

        assert list(findings.rejected_by_code) == [code]
        assert named in findings.rejected_by_code[code].examples[0].message
        assert not server.calls


async def test_a_limit_of_a_day_is_told_before_sending(tmp_path: Path) -> None:
    """And the line is paid, since nobody says whose limit it is."""
    async with sandbox(settle_seconds=0.0) as server:
        line = Payout("x", 300_000, phone="22896123456", name="Awa")
        findings, entries = await carried_out(configured(server), tmp_path / "payouts.db", [line])

        assert list(findings.warnings_by_code) == ["daily_limit"]
        assert entries["x"].receipt.state is State.PAID


# ----------------------------------------------------------------------------------------------------------- collecting


async def test_people_are_asked_to_pay(tmp_path: Path) -> None:
    """With their one-time password where the operator wants one, by limits of its own, and once."""
    lines = [
        Payout("bf", 1_000, phone="22676123456", otp="5647"),
        Payout("ke", 10_000, phone="254712345678"),
        Payout("rw", 1_000, phone="250788123456", name="Awa", email="awa@example.com"),
    ]
    async with sandbox(settle_seconds=0.0) as server:
        _, entries = await carried_out(configured(server), tmp_path / "payouts.db", lines, Direction.COLLECT)

        assert {entry.receipt.state for entry in entries.values()} == {State.PAID}
        orders = {entry.payout.reference: server.ledger.find(entry.key) for entry in entries.values()}
        assert {order.call for order in orders.values() if order is not None} == {
            "payment_c2b"
        } and None not in orders.values()


async def test_a_payer_without_a_password_or_an_address_is_refused_where_it_is_wanted(tmp_path: Path) -> None:
    """By the operator's own needs."""
    lines = [Payout("bf", 1_000, phone="22676123456"), Payout("rw", 1_000, phone="250788123456", name="Awa")]
    async with sandbox() as server:
        findings, _ = await carried_out(configured(server), tmp_path / "payouts.db", lines, Direction.COLLECT)

        assert set(findings.rejected_by_code) == {"otp_needed", "email_needed"} and not server.calls


async def test_the_page_for_the_payer_is_in_the_journal_while_it_waits(tmp_path: Path) -> None:
    """Heard by a look-up, and kept as the message until the payer has been there."""
    line = Payout("rw", 1_000, phone="250788123456", name="Awa", email="awa@example.com")
    async with (
        sandbox(settle_seconds=60.0) as server,
        Engine.open(configured(server), journal=tmp_path / "payouts.db") as engine,
    ):
        run = await engine.submit([line], direction=Direction.COLLECT)
        async for _ in engine.pay(run, follow_for_seconds=2.0):
            pass
        kept = await engine.journal()
        (entry,) = [entry async for batch in kept.entries(run.run_id) for entry in batch]

        assert (entry.receipt.state, entry.receipt.reason) == (State.ACCEPTED, "customer_redirect")
        assert entry.receipt.message.startswith("https://pay.example/")
