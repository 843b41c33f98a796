"""The benchmarks measure what they say: the stub's ledger counts right, and every case runs. No timing is asserted."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import httpx
import msgspec
import pytest

from benchmarks.cases import ACCOUNTS, Bench, Row, Stub, stub
from benchmarks.clients import bodies
from benchmarks.files import HEADER, lines, write_file
from benchmarks.ledger import Ledger, TooManyError
from benchmarks.report import targets
from benchmarks.stages import measure, table

LINES = 400
"""Two full calls for each of the two wallets."""


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "bench", line_count=LINES, say=lambda _text: None)


@pytest.fixture
def server() -> Iterator[Stub]:
    with stub() as running:
        yield running


def body(*keys: str, amount: int = 500) -> bytes:
    order = {"amount": amount, "recipient_phone": "70000000", "recipient_wallet": "moov_bf"}
    return msgspec.json.encode({"transfers": [{**order, "ext_id": key} for key in keys]})


# ------------------------------------------------------------------------------------------------------------ ledger


def test_ledger_counts_transfers_money_and_repeated_keys() -> None:
    """A key that comes twice, in one call or in two, is a duplicate, and its money still counts."""
    ledger = Ledger()
    for call in (body("a", "b", "b"), body("a", "c", amount=700)):
        ledger.arrive(0.0)
        ledger.take(call)
    audit = ledger.audit()
    assert (audit.calls, audit.count, audit.amount_minor, audit.duplicates) == (2, 5, 2_900, 2)


def test_ledger_refuses_a_call_that_is_too_large_whole() -> None:
    """More than 100 transfers in one call create none."""
    ledger = Ledger()
    ledger.arrive(0.0)
    with pytest.raises(TooManyError):
        ledger.take(body(*map(str, range(101))))
    assert ledger.audit().count == 0


def test_ledger_holds_a_strict_sliding_second_and_counts_refused_calls_too() -> None:
    """A call is over the limit if the one `limit` places before, refused or not, came less than a second earlier."""
    ledger = Ledger(limit=2)
    allowed = [ledger.arrive(at) for at in (0.0, 0.9, 0.95, 1.0, 1.96, 2.0, 2.96)]
    assert allowed == [True, True, False, False, True, True, True]
    assert ledger.audit().calls_over_limit == 2


def test_steady_rate_never_exceeds_the_limit_however_calls_bunch() -> None:
    """Five calls at the start of each second are a full limit, not more than one."""
    ledger = Ledger(limit=5)
    for number in range(50):
        assert ledger.arrive(float(number // 5))
        ledger.take(body(str(number)))
    audit = ledger.audit()
    assert audit.steady_count / audit.steady_seconds == 5.0


def test_list_shows_every_transfer_once_newest_first() -> None:
    """The pieces of the list make one JSON array of everything created before it was asked for."""
    ledger = Ledger()
    for keys in (("a", "b"), ("c",)):
        ledger.arrive(0.0)
        ledger.take(body(*keys))
    listed = msgspec.json.decode(b"[" + b"".join(ledger.listed()) + b"]")
    assert [transfer["ext_id"] for transfer in listed] == ["c", "b", "a"]
    assert len({transfer["reference"] for transfer in listed}) == 3


# -------------------------------------------------------------------------------------------------------------- file


def test_file_holds_unique_recipients_and_the_stated_total(tmp_path: Path) -> None:
    """What `write_file` says is in the file is in it."""
    file = write_file(tmp_path / "payouts.csv", 1_000)
    written = file.path.read_text(encoding="utf-8").splitlines(keepends=True)
    rows = [row.split(",") for row in written[1:]]
    assert written[0] == HEADER
    assert len({row[1] for row in rows}) == len({row[0] for row in rows}) == file.lines == 1_000
    assert sum(int(row[2]) for row in rows) == file.amount_minor


def test_wallets_alternate() -> None:
    """Every second line goes to the other wallet, so that calls are full."""
    assert all(one.wallet != other.wallet for one, other in pairwise(lines(50)))


# -------------------------------------------------------------------------------------------------------------- stub


def test_stub_answers_in_the_documented_shapes(server: Stub) -> None:
    """A bulk answer names no references; the list, streamed, shows what was queued as paid."""
    with httpx.Client(base_url=server.base_url) as client:
        queued = client.post("/v1/payment/transfers/bulk/", content=body("a", "b"))
        assert queued.text == (
            '{"status": true, "message": "2 transfers queued for processing", "failed_transfers": []}'
        )
        single = client.post("/v1/payment/transfers/", content=body("c")[len(b'{"transfers":[') : -len(b"]}")])
        assert single.json()["data"]["ext_id"] == "c"
        listed = client.get("/v1/payment/transfers/").json()
        assert [(shown["ext_id"], shown["status"]) for shown in listed["data"]] == [
            ("c", "success"),
            ("b", "success"),
            ("a", "success"),
        ]
        assert client.post("/v1/payment/transfers/bulk/", content=b"{}").json()["error_code"] == "INVALID_DATA"
        assert "orange_money_bf" in client.get("/v1/payment/balances").json()["data"]["transfer_balances"]
    server.reset()
    assert server.audit().count == 0


def test_stub_streams_a_list_longer_than_any_buffer_to_a_slow_reader(server: Stub) -> None:
    """Writing waits for the reader and still comes to its end."""
    with httpx.Client(base_url=server.base_url) as client:
        for call in bodies(20_000):
            client.post("/v1/payment/transfers/bulk/", content=call)
        with client.stream("GET", "/v1/payment/transfers/") as listed:
            read = b"".join(listed.iter_bytes(4_096))
    assert len(msgspec.json.decode(read)["data"]) == 20_000


def test_stub_refuses_calls_over_the_limit() -> None:
    """The sixth call within a second is refused in documented words and creates nothing."""
    with stub(limit=5) as server, httpx.Client(base_url=server.base_url) as client:
        answers = [client.post("/v1/payment/transfers/bulk/", content=body(str(number))).json() for number in range(6)]
        audit = server.audit()
    assert [answer.get("error_code") for answer in answers] == [None] * 5 + ["RATE_LIMIT_EXCEEDED"]
    assert (audit.calls, audit.calls_over_limit, audit.count) == (6, 1, 5)


# ------------------------------------------------------------------------------------------------------------- cases


def assert_counts(row: Row) -> None:
    assert row.problem == ""
    assert row.measured is not None
    assert row.rate > 0


def test_bound_runs(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound pays the file's money."""
    monkeypatch.setattr("benchmarks.cases.BOUND_REPEATS_MIN", 1)
    assert_counts(bench.bound())


def test_engine_runs(bench: Bench) -> None:
    """The engine pays the file's money, once, says so in its results, and proves it; each part has its cost."""
    row = bench.engine()
    assert_counts(row)
    assert row.measured is not None
    assert list(row.measured.phases) == ["validate", "pay", "results", "verify"]
    assert all(phase.cpu_us > 0 for phase in row.measured.phases.values())


def test_following_is_measured_by_itself(bench: Bench) -> None:
    """What was sent in a first part is found in a second, and only that is counted there."""
    row = bench.follow()
    assert_counts(row)
    assert row.measured is not None
    assert list(row.measured.phases) == ["validate", "send", "follow"]


def test_scripts_run(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The scripts pay the file's money too."""
    monkeypatch.setattr("benchmarks.cases.REQUESTS_LINES", 10)
    monkeypatch.setattr("benchmarks.cases.HTTPX_LINES", 10)
    for row in bench.scripts():
        assert_counts(row)


def test_single_calls_run(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bare aiohttp and the engine make as many calls as there are payouts."""
    monkeypatch.setattr("benchmarks.cases.SINGLE_LINES", 10)
    for row in bench.single():
        assert_counts(row)
        assert row.audit is not None
        assert row.audit.calls == 10


def test_documented_limit_runs(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine keeps to the limit; the calls of the script over it are counted, not forbidden."""
    monkeypatch.setattr("benchmarks.cases.NETWORKS_MS", ((10, 10),))
    [row] = bench.documented_limit(calls=2)
    assert_counts(row)
    assert bench.limiter(calls=8).problem == ""


def test_many_accounts_run(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each account pays its share, and each has a limit of its own at the server."""
    monkeypatch.setattr("benchmarks.cases.LIMIT_SHARES", {10: 0.98})
    [row] = bench.accounts(calls=2)
    assert_counts(row)
    assert row.audit is not None
    assert (row.audit.calls, row.audit.calls_over_limit) == (2 * ACCOUNTS, 0)


def test_plan_and_floor_run_and_send_nothing(bench: Bench) -> None:
    """Both count the file's money and no call arrives."""
    for row in (bench.plan(), bench.floor()):
        assert_counts(row)
        assert row.audit is not None
        assert row.audit.calls == 0


def test_older_transfers_stand_in_the_list_and_count_for_nothing(bench: Bench) -> None:
    """The run beside them reads of the same ledger what it paid itself."""
    alone, beside = bench.beside(older=2_000)
    for row in (alone, beside):
        assert_counts(row)
        assert row.audit is not None
        assert row.audit.count == row.lines
    ledger = Ledger(older=200)
    ledger.arrive(0.0)
    ledger.take(body("a"))
    listed = msgspec.json.decode(b"[" + b"".join(ledger.listed()) + b"]")
    assert [transfer["ext_id"] for transfer in listed[:2]] == ["a", "older-99"] and len(listed) == 201
    assert [transfer["created_at"] for transfer in listed] == sorted((x["created_at"] for x in listed), reverse=True)


def test_a_killed_run_is_finished(bench: Bench) -> None:
    """The run that is killed has begun to send, and what the second one says was paid is what the ledger holds."""
    bench = Bench(bench.folder, line_count=20_000, say=lambda _text: None)
    row = bench.crash()
    assert_counts(row)
    assert row.audit is not None
    assert row.audit.silence_seconds > 0


def test_a_day_passes_in_simulated_time(bench: Bench) -> None:
    """Five calls a second keep to the limit, and what is read of the list is counted."""
    row = bench.day()
    assert_counts(row)
    assert row.audit is not None
    assert row.audit.listed_bytes > 0 and row.audit.calls_over_limit == 0


def test_a_figure_that_does_not_count_reaches_no_target() -> None:
    """A row with a problem has no rate, so nothing is claimed of it."""
    assert targets([Row(case="bound", title="", lines=1, problem="the ledger differs")]) == []


async def test_the_stages_of_a_plan_count_every_payout(tmp_path: Path) -> None:
    """The file goes through all of them, to the forecast, and the table names each."""
    file = write_file(tmp_path / "payouts.csv", LINES)
    count, seconds = await measure(file.path, tmp_path)
    assert count == LINES
    assert {"read", "validate", "pack", "record", "find repeats", "forecast"} <= set(seconds)
    assert all(name in table(count, seconds) for name in seconds)
