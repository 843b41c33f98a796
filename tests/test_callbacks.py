"""What a provider calls to say: stored by one process, acted on by another or by itself, and never believed.

The server and the command that pays are two real processes; the bank, which calls over HTTP, is a third.
"""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import warm
from calling_bank import CallingBank, call, installed, said
from processes import ENVIRONMENT, command, rows

from payout_engine.domain.limits import CALLBACK_BYTES_MAX, CALLBACKS_AT_ONCE

pytestmark = pytest.mark.timeout(120)


def until(happened: Callable[[], Any], seconds: float = 40.0) -> Any:
    """Wait until something is so, and return it."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = happened()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError("it never happened")


class Scene:
    """A bank, a folder to pay from, and the processes that were started there."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.port = port
        self.bank = CallingBank(folder, more=f'callbacks_url = "http://127.0.0.1:{port}"')
        self.processes: list[subprocess.Popen[bytes]] = []
        self._places = installed(folder)
        self._environment = {**ENVIRONMENT, "PYTHONPATH": os.pathsep.join(self._places)}
        self.file = folder / "salaries.csv"
        self.write(1)

    def write(self, count: int) -> None:
        """Write a payout file."""
        lines = [f"S-{number},70{500_100 + number},{1000 + number}" for number in range(count)]
        self.file.write_text("\n".join(["reference,phone,amount", *lines]) + "\n")

    def start(self, *arguments: str, before: str = "") -> subprocess.Popen[bytes]:
        """Start a command of ours, after some Python of the test's if need be."""
        changed = [sys.executable, "-c", f"{before}\nfrom payout_engine.cli import main\nmain()", *arguments]
        started = subprocess.Popen(
            changed if before else command(*arguments),
            cwd=self.folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.processes.append(started)
        return started

    def end(self, *arguments: str) -> tuple[int, str]:
        """Run a command of ours to its end; return its exit code, and what it printed."""
        before = f"import sys; sys.path[:0] = {self._places!r}"
        ended = warm.run(arguments, self.folder, ENVIRONMENT, timeout=60, before=before)
        return ended.returncode, (ended.stdout + ended.stderr).decode()

    def serve(self, before: str = "") -> subprocess.Popen[bytes]:
        """Start the server, and wait until it answers."""
        server = self.start("serve", "--port", str(self.port), before=before)
        until(lambda: server.poll() is None and self._answers())
        return server

    def _answers(self) -> bool:
        try:
            return call(f"http://127.0.0.1:{self.port}/bf/nobody", b"") == 404
        except OSError:
            return False

    def run(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start paying the file."""
        return self.start("run", "salaries.csv", "--yes", *arguments)

    def sent(self) -> tuple[str, str]:
        """Wait until the bank has an order; return its key and where it is to call."""
        until(lambda: self.bank.addresses)
        return next(iter(self.bank.addresses.items()))

    def paid_out(self) -> tuple[str, str]:
        """Pay the file without following it; return the key of its first payout, and where the bank is to call."""
        _, printed = self.end("run", "salaries.csv", "--yes", "--no-follow")
        assert self.bank.addresses, printed
        return next(iter(self.bank.addresses.items()))

    def read(self, query: str) -> list[Any]:
        """Return the rows of a query about the journal."""
        db = sqlite3.connect(f"file:{self.folder / 'payouts.db'}?mode=ro", uri=True)
        try:
            return db.execute(query).fetchall()
        finally:
            db.close()

    def states(self) -> list[str]:
        """Return where each payout stands, in the order of the file."""
        return [state for (state,) in self.read("SELECT state FROM payouts ORDER BY line")]

    def stored(self) -> int:
        """Return how many calls are stored, whether or not somebody acted on them."""
        return int(self.read("SELECT count(*) FROM callbacks")[0][0])

    def waiting(self) -> int:
        """Return how many stored calls wait."""
        return int(self.read("SELECT count(*) FROM callbacks WHERE waiting")[0][0])

    def is_proven(self) -> bool:
        """Whether the journal's own proof holds."""
        return self.end("verify", self.read("SELECT run_id FROM runs")[0][0])[0] == 0

    def close(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.communicate(timeout=30)
        self.bank.close()


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """A bank and an empty folder, with a port for the server."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    opened = Scene(tmp_path, port)
    yield opened
    opened.close()


def test_who_pays_asks_about_what_the_server_stored(scene: Scene) -> None:
    """The bank calls the address that it was told; the paying process asks it, and ends with everybody paid."""
    scene.serve()
    paying = scene.run()
    key, address = scene.sent()
    assert f"bf {address}" in scene.end("serve", "--urls")[1]
    until(lambda: scene.states() == ["accepted"])
    scene.bank.states[key] = "paid"
    assert call(address, said(key)) == 200
    out, err = paying.communicate(timeout=60)
    assert paying.returncode == 0, (out + err).decode()
    assert scene.bank.asked == {(paying.pid, key): 1}
    assert [row["payout_status"] for row in rows(scene.folder / "salaries.csv-results" / "results.csv")] == ["paid"]
    assert scene.is_proven()


def test_a_call_is_never_believed(scene: Scene) -> None:
    """Whatever a signed call claims, the payout stands where the bank says when it is asked."""
    scene.serve()
    key, address = scene.paid_out()
    for claim in ("paid", "failed", "reversed"):
        assert call(address, said(key, state=claim)) == 200
    until(lambda: scene.stored() == 3 and not scene.waiting())
    assert scene.states() == ["accepted"]


@pytest.mark.parametrize("stands", ["accepted", "unknown"])
def test_what_proves_nothing_is_not_sent_again(scene: Scene, stands: str) -> None:
    """A bank that does not know the payout when it is asked after a call proves no absence by that."""
    scene.serve()
    scene.bank.mumbles = stands == "unknown"
    key, address = scene.paid_out()
    scene.bank.states[key] = "ready"
    assert call(address, said(key)) == 200
    until(lambda: scene.stored() and not scene.waiting())
    assert scene.states() == [stands]


def test_a_forged_call_leaves_no_trace(scene: Scene) -> None:
    """Without the signature it is refused and not stored, and nobody asks; a wrong address is no address at all."""
    scene.serve()
    key, address = scene.paid_out()
    scene.bank.states[key] = "paid"
    assert call(address, said(key), signed="") == 401
    assert call(address, said(key), signed="0" * 64) == 401
    assert call(address[:-1] + ("A" if address[-1] != "A" else "B"), said(key)) == 404
    assert call(address.replace("/bf/", "/ci/"), said(key)) == 404
    assert call(f"http://127.0.0.1:{scene.port}/", said(key)) == 404
    assert (scene.stored(), scene.bank.total_asked(), scene.states()) == (0, 0, ["accepted"])


def test_a_ping_is_answered_and_what_no_provider_sends_is_not(scene: Scene) -> None:
    """A call without anything finds us there; another method, something unreadable or too much does not get in."""
    scene.serve()
    key, address = scene.paid_out()
    assert call(address, b"", method="GET") == 200
    assert call(address + "/below?and=more", b"", method="GET") == 200
    assert call(address, said(key), method="PUT") == 405
    assert call(address, b"no JSON at all") == 400
    full = said(key, much="x" * (CALLBACK_BYTES_MAX - len(said(key, much=""))))
    assert len(full) == CALLBACK_BYTES_MAX
    assert call(address, full + b" ") == 413
    assert scene.stored() == 0
    assert call(address, full) == 200
    assert scene.stored() == 1


def test_a_replayed_call_is_stored_once_and_asked_about_once(scene: Scene) -> None:
    """Again and again, while it waits and after it was acted on: one row, one question."""
    scene.serve()
    key, address = scene.paid_out()
    scene.bank.states[key] = "paid"
    with ThreadPoolExecutor(8) as callers:
        assert set(callers.map(lambda _: call(address, said(key)), range(40))) == {200}
    until(lambda: scene.states() == ["paid"] and not scene.waiting())
    assert call(address, said(key)) == 200
    time.sleep(1.5)
    assert (scene.stored(), scene.bank.total_asked()) == (1, 1)


def test_an_early_call_waits_for_the_answer_to_the_dispatch(scene: Scene) -> None:
    """While the payout is `sending` nobody asks; then the paying process does, and finds it paid."""
    scene.serve()
    scene.bank.paying.clear()
    paying = scene.run()
    key, address = scene.sent()
    scene.bank.states[key] = "paid"
    assert call(address, said(key)) == 200
    time.sleep(2.5)
    assert (scene.states(), scene.waiting(), scene.bank.total_asked()) == (["sending"], 1, 0)
    scene.bank.paying.set()
    out, err = paying.communicate(timeout=60)
    assert paying.returncode == 0, (out + err).decode()
    assert (scene.states(), scene.bank.asked) == (["paid"], {(paying.pid, key): 1})


def test_a_late_call_is_acted_on_by_the_server(scene: Scene) -> None:
    """Nobody pays any more: what was left open arrives, and what had arrived is taken back; then the lease is free."""
    server = scene.serve()
    key, address = scene.paid_out()
    scene.bank.states[key] = "paid"
    assert call(address, said(key, n=1)) == 200
    until(lambda: scene.states() == ["paid"])
    scene.bank.states[key] = "reversed"
    assert call(address, said(key, n=2)) == 200
    until(lambda: scene.states() == ["reversed"])
    assert {pid for pid, _ in scene.bank.asked} == {server.pid}
    until(lambda: not list(scene.folder.glob("*.lock")))
    assert scene.is_proven()


@pytest.mark.parametrize("order", [("paid", "reversed"), ("reversed", "paid")])
def test_the_order_of_calls_does_not_matter(scene: Scene, order: tuple[str, str]) -> None:
    """What was paid and taken back ends so, whichever call comes first."""
    scene.serve()
    key, address = scene.paid_out()
    scene.bank.states[key] = "reversed"
    for claim in order:
        assert call(address, said(key, state=claim)) == 200
        until(lambda: not scene.waiting())
    assert scene.states() == ["reversed"]


def test_a_call_about_nothing_of_ours_is_answered_and_forgotten(scene: Scene) -> None:
    """Keys that were never ours cost no question, however well they are signed."""
    scene.serve()
    key, address = scene.paid_out()
    for other in ("order-1", "", key[:-1] + "9", "x" * 40_000):
        assert call(address, said(other)) == 200
    assert (scene.stored(), scene.bank.total_asked()) == (0, 0)


def test_a_call_that_was_stored_survives_kill_9(scene: Scene) -> None:
    """Killed between storing and asking: after a restart it is asked about without another call."""
    server = scene.serve()
    key, address = scene.paid_out()
    scene.bank.states[key] = "paid"
    scene.bank.telling.clear()
    assert call(address, said(key)) == 200
    until(lambda: scene.bank.total_asked() == 1)
    server.send_signal(signal.SIGKILL)
    server.communicate(timeout=30)
    scene.bank.telling.set()
    assert (scene.states(), scene.waiting()) == (["accepted"], 1)
    scene.serve()
    until(lambda: scene.states() == ["paid"] and not scene.waiting())
    assert scene.bank.total_asked() == 2


def test_a_flood_is_bounded(scene: Scene) -> None:
    """Thousands of calls about a few payouts: each answer is prompt, few questions, little memory, and news gets in."""
    server = scene.serve()
    scene.write(5)
    key, address = scene.paid_out()
    before = peak_kibibytes(server.pid)
    with ThreadPoolExecutor(16) as callers:
        bodies = [said(key, n=number, much="x" * 4_000) for number in range(2_000)]
        answers = list(callers.map(lambda body: call(address, body), bodies))
    assert set(answers) <= {200, 503}
    assert answers.count(200) > 1_500
    scene.bank.states[key] = "paid"
    assert call(address, said(key, last=True)) == 200
    until(lambda: not scene.waiting() and scene.states()[0] == "paid")
    assert scene.bank.total_asked() <= 200, "calls about one payout lead to one question at a time"
    assert peak_kibibytes(server.pid) - before < 48 * 1024


def test_calls_that_never_end_keep_the_others_out_for_a_while_only(scene: Scene) -> None:
    """Half-sent bodies take the places there are, no memory beyond; when their time is over, others get in."""
    scene.serve("import payout_engine.app.serve as serve; serve.CALLBACK_READING_SECONDS = 8.0")
    key, address = scene.paid_out()
    parts = urlsplit(address)
    half = f"POST {parts.path} HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n".encode() + b"x" * 1000
    hanging = [socket.create_connection(("127.0.0.1", scene.port)) for _ in range(CALLBACKS_AT_ONCE)]
    try:
        for connection in hanging:
            connection.sendall(half)
        until(lambda: call(address, said(key)) == 503, 7.5)
        assert hanging[0].recv(100).startswith(b"HTTP/1.1 408")
        assert until(lambda: call(address, said(key)) == 200)
    finally:
        for connection in hanging:
            connection.close()


def test_what_cannot_be_asked_about_waits_and_holds_up_nobody(scene: Scene) -> None:
    """The call waits until the bank answers; meanwhile the lease is free, and another command goes on."""
    scene.serve()
    key, address = scene.paid_out()
    scene.bank.states[key] = "paid"
    scene.bank.fails = True
    assert call(address, said(key)) == 200
    until(lambda: scene.bank.total_asked() == 1)
    time.sleep(0.5)
    assert (scene.states(), scene.waiting(), list(scene.folder.glob("*.lock"))) == (["accepted"], 1, [])
    scene.bank.lags = False
    assert scene.end("follow", scene.read("SELECT run_id FROM runs")[0][0], "--follow-for", "20s")[0] == 0
    assert scene.states() == ["paid"]


def test_a_key_that_is_missing_is_named(scene: Scene) -> None:
    """Nothing is served for accounts whose provider makes no calls, and the sentence says so."""
    scene.bank.config.write_text('[accounts.bf]\nprovider = "senfenico"\napi_key = "sk_test_x"\n')
    assert scene.end("serve", "--urls") == (2, _NOTHING)


_NOTHING = "Error: None of the configured accounts is with a provider that calls, so there is nothing to serve.\n"


def peak_kibibytes(pid: int) -> int:
    """Return the most memory that a process has ever used."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0])
