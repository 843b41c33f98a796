"""`python -m benchmarks.stages`: where `plan` spends its time, stage by stage, in processor time of one process.

The stages of intake are run one after the other, each waited for, so that what the clock of the processor shows belongs
to one of them; in life they overlap. A bare `csv.reader` over the same file is measured beside them: on a machine that
others use too, the ratio to it says more than the microseconds.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio

from benchmarks.files import write_file
from payout_engine.domain.model import Chunk, Direction
from payout_engine.intake.chunk import Packer
from payout_engine.intake.duplicates import hold_duplicates
from payout_engine.intake.forecast import forecast
from payout_engine.intake.intake import prepare
from payout_engine.intake.route import AccountWallets, Router
from payout_engine.journal import SqliteJournal
from payout_engine.providers.senfenico import REGISTRATION
from payout_engine.sources import open_source

ACCOUNT = "bench"
YARDSTICK = "csv.reader alone"
LINES = 200_000


class Stages:
    """Processor seconds by stage, in the order in which the stages first ran."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add what is done within to a stage: by this thread, by the journal's, by any."""
        before = time.process_time()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.process_time() - before


async def measure(path: Path, folder: Path) -> tuple[int, Mapping[str, float]]:
    """Plan a file stage by stage; return how many payouts are ready, and the processor seconds by stage."""
    stages = Stages()
    with stages.stage(YARDSTICK), path.open(encoding="utf-8", newline="") as file:
        for _ in csv.reader(file):
            pass
    face = REGISTRATION.face(Direction.PAY)
    router = Router([AccountWallets(ACCOUNT, face.traits({}), face.wallets({}))])
    with stages.stage("open: hash and check"):
        source = await open_source(path)
    run, validator = prepare(source, router)
    packer = Packer({ACCOUNT: router.served[ACCOUNT].traits})
    blocks = source.blocks()
    async with SqliteJournal.open(folder / "plan.db", scratch_of=folder / "none.db") as journal:
        await journal.begin(run)
        chunks: Sequence[Chunk] = ()
        while True:
            with stages.stage("read"):
                block = await anext(blocks, None)
            if block is None:
                break
            with stages.stage("validate"):
                validated = validator.validate(block)
            with stages.stage("pack"):
                chunks = packer.add(validated)
            with stages.stage("record"):
                await journal.add(run.run_id, chunks)
        with stages.stage("record"):
            await journal.add(run.run_id, packer.rest())
        with stages.stage("find repeats"):
            await hold_duplicates(journal, run)
        with stages.stage("seal"):
            await journal.seal(run.run_id)
        with stages.stage("forecast"):
            need = await forecast(journal, run.run_id, router, {})
    return need.count, stages.seconds


def table(count: int, seconds: Mapping[str, float]) -> str:
    """Return the stages as people read them: microseconds for each payout, and how many times the yardstick."""
    yardstick = seconds[YARDSTICK]
    rows = [f"{'stage':24}{'us a payout':>14}{'of csv.reader':>16}"]
    sums = {**seconds, "all but csv.reader": sum(seconds.values()) - yardstick}
    rows += [f"{name:24}{spent / count * 1e6:>14.2f}{spent / yardstick:>16.2f}" for name, spent in sums.items()]
    return "\n".join(rows)


def main() -> None:
    """Measure a file of payouts that are all plain, and print where the time went."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stages", description="Where plan spends its time.")
    parser.add_argument("--lines", type=int, default=LINES, help=f"payouts in the file (default {LINES:,})")
    parser.add_argument("--file", type=Path, help="a payout file of yours instead")
    options = parser.parse_args()
    with TemporaryDirectory(prefix="payout-stages-") as folder:
        path = options.file or write_file(Path(folder) / "payouts.csv", options.lines).path
        print(table(*anyio.run(measure, path, Path(folder))))


if __name__ == "__main__":
    main()
