"""Deliver: carry outcomes from the journal's log to `events.jsonl` while paying goes on.

The file itself remembers how far it has come, so that a crash neither loses nor repeats an event. Whatever fails here,
the file or the reading of the log, is told and tried again; it never stops money, nor cuts off what is on the wire.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio

from payout_engine.domain.errors import SinkError
from payout_engine.domain.model import Run
from payout_engine.ports import observer
from payout_engine.ports.journal import Journal
from payout_engine.results.event_log import EventLog

logger = logging.getLogger(__name__)

INTERVAL_SECONDS = 0.5
"""How far the file may lag behind the journal."""


async def deliver(journal: Journal, run: Run, path: Path, done: anyio.Event, notify: observer.Observer) -> None:
    """Keep the event file up to date until `done` is set, then bring it to its end. Nothing is raised: it is told."""
    complained = False
    while True:
        last_time = done.is_set()
        problem = await _catch_up(journal, run, path)
        if last_time:
            if problem:
                notify(
                    observer.Waiting("", f"{problem} Write the results again with: payout-engine results {run.run_id}")
                )
            return
        if problem and not complained:
            notify(observer.Waiting("", f"{problem} Payment goes on; the file will be tried again."))
            complained = True
        with anyio.move_on_after(INTERVAL_SECONDS):
            await done.wait()


async def _catch_up(journal: Journal, run: Run, path: Path) -> str:
    """Bring the file to where the log is; return what went wrong, or an empty text."""
    try:
        with EventLog(path) as events:
            await events.catch_up(journal, run)
    except SinkError as error:
        return str(error)
    except Exception as error:
        # Money comes first: any failure that left this task would cut off the calls on the wire.
        logger.warning("%s could not be kept up to date: %s", path, type(error).__name__)
        return f"What happened could not be read from the journal, and {path} lacks it ({type(error).__name__})."
    return ""


@asynccontextmanager
async def writing_events(journal: Journal, run: Run, path: Path, notify: observer.Observer) -> AsyncIterator[None]:
    """Keep the event file up to date while inside; a failure to do so is told and stops nothing."""
    done = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(deliver, journal, run, path, done, notify)
        try:
            yield
        finally:
            done.set()
