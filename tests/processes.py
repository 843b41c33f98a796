"""The command line in processes of its own, and a bank that they reach over HTTP, as people have them."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from tempfile import gettempdir

import warm
from anyio.from_thread import start_blocking_portal

from payout_engine.providers.senfenico.ledger import Ledger
from payout_engine.providers.senfenico.sandbox import sandbox
from payout_engine.providers.senfenico.wire import BALANCE_KEYS

ENVIRONMENT = {
    "PATH": os.environ["PATH"],
    "COLUMNS": "100",
    "LANG": "C.UTF-8",
    "XDG_STATE_HOME": str(Path(gettempdir()) / f"payout-engine-tests-{os.getpid()}"),
}
"""What a command of the tests sees. Each test has a state folder of its own; see `conftest.py`."""


BOUND_BY_PERMISSIONS = """
import ctypes, os
if os.geteuid() == 0:
    # Permissions do not bind root. Another user could not reach a checkout in a home of root's own; so root stays who
    # owns everything, and gives up the right to pass permissions by: no capability is left of any kind.
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    assert ctypes.CDLL(None).capset(header, (ctypes.c_uint32 * 6)()) == 0
"""
"""The beginning of a script that a read-only file or folder stops, whoever runs it and wherever it stands."""


def command(*arguments: str) -> list[str]:
    """Return a command line of ours."""
    return [sys.executable, "-m", "payout_engine", *arguments]


def call(folder: Path, *arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run a command to its end in a folder, without a terminal."""
    return warm.run(arguments, folder, ENVIRONMENT, stdin=stdin, timeout=50)


def rows(path: Path, delimiter: str = ",") -> list[dict[str, str]]:
    """Return the rows of a result file."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file, delimiter=delimiter))


def salaries(folder: Path, count: int) -> Path:
    """Write a clean payout file of `count` lines."""
    path = folder / "salaries.csv"
    lines = [f"S-{number},70{500_100 + number},{1000 + number}" for number in range(count)]
    path.write_text("\n".join(["reference,phone,amount", *lines]) + "\n")
    return path


class Bank:
    """A sandbox that listens on this machine, in a thread of the tests, with a configuration that points at it.

    Whoever pays it is another process. In a process of its own it would behave alike and cost more than most tests.
    """

    def __init__(self, folder: Path) -> None:
        self.ledger = folder / "bank" / "senfenico.db"
        self.ledger.parent.mkdir(mode=0o700)
        self._open = ExitStack()
        portal = self._open.enter_context(start_blocking_portal())
        serving = sandbox(self.ledger, balances=dict.fromkeys(BALANCE_KEYS, 10**9))
        self.base_url = self._open.enter_context(portal.wrap_async_context_manager(serving)).base_url
        self.config = folder / "payouts.toml"
        self.config.write_text(
            f'[accounts.bf]\nprovider = "senfenico"\nbase_url = "{self.base_url}"\napi_key = "sk_test_cli"\n'
        )

    def paid(self) -> Counter[str]:
        """Return how often each ext_id was paid; the ledger itself is read, not the API."""
        ledger = Ledger(self.ledger, {})
        try:
            return Counter(str(transfer.ext_id) for transfer in ledger.transfers())
        finally:
            ledger.close()

    def close(self) -> None:
        self._open.close()


def wait_for_payments(bank: Bank, count: int) -> None:
    """Wait until the bank has paid at least `count`."""
    deadline = time.monotonic() + 45
    while time.monotonic() < deadline:
        if bank.ledger.exists() and sum(bank.paid().values()) >= count:
            return
        time.sleep(0.05)
    raise AssertionError(f"the bank never paid {count}")
