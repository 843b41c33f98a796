"""The log alone proves what happened: its chain, the states, and that nothing was sent twice without proof."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import apsw
import msgspec
import pytest

from payout_engine.domain.model import ControlKind, ControlRequest, Lane, LookUpResult, Problem, Receipt
from payout_engine.domain.states import LETTERS, State, move
from payout_engine.journal import SqliteJournal
from payout_engine.journal.ids import parse_key, run_no_of
from payout_engine.journal.log import GENESIS, MOVED_KINDS, Approval, Intent, Person, chained, read_moved
from payout_engine.journal.runs import chained_payouts
from payout_engine.testing.journal_lines import (
    MOOV,
    ORANGE,
    approved,
    chunk,
    dispatched,
    every,
    refused,
    run,
    sent,
    validated,
)


async def an_eventful_life(path: Path) -> None:
    """Every kind of entry: held, refused and released, recovered, sighted, contradicted, discarded, finished."""
    async with SqliteJournal.open(path) as journal:
        await journal.begin(run("run"))
        await journal.add("run", [chunk([1, 2, 3, 4]), chunk([5, 6], MOOV, reference="SAME"), refused([7])])
        duplicates = await every(journal.duplicates("run"))
        await journal.hold("run", {repeat.position: Problem("reference_repeated", "Again.") for repeat in duplicates})
        await journal.seal("run")
        await journal.approve("run")
        first = await dispatched(journal, "run")
        await journal.record(
            first, [Receipt(State.PAID), Receipt(State.READY), Receipt(State.ACCEPTED), Receipt(State.UNKNOWN)]
        )
        await dispatched(journal, "run")
        await journal.recover("run")
        await journal.reconcile(
            [
                LookUpResult(first.keys[1], Receipt(State.READY, "absent")),
                LookUpResult(first.keys[2], Receipt(State.REVERSED)),
                LookUpResult(first.keys[3], Receipt(State.PAID), 5),
            ]
        )
        again = await dispatched(journal, "run")
        await journal.record(again, [Receipt(State.FAILED)])
        await validated(journal, "other", chunk([1]))
        await journal.discard("other")
        await journal.note("run", "remark", "All done.")
        await journal.finish("run")


def read(path: Path, query: str) -> list[Any]:
    db = apsw.Connection(str(path))
    try:
        return list(db.execute(query))
    finally:
        db.close()


async def test_each_entry_seals_the_one_before(tmp_path: Path) -> None:
    """The chain of hashes holds from the first entry to the last, without a gap."""
    path = tmp_path / "payouts.db"
    await an_eventful_life(path)
    before = GENESIS
    entries = read(path, "SELECT seq, at, run_no, chunk_id, kind, body, hash FROM log ORDER BY seq")
    for number, (seq, at, run_no, chunk_id, kind, body, seal) in enumerate(entries, start=1):
        assert seq == number
        before = chained(before, at, run_no, chunk_id, kind, body)
        assert seal == before
    assert {kind for *_, kind, _, _ in entries} == {
        *("seal", "hold", "approve", "intent", "receipts", "recover", "sighting", "note", "fact", "discard", "finish")
    }


async def test_a_person_is_recorded_by_their_whole_name(tmp_path: Path) -> None:
    """Whoever cancelled answers for what is taken back later, under the name that they gave."""
    path = tmp_path / "payouts.db"
    async with SqliteJournal.open(path) as journal:
        await approved(journal, "run", chunk([1]))
        dispatch = await sent(journal, "run", Receipt(State.UNKNOWN))
        await journal.request("run", ControlRequest(ControlKind.CANCEL, "Awa: finance", "wrong: month"))
        await journal.reconcile([LookUpResult(dispatch.keys[0], Receipt(State.READY, "absent"))])
    ((body,),) = read(path, "SELECT body FROM log WHERE kind = 'decision'")
    assert read_moved(body).persons == [Person("Awa: finance", "cancel", "wrong: month")]


async def test_replay_gives_the_states_and_finds_no_second_dispatch(tmp_path: Path) -> None:
    """From the births on, every entry is a legal move, every intent finds its payouts ready, the end is as stored."""
    path = tmp_path / "payouts.db"
    await an_eventful_life(path)
    standing = {
        chunk_id: [State.REJECTED if not account else State.READY] * count
        for chunk_id, account, count in read(path, "SELECT chunk_id, account, count FROM chunks")
    }
    unfinished: dict[int, tuple[int, list[int]]] = {}
    for chunk_id, kind, body in read(path, "SELECT chunk_id, kind, body FROM log ORDER BY seq"):
        if kind == "intent":
            intent = msgspec.json.decode(body, type=Intent)
            indexes = list(intent.indexes if intent.indexes is not None else range(len(standing[chunk_id])))
            assert all(standing[chunk_id][index] is State.READY for index in indexes)
            for index in indexes:
                standing[chunk_id][index] = State.SENDING
            unfinished[intent.dispatch] = chunk_id, indexes
        elif kind in MOVED_KINDS:
            moved = read_moved(body)
            indexes = list(moved.indexes if moved.indexes is not None else range(len(standing[chunk_id])))
            receipts = list(moved.receipts) * (len(indexes) if len(moved.receipts) == 1 else 1)
            for index, receipt in zip(indexes, receipts, strict=True):
                standing[chunk_id][index] = move(standing[chunk_id][index], receipt.state)
            if moved.dispatch is not None:
                assert unfinished.pop(moved.dispatch) == (chunk_id, indexes)
    assert not unfinished
    stored = dict(read(path, "SELECT chunk_id, states FROM progress"))
    assert {chunk_id: "".join(LETTERS[state] for state in found) for chunk_id, found in standing.items()} == stored


async def test_the_seal_covers_every_payout(tmp_path: Path) -> None:
    """The digest and the totals in the log are those of the payouts as they are stored."""
    path = tmp_path / "payouts.db"
    await an_eventful_life(path)
    seal = msgspec.json.decode(read(path, "SELECT body FROM log WHERE kind = 'seal' ORDER BY seq")[0][0])
    digest = GENESIS
    for chunk_id, account, lane, currency, payouts, cells, receipts in read(
        path,
        "SELECT chunk_id, account, lane, currency, payouts, rows, receipts FROM chunks JOIN progress USING (chunk_id)"
        " ORDER BY chunk_id",
    ):
        digest = chained_payouts(
            digest, chunk_id, Lane(account, lane, currency), payouts, cells, "" if account else receipts
        )
    assert seal["payouts_digest"] == digest.hex()
    assert seal["chunks"] == 3
    assert sum(total["count"] for total in seal["totals"]) == 7
    assert sum(total["amount_minor"] for total in seal["totals"]) == sum(range(1001, 1008))


async def test_a_discarded_number_is_never_given_again(tmp_path: Path) -> None:
    """The log goes on speaking of a discarded run, so its number is not reused."""
    path = tmp_path / "payouts.db"
    async with SqliteJournal.open(path) as journal:
        await validated(journal, "one", chunk([1]))
        await journal.discard("one")
        await approved(journal, "two", chunk([1]))
        assert run_no_of((await dispatched(journal, "two")).chunk_id) == 2


@pytest.mark.parametrize(
    "key",
    [
        "",
        "abc",
        "abcdefghijkl-1",
        "abcdefghijkl-1-",
        "abcdefghijkl-0-1",
        "abcdefghijkl-01-1",
        "abcdefghijkl-1-01",
        "abcdefghijkl-1-1024",
        "abcdefghijkl-99999999-1",
        "abcdefghijkl-1-1-1",
        "abcdefghijkl-1-1\n",
        "ABCDEFGHIJKL-1-1",
        "abcdefghijkl-1-١",
        "abcdefghijk-1-1",
    ],
)
def test_what_is_not_our_key_to_the_letter_is_not_ours(key: str) -> None:
    """A key is ours only in the exact spelling in which we send it."""
    assert parse_key(key) is None


async def test_what_comes_to_light_of_a_withdrawn_line_is_proven(tmp_path: Path) -> None:
    """The provider shows what this journal withdrew unsent, since a lost copy had sent it: held, as it may be."""
    async with SqliteJournal.open(tmp_path / "payouts.db") as journal:
        await approved(journal, "run", chunk([1]))
        ready = await journal.ready("run", ORANGE, 0, 1)
        await journal.cancel("run", ControlRequest(ControlKind.CANCEL, "awa"), 0, 9)
        applied = await journal.reconcile([LookUpResult(ready[0].keys[0], Receipt(State.PAID), 1001)])
        assert [outcome.status for outcome in applied.outcomes] == [State.HELD]
        assert not (await journal.verify("run")).findings


def test_an_approval_keeps_its_stored_word() -> None:
    """A journal of an earlier version says so in this word, and the comparison of a run that goes on depends on it."""
    stored = b'{"approved_no":3,"formerly":true}'
    assert msgspec.json.decode(stored, type=Approval).former_accounts
    assert msgspec.json.encode(Approval(3, former_accounts=True)) == stored
