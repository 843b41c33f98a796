"""Readers of what is printed who do not read, read slowly, or leave: none of them touches a payment.

Real processes with real pipes, and a bank of its own whose ledger is the truth.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import msgspec
import pytest
from processes import ENVIRONMENT, Bank, call, command, salaries, wait_for_payments

from payout_engine.cli import outlet
from payout_engine.cli.outlet import Outlet

COUNT = 2500
"""Payouts whose outcomes are more than a pipe and we hold."""


@pytest.fixture
def bank(tmp_path: Path) -> Iterator[Bank]:
    """A bank in another process."""
    served = Bank(tmp_path)
    yield served
    served.close()


def paying(folder: Path, bank: Bank, **streams: Any) -> subprocess.Popen[bytes]:
    """Start paying for programs."""
    salaries(folder, COUNT)
    arguments = ("run", "salaries.csv", "--yes", "--json", "--config", str(bank.config))
    return subprocess.Popen(command(*arguments), cwd=folder, env=ENVIRONMENT, **streams)


def finish_and_check(folder: Path, bank: Bank) -> None:
    """The same command pays the rest: everybody once, and nothing was in doubt."""
    unknown = call(folder, "resolve", "--config", str(bank.config), run_of(folder, bank), "--json")
    assert b'"unknown"' not in unknown.stdout
    again = call(folder, "run", "salaries.csv", "--yes", "--config", str(bank.config))
    assert again.returncode == 0, again.stderr.decode()
    assert len(bank.paid()) == COUNT
    assert set(bank.paid().values()) == {1}


def run_of(folder: Path, bank: Bank) -> str:
    """Return the id of the only run."""
    (line,) = call(folder, "runs", "--config", str(bank.config), "--json").stdout.splitlines()
    return str(msgspec.json.decode(line)["run_id"])


@pytest.mark.parametrize("both", [False, True], ids=["stdout", "stdout and stderr"])
def test_ctrl_c_is_heard_with_a_full_pipe_that_nobody_reads(tmp_path: Path, bank: Bank, both: bool) -> None:
    """Exit 130 without anybody reading a byte; what was on the wire has landed."""
    errors = subprocess.STDOUT if both else subprocess.DEVNULL
    with paying(tmp_path, bank, stdout=subprocess.PIPE, stderr=errors) as process:
        wait_for_payments(bank, 700)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=40) == 130
    finish_and_check(tmp_path, bank)


def test_a_second_ctrl_c_waits_for_no_reader(tmp_path: Path, bank: Bank) -> None:
    """It cuts off what is on the wire, and what nobody read."""
    with paying(tmp_path, bank, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        wait_for_payments(bank, 700)
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        while b"Ctrl-C again" not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        began_at = time.monotonic()
        assert process.wait(timeout=40) == 130
        assert time.monotonic() - began_at < 20


def test_a_slow_reader_loses_no_line_and_holds_nobody_up(tmp_path: Path, bank: Bank) -> None:
    """Everybody is paid while nobody reads; who reads then gets every line once, and exit 0."""
    with paying(tmp_path, bank, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        wait_for_payments(bank, COUNT)
        stream: IO[bytes] | None = process.stdout
        assert stream is not None
        events = [msgspec.json.decode(line) for line in stream]
        assert process.wait(timeout=40) == 0
        paid = Counter(event["line"] for event in events if event["event"] == "outcome" and event["status"] == "paid")
        assert len(paid) == COUNT
        assert set(paid.values()) == {1}
        assert events[-1]["event"] == "summary"


def test_readers_who_leave_stop_no_payment(tmp_path: Path, bank: Bank) -> None:
    """Both pipes are closed from the other side in the middle; everybody is paid all the same."""
    with paying(tmp_path, bank, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        wait_for_payments(bank, 300)
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        process.stderr.close()
        assert process.wait(timeout=40) == 0
    assert len(bank.paid()) == COUNT
    finish_and_check(tmp_path, bank)


# ------------------------------------------------------------------------------------------------------- the outlet


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, Outlet]]:
    """A pipe's reading end, and an outlet into it that is patient for half a second."""
    monkeypatch.setattr(outlet, "PATIENCE_SECONDS", 0.5)
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb"), os.fdopen(writing, "w") as stream:
        yield reading, Outlet(stream)


def test_an_end_that_nobody_reads_is_not_waited_for_without_end(pipe: tuple[int, Outlet]) -> None:
    """What nobody takes is left out, and that is known."""
    _, out = pipe
    out.put(b"x" * 300_000)
    out.finish()
    assert out.left_out
    out.put(b"more")
    out.finish()


def test_a_slow_reader_is_waited_for(pipe: tuple[int, Outlet]) -> None:
    """Whoever takes a little now and then gets everything in order, however long that takes altogether."""
    reading, out = pipe
    wanted, found = b"".join(b"%07d\n" % number for number in range(20_000)), bytearray()

    def read() -> None:
        while len(found) < len(wanted):
            time.sleep(0.1)
            found.extend(os.read(reading, 8192))

    reader = threading.Thread(target=read)
    for start in range(0, len(wanted), 1000):
        out.put(wanted[start : start + 1000])
    reader.start()
    out.finish()
    assert not out.left_out
    reader.join(20)
    assert found == wanted


def test_nothing_is_printed_into_a_pipe_whose_reader_left() -> None:
    """It is no error, neither then nor later, and nothing is waited for."""
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as stream:
        out = Outlet(stream)
        os.close(reading)
        for _ in range(3):
            out.write("text\n")
            out.finish()
        assert not out.left_out


def test_a_stream_that_is_closed_takes_everything() -> None:
    """A program may be started without one."""
    out = Outlet(None)
    out.write("text")
    out.finish()
    assert not out.isatty()


def test_one_file_for_both_streams_keeps_the_order(tmp_path: Path) -> None:
    """What is printed and what is said stand in the file in the order in which it happened."""
    salaries(tmp_path, 3)
    with (tmp_path / "said.txt").open("wb") as file:
        done = subprocess.run(
            command("run", "salaries.csv", "--yes", "--sandbox"),
            cwd=tmp_path,
            env=ENVIRONMENT,
            stdout=file,
            stderr=file,
            timeout=50,
            check=False,
        )
    said = (tmp_path / "said.txt").read_text()
    assert done.returncode == 0, said
    assert said.index("To pay:") < said.index("the money arrived") < said.index("Results:")
