"""The command line as people and scripts meet it: real processes, real signals, the streams and the exit codes."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from processes import ENVIRONMENT, Bank, call, command, rows, salaries, wait_for_payments

from payout_engine.cli import COLLECT_AFTER
from payout_engine.providers.senfenico.ledger import Ledger

EXAMPLE = Path(__file__).parent.parent / "examples" / "salaries-bf.csv"


@pytest.fixture
def bank(tmp_path: Path) -> Iterator[Bank]:
    """A sandbox in a process of its own."""
    opened = Bank(tmp_path)
    yield opened
    opened.close()


def test_the_example_runs_through_the_embedded_sandbox(tmp_path: Path) -> None:
    """The demonstration: every line of the example comes out in the input's order, and the sums agree."""
    (tmp_path / "salaries-bf.csv").write_bytes(EXAMPLE.read_bytes())
    done = call(tmp_path, "run", "salaries-bf.csv", "--sandbox", "--yes")
    out = tmp_path / "salaries-bf.csv-results"
    results = rows(out / "results.csv", ";")
    given = rows(tmp_path / "salaries-bf.csv", ";")

    assert done.returncode == 3, done.stderr.decode()
    assert [row["Matricule"] for row in results] == [row["Matricule"] for row in given]
    counts = Counter(row["payout_status"] for row in results)
    summary = orjson.loads((out / "summary.json").read_bytes())
    assert summary["lines"] == len(given) == sum(counts.values()) >= 300
    assert counts["paid"] >= 290
    assert {state: part["count"] for state, part in summary["by_state"].items()} == counts
    assert len(rows(out / "rejected.csv", ";")) == counts["rejected"] >= 8
    assert len(rows(out / "attention.csv", ";")) == counts["held"]
    assert (out / "events.jsonl").stat().st_size > 0
    assert "all lines" in done.stdout.decode()
    assert "Results" in done.stderr.decode()


def test_the_lines_of_the_file_and_the_payouts_agree_in_words(tmp_path: Path) -> None:
    """Whoever counts the lines of the file finds each one: in the plan, after the run, in summary.json; retries too."""
    lines = 'reference,phone,amount,note\nR1,70123456,500,"Rue 5\nSecteur 12"\n\n\nR2,70000001,600,a\n'
    (tmp_path / "pay.csv").write_text(lines)
    planned = call(tmp_path, "plan", "pay.csv", "--sandbox").stdout.decode()
    assert "2 payouts on 5 lines: 1 line belongs to cells that span several lines, 2 lines are blank." in planned
    done = call(tmp_path, "run", "pay.csv", "--sandbox", "--yes")
    words = "2 payouts on 5 lines of the file: 3 lines are blank, totals, or belong to cells that span several lines."
    assert words in " ".join(done.stderr.decode().split())
    summary = orjson.loads((tmp_path / "pay.csv-results" / "summary.json").read_bytes())
    assert (summary["control"]["lines_of_file"], summary["control"]["lines_blank_or_continued"]) == (5, 3)
    assert summary["control"]["lines_in"] == summary["control"]["lines_out"] == 2
    again = call(tmp_path, "retry", summary["run_id"], "--sandbox", "--yes", "--out", "again")
    assert b"1 to pay" in again.stderr and b"of the file" not in again.stderr, again.stderr.decode()
    (tmp_path / "plain.csv").write_text("reference,phone,amount\nR9,70123456,500\n")
    plain = call(tmp_path, "run", "plain.csv", "--sandbox", "--yes")
    assert plain.returncode == 0 and b"of the file" not in plain.stderr
    summary = orjson.loads((tmp_path / "plain.csv-results" / "summary.json").read_bytes())
    assert (summary["control"]["lines_of_file"], summary["control"]["lines_blank_or_continued"]) == (1, 0)


def test_the_version_can_be_told(tmp_path: Path) -> None:
    """Whoever reports a fault can name what they run."""
    done = call(tmp_path, "--version")
    assert done.returncode == 0
    assert re.fullmatch(rb"payout-engine \d+\.\d+\.\d+, Python 3\.\d+\.\d+\n", done.stdout), done.stdout


def test_running_a_finished_file_again_pays_nobody(tmp_path: Path) -> None:
    """The same command twice: the second says so and changes nothing."""
    salaries(tmp_path, 30)
    first = call(tmp_path, "run", "salaries.csv", "--sandbox", "--yes")
    again = call(tmp_path, "run", "salaries.csv", "--sandbox", "--yes")
    ledger = Ledger(tmp_path / "payouts-sandbox-senfenico-ledger.db", {})

    assert (first.returncode, again.returncode) == (0, 0)
    assert b"was paid before" in again.stderr
    assert len(ledger.transfers()) == 30
    ledger.close()


def test_json_is_one_object_a_line_on_stdout(tmp_path: Path) -> None:
    """Machines read plan, outcomes and summary from standard output, and nothing else is there."""
    salaries(tmp_path, 20)
    done = call(tmp_path, "run", "salaries.csv", "--sandbox", "--yes", "--json")
    events = [orjson.loads(line) for line in done.stdout.splitlines()]

    kinds = [event["event"] for event in events]
    assert kinds[0] == "plan"
    assert kinds[-1] == "summary"
    assert set(kinds[1:-1]) == {"outcome"}
    assert events[-1]["exit_code"] == done.returncode == 0
    assert {event["reference"] for event in events[1:-1]} == {f"S-{number}" for number in range(20)}
    assert b"22670" not in done.stdout, "no full phone on any stream"


def test_without_a_terminal_nobody_can_say_yes(tmp_path: Path) -> None:
    """No terminal and no --yes: exit 2, nothing sent, nothing recorded."""
    salaries(tmp_path, 5)
    done = call(tmp_path, "run", "salaries.csv", "--sandbox")

    assert done.returncode == 2
    assert b"--yes" in done.stderr
    assert not (tmp_path / "payouts-sandbox.db").exists()


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", b"empty"),
        (b"phone,amount\n", b"no lines"),
        (b"phone,phone,amount\n1,2,3\n", b"phone"),
        (b"name,amount\nA,3\n", b"phone"),
        (b"phone,name\n70123456,A\n", b"amount"),
        (b"PK\x03\x04" + b"\x00" * 100, b"salaries.csv"),
    ],
)
def test_unusable_files_are_one_clear_sentence_and_exit_2(tmp_path: Path, content: bytes, word: bytes) -> None:
    """What cannot be used is named, nothing is recorded and nothing sent."""
    (tmp_path / "salaries.csv").write_bytes(content)
    done = call(tmp_path, "run", "salaries.csv", "--sandbox", "--yes")
    listed = call(tmp_path, "runs", "--sandbox", "--json")

    assert done.returncode == 2
    assert done.stderr.count(b"Error:") == 1
    assert word in done.stderr
    assert b"Traceback" not in done.stderr
    assert listed.stdout == b""


def test_a_missing_file_and_a_missing_configuration_are_told_apart(tmp_path: Path) -> None:
    """Both end with exit 2 and say what to do."""
    missing = call(tmp_path, "plan", "nothing.csv", "--sandbox")
    salaries(tmp_path, 2)
    unconfigured = call(tmp_path, "plan", "salaries.csv")

    assert (missing.returncode, unconfigured.returncode) == (2, 2)
    assert b"nothing.csv" in missing.stderr
    assert b"--sandbox" in unconfigured.stderr


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("accounts = 3", b"table of its own"),
        ("journal = 3", b"in quotes"),
        ('[accounts.bf]\nprovider = "nobody"', "[accounts.bf] There is no provider “nobody”".encode()),
        ('[accounts.bf]\nprovider = "senfenico"\napi_key = "sk_live_1"', b"written out in the file"),
        (
            '[accounts.bf]\nprovider = "senfenico"\napi_key = "sk_test_1"\nbase_url = "http://192.0.2.1"',
            b"[accounts.bf] base_url must begin with https://",
        ),
    ],
)
def test_a_configuration_that_cannot_be_used_is_told_before_anything_is_recorded(
    tmp_path: Path, config: str, words: bytes
) -> None:
    """Also where only paying would need what is wrong with it."""
    (tmp_path / "payouts.toml").write_text(config)
    found = call(tmp_path, "run", str(salaries(tmp_path, 2)), "--yes")
    assert (found.returncode, found.stdout) == (2, b"")
    assert words in found.stderr
    assert not list(tmp_path.glob("*-results"))
    (tmp_path / "payouts.toml").write_text("")
    assert b"no runs" in call(tmp_path, "runs").stderr


def test_proposed_commands_find_the_run_again(tmp_path: Path) -> None:
    """They repeat the options that say where it is."""
    one = call(tmp_path, "run", str(salaries(tmp_path, 2)), "--yes", "--sandbox", "--journal", "my.db", "--no-follow")
    proposed = re.search(rb"payout-engine (follow .*)", one.stderr)
    assert proposed is not None and proposed[1].endswith(b" --journal my.db --sandbox")
    assert call(tmp_path, *proposed[1].decode().split()).returncode == 0


def test_standard_input(tmp_path: Path) -> None:
    """A dash reads standard input, and the results have a folder of their own."""
    done = call(tmp_path, "run", "-", "--sandbox", "--yes", stdin=b"ref;telephone;montant\nA;70123456;1 500\n")

    assert done.returncode == 0, done.stderr.decode()
    assert rows(tmp_path / "standard-input-results" / "results.csv", ";")[0]["payout_status"] == "paid"


def test_looking_around(tmp_path: Path) -> None:
    """runs, show, results, balance, providers and countries answer, for people and for machines."""
    salaries(tmp_path, 3)
    call(tmp_path, "run", "salaries.csv", "--sandbox", "--yes")
    listed: dict[str, Any] = orjson.loads(call(tmp_path, "runs", "--sandbox", "--json").stdout)
    run_id = listed["run_id"]
    for arguments in (
        ("runs", "--sandbox"),
        ("show", run_id, "--sandbox"),
        ("results", run_id, "--sandbox", "--out", "again"),
        ("balance", "--sandbox"),
        ("providers",),
        ("countries",),
        ("countries", "bf"),
        ("plan", "salaries.csv", "--sandbox"),
        ("resume", "--sandbox"),
        ("follow", run_id, "--sandbox"),
    ):
        done = call(tmp_path, *arguments)
        assert done.returncode == 0, (arguments, done.stderr.decode())
        assert done.stdout or done.stderr
    assert rows(tmp_path / "again" / "results.csv") == rows(tmp_path / "salaries.csv-results" / "results.csv")
    assert call(tmp_path, "show", "nothing", "--sandbox").returncode == 2


def test_every_command_has_help_with_an_example() -> None:
    """--help of each command ends with an example of its use."""
    commands = [
        "plan",
        "run",
        "resume",
        "follow",
        "pause",
        "cancel",
        "retry",
        "runs",
        "show",
        "results",
        "resolve",
        "verify",
        "balance",
        "providers",
        "countries",
        "sandbox",
    ]
    for name in commands:
        done = call(Path.cwd(), name, "--help")
        assert done.returncode == 0
        assert f"Example: payout-engine {name}".encode() in done.stdout.replace(b"\n", b"")


def test_ctrl_c_finishes_the_wire_and_says_how_to_go_on(tmp_path: Path, bank: Bank) -> None:
    """Interrupted: exit 130, nothing unknown; the same command then pays the rest, once."""
    salaries(tmp_path, 2500)
    arguments = ("run", "salaries.csv", "--yes", "--config", str(bank.config))
    process = subprocess.Popen(command(*arguments), cwd=tmp_path, stderr=subprocess.PIPE, env=ENVIRONMENT)
    wait_for_payments(bank, 500)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)

    assert process.returncode == 130, said.decode()
    assert b"payout-engine resume" in said
    assert b"Unknown money" not in said
    again = call(tmp_path, *arguments)
    assert again.returncode == 0, again.stderr.decode()
    assert len(bank.paid()) == 2500
    assert set(bank.paid().values()) == {1}


@pytest.mark.crash
@pytest.mark.parametrize("after", [1, 700, 1500])
def test_kill_9_loses_nothing_and_pays_nobody_twice(tmp_path: Path, bank: Bank, after: int) -> None:
    """Killed in mid-run, the same command finishes the run: every line paid exactly once, by the bank's own ledger."""
    salaries(tmp_path, 2000)
    arguments = ("run", "salaries.csv", "--yes", "--config", str(bank.config))
    process = subprocess.Popen(command(*arguments), cwd=tmp_path, stderr=subprocess.DEVNULL, env=ENVIRONMENT)
    wait_for_payments(bank, after)
    process.kill()
    process.wait()

    again = call(tmp_path, *arguments)
    assert again.returncode == 0, again.stderr.decode()
    assert len(bank.paid()) == 2000
    assert set(bank.paid().values()) == {1}
    statuses = Counter(row["payout_status"] for row in rows(tmp_path / "salaries.csv-results" / "results.csv"))
    assert statuses == {"paid": 2000}


def test_only_the_command_line_decides_how_garbage_is_collected() -> None:
    """Who uses the library keeps the collector as it was; a command lets it look rarely."""
    told = "import gc; print(gc.get_threshold()[0], gc.get_freeze_count() > 1000)"
    commands = (
        told,
        f"import payout_engine.cli; {told}",
        f"from payout_engine.cli import main\ntry: main()\nexcept SystemExit: {told}",
    )
    python, library, program = (
        subprocess.run([sys.executable, "-c", code, "--version"], capture_output=True, check=True).stdout.splitlines()
        for code in commands
    )
    assert library == python and python[-1].endswith(b" False")
    assert program[-1] == f"{COLLECT_AFTER} True".encode()
