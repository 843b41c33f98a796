"""The command line: a door. Results and data go to stdout; progress and messages go to stderr.

    payout-engine plan salaries.csv     validate the file, move nothing
    payout-engine run salaries.csv      plan, ask, pay, follow, write results; run again to finish what was begun

Exit codes are those of `payout_engine.results.summary.Exit`.

In the order in which a command meets them: `main`: every command, with its options from `options`. A module for each
group of commands: `look` (plan, runs, show, results, balance, providers, countries), `pay` (run, resume, follow),
`control` (pause, cancel, retry, recall), `decide` (resolve, verify), `serve`, `sandbox`. `render` says it in words and
tables, `progress` while it goes on; `console` makes foreign text harmless, and `outlet` prints without waiting for
whoever reads.
"""

from __future__ import annotations

import gc
import sys

from payout_engine.cli.console import fail, finish, hurry, show_fault
from payout_engine.cli.main import app
from payout_engine.domain.errors import PayoutEngineError
from payout_engine.results.summary import Exit

COLLECT_AFTER = 50_000
"""Objects made, beyond those let go, before garbage is looked for: Python's 700 come about with every few lines."""


def main() -> None:
    """Run the command line, and let what it printed come out."""
    _collect_rarely()
    try:
        _run()
    except SystemExit as leaving:
        if leaving.code == Exit.INTERRUPTED:
            hurry()
        raise
    finally:
        if not finish():
            sys.exit(Exit.INTERRUPTED)


def _collect_rarely() -> None:
    """Spare the garbage collector work for nothing: what is imported stays, and lines come and go without cycles.

    That is a decision about a process, so it is made where the process is ours and not where we are a library.
    """
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER)


def _run() -> None:
    """Run the command line; every error raised on purpose becomes one clear sentence and exit code 2."""
    try:
        app(prog_name="payout-engine")
    except PayoutEngineError as error:
        fail(str(error))
        sys.exit(Exit.UNUSABLE)
    except KeyboardInterrupt:
        fail("Interrupted. Run the same command again; nobody is paid twice.")
        sys.exit(Exit.INTERRUPTED)
    except Exception as error:
        show_fault(error)
        fail(
            "This is a fault in payout_engine. If a payment had begun, some payouts may have been sent: run the same "
            "command again, which finishes what was begun and pays nobody twice."
        )
        sys.exit(Exit.FAULT)
