"""Keys and positions are places, found by arithmetic: each has one place, and none reaches into another run."""

from __future__ import annotations

from itertools import product

import pytest

from payout_engine.journal import ids
from payout_engine.journal.ids import CHUNK_PAYOUTS_MAX, CHUNKS_MAX

TOKEN = "a" * ids.TOKEN_CHARS
RUNS = (1, 2, 77)
CHUNKS = (1, 2, CHUNKS_MAX)
INDEXES = (0, 1, CHUNK_PAYOUTS_MAX - 1)


@pytest.mark.parametrize(("run_no", "chunk_no", "index"), list(product(RUNS, CHUNKS, INDEXES)))
def test_every_place_has_one_key_and_one_position(run_no: int, chunk_no: int, index: int) -> None:
    """There and back, up to the last chunk of a run and the last payout of a chunk."""
    chunk_id = ids.chunk_id_of(run_no, chunk_no)
    assert (ids.run_no_of(chunk_id), ids.chunk_no_of(chunk_id)) == (run_no, chunk_no)
    position = ids.position_of(chunk_id, index)
    assert ids.split_position(position) == (chunk_id, index)
    (key,) = ids.provider_keys(TOKEN, chunk_id, [index])
    assert ids.parse_key(key) == ids.ProviderKey(TOKEN, chunk_no, index)
    assert ids.split_key(key) == (f"{TOKEN}-{chunk_no}", index)
    first, last = ids.chunk_range(run_no)
    assert first <= chunk_id <= last
    first, last = ids.position_range(run_no)
    assert first <= position <= last


@pytest.mark.parametrize("run_no", RUNS)
def test_a_run_ends_where_the_next_begins(run_no: int) -> None:
    """Between the last place of a run and the first of the next there is nothing, and they are not the same."""
    assert ids.chunk_range(run_no)[1] + 1 == ids.chunk_range(run_no + 1)[0]
    assert ids.position_range(run_no)[1] + 1 == ids.position_range(run_no + 1)[0]


@pytest.mark.parametrize(
    "key",
    [
        f"{TOKEN}-{CHUNKS_MAX + 1}-0",  # by arithmetic this would be a payout of another run
        f"{TOKEN}-1-{CHUNK_PAYOUTS_MAX}",
        f"{TOKEN}-{CHUNKS_MAX + 1}-{CHUNK_PAYOUTS_MAX}",
        f"{TOKEN}-1",
        f"{TOKEN}-1-",
        f"{TOKEN}-1-x",
        f"{TOKEN}-01-0",
        f"{TOKEN}-1-00",
        f"{TOKEN}-+1-0",
        f"{TOKEN}-1-0 ",
        f"{TOKEN}-1-٣",
        f"{TOKEN[1:]}-1-0",
        f"{TOKEN}a-1-0",
        f"{TOKEN.upper()}-1-0",
        "",
    ],
)
def test_what_we_never_wrote_is_no_key(key: str) -> None:
    """A key is ours to the letter, or it is somebody else's."""
    assert ids.parse_key(key) is None


def test_tokens_are_of_one_kind() -> None:
    """Lower-case letters and digits of one length, each parsed again, and hardly ever the same."""
    tokens = {ids.new_token() for _ in range(100)}
    assert len(tokens) == 100
    assert all(ids.parse_key(f"{token}-1-0") for token in tokens)
