"""Steering from another terminal, with real processes: pause, cancel, retry, and the same file under another name."""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
from processes import ENVIRONMENT, Bank, call, command, rows, salaries, wait_for_payments


@pytest.fixture
def bank(tmp_path: Path) -> Iterator[Bank]:
    """A sandbox in a process of its own."""
    opened = Bank(tmp_path)
    yield opened
    opened.close()


def begin(folder: Path, bank: Bank) -> subprocess.Popen[bytes]:
    """Begin to pay the salaries in another process and wait until the bank has paid some."""
    arguments = ("run", "salaries.csv", "--yes", "--config", str(bank.config))
    process = subprocess.Popen(command(*arguments), cwd=folder, stderr=subprocess.PIPE, env=ENVIRONMENT)
    wait_for_payments(bank, 300)
    return process


def only_run(folder: Path, bank: Bank) -> str:
    """Return the id of the one run."""
    listed = call(folder, "runs", "--json", "--config", str(bank.config)).stdout
    return str(orjson.loads(listed)["run_id"])


def test_pause_and_resume_from_another_terminal(tmp_path: Path, bank: Bank) -> None:
    """Paused: exit 4 and how to go on; run again it stays paused; resumed, everybody is paid once."""
    salaries(tmp_path, 2500)
    process = begin(tmp_path, bank)
    config = ("--config", str(bank.config))
    run_id = only_run(tmp_path, bank)
    asked = call(tmp_path, "pause", run_id, *config, "--who", "awa", "--why", "the bank called")
    _, said = process.communicate(timeout=30)

    assert asked.returncode == 0, asked.stderr.decode()
    assert b"has heard it" in asked.stderr
    assert process.returncode == 4, said.decode()
    assert b"Paused by awa: the bank called." in said
    assert f"payout-engine resume {run_id}".encode() in said
    assert b"Unknown money" not in said
    assert call(tmp_path, "run", "salaries.csv", "--yes", *config).returncode == 4
    assert len(bank.paid()) < 2500
    resumed = call(tmp_path, "resume", run_id, *config)
    assert resumed.returncode == 0, resumed.stderr.decode()
    assert Counter(bank.paid().values()) == {1: 2500}


def test_cancel_from_another_terminal_and_retry_what_was_cancelled(tmp_path: Path, bank: Bank) -> None:
    """Cancelled: what was sent is paid, the rest is not; a retry pays the rest, and a second one nobody."""
    salaries(tmp_path, 2500)
    process = begin(tmp_path, bank)
    config = ("--config", str(bank.config))
    run_id = only_run(tmp_path, bank)
    asked = call(tmp_path, "cancel", run_id, *config, "--why", "wrong month", "--json")
    _, said = process.communicate(timeout=30)
    done = orjson.loads(asked.stdout)

    assert asked.returncode == 0, asked.stderr.decode()
    assert process.returncode == 1, said.decode()
    assert done["cancelled"] == 2500 - len(bank.paid()) > 0
    assert sum(done["others"].values()) == len(bank.paid())
    statuses = Counter(row["payout_status"] for row in rows(tmp_path / "salaries.csv-results" / "results.csv"))
    assert statuses == {"paid": len(bank.paid()), "cancelled": done["cancelled"]}

    assert call(tmp_path, "retry", run_id, *config).returncode == 2, "nobody said yes"
    retried = call(tmp_path, "retry", run_id, *config, "--yes", "--out", "again")
    assert retried.returncode == 0, retried.stderr.decode()
    assert len(rows(tmp_path / "again" / "results.csv")) == done["cancelled"]
    again = call(tmp_path, "retry", run_id, *config, "--yes")
    assert again.returncode == 2
    assert b"has paid" in again.stderr
    assert Counter(bank.paid().values()) == {1: 2500}


def test_the_same_content_under_another_name_and_for_a_named_account_is_the_same_run(
    tmp_path: Path, bank: Bank
) -> None:
    """A renamed file pays nobody again, whatever account is named."""
    path = salaries(tmp_path, 30)
    config = ("--config", str(bank.config))
    first = call(tmp_path, "run", "salaries.csv", "--yes", *config)
    path.rename(tmp_path / "november.csv")
    again = call(tmp_path, "run", "november.csv", "--yes", "--account", "bf", *config)

    assert (first.returncode, again.returncode) == (0, 0), again.stderr.decode()
    assert b"was paid before" in again.stderr
    assert Counter(bank.paid().values()) == {1: 30}


def test_a_limit_is_told_by_plan_and_kept_by_run(tmp_path: Path, bank: Bank) -> None:
    """Over max_run_amount: plan says so, run ends with exit 2, and nothing is sent."""
    salaries(tmp_path, 10)
    bank.config.write_text("max_run_amount = 5000\n" + bank.config.read_text())
    config = ("--config", str(bank.config))
    planned = call(tmp_path, "plan", "salaries.csv", *config)
    run = call(tmp_path, "run", "salaries.csv", "--yes", *config)

    assert planned.returncode == 4, planned.stderr.decode()
    assert b"max_run_amount" in planned.stdout
    assert run.returncode == 2
    assert b"max_run_amount" in run.stderr
    assert not bank.paid()


def test_resuming_all_goes_on_past_a_run_that_cannot_be_used(tmp_path: Path, bank: Bank) -> None:
    """An account that is gone and a key that is missing are told with their runs; the others are paid.

    The most urgent exit code is returned, and a run that is named alone fails alone.
    """
    config, url = ("--config", str(bank.config)), bank.config.read_text().partition('base_url = "')[2].partition('"')[0]
    tables = {}
    for place, account in enumerate(["gone", "bf", "keyless"]):
        tables[account] = f'[accounts.{account}]\nprovider = "senfenico"\nbase_url = "{url}"\n'
        bank.config.write_text(tables[account] + 'api_key = "sk_test_cli"\n')
        # The canary fails, and leaves five payouts of each run to be resumed.
        lines = [f"{account}-{number},70{500_100 + place * 100 + number},{1000 + number}" for number in range(5)]
        text = "\n".join(["reference,phone,amount", f"{account}-x,70000001,900", *lines])
        (tmp_path / f"{account}.csv").write_text(text)
        begun = call(tmp_path, "run", f"{account}.csv", "--yes", "--canary", "1", *config)
        assert begun.returncode == 4, begun.stderr.decode()
    listed = call(tmp_path, "runs", "--json", *config).stdout
    runs = {run["name"].partition(".")[0]: run["run_id"] for run in map(orjson.loads, listed.splitlines())}
    bank.config.write_text(tables["bf"] + 'api_key = "sk_test_cli"\n' + tables["keyless"])

    everything = call(tmp_path, "resume", *config, "--json")
    said = everything.stderr.decode()
    assert everything.returncode == 2, said
    for name in ("gone", "keyless"):
        assert f"Run {runs[name]} ({name}.csv) was not paid:" in said
    events = [orjson.loads(line) for line in everything.stdout.splitlines()]
    told = [event["run_id"] for event in events if event["event"] == "unusable"]
    assert told == [runs["gone"], runs["keyless"]]
    states = {run: call(tmp_path, "show", runs[run], "--json", *config).stdout for run in runs}
    assert b'"state":"ready"' not in states["bf"]
    assert all(b'"state":"ready","count":5' in states[run] for run in ("gone", "keyless"))
    alone = call(tmp_path, "resume", runs["gone"], *config)
    assert alone.returncode == 2
    assert b"Traceback" not in everything.stderr + alone.stderr
