"""The options that commands share, written once."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Annotated

import typer

from payout_engine.app.other_journals import user_name

UNITS_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


def duration_seconds(text: str | float) -> float:
    """Return the seconds in `30m`, `90s`, `2h`, `1d` or a plain number of seconds.

    Raises:
        typer.BadParameter: it is none of these.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smhd]?)\s*", str(text).lower())
    if match is None:
        raise typer.BadParameter(f"“{text}” is not a duration. Write for example 90s, 30m or 2h.")
    return float(match[1]) * UNITS_SECONDS[match[2]]


def as_given(config: Path | None, journal: Path | None, sandbox: bool) -> str:
    """Return the options that find a run again as they were typed, for the commands that we propose."""
    named = (("--config", config), ("--journal", journal))
    words = [f" {option} {shlex.quote(str(value))}" for option, value in named if value is not None]
    return "".join(words) + (" --sandbox" if sandbox else "")


def columns_given(written: list[str] | None) -> dict[str, str]:
    """Return what `--column` options say: meaning -> header.

    Raises:
        typer.BadParameter: one is not of the form MEANING=HEADER.
    """
    for text in written or ():
        if not all(part.strip() for part in text.partition("=")):
            raise typer.BadParameter(f'“{text}” does not say which column is which. Write: --column amount="À payer".')
    return {meaning.strip(): header.strip() for meaning, _, header in (text.partition("=") for text in written or ())}


def asker(given: str) -> str:
    """Return who asks: as given, or the user of this machine."""
    return given or user_name()


File = Annotated[str, typer.Argument(metavar="FILE", help="CSV, JSONL, XLSX or Parquet; - is standard input.")]
RunId = Annotated[str, typer.Argument(metavar="RUN", help="A run's id, as shown by `payout-engine runs`.")]
AnyRunId = Annotated[
    str | None, typer.Argument(metavar="RUN", help="A run's id; without it, every run that is not finished.")
]
Config = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="The configuration; payouts.toml here if not given.")
]
JournalPath = Annotated[
    Path | None, typer.Option("--journal", metavar="PATH", help="The journal; overrides the configuration.")
]
AccountName = Annotated[str | None, typer.Option("--account", metavar="NAME", help="Use only this account.")]
Out = Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Where results go; FILE-results if not given.")]
PlanOut = Annotated[
    Path | None, typer.Option("--out", metavar="DIR", help="Write the lines that would not be paid here, and why.")
]
Sandbox = Annotated[
    bool, typer.Option("--sandbox", help="Pay into embedded sandboxes on this machine; needs no key, moves no money.")
]
Sheet = Annotated[
    str | None, typer.Option("--sheet", metavar="NAME", help="Which sheet of a workbook, where several hold data.")
]
Collect = Annotated[
    bool, typer.Option("--collect", help="Plan collecting from the people of the file instead of paying them.")
]
Columns = Annotated[
    list[str] | None,
    typer.Option(
        "--column", metavar="MEANING=HEADER", help='Which column is which, such as amount="À payer"; may be repeated.'
    ),
]
Strict = Annotated[bool, typer.Option("--strict", help="Pay nothing of a file with any refused line.")]
MaxRefused = Annotated[
    int | None, typer.Option("--max-refused", min=0, metavar="N", help="Pay nothing if more than N lines are refused.")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Pay without asking; for scripts.")]
Json = Annotated[bool, typer.Option("--json", help="JSON lines on standard output, for machines.")]
FollowFor = Annotated[
    float,
    typer.Option(
        "--follow-for",
        metavar="DURATION",
        parser=duration_seconds,
        help="How long to wait for final answers after the last payout was sent, such as 90s, 30m, 2h.",
        show_default="30m",
    ),
]
NoFollow = Annotated[bool, typer.Option("--no-follow", help="Do not wait for final answers; `follow` can do it later.")]
KeyRenewed = Annotated[
    bool,
    typer.Option("--key-renewed", help="The provider gave the same account a new key since the run was begun."),
]
JournalLost = Annotated[
    bool,
    typer.Option(
        "--journal-lost",
        help="The newer copy of this journal, or the journal that began this file, is lost for good. Compare with the "
        "provider's list first; recorded in the journal.",
    ),
]
Format = Annotated[str, typer.Option("--format", metavar="csv|jsonl|parquet", help="How to write the results file.")]
Decisions = Annotated[
    Path | None,
    typer.Option("--from", metavar="FILE", help="A table of decisions: decision, and reference or line, perhaps note."),
]
ReleaseHeld = Annotated[
    bool,
    typer.Option("--release-held", help="Send every line that is held only because it repeats another line."),
]
Accepted = Annotated[bool, typer.Option("--accepted", help="List also what the provider accepted and never settled.")]
Digest = Annotated[
    str, typer.Option("--digest", metavar="DIGEST", help="One that was kept: the log must still lead through it.")
]
Who = Annotated[str, typer.Option("--who", metavar="NAME", help="Who decides; recorded in the journal.")]
Why = Annotated[str, typer.Option("--why", metavar="TEXT", help="Why; recorded in the journal.")]
CanaryCount = Annotated[
    int | None,
    typer.Option(
        "--canary", min=1, metavar="N", help="Pay the first N of each wallet and see them arrive, then the rest."
    ),
]
AskPaid = Annotated[
    bool, typer.Option("--paid", help="Ask also about what is paid: the provider may have taken some of it back.")
]
Asker = Annotated[str, typer.Option("--who", metavar="NAME", help="Who asks; the user of this machine if not given.")]
Reason = Annotated[str, typer.Option("--why", metavar="TEXT", help="Why, for the journal.")]
