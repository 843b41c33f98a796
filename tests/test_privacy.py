"""Secrets nowhere, full phone numbers only in the files that a person asked for, files for their owner only, TLS kept.

Everything is run with a marked key and marked phones, with every logger at its most talkative, and all that comes out
is searched.
"""

from __future__ import annotations

import logging
import os
import re
import ssl
import stat
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import orjson
import pytest
import warm
from processes import ENVIRONMENT, Bank, rows

from payout_engine import Engine, Payout
from payout_engine.app.settings import AccountSettings, Settings
from payout_engine.domain.errors import AmbiguousError, ConfigError, NotSentError, PayoutEngineError
from payout_engine.domain.model import masked
from payout_engine.providers._http import HttpClient

pytestmark = pytest.mark.timeout(120)

MARK = "Zk7q9Marked3xT"
KEY = f"sk_test_{MARK}"
PHONES = ("70880011", "70880012", "70880013", "76880014", "70880015")
"""Whose digits are looked for in everything that is shown."""

FILE = (
    "reference,phone,amount,name\n"
    "P-1,+226 70 88 00 11,1500,Awa\n"
    "P-2,70-88-00-12,1600,Issa\n"
    "P-3,70.88.00.13,1700,Ali\n"
    "P-4,22676880014,1800,Zoé\n"
    "P-5,0070880015999,1900,too long\n"
    "P-6,7O 88 00 11,1900,a letter\n"
    "P-7,70 88 00 11 / 70 88 00 12,1900,two\n"
    "P-8,70000001,1900,fails\n"
    "P-1,70880012,1600,again\n"
    "P-9,70000003,1900,refused\n"
    "70880013,70880013,70880014.5,in the wrong column\n"
)
TALKATIVE = """
import logging, sys
logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
logging.getLogger("aiohttp.client").debug("the logs are on")
"""


def talk(folder: Path, *arguments: str, key: str = KEY) -> subprocess.CompletedProcess[bytes]:
    """Run a command with every logger and the event loop at their most talkative."""
    environment = {**ENVIRONMENT, "MARKED_KEY": key, "PYTHONASYNCIODEBUG": "1"}
    options = ("-X", "dev", "-W", "ignore")
    return warm.run(arguments, folder, environment, timeout=60, options=options, before=TALKATIVE)


def leaks(shown: bytes | str) -> list[str]:
    """Return the marks in a text, however the digits are grouped; a reference that a person chose is left out."""
    text = shown if isinstance(shown, str) else shown.decode(errors="replace")
    digits = re.sub(r"(?<=\d)[ .\-/,](?=\d)", "", re.sub(r'"(?:payout_)?reference":"[^"]*"', "", text))
    return [mark for mark in (MARK, *PHONES) if mark in digits or mark in text.replace('"reference":"70880013"', "")]


class Echo(BaseHTTPRequestHandler):
    """A provider that repeats whatever it was sent, headers and body, in its error message."""

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        message = f"Bad call: {dict(self.headers)} {body}"
        answer = orjson.dumps({"status": False, "message": message, "error_code": "INVALID_DATA"})
        self.send_response(400)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_POST = _answer

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing."""


class Server(ThreadingHTTPServer):
    """A server in a thread; over TLS when given a certificate."""

    daemon_threads = True

    def __init__(self, handler: type[BaseHTTPRequestHandler], certificate: Path | None = None) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.scheme = "http"
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self.socket = context.wrap_socket(self.socket, server_side=True)
            self.scheme = "https"
        self.thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05})
        self.thread.start()

    @property
    def base_url(self) -> str:
        """Where it listens."""
        return f"{self.scheme}://localhost:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is expected."""

    def stop(self) -> None:
        """End it."""
        self.shutdown()
        self.thread.join()
        self.server_close()


@pytest.fixture
def echo() -> Iterator[Server]:
    """A provider that repeats everything."""
    server = Server(Echo)
    yield server
    server.stop()


@pytest.fixture
def bank(tmp_path: Path) -> Iterator[Bank]:
    """A bank of its own, paid with the marked key."""
    opened = Bank(tmp_path)
    url = opened.config.read_text().split('base_url = "')[1].split('"')[0]
    write_config(opened.config, url)
    (tmp_path / "pay.csv").write_text(FILE)
    yield opened
    opened.close()


def write_config(path: Path, url: str) -> None:
    """Write a configuration whose key is the marked one."""
    path.write_text(
        f'unknown_patience_seconds = 1\n[accounts.bf]\nprovider = "senfenico"\nbase_url = "{url}"\n'
        'timeout_seconds = 1\napi_key = { env = "MARKED_KEY" }\n'
    )


# ----------------------------------------------------------------------------------------------------- what is shown


def test_no_command_shows_a_key_or_a_full_phone(tmp_path: Path, bank: Bank) -> None:
    """plan, run, resume, follow, show, runs, results, balance, for people and machines, with logs at DEBUG."""
    said = [talk(tmp_path, "plan", "pay.csv"), talk(tmp_path, "plan", "pay.csv", "--json")]
    said += [talk(tmp_path, "run", "pay.csv", "--yes", "--json", "--out", "out")]
    run_id = orjson.loads(talk(tmp_path, "runs", "--json").stdout)["run_id"]
    for arguments in (
        ("run", "pay.csv", "--yes"),
        ("runs",),
        ("show", run_id),
        ("show", run_id, "--json"),
        ("resume", run_id),
        ("follow", run_id),
        ("results", run_id, "--out", "again"),
        ("results", run_id, "--out", "pay.csv"),
        ("balance",),
        ("balance", "--json"),
        ("resolve", run_id),
        ("verify", run_id),
        ("providers", "--json"),
        ("plan", "missing.csv"),
        ("show", "missing"),
    ):
        said.append(talk(tmp_path, *arguments))
    for done in said:
        assert b"Traceback" not in done.stderr, done.stderr.decode()
        assert not leaks(done.stdout), (done.args, leaks(done.stdout), done.stdout.decode())
        assert not leaks(done.stderr), (done.args, leaks(done.stderr), done.stderr.decode())
    assert all(b"the logs are on" in done.stderr for done in said)
    assert {row["payout_status"] for row in rows(tmp_path / "out" / "results.csv")} >= {"paid", "failed", "rejected"}
    assert not leaks((tmp_path / "out" / "events.jsonl").read_bytes()), "events hold no phone"
    assert not leaks((tmp_path / "out" / "summary.json").read_bytes())
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or MARK.encode() not in path.read_bytes(), f"the key is in {path.name}"


@pytest.mark.parametrize("kind", ["slow", "reset_after", "status_after", "truncated", "rate_limited", "low_balance"])
def test_no_trouble_with_a_provider_shows_a_key_or_a_full_phone(tmp_path: Path, bank: Bank, kind: str) -> None:
    """Timeouts, resets, error pages and half answers."""
    import urllib.request

    url = bank.config.read_text().split('base_url = "')[1].split('"')[0]
    data = orjson.dumps([{"kind": kind, "endpoint": "bulk", "seconds": 1.5, "times": 2}])
    with urllib.request.urlopen(f"{url}/_sandbox/faults", data=data, timeout=5) as answer:
        assert answer.status == 200
    done = talk(tmp_path, "run", "pay.csv", "--yes", "--follow-for", "5s")
    assert b"Traceback" not in done.stderr, done.stderr.decode()
    assert not leaks(done.stdout + done.stderr), (done.stdout + done.stderr).decode()
    assert not leaks((tmp_path / "pay.csv-results" / "events.jsonl").read_bytes())


@pytest.mark.parametrize("key", [f"sk_live_{MARK}", f"{MARK}-wrong", ""])
def test_a_key_that_is_wrong_or_missing_is_not_shown(tmp_path: Path, bank: Bank, key: str) -> None:
    """Refused by the provider, or never found."""
    done = talk(tmp_path, "run", "pay.csv", "--yes", key=key)
    asked = talk(tmp_path, "balance", key=key)
    assert done.returncode in (2, 4), done.stderr.decode()
    assert asked.returncode == 2
    for output in (done.stdout, done.stderr, asked.stdout, asked.stderr):
        assert not leaks(output), output.decode()


def test_a_provider_that_repeats_the_request_is_not_repeated(tmp_path: Path, echo: Server) -> None:
    """The provider's own words reach screens, the journal and results without the key and without full phones."""
    write_config(tmp_path / "payouts.toml", echo.base_url)
    (tmp_path / "pay.csv").write_text(FILE)
    done = talk(tmp_path, "run", "pay.csv", "--yes", "--json", "--follow-for", "2s")
    shown = [talk(tmp_path, "balance"), talk(tmp_path, "resume", "--follow-for", "1s")]
    for each in (done, *shown):
        assert b"Traceback" not in each.stderr, each.stderr.decode()
        assert not leaks(each.stdout + each.stderr), (each.stdout + each.stderr).decode()
    for row in rows(tmp_path / "pay.csv-results" / "results.csv"):
        assert MARK not in "".join(row.values())
        if row["payout_status"] != "rejected":
            assert not leaks(row["payout_message"]), row["payout_message"]


def test_a_plan_masks_what_a_file_tells_in_full(tmp_path: Path, bank: Bank) -> None:
    """The screen shows enough to find the line; `plan --out` writes the sentence that names the likely number."""
    done = talk(tmp_path, "plan", "pay.csv", "--out", "planned")
    refused = {row["reference"]: row for row in rows(tmp_path / "planned" / "rejected.csv")}
    held = rows(tmp_path / "planned" / "attention.csv")

    assert done.returncode == 3 and b"planned" in done.stderr
    assert sorted(path.name for path in (tmp_path / "planned").iterdir()) == ["attention.csv", "rejected.csv"]
    assert "70880011" in refused["P-6"]["payout_remedy"].replace(" ", ""), "the file names the likely number"
    assert b"2267*****11" in done.stdout
    assert [row["payout_reason"] for row in held] == ["reference_repeated"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("call 22670123456 now", "call 2267*****56 now"),
        ("+226 70 12 34 56", "+2267*****56"),
        ("70.12.34.56, 70-12-34-56", "7*****56, 7*****56"),
        ("'7O 12 34 56'", "'7*****56'"),
        ("SAL-2026-0001 of 2026-11-20, line 12 of run 1121-22234", None),
        ("1,500,000 XOF in 12 lines", None),
        ("'150.000' could mean 150 000 or 150", None),
    ],
)
def test_masking_hides_phones_and_leaves_what_people_need(text: str, shown: str | None) -> None:
    """Numbers of seven digits and more, however grouped; not dates, references, runs, amounts as we print them."""
    assert masked(text) == (text if shown is None else shown)


async def test_no_repr_no_error_and_no_log_holds_a_secret(
    tmp_path: Path, echo: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """Everything a program can print: objects, errors with their causes, tracebacks, logs."""
    caplog.set_level(logging.DEBUG)
    account = {"api_key": KEY, "base_url": echo.base_url, "timeout_seconds": 1}
    settings = Settings(journal=tmp_path / "p.db", accounts={"bf": AccountSettings("senfenico", account)})
    seen: list[object] = [settings]
    async with Engine.open(settings) as engine:
        provider = await engine.accounts.connect("bf")
        payout = Payout("A", 1500, phone=PHONES[0])
        run = await engine.submit([payout])
        seen += [engine, engine.accounts, engine.settings, provider, vars(provider), payout, run, run.findings]
        try:
            seen.append(await provider.balances())  # type: ignore[attr-defined]
        except PayoutEngineError as error:
            seen += [error, *traceback.format_exception(error), error.__cause__, error.__context__]
        stream = engine.pay(run, follow_for_seconds=0)
        seen += [outcome async for outcome in stream]
        seen += [stream, stream.ending]
    for thing in seen:
        for text in (repr(thing), str(thing)):
            assert MARK not in text, type(thing)
            assert not leaks(text), type(thing)
    assert not leaks(caplog.text)


# ------------------------------------------------------------------------------------------------------------- files


def test_every_file_is_for_its_owner_only(tmp_path: Path, bank: Bank) -> None:
    """With the laxest umask, while paying and afterwards: files 0600, the folders that we make 0700."""
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "pay.csv").write_text(FILE)
    before = {path: path.stat().st_mode for path in folder.rglob("*")}
    process = subprocess.Popen(
        [sys.executable, "-m", "payout_engine", "run", "pay.csv", "--sandbox", "--yes", "--out", "out"],
        cwd=folder,
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: os.umask(0) and None,
    )
    modes: dict[str, set[int]] = {}
    while process.poll() is None:
        note_modes(folder, before, modes)
        time.sleep(0.005)
    note_modes(folder, before, modes)

    assert process.returncode == 3
    kinds = {re.sub(r"\.[0-9a-f]{8}\.part$", ".part", name) for name in modes}
    assert kinds >= {"payouts-sandbox.db", "payouts-sandbox.db-wal", "payouts-sandbox.db-shm", "results.csv"}
    assert kinds >= {"events.jsonl", "summary.json", "payouts-sandbox-senfenico-ledger.db", "out"}
    assert any(name.endswith(".lock") for name in modes)
    for name, found in modes.items():
        assert found <= {0o600, 0o700} and len(found) == 1, (name, list(map(oct, found)))


def note_modes(folder: Path, before: dict[Path, int], modes: dict[str, set[int]]) -> None:
    """Remember the modes of what is new in a folder."""
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            if path not in before:
                mode = stat.S_IMODE(path.stat().st_mode)  # First: a temporary file may be gone by now.
                modes.setdefault(path.name, set()).add(mode)


def test_the_ledgers_of_a_sandbox_are_for_their_owner_only(tmp_path: Path, bank: Bank) -> None:
    """They hold phone numbers as well."""
    assert stat.S_IMODE((tmp_path / "bank").stat().st_mode) == 0o700
    for path in (tmp_path / "bank").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path.name


# -------------------------------------------------------------------------------------------------------------- wires


@pytest.mark.parametrize(
    "url",
    [
        "http://api.senfenico.com",
        "http://127.0.0.1.example.com",
        "http://localhost.example.com",
        "http://user:word@127.0.0.1",
        "ftp://127.0.0.1",
        "http://[::ffff:8.8.8.8]",
        "//127.0.0.1",
    ],
)
def test_plain_http_is_refused_except_on_this_machine(tmp_path: Path, url: str) -> None:
    """Whatever looks like this machine and is not: exit 2 before a byte leaves, and no key in the words."""
    write_config(tmp_path / "payouts.toml", url)
    (tmp_path / "pay.csv").write_text(FILE)
    done = talk(tmp_path, "run", "pay.csv", "--yes")
    assert done.returncode == 2, done.stderr.decode()
    assert b"base_url" in done.stderr and not leaks(done.stderr)
    with pytest.raises(ConfigError):
        HttpClient(url, {}, timeout_seconds=1, loopback_only=False, concurrency=1)


async def test_a_certificate_nobody_vouches_for_is_refused_as_not_sent(tmp_path: Path) -> None:
    """TLS is verified, also on this machine: the request never leaves, and that is what is said."""
    certificate = tmp_path / "self-signed.pem"
    made = subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "1",
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=DNS:localhost",
            "-keyout",
            str(certificate),
            "-out",
            str(tmp_path / "cert.pem"),
        ],
        capture_output=True,
        check=False,
    )
    if made.returncode:
        pytest.skip("openssl is not installed")
    certificate.write_text(certificate.read_text() + (tmp_path / "cert.pem").read_text())
    heard: list[str] = []

    class Listening(Echo):
        def _answer(self) -> None:
            heard.append(self.path)
            super()._answer()

        do_GET = do_POST = _answer

    server = Server(Listening, certificate)
    try:
        client = HttpClient(server.base_url, {"X-API-KEY": KEY}, timeout_seconds=5, loopback_only=False, concurrency=1)
        with pytest.raises(NotSentError) as caught:
            await client.post_json("/v1/payment/transfers/bulk/", b"{}")
        assert caught.value.reason == "certificate_invalid"
        assert not isinstance(caught.value, AmbiguousError) and not leaks(str(caught.value))
        await client.aclose()
    finally:
        server.stop()
    assert heard == []
