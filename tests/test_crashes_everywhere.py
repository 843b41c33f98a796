"""Real crashes while four providers pay side by side, and while one collects: every line once, by all their ledgers.

The sandboxes are embedded, so that they are killed with the program that pays, as a machine takes down all it carries;
their ledgers are files of their own and outlive it. `PAYOUT_ENGINE_KILLS` says how many scenes are tried, as in
`test_crashes.py`.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import apsw
import pytest
from processes import ENVIRONMENT, call, command, rows

from payout_engine import providers

EXAMPLES = Path(__file__).parent.parent / "examples"
SCENES = max(2, int(os.environ.get("PAYOUT_ENGINE_KILLS", "8")) // 4)
DONE = (0, 1, 3)

pytestmark = [pytest.mark.crash, pytest.mark.timeout(180)]


def killed(words: list[str], folder: Path, chance: random.Random) -> None:
    """Begin, and be killed: at any moment from the first intent on, or a little before."""
    process = subprocess.Popen(
        command(*words), cwd=folder, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    wanted, deadline = chance.randrange(12), time.monotonic() + 20
    while time.monotonic() < deadline and process.poll() is None and intents(folder / "pay.db") < wanted:
        time.sleep(0.002)
    time.sleep(chance.uniform(0, 0.1))
    process.send_signal(signal.SIGKILL)
    process.wait()


def intents(journal: Path) -> int:
    """Return how many calls were intended."""
    try:
        connection = apsw.Connection(str(journal), flags=apsw.SQLITE_OPEN_READONLY)
        return int(connection.execute("select count(*) from dispatches").get)
    except apsw.Error:
        return 0


async def ledgers(folder: Path) -> Counter[str]:
    """Return how often each key was paid, over all providers' ledgers."""
    found: Counter[str] = Counter()
    for name, registration in providers.discover().items():
        ledger = folder / f"pay-{name}-ledger.db"
        if ledger.exists():
            async with registration.sandbox(ledger) as server:
                found.update({key: count for key, (count, _) in server.paid().items()})
    return found


@pytest.mark.parametrize("number", range(SCENES))
@pytest.mark.parametrize("verb", ["run", "collect"])
async def test_killed_at_any_moment_every_ledger_agrees(tmp_path: Path, verb: str, number: int) -> None:
    """The same command finishes; nobody is paid twice anywhere, and what counts as paid is what the ledgers hold."""
    chance = random.Random(f"{verb} {number}")
    if verb == "run":
        for name in ("west-africa.csv", "west-africa.toml"):
            shutil.copy(EXAMPLES / name, tmp_path)
        config = (tmp_path / "west-africa.toml").read_text()
    else:
        lines = [f"C-{number},Payer {number},+22901{42_100_000 + number},{500 + number}" for number in range(60)]
        (tmp_path / "west-africa.csv").write_text("\n".join(["reference,name,phone,amount", *lines]) + "\n")
        config = '[accounts.benin]\nprovider = "unipesa"\n'
    (tmp_path / "pay.toml").write_text(f"unknown_patience_seconds = 2\n{config}")
    words = [verb, "west-africa.csv", "--config", "pay.toml", "--journal", "pay.db", "--sandbox", "--yes"]
    for _ in range(chance.randint(1, 3)):
        killed(words, tmp_path, chance)
    for _ in range(4):
        done = call(tmp_path, *words)
        if done.returncode in DONE:
            break
    assert done.returncode in DONE, done.stderr.decode()
    paid = await ledgers(tmp_path)
    assert max(paid.values()) == 1, [key for key, count in paid.items() if count > 1]
    journal = apsw.Connection(str(tmp_path / "pay.db"), flags=apsw.SQLITE_OPEN_READONLY)
    states = {str(key): str(state) for key, state in journal.execute("select key, state from payouts")}
    assert {key for key, state in states.items() if state == "paid"} <= set(paid)
    assert {state for key, state in states.items() if key not in paid} <= {"unknown", "held", "failed", "rejected"}
    assert len(rows(tmp_path / "west-africa.csv-results" / "results.csv")) == len(states)
