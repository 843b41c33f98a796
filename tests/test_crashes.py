"""Real crashes: a real process, a real journal file and a bank in a process of its own.

The process is killed with SIGKILL at many moments; then the same command is given again until it is done. What the
bank's own ledger holds and what the results say must agree each time. Also: a full disk, a journal that cannot be
written, and a clock that jumps back.

`PAYOUT_ENGINE_KILLS` says how many scenes are tried (8 unless told), and a quarter as many with two processes at once.
Each scene is made from its number alone.
"""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import apsw
import orjson
import pytest
from processes import ENVIRONMENT, Bank, call, command, rows

from payout_engine.providers.senfenico.ledger import Fate, Ledger, LedgerTransfer
from payout_engine.providers.senfenico.sandbox import FATES

pytestmark = [pytest.mark.crash, pytest.mark.timeout(120)]

KILLS = int(os.environ.get("PAYOUT_ENGINE_KILLS", "8"))
LINES = 400
DONE = (0, 1, 3)
"""The exit codes after which there is nothing left to do for the same command."""

STATES_WITHOUT_WORD = ("held", "unknown")


class Scene:
    """A bank, a file to be paid, and the command that pays it."""

    def __init__(self, folder: Path, bank: Bank, *, lines: int = LINES, journal: Path | None = None) -> None:
        self.folder = folder
        self.bank = bank
        self.journal = journal or folder / "payouts.db"
        self.out = folder / "results"
        self.file = folder / "salaries.csv"
        self.lines = lines
        written = [f"S-{number},{_phone(number)},{1000 + number}" for number in range(lines)]
        self.file.write_text("\n".join(["reference,phone,amount", *written]) + "\n")
        config = bank.config.read_text().replace("[accounts.bf]", "unknown_patience_seconds = 3\n[accounts.bf]")
        bank.config.write_text(config + "timeout_seconds = 5\n")

    @property
    def words(self) -> list[str]:
        """The one command of a scene."""
        options = ("--config", str(self.bank.config), "--journal", str(self.journal), "--out", str(self.out))
        return ["run", str(self.file), "--yes", *options]

    def start(self, **options: Any) -> subprocess.Popen[bytes]:
        """Begin to pay."""
        return subprocess.Popen(
            options.pop("arguments", command(*self.words)),
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=ENVIRONMENT,
            **options,
        )

    def run(self) -> tuple[int, str]:
        """Give the command and wait for its end; return its exit code and what it said."""
        done = call(self.folder, *self.words)
        return done.returncode, done.stderr.decode()

    def run_until_done(self) -> int:
        """Give the same command again until it has nothing left to do."""
        for _ in range(4):
            code, said = self.run()
            assert code in (*DONE, 5), said
            if code in DONE:
                return code
        raise AssertionError(f"never done: {said}")

    def transfers(self) -> dict[str, list[LedgerTransfer]]:
        """Return the bank's transfers by the phone they went to, which belongs to one line only."""
        ledger = Ledger(self.bank.ledger, {})
        try:
            found: dict[str, list[LedgerTransfer]] = {}
            for transfer in ledger.transfers():
                found.setdefault(transfer.phone[-8:], []).append(transfer)
            return found
        finally:
            ledger.close()

    def fault(self, **fields: object) -> None:
        """Script a fault of the bank over its control endpoint."""
        url = self.bank.config.read_text().split('base_url = "')[1].split('"')[0]
        request = urllib.request.Request(f"{url}/_sandbox/faults", data=orjson.dumps([fields]), method="POST")
        with urllib.request.urlopen(request, timeout=5) as answer:
            assert answer.status == 200


def _phone(number: int) -> str:
    """A phone number of one line only; some fail, some are refused by the bank."""
    place = number // 40
    if number % 40 == 7 and place < 16:
        return f"{70 + place if place < 8 else 52 + place}{_ending(Fate.FAILS)}"
    if number % 40 == 11 and place < 8:
        return f"{50 + place}{_ending(Fate.REFUSED)}"
    return f"70{500_100 + number}"


def _ending(fate: Fate) -> str:
    return next(ending for ending, found in FATES.items() if found is fate)


@pytest.fixture
def bank(tmp_path: Path) -> Iterator[Bank]:
    """A bank of its own."""
    opened = Bank(tmp_path)
    yield opened
    opened.close()


def agree(scene: Scene) -> None:
    """The ledger and the results say the same of every line, and no line was paid twice."""
    results = rows(scene.out / "results.csv")
    counts = Counter(row["payout_status"] for row in results)
    summary = orjson.loads((scene.out / "summary.json").read_bytes())
    transfers = scene.transfers()
    by_line = {row["reference"]: (row["phone"], row["amount"]) for row in rows(scene.file)}

    assert [row["reference"] for row in results] == list(by_line), "every line comes out, once, in order"
    assert {state: part["count"] for state, part in summary["by_state"].items()} == counts
    assert max(Counter(t.ext_id for found in transfers.values() for t in found).values(), default=0) <= 1
    for row in results:
        phone, amount = by_line[row["reference"]]
        found = transfers.pop(phone, [])
        moved = [transfer for transfer in found if transfer.verdict == "success"]
        assert len(found) <= 1, f"{row['reference']} reached the bank {len(found)} times"
        if row["payout_status"] not in STATES_WITHOUT_WORD:
            assert len(moved) == (row["payout_status"] == "paid"), row
        if moved:
            assert moved[0].amount == int(amount)
            assert row["payout_provider_reference"] in ("", moved[0].reference)
    assert not transfers, "the bank paid somebody who is not in the file"
    events_agree(scene, {row["payout_reference"]: row["payout_status"] for row in results})


def events_agree(scene: Scene, states: dict[str, str]) -> None:
    """The last event of every line names the state it ended in."""
    last = {}
    for line in (scene.out / "events.jsonl").read_bytes().splitlines():
        event = orjson.loads(line)
        last[event["reference"]] = event["status"]
    assert last == states


# ------------------------------------------------------------------------------------------------------------- kill -9


def _wait(found: Any, process: subprocess.Popen[bytes], seconds: float = 15.0) -> None:
    """Wait until `found` says so, or the process has ended."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None and not found():
        time.sleep(0.001)


def in_intake(scene: Scene, process: subprocess.Popen[bytes], chance: random.Random) -> None:
    """While the file is validated and recorded."""
    _wait(scene.journal.exists, process)
    time.sleep(chance.uniform(0, 0.15))


def after_an_intent(scene: Scene, process: subprocess.Popen[bytes], chance: random.Random) -> None:
    """As soon as an intent is on the disk: before the call leaves, or while it does."""
    wanted = chance.randint(1, LINES // 100)
    _wait(lambda: _intents(scene.journal) >= wanted, process)


def _intents(journal: Path) -> int:
    with suppress(apsw.Error):
        connection = apsw.Connection(str(journal), flags=apsw.SQLITE_OPEN_READONLY)
        try:
            return int(connection.execute("select count(*) from dispatches").get)
        finally:
            connection.close()
    return 0


def in_flight(scene: Scene, process: subprocess.Popen[bytes], chance: random.Random) -> None:
    """After the bank acted, before it answers."""
    scene.fault(kind="slow", endpoint="bulk", seconds=2.0, times=chance.randint(1, 3))
    _wait_for_payments(scene, process, chance.randrange(LINES))


def before_the_bank_acts(scene: Scene, process: subprocess.Popen[bytes], chance: random.Random) -> None:
    """After the bank has read the call, which it carries out only when the caller is dead."""
    scene.fault(kind="slow_before", endpoint="bulk", seconds=0.7, times=chance.randint(1, 3))
    _wait(lambda: _intents(scene.journal) >= 1, process)
    time.sleep(chance.uniform(0, 0.4))


def at_the_answer(scene: Scene, process: subprocess.Popen[bytes], chance: random.Random) -> None:
    """While the answer comes in and its outcome is committed."""
    scene.fault(kind="slow", endpoint="bulk", seconds=0.05, times=20)
    _wait_for_payments(scene, process, chance.randrange(LINES))
    time.sleep(0.05 + chance.uniform(-0.01, 0.02))


def while_following(scene: Scene, process: subprocess.Popen[bytes], chance: random.Random) -> None:
    """After the last call, while final answers come in."""
    _wait_for_payments(scene, process, LINES * 9 // 10)
    time.sleep(chance.uniform(0, 2.0))


def writing_results(scene: Scene, process: subprocess.Popen[bytes], chance: random.Random) -> None:
    """While the results are written, or have taken their place in part."""
    wanted = chance.choice([".*.part", "results.csv", "failed.csv", "attention.csv"])
    _wait(lambda: any(scene.out.glob(wanted)), process)


def at_any_time(_: Scene, process: subprocess.Popen[bytes], chance: random.Random) -> None:
    """Whenever."""
    with suppress(subprocess.TimeoutExpired):
        process.wait(chance.uniform(0.2, 4.0))


def _wait_for_payments(scene: Scene, process: subprocess.Popen[bytes], count: int) -> None:
    ledger = apsw.Connection(str(scene.bank.ledger), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        ledger.set_busy_timeout(1000)
        _wait(lambda: ledger.execute("select count(*) from transfers").get > count, process)
    finally:
        ledger.close()


MOMENTS = (
    *(in_intake, after_an_intent, in_flight, before_the_bank_acts),
    *(at_the_answer, while_following, writing_results, at_any_time),
)


@pytest.mark.parametrize("number", range(KILLS))
def test_killed_at_any_moment_every_line_has_one_fate(tmp_path: Path, bank: Bank, number: int) -> None:
    """After up to three kills the same command ends the run; the bank's ledger and the results agree on every line."""
    chance = random.Random(number)
    scene = Scene(tmp_path, bank)
    moments = [MOMENTS[number % len(MOMENTS)], *chance.choices(MOMENTS, k=chance.randrange(3))]
    for moment in moments:
        process = scene.start()
        moment(scene, process, chance)
        process.kill()
        _, said = process.communicate()
        assert process.returncode in (-signal.SIGKILL, *DONE, 5), said.decode()
    scene.run_until_done()
    agree(scene)


@pytest.mark.parametrize("number", range(KILLS // 4))
def test_killed_beside_another_every_line_has_one_fate(tmp_path: Path, bank: Bank, number: int) -> None:
    """Two processes with one file, one of them killed at any moment: the other ends the run, and all agree."""
    chance = random.Random(f"two {number}")
    scene = Scene(tmp_path, bank)
    both = [scene.start(), scene.start()]
    victim = both.pop(chance.randrange(2))
    MOMENTS[number % len(MOMENTS)](scene, victim, chance)
    victim.kill()
    victim.communicate()
    _, said = both[0].communicate(timeout=60)
    assert both[0].returncode in (*DONE, 5), said.decode()
    scene.run_until_done()
    agree(scene)


# ------------------------------------------------------------------------------------------------------ a full disk


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A disk of its own, of a given size."""
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip(f"a disk of its own needs the right to mount one: {made.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path) -> Path:
    """Leave no room on a disk."""
    filler = disk / "filler"
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass
    return filler


def test_a_disk_that_is_too_small_for_the_journal_pays_nobody(tmp_path: Path, bank: Bank) -> None:
    """No durable intent, no send: intake ends with a sentence, exit 2, and an empty ledger; with room it goes on."""
    with small_disk(tmp_path / "disk", "256k") as disk:
        scene = Scene(tmp_path, bank, journal=disk / "payouts.db")
        code, said = scene.run()

        assert code == 2 and said.count("Error:") == 1, said
        assert "Make room on the disk" in said and "Traceback" not in said
        assert not scene.transfers()
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        assert scene.run_until_done() == 1
        agree(scene)


def test_a_disk_that_fills_up_in_the_middle_stops_money_and_loses_nothing(tmp_path: Path, bank: Bank) -> None:
    """The journal cannot be written: nothing more is sent, exit 4; with room again the run ends, everyone once."""
    with small_disk(tmp_path / "disk", "16m") as disk:
        scene = Scene(tmp_path, bank, lines=2000, journal=disk / "payouts.db")
        process = scene.start()
        _wait_for_payments(scene, process, 300)
        filler = fill(disk)
        _, said = process.communicate(timeout=60)
        before = sum(map(len, scene.transfers().values()))

        assert process.returncode == 4, said.decode()
        assert b"cannot be written" in said and b"nobody twice" in said and b"Traceback" not in said
        assert before < 2000
        filler.unlink()
        assert scene.run_until_done() in DONE
        agree(scene)


def test_results_that_may_not_grow_are_told_and_written_later(tmp_path: Path, bank: Bank) -> None:
    """A limit on the size of files: what was sent is recorded or told, and the same command without it ends the run."""
    scene = Scene(tmp_path, bank)

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))

    process = scene.start(preexec_fn=limit)
    _, said = process.communicate(timeout=60)
    assert process.returncode in (2, 4), said.decode()
    assert b"Error:" in said and b"Traceback" not in said
    assert scene.run_until_done() == 1
    agree(scene)


# ----------------------------------------------------------------------------------------------- a read-only journal


@pytest.mark.parametrize("begun", [False, True], ids=["new journal", "existing journal"])
def test_a_journal_that_cannot_be_written_pays_nobody(tmp_path: Path, bank: Bank, begun: bool) -> None:
    """File and folder read-only: exit 2 and one sentence that names the journal; nothing reaches the bank."""
    with small_disk(tmp_path / "disk", "16m") as disk:
        scene = Scene(tmp_path, bank, lines=50, journal=disk / "payouts.db")
        if begun:
            (tmp_path / "other.csv").write_text("reference,phone,amount\nX,70999999,500\n")
            options = ("--config", str(bank.config), "--journal", str(scene.journal))
            paid = subprocess.run(
                command("run", "other.csv", "--yes", *options), cwd=tmp_path, env=ENVIRONMENT, capture_output=True
            )
            assert paid.returncode == 0, paid.stderr.decode()
        before = len(scene.transfers())
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        code, said = scene.run()

        assert code == 2 and said.count("Error:") == 1, said
        assert "payouts.db" in said and "Traceback" not in said
        assert len(scene.transfers()) == before
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
        assert scene.run_until_done() == 1


# ------------------------------------------------------------------------------------------------------ a jumping clock

JUMPING = """
import sys, time
from pathlib import Path
from payout_engine.domain import clock
from payout_engine.cli import main

sign = Path(sys.argv.pop(1))
with clock.replaced(lambda: time.time() - (3600 if sign.exists() else 0)):
    main()
"""


@pytest.mark.parametrize("kill", [False, True], ids=["runs on", "killed after the jump"])
def test_a_clock_that_jumps_back_pays_nobody_twice(tmp_path: Path, bank: Bank, kill: bool) -> None:
    """An hour back in mid-run: the run ends, everyone is paid once, and no time is outside of what the clock showed."""
    began = datetime.now().astimezone()
    scene = Scene(tmp_path, bank)
    sign = tmp_path / "jump"
    jumping = [sys.executable, "-c", JUMPING, str(sign), *scene.words]
    process = scene.start(arguments=jumping)
    _wait_for_payments(scene, process, 150)
    sign.touch()
    if kill:
        time.sleep(0.2)
        process.kill()
    _, said = process.communicate(timeout=60)
    assert kill or process.returncode == 1, said.decode()
    if kill:
        process = scene.start(arguments=jumping)
        _, said = process.communicate(timeout=60)
        assert process.returncode == 1, said.decode()
    agree(scene)

    ended = datetime.now().astimezone()
    settled = [row["payout_settled_at"] for row in rows(scene.out / "results.csv") if row["payout_settled_at"]]
    assert settled
    for text in settled:
        assert began - timedelta(hours=1, seconds=1) <= datetime.fromisoformat(text) <= ended


def test_the_scenes_are_made_of_distinct_people() -> None:
    """Each phone belongs to one line, so that the ledger shows by itself who was paid twice."""
    phones = [_phone(number) for number in range(LINES)]
    assert len(set(phones)) == LINES
    assert {phone[-6:] for phone in phones} >= {_ending(Fate.FAILS), _ending(Fate.REFUSED)}
