"""What every sink must do, as tests: subclass `SinkSuite` and give it three fixtures.

    class TestMySink(SinkSuite):
        @pytest.fixture
        def open_sink(self):
            return MySink                       # called with a path and columns; must be picklable

        @pytest.fixture
        def read_back(self):
            return my_reader                    # from a path to the rows, as lists of text

        @pytest.fixture
        def for_spreadsheets(self):
            return False                        # True: cells that a spreadsheet would run must be made harmless

One test starts another process and kills it, and one makes the disk refuse to take more, which works for root as well.
The suite needs `pytest` and `hypothesis`.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from payout_engine.domain.errors import SinkError
from payout_engine.ports.files import Sink
from payout_engine.testing.suite import Suite

OpenSink = Callable[[Path, Sequence[str]], Sink]
ReadBack = Callable[[Path], Sequence[Sequence[str]]]
Rows = list[list[str]]

COLUMNS = ("reference", "name", "amount")
BEFORE: Rows = [["SAL-00001", "Awa", "1000"]]

RUN_BY_SPREADSHEETS = ("=1+1", "@SUM(A1)", "+cmd|' /C calc'!A0", "-A1", "  =1", "\t=1", "\r=1", "＝1", "+1;=1")
"""Cells that must not stay as they are where a spreadsheet opens the file. Source: CWE-1236, read 2026-11-20."""

PLAIN = ("", "-5", "+22670123456", "-1 000,50", "a=1", "Ouédraogo, “Awa”", "two\nlines", "1;2", "'quoted'", "é" * 500)
"""Cells that must come back as they were, anywhere."""

FILE_BYTES_MAX = 64 * 1024
"""Where the disk ends in the test of a disk that is full."""

CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)
COMMITS = 30
KILLED_SECONDS_MAX = 30


class SinkSuite(Suite):
    """The promises of `ports.Sink`."""

    # ----------------------------------------------------------------------------------------------------------- cells

    def test_rows_come_back_in_order(self, open_sink: OpenSink, read_back: ReadBack, tmp_path: Path) -> None:
        """However they were handed over; no rows at all are a file too."""
        rows = [[f"SAL-{n:05d}", f"name {n}", str(n)] for n in range(5_000)]
        sink = open_sink(tmp_path / "results", COLUMNS)
        for start, end in ((0, 1), (1, 1), (1, 4_000), (4_000, 5_000)):
            sink.write(rows[start:end])
        sink.commit()
        assert list(map(list, read_back(tmp_path / "results"))) == rows
        open_sink(tmp_path / "empty", COLUMNS).commit()
        assert list(read_back(tmp_path / "empty")) == []

    def test_plain_cells_stay_as_they_are(self, open_sink: OpenSink, read_back: ReadBack, tmp_path: Path) -> None:
        """Amounts and phones are data, and names are people's own."""
        rows = [[cell, cell, cell] for cell in PLAIN]
        assert _round_trip(open_sink, read_back, tmp_path, rows) == rows

    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(rows=st.lists(st.lists(CELLS, min_size=3, max_size=3), max_size=4))
    def test_any_text_comes_back(
        self, open_sink: OpenSink, read_back: ReadBack, for_spreadsheets: bool, tmp_path: Path, rows: Rows
    ) -> None:
        """Exactly; for spreadsheets, but for an apostrophe in front."""
        found = _round_trip(open_sink, read_back, tmp_path, rows)
        assert len(found) == len(rows)
        for got, put in zip(found, rows, strict=True):
            for cell, ours in zip(got, put, strict=True):
                assert cell == ours or (for_spreadsheets and cell == "'" + ours)

    def test_text_without_an_encoding_is_written_all_the_same(
        self, open_sink: OpenSink, read_back: ReadBack, tmp_path: Path
    ) -> None:
        """A lone half of a character has no UTF-8; its row must come out, and the others with it."""
        rows = [["a", "\ud800", "b"], ["c", "d", "e"]]
        found = _round_trip(open_sink, read_back, tmp_path, rows)
        assert (found[0][0], found[0][2], found[1]) == ("a", "b", ["c", "d", "e"])

    def test_cells_that_a_spreadsheet_would_run(
        self, open_sink: OpenSink, read_back: ReadBack, for_spreadsheets: bool, tmp_path: Path
    ) -> None:
        """They are made harmless for spreadsheets, and left alone for programs, which run nothing."""
        rows = [["a", cell, cell] for cell in RUN_BY_SPREADSHEETS]
        mark = "'" if for_spreadsheets else ""
        expected = [["a", mark + cell, mark + cell] for cell in RUN_BY_SPREADSHEETS]
        assert _round_trip(open_sink, read_back, tmp_path, rows) == expected

    # ----------------------------------------------------------------------------------------------------- all or none

    def test_nobody_sees_a_file_before_commit(self, open_sink: OpenSink, read_back: ReadBack, tmp_path: Path) -> None:
        """What was there stays; where nothing was, there is nothing; then the new one is there, and nothing else."""
        path = _before(open_sink, tmp_path)
        new = open_sink(tmp_path / "new", COLUMNS)
        sink = open_sink(path, COLUMNS)
        for writing in (new, sink):
            writing.write([["x", "y", "z"]])
        assert list(map(list, read_back(path))) == BEFORE and not (tmp_path / "new").exists()
        for writing in (new, sink):
            writing.commit()
        assert list(map(list, read_back(path))) == [["x", "y", "z"]] == list(map(list, read_back(tmp_path / "new")))
        assert sorted(tmp_path.iterdir()) == [tmp_path / "new", path]

    def test_abort_leaves_no_trace(self, open_sink: OpenSink, read_back: ReadBack, tmp_path: Path) -> None:
        """However often it is called, with rows written or without, and after a commit it undoes nothing."""
        path = _before(open_sink, tmp_path)
        for rows in ([], [["x", "y", "z"]] * 5_000):
            sink = open_sink(path, COLUMNS)
            sink.write(rows)
            sink.abort()
            sink.abort()
            assert list(tmp_path.iterdir()) == [path] and list(map(list, read_back(path))) == BEFORE
        sink = open_sink(path, COLUMNS)
        sink.commit()
        sink.abort()
        assert list(read_back(path)) == []

    def test_a_reader_finds_a_whole_file_at_every_moment(self, open_sink: OpenSink, tmp_path: Path) -> None:
        """While it is replaced again and again, it is always one of those that were committed, to its last byte."""
        path = _before(open_sink, tmp_path)
        whole, found = {path.read_bytes()}, set()
        stop = threading.Event()

        def read() -> None:
            while not stop.is_set():
                found.add(path.read_bytes())

        reader = threading.Thread(target=read)
        reader.start()
        try:
            for number in range(COMMITS):
                sink = open_sink(path, COLUMNS)
                sink.write(_dense(500, str(number)))
                sink.commit()
                whole.add(path.read_bytes())
        finally:
            stop.set()
            reader.join()
        assert found <= whole

    def test_a_kill_before_commit_leaves_the_old_file(
        self, open_sink: OpenSink, read_back: ReadBack, tmp_path: Path
    ) -> None:
        """A process that dies while it writes has changed nothing that anybody reads."""
        path = _before(open_sink, tmp_path)
        child = multiprocessing.get_context("spawn").Process(target=_write_and_die, args=(open_sink, path))
        child.start()
        child.join(KILLED_SECONDS_MAX)
        assert child.exitcode == -signal.SIGKILL
        assert list(map(list, read_back(path))) == BEFORE
        assert [file for file in tmp_path.iterdir() if not file.name.startswith(".")] == [path]

    def test_only_the_owner_may_read(self, open_sink: OpenSink, tmp_path: Path) -> None:
        """While it is written and afterwards, whatever the old file allowed."""
        path = _before(open_sink, tmp_path)
        path.chmod(0o644)
        sink = open_sink(path, COLUMNS)
        sink.write(_dense(5_000))
        assert {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir() if file != path} <= {0o600}
        sink.commit()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600

    # -------------------------------------------------------------------------------------------------------- failures

    def test_a_folder_that_is_missing_is_told(self, open_sink: OpenSink, tmp_path: Path) -> None:
        """The message names the file."""
        with pytest.raises(SinkError, match="results"):
            open_sink(tmp_path / "missing" / "results", COLUMNS)

    def test_a_place_that_cannot_be_taken_is_told(self, open_sink: OpenSink, tmp_path: Path) -> None:
        """Where a folder is in the way, the rows are lost in words, and nothing is left lying about."""
        place = tmp_path / "results"
        (place / "inside").mkdir(parents=True)
        with pytest.raises(SinkError, match="results"):
            _write_all(open_sink, place, BEFORE)
        assert list(tmp_path.iterdir()) == [place] and (place / "inside").is_dir()

    def test_a_full_disk_is_told_and_the_old_file_stays(
        self, open_sink: OpenSink, read_back: ReadBack, tmp_path: Path
    ) -> None:
        """Whenever it is noticed, in writing or in committing; and when there is room again, it works again."""
        path = _before(open_sink, tmp_path)
        with _full_disk(), pytest.raises(SinkError, match="results"):
            _write_all(open_sink, path, _dense(20_000))
        assert list(map(list, read_back(path))) == BEFORE
        assert list(tmp_path.iterdir()) == [path]
        _write_all(open_sink, path, [["x", "y", "z"]])
        assert list(map(list, read_back(path))) == [["x", "y", "z"]]


def _write_all(open_sink: OpenSink, path: Path, rows: Rows) -> None:
    """Write a file as the engine does: what fails is aborted."""
    sink = open_sink(path, COLUMNS)
    try:
        sink.write(rows)
        sink.commit()
    except SinkError:
        sink.abort()
        raise


def _before(open_sink: OpenSink, folder: Path) -> Path:
    """A file from an earlier run."""
    path = folder / "results"
    _write_all(open_sink, path, BEFORE)
    return path


def _round_trip(open_sink: OpenSink, read_back: ReadBack, folder: Path, rows: Rows) -> Rows:
    _write_all(open_sink, folder / "results", rows)
    return [list(row) for row in read_back(folder / "results")]


def _dense(count: int, seed: str = "") -> Rows:
    """Rows that no compression makes small."""
    return [[hashlib.sha256(f"{seed}-{n}".encode()).hexdigest(), "name", str(n)] for n in range(count)]


def _write_and_die(open_sink: OpenSink, path: Path) -> None:
    """What the child process does."""
    open_sink(path, COLUMNS).write(_dense(60_000))
    os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def _full_disk() -> Iterator[None]:
    """Let the system refuse to make any file larger, as it does on a full disk; this binds root too."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES_MAX, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
