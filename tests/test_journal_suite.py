"""The journal keeps the promises of `ports.Journal`: as the one that pays, as a plan's, and in virtual time's way."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from payout_engine.journal import SqliteJournal
from payout_engine.ports.journal import Journal
from payout_engine.testing.journal_lines import JournalFactory, inline
from payout_engine.testing.journals import JournalSuite


class TestSqliteJournal(JournalSuite):
    """The durable journal."""

    @pytest.fixture
    def journal_factory(self, tmp_path: Path) -> JournalFactory:
        return lambda: SqliteJournal.open(tmp_path / "payouts.db")


class TestScratchJournal(JournalSuite):
    """The throw-away journal of `plan`, with an earlier journal that holds nothing."""

    @pytest.fixture
    def journal_factory(self, tmp_path: Path) -> JournalFactory:
        @asynccontextmanager
        async def opened() -> AsyncIterator[Journal]:
            async with SqliteJournal.open(tmp_path / "payouts.db"):
                pass
            async with SqliteJournal.open(tmp_path / "plan.db", scratch_of=tmp_path / "payouts.db") as journal:
                yield journal

        return opened


class TestInlineJournal(JournalSuite):
    """The durable journal without its thread, as simulations open it."""

    @pytest.fixture
    def journal_factory(self, tmp_path: Path) -> JournalFactory:
        return lambda: inline(tmp_path / "payouts.db")
