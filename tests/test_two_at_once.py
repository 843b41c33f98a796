"""Two processes with the same file, the same journal or the same key: one pays, and the other says so and waits.

Real processes, real journals, and a bank in a process of its own that counts calls over its limit.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import subprocess
import termios
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, suppress
from functools import partial
from pathlib import Path

import apsw
import orjson
import pytest
from processes import ENVIRONMENT, Bank, call, command, rows, wait_for_payments

from payout_engine import Engine, Payout, Settings
from payout_engine.app.accounts import key_of
from payout_engine.app.settings import AccountSettings
from payout_engine.domain.errors import ConfigError, JournalBusyError
from payout_engine.domain.states import State
from payout_engine.intake.route import Route
from payout_engine.ports.registration import Account
from payout_engine.providers import senfenico
from payout_engine.providers.senfenico.sandbox import SenfenicoSandbox

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def far(tmp_path: Path) -> Iterator[Bank]:
    """A bank of its own."""
    opened = Bank(tmp_path)
    yield opened
    opened.close()


class Terminal:
    """One command in a process of its own, and what it says."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.process = subprocess.Popen(
            command(*arguments), cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=ENVIRONMENT
        )
        self.said = ""

    def hear(self, wanted: str) -> str:
        """Read what it says until that holds `wanted`; return the line."""
        assert self.process.stderr is not None
        for line in iter(self.process.stderr.readline, b""):
            self.said += line.decode()
            if wanted in line.decode():
                return line.decode()
        raise AssertionError(f"it never said “{wanted}”: {self.said}")

    def end(self) -> int:
        """Wait until it has ended; return its exit code."""
        self.said += self.process.communicate(timeout=60)[1].decode()
        return self.process.returncode


def a_file(folder: Path, name: str, first: int, count: int) -> Path:
    """Write a payout file of lines with numbers of their own."""
    lines = [f"{name}-{number},70{500_100 + number},{1000 + number}" for number in range(first, first + count)]
    path = folder / f"{name}.csv"
    path.write_text("\n".join(["reference,phone,amount", *lines]) + "\n")
    return path


def over_limit(far: Bank) -> int:
    """Return how many calls came over the bank's limit."""
    ledger = apsw.Connection(str(far.ledger), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        return int(ledger.execute("select coalesce(sum(value), 0) from counters where name = 'bulk_over_limit'").get)
    finally:
        ledger.close()


def paid_once(far: Bank, count: int) -> bool:
    """Whether exactly so many payouts reached the bank, each once and under one key of its own."""
    return Counter(far.paid().values()) == {1: count}


# ---------------------------------------------------------------------------------------------- one file, one journal


@pytest.mark.parametrize("later_seconds", [0.0, 0.4, 0.8, 1.6])
def test_the_same_file_from_two_terminals(tmp_path: Path, far: Bank, later_seconds: float) -> None:
    """Started together or one after the other: one run, everybody paid once, and both end well with the results."""
    a_file(tmp_path, "salaries", 0, 1500)
    arguments = ("run", "salaries.csv", "--yes", "--config", str(far.config))
    first = Terminal(tmp_path, *arguments)
    time.sleep(later_seconds)
    second = Terminal(tmp_path, *arguments)
    codes = (first.end(), second.end())

    assert codes == (0, 0), first.said + second.said
    assert paid_once(far, 1500)
    assert over_limit(far) == 0
    listed = call(tmp_path, "runs", "--json", "--config", str(far.config)).stdout.splitlines()
    assert len(listed) == 1
    told = [terminal.said for terminal in (first, second) if "Waiting until it has ended" in terminal.said]
    assert len(told) == 1, "one of them waited, and said so"
    assert "Traceback" not in first.said + second.said
    assert Counter(row["payout_status"] for row in rows(tmp_path / "salaries.csv-results" / "results.csv")) == {
        "paid": 1500
    }


def test_the_second_says_what_the_first_is_doing(tmp_path: Path, far: Bank) -> None:
    """It names the process, the run, the file and the time, says how far that is, and then finishes what is left."""
    a_file(tmp_path, "salaries", 0, 3500)
    arguments = ("run", "salaries.csv", "--yes", "--config", str(far.config))
    first = Terminal(tmp_path, *arguments)
    wait_for_payments(far, 200)
    second = Terminal(tmp_path, *arguments, "--json")
    line = second.hear("Waiting until it has ended")
    second.hear("of its 3,500 payouts have settled")
    run_id = str(orjson.loads(call(tmp_path, "runs", "--json", "--config", str(far.config)).stdout)["run_id"])
    expected = (
        rf"Process {first.process.pid} is paying run {run_id} \(salaries.csv\) with the journal .*payouts.db, since"
    )
    assert re.search(expected, line), line
    assert (first.end(), second.end()) == (0, 0), first.said + second.said
    assert "going on" in second.said
    assert paid_once(far, 3500)


def test_a_dead_payer_is_followed_by_the_one_that_waits(tmp_path: Path, far: Bank) -> None:
    """kill -9 while another waits: that one takes over by itself, and everybody is paid at most once."""
    a_file(tmp_path, "salaries", 0, 2500)
    arguments = ("run", "salaries.csv", "--yes", "--config", str(far.config))
    first = Terminal(tmp_path, *arguments)
    wait_for_payments(far, 200)
    second = Terminal(tmp_path, *arguments)
    second.hear("Waiting until it has ended")
    first.process.kill()
    first.end()

    assert second.end() in (0, 3), second.said
    statuses = Counter(row["payout_status"] for row in rows(tmp_path / "salaries.csv-results" / "results.csv"))
    assert set(statuses) <= {"paid", "unknown"} and sum(statuses.values()) == 2500
    assert statuses["paid"] == len(far.paid())
    assert set(far.paid().values()) == {1}
    assert over_limit(far) == 0


def test_waiting_can_be_ended_without_harm(tmp_path: Path, far: Bank) -> None:
    """Ctrl-C ends the waiting alone: exit 130, no run is left behind, and the first goes on undisturbed."""
    a_file(tmp_path, "salaries", 0, 2500)
    a_file(tmp_path, "refunds", 5000, 10)
    config = ("--config", str(far.config))
    first = Terminal(tmp_path, "run", "salaries.csv", "--yes", *config)
    wait_for_payments(far, 100)
    second = Terminal(tmp_path, "run", "refunds.csv", "--yes", *config)
    second.hear("Waiting until it has ended")
    second.process.send_signal(signal.SIGINT)

    assert second.end() == 130
    assert "Nothing was sent from here" in second.said
    assert len(call(tmp_path, "runs", "--json", *config).stdout.splitlines()) == 1
    assert first.end() == 0, first.said
    assert paid_once(far, 2500)
    assert call(tmp_path, "run", "refunds.csv", "--yes", *config).returncode == 0
    assert paid_once(far, 2510)


def test_a_pause_stands_though_an_earlier_resume_comes_to_it_later(tmp_path: Path, far: Bank) -> None:
    """`resume` of all runs pays the first; the second is paused meanwhile, and is not paid when its turn comes."""
    config = ("--config", str(far.config))
    for name, first, count in (("salaries", 0, 2500), ("refunds", 5000, 1500)):
        a_file(tmp_path, name, first, count)
        begun, before = Terminal(tmp_path, "run", f"{name}.csv", "--yes", *config), sum(far.paid().values())
        wait_for_payments(far, before + 100)
        begun.process.send_signal(signal.SIGINT)
        assert begun.end() == 130, begun.said
    refunds, _ = (orjson.loads(line) for line in call(tmp_path, "runs", "--json", *config).stdout.splitlines())
    resumed = Terminal(tmp_path, "resume", *config)
    resumed.hear("salaries.csv")
    assert call(tmp_path, "pause", refunds["run_id"], "--who", "Awa", *config).returncode == 0

    assert resumed.end() == 4, resumed.said
    assert "Paused by Awa" in resumed.said
    paid = far.paid()
    assert set(paid.values()) == {1} and 2500 < len(paid) < 4000


@pytest.mark.parametrize("key", [b"\x03", b"\x04"])
def test_an_interrupted_question_is_a_no(tmp_path: Path, far: Bank, key: bytes) -> None:
    """Ctrl-C and Ctrl-D at the question end the command at once, pay nobody and leave nothing to wait for."""
    a_file(tmp_path, "salaries", 0, 5)
    control, terminal = pty.openpty()
    asking = subprocess.Popen(
        command("run", "salaries.csv", "--config", str(far.config)),
        **dict.fromkeys(("stdin", "stdout", "stderr"), terminal),  # type: ignore[call-overload]
        preexec_fn=partial(fcntl.ioctl, 0, termios.TIOCSCTTY, 0),
        start_new_session=True,
        cwd=tmp_path,
        env=ENVIRONMENT,
    )
    os.close(terminal)
    said = b""
    while b"now?" not in said:
        said += os.read(control, 4096)
    with suppress(OSError):  # How the other side of a terminal says that it is closed.
        while True:
            # A key that comes while the terminal is being made ready for the answer may be lost: press it again.
            os.write(control, key)
            while select.select([control], [], [], 3)[0]:
                said += os.read(control, 4096)
    os.close(control)

    assert asking.wait(20) == 130
    assert b"Nothing was sent and nothing was recorded" in said
    assert not list(tmp_path.glob("*.lock"))
    assert call(tmp_path, "runs", "--json", "--config", str(far.config)).stdout == b""


@pytest.mark.parametrize("what", ["deleted", "moved"])
def test_nobody_is_paid_from_a_journal_that_is_gone(tmp_path: Path, far: Bank, what: str) -> None:
    """Deleted or moved while one pays and one waits: the first sends nothing more, the other nothing at all."""
    a_file(tmp_path, "salaries", 0, 2500)
    a_file(tmp_path, "refunds", 5000, 10)
    config = ("--config", str(far.config))
    first = Terminal(tmp_path, "run", "salaries.csv", "--yes", *config)
    wait_for_payments(far, 100)
    second = Terminal(tmp_path, "run", "refunds.csv", "--yes", *config)
    second.hear("Waiting until it has ended")
    (tmp_path / "elsewhere").mkdir()
    for path in tmp_path.glob("payouts.db*"):
        path.unlink() if what == "deleted" else path.rename(tmp_path / "elsewhere" / path.name)

    assert (first.end(), second.end()) == (4, 4), first.said + second.said
    assert "was moved, deleted or replaced" in first.said and "was moved, deleted or replaced" in second.said
    assert len(far.paid()) < 2500
    if what == "moved":
        for path in (tmp_path / "elsewhere").iterdir():
            path.rename(tmp_path / path.name)
        codes = [call(tmp_path, "run", f"{name}.csv", "--yes", *config).returncode for name in ("salaries", "refunds")]
        assert codes == [0, 0]
        assert paid_once(far, 2510)


# ------------------------------------------------------------------------------------------------- one account, one key


@pytest.mark.parametrize("apart", ["one journal", "two journals", "two journals and names"])
def test_two_files_from_one_account_never_exceed_its_rate(tmp_path: Path, far: Bank, apart: str) -> None:
    """Whatever the journals and the account are called, one key has one payer at a time, and its rate is kept."""
    a_file(tmp_path, "salaries", 0, 2500)
    a_file(tmp_path, "refunds", 5000, 700)
    other = tmp_path / "other.toml"
    named = far.config.read_text().replace("[accounts.bf]", "[accounts.burkina]")
    other.write_text(named if apart.endswith("names") else far.config.read_text())
    journal = () if apart == "one journal" else ("--journal", "other.db")
    first = Terminal(tmp_path, "run", "salaries.csv", "--yes", "--config", str(far.config))
    wait_for_payments(far, 1)
    second = Terminal(tmp_path, "run", "refunds.csv", "--yes", "--config", str(other), *journal)
    codes = (first.end(), second.end())

    assert codes == (0, 0), first.said + second.said
    assert paid_once(far, 3200)
    assert over_limit(far) == 0
    assert "Waiting until it has ended" in first.said + second.said


def test_a_file_that_another_journal_has_begun_is_refused(tmp_path: Path, far: Bank) -> None:
    """The same content, another journal, the same key: nothing is sent, and the journal that knows it is named."""
    a_file(tmp_path, "salaries", 0, 20)
    config = ("--config", str(far.config))
    assert call(tmp_path, "run", "salaries.csv", "--yes", *config).returncode == 0
    (tmp_path / "salaries.csv").rename(tmp_path / "again.csv")
    refused = call(tmp_path, "run", "again.csv", "--yes", *config, "--journal", "other.db")

    assert refused.returncode == 2
    assert b"this file was begun as run" in refused.stderr and b"payouts.db" in refused.stderr
    assert paid_once(far, 20)
    assert call(tmp_path, "runs", "--json", *config, "--journal", "other.db").stdout == b""


@pytest.mark.parametrize("spelling", ["{}/", "HTTP{}", "localhost"])
def test_one_key_is_known_however_its_address_is_written(tmp_path: Path, far: Bank, spelling: str) -> None:
    """A last slash, capitals or this machine's name in the configured address make no other account of it."""
    a_file(tmp_path, "salaries", 0, 20)
    assert call(tmp_path, "run", "salaries.csv", "--yes", "--config", str(far.config)).returncode == 0
    other, written = tmp_path / "other.toml", far.config.read_text()
    address = written.partition('base_url = "')[2].partition('"')[0]
    spelled = address.replace("127.0.0.1", spelling) if spelling == "localhost" else spelling.format(address)
    assert spelled != address
    other.write_text(written.replace(address, spelled.replace("HTTPhttp", "HTTP")))
    refused = call(tmp_path, "run", "salaries.csv", "--yes", "--config", str(other), "--journal", "other.db")

    assert refused.returncode == 2 and b"this file was begun as run" in refused.stderr
    assert paid_once(far, 20)


def test_the_providers_own_address_may_be_written_out() -> None:
    """With it and without it, the key is the same, so a run goes on whichever way the configuration has it."""
    registration = senfenico.REGISTRATION
    keys = {
        key_of(registration, Account(name="bf", secrets={"api_key": "sk_test_a"}, base_url=address))
        for address in (None, registration.base_url, f"{registration.base_url}:443/")
    }
    assert len(keys) == 1


def test_all_names_of_this_machine_are_one_address() -> None:
    """Whatever listens behind a port of it is the same; another port, or another machine, is another."""
    hosts = ("localhost", "LOCALHOST.", "bank.localhost", "127.0.0.1", "127.9.8.7", "[::1]", "[::ffff:127.0.0.1]")
    addresses = [f"http://{host}:8400" for host in hosts]
    other = ["http://localhost:8401", "https://localhost:8400", "http://localhost.example:8400", "http://[::2]:8400"]

    def key(address: str) -> str:
        return key_of(senfenico.REGISTRATION, Account(name="bf", secrets={"api_key": "sk_test_a"}, base_url=address))

    assert len({key(address) for address in addresses}) == 1
    assert len({key(address) for address in [addresses[0], *other]}) == 5


BankMaker = Callable[..., AbstractAsyncContextManager[SenfenicoSandbox]]


def two_names(server: SenfenicoSandbox, journal: Path) -> Settings:
    """Two accounts of one key, one for each wallet."""
    account = AccountSettings("senfenico", {"api_key": "sk_test_tests", "base_url": server.base_url})
    routes = [Route("orange", wallet="orange_bf"), Route("rest")]
    return Settings(journal=journal, accounts={"orange": account, "rest": account}, routes=routes)


async def test_two_accounts_with_one_key_share_its_rate(tmp_path: Path, bank: BankMaker) -> None:
    """Within one run, too, the provider counts by key: a strict limit is never exceeded."""
    async with bank(calls_per_second=5) as server:
        async with Engine.open(two_names(server, tmp_path / "payouts.db")) as engine:
            wallets = ("orange_bf", "moov_bf")
            payouts = [
                Payout(f"{wallet}-{number}", 1000 + number, phone=f"{74 if wallet[0] == 'o' else 70}{500_100 + number}")
                for wallet in wallets
                for number in range(600)
            ]
            run = await engine.submit(payouts)
            assert run.findings is not None and run.findings.accepted == 1200
            statuses = Counter([outcome.status async for outcome in engine.pay(run)])
        assert statuses[State.PAID] == 1200
        assert "bulk_over_limit" not in str(server.ledger.totals())


async def test_the_rate_is_kept_from_one_journal_to_the_next(tmp_path: Path, bank: BankMaker) -> None:
    """A key that was used a moment ago with another journal is not used again before the limit allows it."""
    async with bank(calls_per_second=5) as server:
        for name in ("one", "two"):
            async with Engine.open(two_names(server, tmp_path / f"{name}.db")) as engine:
                payouts = [Payout(f"{name}-{n}", 1000 + n, phone=f"70{500_100 + n}") for n in range(500)]
                run = await engine.submit(payouts)
                [outcome async for outcome in engine.pay(run, follow_for_seconds=0)]
        assert len(server.paid()) == 1000
        assert "bulk_over_limit" not in str(server.ledger.totals())


@pytest.mark.parametrize("first", ["the retry", "the other journal"])
async def test_a_retry_counts_as_its_file_in_other_journals(tmp_path: Path, bank: BankMaker, first: str) -> None:
    """A run that came to nothing may be begun anew: by its retry or by another journal, but not by both."""
    path = a_file(tmp_path, "salaries", 0, 5)
    async with bank() as server:
        ours, others = (two_names(server, tmp_path / f"{name}.db") for name in ("ours", "others"))
        async with Engine.open(ours) as one, Engine.open(others) as two:
            run = await one.submit(path)
            await one.approved(run.run_id)
            await one.cancel(run.run_id, "Awa")
            [outcome async for outcome in one.pay(run)]
            again = (one, await one.retry(run.run_id)), (two, await two.submit(path))
            for engine, submission in again if first == "the retry" else reversed(again):
                if not server.paid():
                    [outcome async for outcome in engine.pay(submission)]
                    continue
                with pytest.raises(ConfigError, match="this file was begun as run"):
                    await engine.check_accounts(submission.run_id)
                with pytest.raises(ConfigError, match="this file was begun as run"):
                    [outcome async for outcome in engine.pay(submission)]
        assert Counter(count for count, _ in server.paid().values()) == {1: 5}


async def test_a_program_is_told_at_once_unless_it_wants_to_wait(tmp_path: Path, bank: BankMaker) -> None:
    """From Python: without `wait` the second raises and names the holder; with it, it pays when the first has ended."""
    async with bank() as server:
        settings = two_names(server, tmp_path / "payouts.db")
        async with Engine.open(settings) as one, Engine.open(settings) as two:
            first = await one.submit([Payout("A", 1000, phone="70500100")])
            second = await two.submit([Payout("B", 1001, phone="70500100")])
            held = one.pay(first, follow_for_seconds=None)
            while not server.paid():
                await held.__anext__()
            with pytest.raises(JournalBusyError, match="is paying run") as caught:
                [outcome async for outcome in two.pay(second)]
            assert caught.value.holder is not None and caught.value.holder.run_id == first.run_id
            waiting = two.pay(second, wait=True)
            [outcome async for outcome in held]
            assert [outcome.status async for outcome in waiting][-1] == "paid"


async def test_one_content_is_validated_by_one(tmp_path: Path, bank: BankMaker) -> None:
    """Two programs submit one file: the second is told, waits if it wants, and gets the run of the first."""
    path = a_file(tmp_path, "salaries", 0, 5)
    async with bank() as server:
        settings = two_names(server, tmp_path / "payouts.db")
        async with Engine.open(settings) as one, Engine.open(settings) as two:
            run = await one.submit(path)
            with pytest.raises(JournalBusyError, match="is validating salaries"):
                await two.submit(path)
            again = await one.submit(path)
            assert again.run_id != run.run_id, "its own earlier submission is replaced"
            [outcome async for outcome in one.pay(again)]
            known = await two.submit(path, wait=True)
            assert known.known and known.run_id == again.run_id
        assert Counter(count for count, _ in server.paid().values()) == {1: 5}


async def test_a_folder_for_locks_that_cannot_be_made_pays_nobody(
    tmp_path: Path, bank: BankMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No lock, no payment: the error names the folder and the way out."""
    (tmp_path / "state").write_text("a file where the folder should be")
    async with bank() as server:
        async with Engine.open(two_names(server, tmp_path / "payouts.db")) as engine:
            run = await engine.submit([Payout("A", 1000, phone="70500100")])
            with pytest.raises(ConfigError, match="XDG_STATE_HOME"):
                [outcome async for outcome in engine.pay(run)]
        assert not server.paid()
