"""Fixtures shared by all tests."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from processes import ENVIRONMENT

from payout_engine import Engine, Settings
from payout_engine.app.settings import AccountSettings
from payout_engine.cli import COLLECT_AFTER
from payout_engine.providers.senfenico.sandbox import SenfenicoSandbox as Sandbox
from payout_engine.providers.senfenico.sandbox import sandbox

RICH = {"orange_bf": 10**9, "moov_bf": 10**9, "sank_bf": 10**9}
"""Balances that no test exhausts by accident."""

Bank = Callable[..., AbstractAsyncContextManager[Sandbox]]


def pytest_collection_finish() -> None:
    """Look for garbage as rarely as the command line does: thousands of tests, once collected, never become any."""
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER)


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give each test a state folder of its own: the locks of keys are neither found in nor left in the user's."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setitem(ENVIRONMENT, "XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def bank() -> Bank:
    """Return a maker of Senfenico sandboxes that settle at once, over real HTTP on this machine."""

    @asynccontextmanager
    async def open_bank(**options: Any) -> AsyncIterator[Sandbox]:
        async with sandbox(**{"balances": RICH, "settle_seconds": 0.0, "calls_per_second": 500, **options}) as server:
            yield server

    return open_bank


@pytest.fixture
def engine_for(tmp_path: Path) -> Callable[..., AbstractAsyncContextManager[Engine]]:
    """Return a maker of engines that pay one account, `bf`, at a given sandbox, with a real journal file."""

    def open_engine(
        server: Sandbox, *, patience_seconds: float = 2.0, **options: Any
    ) -> AbstractAsyncContextManager[Engine]:
        account = {"api_key": "sk_test_tests", "base_url": server.base_url, "rate_per_second": 500, **options}
        settings = Settings(
            journal=tmp_path / "payouts.db",
            accounts={"bf": AccountSettings("senfenico", account)},
            unknown_patience_seconds=patience_seconds,
        )
        return Engine.open(settings)

    return open_engine
