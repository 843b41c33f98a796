"""What every verb of the engine works with: the settings, the accounts, what the user's keys remember, and the journal.

The journal is opened, and made, when it is first needed. Here are also the rights to begin a content, which reach from
one verb to another: `submit` and `retry` take them, and approving the run in `pay` gives them back.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack

import anyio

from payout_engine.app import other_journals
from payout_engine.app.accounts import Accounts
from payout_engine.app.remembered import Remembered
from payout_engine.app.settings import Settings
from payout_engine.domain.errors import ConfigError
from payout_engine.domain.model import Run
from payout_engine.ports.journal import Journal


class Workspace:
    """What one engine works with; everything that is opened is closed with its stack.

    Attributes:
        settings: the configuration.
        accounts: the configured accounts and their connections.
        memory: what the user's keys remember of journals.
        stack: closed at the engine's end.
        beginnings: what holds each right to begin a content, by the name of the right.
    """

    def __init__(
        self,
        settings: Settings,
        accounts: Accounts,
        memory: Remembered,
        open_journal: Callable[[], AbstractAsyncContextManager[Journal]],
        stack: AsyncExitStack,
    ) -> None:
        self.settings = settings
        self.accounts = accounts
        self.memory = memory
        self.stack = stack
        self.beginnings: dict[str, AsyncExitStack] = {}
        self._open_journal = open_journal
        self._opened: Journal | None = None
        self._opening = anyio.Lock()
        stack.callback(memory.close)
        stack.push_async_callback(self._end_beginnings)

    async def journal(self) -> Journal:
        """Return the journal, opened (and created) at the first call."""
        async with self._opening:
            if self._opened is None:
                journal = await self.stack.enter_async_context(self._open_journal())
                if not self.accounts.sandbox:
                    await other_journals.notice_move(self.memory, journal, self.settings.journal)
                self._opened = journal
            return self._opened

    async def run(self, run_id: str) -> Run:
        """Return a run by its id.

        Raises:
            ConfigError: there is no such run.
        """
        found = await (await self.journal()).find(run_id)
        if found is None:
            raise ConfigError(
                f"There is no run “{run_id}” in {self.settings.journal}. See them with: payout-engine runs"
            )
        return found

    async def require_newest(self) -> None:
        """Refuse an older copy of a journal that has paid since.

        Raises:
            ConfigError: it is one.
        """
        if not self.accounts.sandbox:
            await other_journals.require_newest(self.memory, await self.journal(), self.settings.journal)

    async def let_go(self, right: str) -> None:
        """Let others begin a content."""
        if right in self.beginnings:
            await self.beginnings.pop(right).aclose()

    async def _end_beginnings(self) -> None:
        for right in list(self.beginnings):
            await self.let_go(right)


def right_to_begin(digest: str) -> str:
    """Name the right to begin a content."""
    return f"file {digest[:16]}"


def right_to_retry(run_id: str) -> str:
    """Name the right to begin a retry of a run."""
    return f"retry {run_id}"
