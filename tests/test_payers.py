"""What a finance clerk sees and says before anything is paid: which column is what, how much, from where, yes or no."""

from __future__ import annotations

import os
import pty
import subprocess
from pathlib import Path

import msgspec
import pytest
from processes import ENVIRONMENT, call, command

TWO_AMOUNTS = "Matricule;Nom;Téléphone;Salaire;À payer\nA1;Awa;70123456;500;400\n"
BROKEN = "reference,phone,amount\nA,70123456,500\nB,7012,500\nC,,500\n"


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_the_plan_shows_which_column_is_what(tmp_path: Path) -> None:
    """And which are not used, so that nobody pays the gross for the net."""
    written(tmp_path / "s.csv", "Matricule;Nom;Téléphone;Salaire;Service\nA1;Awa;70123456;5 000 Frs CFA;X\n")
    told = call(tmp_path, "plan", "s.csv", "--sandbox").stdout.decode()
    assert "amount ← Salaire" in told and "reference ← Matricule" in told
    assert "Not used: Service" in told
    assert "5,000 XOF" in told, "francs however they are called"


def test_which_column_is_meant_may_be_said(tmp_path: Path) -> None:
    """Two that could be the amount are a question; what is said is taken before any guess, on each command."""
    written(tmp_path / "s.csv", TWO_AMOUNTS)
    asked = call(tmp_path, "plan", "s.csv", "--sandbox")
    assert asked.returncode == 2 and '--column amount="Salaire"' in asked.stderr.decode()
    said = ("--column", "amount=À payer", "--sandbox")
    assert "amount ← À payer" in call(tmp_path, "plan", "s.csv", *said).stdout.decode()
    done = call(tmp_path, "run", "s.csv", *said, "--yes", "--json")
    assert done.returncode == 0
    outcomes = [msgspec.json.decode(line) for line in done.stdout.splitlines()]
    assert {one["amount_minor"] for one in outcomes if one["event"] == "outcome"} == {400}


@pytest.mark.parametrize(
    ("lines", "limit", "code"),
    [
        ("A,70123456,500\n", "", 0),
        ("A,70123456,500\nB,7012,500\n", "", 1),
        ("A,70123456,500\nA,70123456,500\nB,7012,500\n", "", 3),
        ("A,70123456,500\n", "max_run_amount = 499", 4),
        ("A,70123456,2000000000\n", "", 4),
    ],
)
def test_the_plan_ends_as_the_run_would(tmp_path: Path, lines: str, limit: str, code: int) -> None:
    """Refused lines, held lines, and what is short or not allowed: a script need not read the words."""
    written(tmp_path / "s.csv", f"reference,phone,amount\n{lines}")
    written(tmp_path / "payouts.toml", f'{limit}\n[accounts.bf]\nprovider = "senfenico"\n')
    assert call(tmp_path, "plan", "s.csv", "--sandbox").returncode == code
    assert call(tmp_path, "plan", "s.csv", "--sandbox", "--json").returncode == code


TOTALLED = "Nom,Téléphone,Montant\nAwa,70123456,500\nIssa,70123457,1 000\n"


@pytest.mark.parametrize(
    ("closing", "differs"),
    [
        ("TOTAL,,1 500\n", False),
        ("Total général :,,1500 FCFA\n", False),
        (",Total,1500\nArrêté la présente liste à la somme de mille cinq cents francs,,\n", False),
        ("Sous-total,,500\nTOTAL,,1 500\n", False),
        ("TOTAL,,1 600\n", True),
        ("TOTAL,,?\n", True),
    ],
)
def test_a_total_is_no_payout(tmp_path: Path, closing: str, differs: bool) -> None:
    """It is compared with the lines above it, and told where they do not add up to it; nobody called so is refused."""
    written(tmp_path / "s.csv", TOTALLED + closing)
    planned = call(tmp_path, "plan", "s.csv", "--sandbox")
    said = " ".join(planned.stdout.decode().split())
    assert planned.returncode == 0 and "2 lines, 2 to pay" in said
    assert "sums up the others" in said or "sum up the others" in said
    assert ("add up to 1,500 XOF" in said) is differs
    done = call(tmp_path, "run", "s.csv", "--sandbox", "--yes", "--json")
    assert done.returncode == 0
    summary = msgspec.json.decode((tmp_path / "s.csv-results" / "summary.json").read_bytes())
    assert summary["lines"] == 2


@pytest.mark.parametrize("line", ["Total Energies,,1500", "Total,70123458,1500", "Awa Total,,7"])
def test_who_is_only_called_so_is_a_payee(tmp_path: Path, line: str) -> None:
    """A name that begins like a total, and one with a phone beside it, come out as lines."""
    written(tmp_path / "s.csv", f"{TOTALLED}{line}\n")
    assert "3 lines" in call(tmp_path, "plan", "s.csv", "--sandbox").stdout.decode()


@pytest.mark.parametrize(
    ("column", "remedy"),
    [("amount=A Payé", "Perhaps “À payer”"), ("salary=Salaire", "Known: phone"), ("amount", "Write: --column amount=")],
)
def test_a_column_that_is_not_there_is_told(tmp_path: Path, column: str, remedy: str) -> None:
    """With the nearest one, or with how to say it."""
    written(tmp_path / "s.csv", TWO_AMOUNTS)
    done = call(tmp_path, "plan", "s.csv", "--sandbox", "--column", column)
    assert done.returncode == 2
    assert remedy in " ".join(done.stderr.decode().replace("│", " ").split())


@pytest.mark.parametrize(
    ("options", "code"), [(["--strict"], 2), (["--max-refused", "1"], 2), (["--max-refused", "2"], 1), ([], 1)]
)
def test_a_file_with_too_many_refused_lines_is_not_paid(tmp_path: Path, options: list[str], code: int) -> None:
    """Nothing of it, and nothing is recorded; without the option, the rest of it is."""
    written(tmp_path / "s.csv", BROKEN)
    done = call(tmp_path, "run", "s.csv", "--sandbox", "--yes", *options)
    assert done.returncode == code, done.stderr.decode()
    runs = call(tmp_path, "runs", "--sandbox", "--json").stdout.splitlines()
    assert len(runs) == (code != 2)


@pytest.mark.parametrize(
    ("answers", "code"), [("oui\n", 1), ("O\n", 1), ("peut-être\ny\n", 1), ("non\n", 2), ("\n", 2), ("what\nn\n", 2)]
)
def test_a_person_says_yes_in_english_or_french(tmp_path: Path, answers: str, code: int) -> None:
    """What is neither yes nor no is asked again. The question says how much, from where, and whether it is real."""
    written(tmp_path / "s.csv", BROKEN)
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command("run", "s.csv", "--sandbox"),
        cwd=tmp_path,
        env=ENVIRONMENT,
        stdin=theirs,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    os.close(theirs)
    os.write(ours, answers.encode())
    _, said = process.communicate(timeout=60)
    os.close(ours)
    assert process.returncode == code, said.decode()
    question = " ".join(said.decode().split())
    assert (
        "Pay 1 payout, 500 XOF and fees of 8 XOF, from senfenico (sandbox, no real money) (2 refused), now?" in question
    )
