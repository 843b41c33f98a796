"""Deliver: carry outcomes from the journal's log to `events.jsonl` while paying goes on.

The file itself remembers how far it has come, so that a crash neither loses nor repeats an event. A failing file is
tried again and reported; it never stops money.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio

from payout_engine import observe
from payout_engine.errors import SinkError
from payout_engine.model import Run
from payout_engine.pipeline.events import EventLog
from payout_engine.ports import Journal

INTERVAL_SECONDS = 0.5
"""How far the file may lag behind the journal."""


async def deliver(journal: Journal, run: Run, path: Path, done: anyio.Event, tell: observe.Watch) -> None:
    """Keep the event file up to date until `done` is set, then bring it to its end.

    Raises:
        SinkError: the last attempt, made after `done`, failed as well.
    """
    complained = False
    while True:
        last_time = done.is_set()
        try:
            with EventLog(path) as events:
                await events.catch_up(journal, run)
        except SinkError as error:
            if last_time:
                raise
            if not complained:
                tell(observe.Waiting("", f"{error} Payment goes on; the file will be tried again."))
            complained = True
        if last_time:
            return
        with anyio.move_on_after(INTERVAL_SECONDS):
            await done.wait()


@asynccontextmanager
async def delivering(journal: Journal, run: Run, path: Path, tell: observe.Watch) -> AsyncIterator[None]:
    """Keep the event file up to date while inside; a failure to do so is told and stops nothing."""
    done = anyio.Event()

    async def work() -> None:
        try:
            await deliver(journal, run, path, done, tell)
        except SinkError as error:
            tell(observe.Waiting("", f"{error} Write the results again with: payout-engine results {run.run_id}"))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(work)
        try:
            yield
        finally:
            done.set()
