"""`resolve` and `verify` as people meet them: real processes, real journals, exit codes and words."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import orjson
import pytest
from processes import call, rows
from tampering import altered

from payout_engine.cli.decide import _of_provider
from payout_engine.domain.model import Problem, Receipt
from payout_engine.domain.states import State
from payout_engine.journal import SqliteJournal
from payout_engine.ports.provider import Traits
from payout_engine.testing.journal_lines import ORANGE, SOMEBODY, chunk, dispatched, every, run, states
from payout_engine.testing.journal_resends import LIVES_AN_HOUR, PAYS_ONCE, PROMISES_NOTHING

CONFIG = '[accounts.bf]\nprovider = "senfenico"\napi_key = "sk_test_resolve"\nbase_url = "http://127.0.0.1:9"\n'
WHO = ("--who", "Awa", "--why", "asked Orange")


@pytest.fixture
async def folder(tmp_path: Path) -> Path:
    """A folder with a journal: lines 1 to 4 paid, unknown, accepted and failed, line 6 held as a copy of line 5."""
    (tmp_path / "payouts.toml").write_text(CONFIG)
    async with SqliteJournal.open(tmp_path / "payouts.db") as journal:
        await journal.begin(run("run"))
        await journal.add("run", [chunk([1, 2, 3, 4]), chunk([5, 6], reference="SAME")])
        duplicates = await every(journal.duplicates("run"))
        await journal.hold(
            "run", {repeat.position: Problem("reference_repeated", "As line 5.") for repeat in duplicates}
        )
        await journal.seal("run")
        await journal.approve("run")
        ends = [Receipt(State.PAID), Receipt(State.UNKNOWN, "timeout", "No answer."), Receipt(State.ACCEPTED)]
        await journal.record(await dispatched(journal, "run"), [*ends, Receipt(State.FAILED)])
        await journal.record(await dispatched(journal, "run"), [Receipt(State.PAID)])
        await journal.finish("run")
    return tmp_path


async def standing(folder: Path) -> dict[int, State]:
    """Return where each line stands."""
    async with SqliteJournal.open(folder / "payouts.db") as journal:
        return await states(journal, "run")


def events(stdout: bytes) -> list[dict[str, Any]]:
    """Return the JSON lines of a command."""
    return [orjson.loads(line) for line in stdout.splitlines()]


BEFORE = [State.PAID, State.UNKNOWN, State.ACCEPTED, State.FAILED, State.PAID, State.HELD]


async def test_the_everyday_release_is_one_line(tmp_path: Path) -> None:
    """A second bonus that was held as a repetition is released, resumed, paid once, and all of it is proven."""
    lines = ["reference,phone,amount", "EMP-1,70500101,1000", "EMP-2,70500102,1000", "EMP-1,70500101,1000"]
    (tmp_path / "bonus.csv").write_text("\n".join(lines) + "\n")
    first = call(tmp_path, "run", "bonus.csv", "--sandbox", "--yes")
    (listed,) = events(call(tmp_path, "runs", "--sandbox", "--json").stdout)
    run_id = listed["run_id"]
    said = ("--who", "Awa", "--why", "second bonus", "--sandbox")
    done = call(tmp_path, "resolve", run_id, "--send-again", "EMP-1", *said)
    again = call(tmp_path, "resume", run_id, "--sandbox")
    proven = call(tmp_path, "verify", run_id, "--sandbox", "--json")

    assert (first.returncode, done.returncode, again.returncode) == (3, 0, 0), done.stderr.decode()
    assert f"payout-engine resume {run_id} --sandbox" in done.stderr.decode()
    found = rows(tmp_path / "bonus.csv-results" / "results.csv")
    assert [row["payout_status"] for row in found] == ["paid"] * 3
    summary = orjson.loads((tmp_path / "bonus.csv-results" / "summary.json").read_bytes())
    (audit,) = events(proven.stdout)
    assert proven.returncode == 0
    assert (audit["proven"], audit["payouts"], audit["digest"]) == (True, 3, summary["log_digest"])
    assert "older copy" in audit["unprovable"][0]
    alone = call(tmp_path, "verify", run_id, "--sandbox")
    kept = call(tmp_path, "verify", run_id, "--sandbox", "--digest", summary["log_digest"])
    assert (alone.returncode, kept.returncode) == (0, 0)
    assert b"Proven" in alone.stdout and b"Proven" in kept.stdout
    assert "Not proven: The journal itself cannot show whether it is an older copy" in " ".join(
        alone.stdout.decode().split()
    )
    assert f"after entry {summary['log_digest'].partition('-')[0]}, which the kept digest" in " ".join(
        kept.stdout.decode().split()
    )


async def test_all_that_repeats_is_released_at_once(tmp_path: Path) -> None:
    """One word for a whole file that is meant twice; without it `--yes` holds every line again, and the plan warns."""
    first = "reference,phone,amount\n0001,70500101,1510\n0002,70500102,1610\n"
    (tmp_path / "one.csv").write_text(first)
    (tmp_path / "two.csv").write_text(first.replace("000", "") + "9,70500109,1200\n")
    assert call(tmp_path, "run", "one.csv", "--sandbox", "--yes").returncode == 0
    assert call(tmp_path, "run", "two.csv", "--sandbox", "--yes").returncode == 3
    results = tmp_path / "two.csv-results" / "results.csv"
    assert [row["payout_status"] for row in rows(results)] == ["held", "held", "paid"]
    run_id = events(call(tmp_path, "runs", "--sandbox", "--json").stdout)[0]["run_id"]
    done = call(tmp_path, "resolve", run_id, "--release-held", "--sandbox", "--who", "Awa", "--why", "thirteenth month")
    assert done.returncode == 0, done.stderr.decode()
    assert b"2 decisions recorded" in done.stderr
    assert call(tmp_path, "resume", run_id, "--sandbox").returncode == 0
    assert [row["payout_status"] for row in rows(results)] == ["paid"] * 3
    nothing = call(tmp_path, "resolve", run_id, "--release-held", "--sandbox", "--who", "Awa", "--why", "again")
    assert nothing.returncode == 2
    assert b"held because it repeats another" in nothing.stderr


async def test_the_list_tells_what_is_known(folder: Path) -> None:
    """Each waiting line with its reference, masked phone, amount, history, key; and the money."""
    done = call(folder, "resolve", "run")
    text, said = done.stdout.decode(), done.stderr.decode()

    assert done.returncode == 3
    for part in ("line 2", "SAL-00002", "1,002 XOF", "sent", "unknown, timeout: No answer.", "line 6", "As line 5."):
        assert part in text, part
    assert "line 3" not in text
    assert "Unknown money: 1,002 XOF" in said
    assert "does not promise that one key pays once" in said
    assert "22670000002" not in text + said
    listed = events(call(folder, "resolve", "run", "--accepted", "--json").stdout)
    assert [(event["event"], event.get("line")) for event in listed] == [
        *(("waits", line) for line in (2, 3, 6)),
        ("waiting", None),
    ]
    assert listed[0]["key"] in text
    assert [step["kind"] for step in listed[0]["steps"]] == ["intent", "receipts"]
    assert listed[-1]["amounts_minor"]["unknown"] == {"XOF": 1002}
    assert all("22670000002" not in str(event) for event in listed)


@pytest.mark.parametrize(
    ("traits", "words"),
    [
        (PROMISES_NOTHING, "does not promise that one key pays once"),
        (PAYS_ONCE, "sending again is a way of asking."),
        (LIVES_AN_HOUR, "only within 1 h after it was first sent: later it may be paid a second time"),
    ],
)
def test_a_person_is_told_what_the_key_is_worth(traits: Traits, words: str) -> None:
    """Whoever decides to send again knows whether that can pay twice, and from when on."""
    assert words in _of_provider(traits)


async def test_decisions_are_recorded_with_who_and_why(folder: Path) -> None:
    """Several words at once, by reference and by line; the log names the person and the reason."""
    done = call(folder, "resolve", "run", "--paid", "SAL-00002", "--cancel", "line:6", "--failed", "SAL-00003", *WHO)

    assert done.returncode == 0, done.stderr.decode()
    assert "payout-engine results run" in done.stderr.decode()
    assert list((await standing(folder)).values()) == [
        *(State.PAID, State.PAID, State.FAILED, State.FAILED, State.PAID, State.CANCELLED)
    ]
    nothing = call(folder, "resolve", "run")
    assert nothing.returncode == 0
    assert b"Nothing of run run waits" in nothing.stderr
    async with SqliteJournal.open(folder / "payouts.db") as journal:
        outcomes = [outcome async for _, found in journal.outcomes("run") for outcome in found]
    assert [outcome.message for outcome in outcomes if outcome.line == 2][-1] == "Awa: asked Orange"
    assert call(folder, "verify", "run").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--send-again", "SAL-00003"), "line 3, reference SAL-00003: the provider has accepted it"),
        (("--cancel", "SAL-00002"), "line 2, reference SAL-00002: the provider may have it"),
        (("--paid", "SAL-00001"), "line 1, reference SAL-00001: it is paid"),
        (("--paid", "NOBODY"), "NOBODY: the run has no such line"),
        (("--paid", "line:99"), "line:99: the run has no such line"),
        (("--paid", "SAL-00002", "--failed", "SAL-00002"), "SAL-00002: it is decided twice"),
    ],
)
async def test_one_wrong_word_stops_all(folder: Path, arguments: tuple[str, ...], said: str) -> None:
    """Beside a good decision an impossible one: exit 2, it is named, and nothing changed."""
    done = call(folder, "resolve", "run", "--send-again", "SAME", *arguments, *WHO)

    assert done.returncode == 2
    assert b"\\n" not in done.stderr
    assert said in done.stderr.decode()
    assert "othing was recorded" in done.stderr.decode()
    assert list((await standing(folder)).values()) == BEFORE


async def test_who_and_why_are_demanded(folder: Path) -> None:
    """Without a person or a reason nothing is recorded."""
    for options in ((), ("--who", "Awa"), ("--why", "because"), ("--who", " ", "--why", "because")):
        done = call(folder, "resolve", "run", "--paid", "SAL-00002", *options)
        assert done.returncode == 2
        assert b"--who NAME and --why TEXT" in done.stderr
    assert list((await standing(folder)).values()) == BEFORE


async def test_a_copy_of_attention_csv_is_a_table_of_decisions(folder: Path) -> None:
    """The file of what waits, with a column for the decision and one for a note; empty cells decide nothing."""
    call(folder, "results", "run", "--out", "out")
    waiting = rows(folder / "out" / "attention.csv", ";")
    assert [row["payout_line"] for row in waiting] == ["2", "6"]
    with (folder / "decided.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, [*waiting[0], "Decision", "note"], delimiter=";")
        table.writeheader()
        table.writerows(
            {**row, "Decision": said, "note": "ticket 7"} for row, said in zip(waiting, ["", "Send-Again"], strict=True)
        )
    done = call(folder, "resolve", "run", "--from", "decided.csv", "--json", *WHO)

    assert done.returncode == 0, done.stderr.decode()
    decided, resolved = events(done.stdout)
    assert (decided["line"], decided["status"], decided["message"]) == (6, "ready", "Awa: asked Orange (ticket 7)")
    assert resolved["next"] == "payout-engine resume run"
    assert list((await standing(folder)).values()) == [*BEFORE[:5], State.READY]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("reference,decision\nSAL-00002,perhaps\n", "line 2: write paid, failed, send again or cancel"),
        ("line,decision\nsix,paid\n", "line 2: write paid"),
        ("reference,word\nSAL-00002,paid\n", "needs a column “decision”"),
        ("reference,decision\nSAL-00002,\n", "holds no decision"),
        ("reference,line,decision\nSAL-00002,3,paid\n", "no such line"),
    ],
)
async def test_a_table_that_cannot_be_followed(folder: Path, content: str, said: str) -> None:
    """What is wrong with the table is said, and nothing is recorded."""
    (folder / "decided.csv").write_text(content)
    done = call(folder, "resolve", "run", "--from", "decided.csv", *WHO)
    assert done.returncode == 2
    assert said in done.stderr.decode()
    assert list((await standing(folder)).values()) == BEFORE


async def test_nobody_decides_while_somebody_pays(folder: Path) -> None:
    """While another process holds the account, a decision waits: exit 2, and the holder is named."""
    async with SqliteJournal.open(folder / "payouts.db") as journal, journal.lease("account bf", SOMEBODY):
        done = call(folder, "resolve", "run", "--paid", "SAL-00002", *WHO)
        listed = call(folder, "resolve", "run")
    assert done.returncode == 2
    assert b"account bf" in done.stderr
    assert listed.returncode == 3
    assert list((await standing(folder)).values()) == BEFORE


async def test_what_a_crash_left_being_sent_can_be_decided(folder: Path) -> None:
    """A dispatch that a crash cut off counts as unknown for a person's word, and the listing says what to do first."""
    async with SqliteJournal.open(folder / "payouts.db") as journal:
        await journal.begin(run("crashed"))
        await journal.add("crashed", [chunk([21])])
        await journal.seal("crashed")
        await journal.approve("crashed")
        await journal.intend((await journal.ready("crashed", ORANGE, 0, 1))[0])
    listed = call(folder, "resolve", "crashed")
    assert b"1 payout being sent now, or when the program stopped" in listed.stderr
    done = call(folder, "resolve", "crashed", "--paid", "SAL-00021", *WHO)
    assert done.returncode == 0, done.stderr.decode()
    assert call(folder, "verify", "crashed").returncode == 0


async def test_a_tampered_journal_is_told_with_exit_3(folder: Path) -> None:
    """Somebody turns failed into paid: the line is named, on both streams' terms, and the code is 3."""
    path = folder / "payouts.db"
    altered(path, folder, "UPDATE progress SET states = replace(states, 'f', 'p')").replace(path)
    done = call(folder, "verify", "run")
    told = call(folder, "verify", "run", "--json")

    assert (done.returncode, told.returncode) == (3, 3)
    assert "run run, line 4: recorded as paid, but by the log it is failed" in " ".join(done.stderr.decode().split())
    assert b"Proven" not in done.stdout
    (audit,) = events(told.stdout)
    assert (audit["proven"], audit["found"], audit["findings"][0]["first_line"]) == (False, 1, 4)
    assert call(folder, "verify", "nowhere").returncode == 2
