"""The provider suite's questions about truth: nothing is claimed that the sandbox's ledger does not bear out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from decimal import Decimal

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from payout_engine.domain import clock
from payout_engine.domain.errors import ProviderError
from payout_engine.domain.model import Dispatch, LookUpResult
from payout_engine.domain.states import State
from payout_engine.ports.provider import HasBalances, ListsBack, LookUpKind
from payout_engine.providers._sandbox import FaultKind
from payout_engine.testing import provider_answers as answers
from payout_engine.testing.provider_relay import Heard, http
from payout_engine.testing.provider_scene import (
    ProviderTests,
    Said,
    Scene,
    Side,
    agrees,
    ask,
    ask_until_paid,
    attempt,
    connected,
    contradictions,
    is_doubt,
    known_by,
    playing,
    skip_unless_asked,
    skip_unless_played,
    states,
)

STATUSES = (200, 201, 202, 204, 301, 302, 400, 401, 403, 404, 409, 418, 422, 429, 500, 502, 503, 504)
"""None of them proves anything by itself: bodies decide."""

UNDECIDED = frozenset({State.ACCEPTED, State.UNKNOWN})

FAST = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


class TruthSuite(ProviderTests):
    """What is said of money is what happened to it."""

    async def test_what_is_sent_is_paid_once_exactly_and_found(self, payer: Side) -> None:
        """For every wallet: each payout once, to the minor unit; then shown as paid, under its key, as ours."""
        async with playing(payer) as scene:
            for number, wallet in enumerate(payer.wallets):
                sent = scene.dispatch(wallet=wallet, first=100 * number)
                said = await attempt(scene.provider, sent)
                found = await ask_until_paid(scene.provider, sent, said, sent.keys)
                ours = {key: (1, payout.amount_minor) for key, payout in zip(sent.keys, sent.payouts, strict=True)}
                ledger = scene.server.paid()
                assert {key: ledger.get(key) for key in sent.keys} == ours
                if scene.provider.traits.look_up is not LookUpKind.NONE:
                    assert _shown(found) == dict.fromkeys(ours, State.PAID)
                assert all(agrees(found[k], p) for k, p in zip(sent.keys, sent.payouts, strict=True) if k in found)

    async def test_every_fate_is_told_as_it_is(self, payer: Side) -> None:
        """Whatever the sandbox makes of a payout, neither the receipt nor a look-up contradicts its ledger."""
        async with playing(payer) as scene:
            for number, (ending, fate) in enumerate(scene.server.fates.items()):
                sent = scene.dispatch(1, ending=ending, first=10 * number)
                said = await attempt(scene.provider, sent)
                assert not contradictions(states(sent, said), scene.server), (fate, said)
                for _ in range(2):
                    found = await ask(scene.provider, sent, said)
                    assert not contradictions(_shown(found), scene.server), (fate, found)
                    assert all(agrees(found[key], sent.payouts[0]) for key in found), fate

    async def test_what_is_not_shown_yet_is_not_absent(self, payer: Side) -> None:
        """A payout that the list shows late is neither failed nor ready meanwhile."""
        async with playing(payer) as scene:
            skip_unless_played(scene, FaultKind.LATE)
            scene.strike(FaultKind.LATE, seconds=0.1)
            sent = scene.dispatch()
            said = await attempt(scene.provider, sent)
            for wait_seconds in (0.0, 0.15):
                await anyio.sleep(wait_seconds)
                found = await ask(scene.provider, sent, said)
                assert not contradictions(_shown(found), scene.server)

    async def test_what_has_no_reference_is_not_asked_for(self, payer: Side) -> None:
        """Where only the provider's own reference finds a payout, one whose answer was lost shows nothing, ever."""
        async with playing(payer) as scene:
            if scene.provider.traits.look_up is not LookUpKind.REFERENCE:
                pytest.skip(f"{payer.title} is asked by our key, or not at all")
            sent = scene.dispatch()
            said = await attempt(scene.provider, sent)
            assert await ask(scene.provider, sent) == {}
            assert not any(scene.server.calls.get(endpoint) for endpoint in scene.server.asking_endpoints)
            assert set(await ask(scene.provider, sent, said)) == set(sent.keys)

    async def test_what_was_sent_since_is_shown_by_a_look_that_goes_back_so_far(self, payer: Side) -> None:
        """A list that is not read whole shows at least what was sent after the moment it is read back to."""
        async with playing(payer) as scene:
            if not isinstance(scene.provider, ListsBack):
                pytest.skip("its look-ups have no bound")
            for number in range(3):
                began_at = clock.now()
                sent = scene.dispatch(first=100 * number)
                said = await attempt(scene.provider, sent)
                whole = await ask_until_paid(scene.provider, sent, said, sent.keys)
                pages = scene.provider.look_up_since((), began_at - 1.0)
                shown = {seen.key: seen async for page in pages for seen in page}
                assert shown.keys() >= whole.keys() > set()

    # -------------------------------------------------------------------------------------------- what nobody documents

    async def test_a_word_nobody_documented_decides_nothing(self, payer: Side) -> None:
        """One invented text or number in a look-up never makes a payout paid, failed, ready or reversed that was not.

        And there is one, the status, whose invention takes the verdict away and is kept for people to read.
        """
        async with playing(payer) as scene:
            skip_unless_asked(scene)
            for number, ending in enumerate(("", *scene.server.fates)):
                sent = scene.dispatch(1, ending=ending, first=10 * number)
                said = await attempt(scene.provider, sent)
                key = sent.keys[0]
                genuine = (await ask(scene.provider, sent, said)).get(key)
                if genuine is None:
                    continue
                warped = await _asked_again(scene, sent, said, answers.invented_words)
                receipts = [seen[key].receipt for seen in warped if key in seen]
                assert {receipt.state for receipt in receipts} <= {genuine.receipt.state, *UNDECIDED}, ending
                assert any(
                    receipt.state in UNDECIDED and word in receipt.message
                    for receipt in receipts
                    for word in (answers.INVENTED, str(answers.INVENTED_NUMBER))
                ), "no text of the answer decides, or the provider's own word is lost"

    async def test_a_warped_look_up_decides_nothing(self, payer: Side) -> None:
        """With any one value missing, of another type or strange, no payout gets a verdict that it did not have."""
        async with playing(payer) as scene:
            skip_unless_asked(scene)
            for number, ending in enumerate(("", *list(scene.server.fates)[:2])):
                sent = scene.dispatch(1, ending=ending, first=10 * number)
                said = await attempt(scene.provider, sent)
                genuine = await ask(scene.provider, sent, said)
                harmless = {*UNDECIDED, *(seen.receipt.state for seen in genuine.values())}
                for seen in await _asked_again(scene, sent, said, answers.warps):
                    assert {result.receipt.state for result in seen.values()} <= harmless, (ending, seen)

    async def test_another_amount_is_never_taken_for_ours(self, payer: Side) -> None:
        """A look-up that states another amount does not agree with our payout."""
        async with playing(payer) as scene:
            skip_unless_asked(scene)
            sent = scene.dispatch(1)
            said = await attempt(scene.provider, sent)
            await ask_until_paid(scene.provider, sent, said, sent.keys)
            stated = Decimal(sent.payouts[0].amount_minor).scaleb(-scene.wallet.decimals)
            scene.relay.answer(
                lambda heard: http(heard.status, answers.other_amounts(heard.body, stated)),
                *scene.server.asking_endpoints,
            )
            found = await _asked(scene, sent, said)
            for seen in found.values():
                assert not agrees(seen, sent.payouts[0]) or seen.amount_minor is None

    async def test_another_phone_is_never_taken_for_ours(self, payer: Side) -> None:
        """A look-up that names another number, or only the end of one, does not agree with our payout."""
        async with playing(payer) as scene:
            skip_unless_asked(scene)
            sent = scene.dispatch(1)
            phone = sent.payouts[0].phone
            if not phone:
                pytest.skip(f"{payer.title} names no phones")
            said = await attempt(scene.provider, sent)
            await ask_until_paid(scene.provider, sent, said, sent.keys)
            genuine = await ask(scene.provider, sent, said)
            if all(seen.recipient is None for seen in genuine.values()):
                pytest.skip(f"{payer.title} does not say whom it paid")
            for shown in await _asked_again(scene, sent, said, lambda body: answers.other_recipients(body, phone)):
                for seen in shown.values():
                    assert seen.receipt.state in UNDECIDED or not agrees(seen, sent.payouts[0]), seen.recipient

    async def test_a_warped_answer_to_a_payment_contradicts_no_ledger(self, payer: Side) -> None:
        """Money moved, and one thing is wrong with the answer: no payout is failed, ready or refused."""
        async with playing(payer) as scene:
            await attempt(scene.relayed, scene.dispatch(2 if scene.provider.traits.batch_limit > 1 else 1))
            genuine = _paying(scene)
            for number, warped in enumerate(answers.warps(genuine.body)):
                scene.relay.answer(_always(http(genuine.status, warped)), scene.server.paying_endpoint)
                sent = scene.dispatch(first=1 + number % 900)
                said = await attempt(scene.relayed, _renamed(sent, number))
                assert not contradictions(states(_renamed(sent, number), said), scene.server), (warped, said)

    async def test_an_answer_in_invented_words_claims_nothing(self, payer: Side) -> None:
        """Whatever was answered, once none of its texts is documented it pays, fails and refuses nothing."""
        async with playing(payer) as scene:
            faults = [
                kind for kind in (FaultKind.RATE_LIMITED, FaultKind.LOW_BALANCE) if kind in scene.server.own_faults
            ]
            cases: list[tuple[str, FaultKind | None]] = [("", None), *((ending, None) for ending in scene.server.fates)]
            for number, (ending, fault) in enumerate([*cases, *(("", kind) for kind in faults)]):
                for status in (200, 400):
                    if fault is not None:
                        scene.strike(fault)
                    scene.relay.answer(_in_invented_words(status), scene.server.paying_endpoint)
                    sent = _renamed(scene.dispatch(1, ending=ending, first=10 * number), 1_000 * number + status)
                    calls = scene.paying_calls
                    said = await attempt(scene.relayed, sent)
                    assert is_doubt(said) or _never_asked(scene, sent, said, calls), (ending, fault)

    # --------------------------------------------------------------------------------------------------------- garbage

    @FAST
    @given(bodies=st.lists(st.tuples(st.sampled_from(STATUSES), answers.GARBAGE), min_size=1, max_size=4))
    async def test_garbage_after_the_money_moved_is_a_doubt(self, payer: Side, bodies: list[tuple[int, bytes]]) -> None:
        """No body and no status makes a moved payout failed, ready or refused, but one documented as a refusal."""
        async with playing(payer) as scene:
            for number, (status, body) in enumerate(bodies):
                if status in payer.registration.refusing_statuses:
                    continue
                scene.relay.answer(_always(http(status, body)), scene.server.paying_endpoint)
                sent = scene.dispatch(first=10 * number)
                said = await attempt(scene.relayed, sent)
                assert is_doubt(said), said
                assert set(scene.server.paid()) >= set(sent.keys)

    @FAST
    @given(bodies=st.lists(st.tuples(st.sampled_from(STATUSES), answers.GARBAGE), min_size=1, max_size=4))
    async def test_garbage_where_nothing_moved_pays_nobody(self, payer: Side, bodies: list[tuple[int, bytes]]) -> None:
        """No body and no status makes a payout paid that was not."""
        async with playing(payer) as scene:
            for number, (status, body) in enumerate(bodies):
                scene.strike(FaultKind.STATUS_BEFORE)
                scene.relay.answer(_always(http(status, body)), scene.server.paying_endpoint)
                sent = scene.dispatch(first=10 * number)
                said = await attempt(scene.relayed, sent)
                claimed = states(sent, said)
                assert not contradictions(claimed, scene.server), said
                assert State.FAILED not in claimed.values(), said

    @FAST
    @given(bodies=st.lists(st.tuples(st.sampled_from(STATUSES), answers.GARBAGE), min_size=1, max_size=4))
    async def test_garbage_for_every_answer_raises_only_what_is_promised(
        self, payer: Side, bodies: list[tuple[int, bytes]]
    ) -> None:
        """Whichever call it answers: a `ProviderError` or nothing claimed, from sending, asking and balances alike."""
        async with playing(payer) as scene:
            sent = scene.dispatch()
            said = await attempt(scene.provider, sent)
            for number, (status, body) in enumerate(bodies):
                scene.relay.answer(_always(http(status, body)))
                await attempt(scene.relayed, scene.dispatch(first=10 * number + 10))
                found = await _asked(scene, sent, said)
                assert not contradictions(_shown(found), scene.server)
                if isinstance(scene.relayed, HasBalances):
                    with suppress(ProviderError):
                        assert all(balance.available_minor == 0 for balance in await scene.relayed.balances())

    @pytest.mark.parametrize("body", answers.NESTED, ids=["lists", "objects", "data"])
    async def test_an_answer_that_is_too_deep_is_a_doubt(self, payer: Side, body: bytes) -> None:
        """In answer to any call: no exception but those that are promised."""
        async with playing(payer) as scene:
            scene.relay.answer(_always(http(200, body)))
            sent = scene.dispatch()
            said = await attempt(scene.relayed, sent)
            assert is_doubt(said) or _never_asked(scene, sent, said, 0)
            assert await _asked(scene, sent) == {}
            if isinstance(scene.relayed, HasBalances):
                with pytest.raises(ProviderError):
                    await scene.relayed.balances()

    async def test_what_is_no_http_is_a_doubt(self, payer: Side) -> None:
        """Money moved, and what came back is no whole answer, or one that points elsewhere."""
        async with playing(payer) as scene:
            endless = http(200, b"[" + b"1," * 9_000_000 + b"1]")
            for number, raw in enumerate((*answers.NOT_HTTP, endless)):
                scene.relay.answer(_always(raw), scene.server.paying_endpoint, *scene.server.asking_endpoints)
                sent = scene.dispatch(first=10 * number)
                # A connection of its own: one that was kept may have been closed by the answer before.
                async with connected(payer, scene.relay.base_url, timeout_seconds=2.0) as provider:
                    assert is_doubt(await attempt(provider, sent)), raw[:80]
                    assert scene.paying_calls == number + 1, f"sent again, or never, at {raw[:80]!r}"
                    with suppress(ProviderError):
                        assert not contradictions(_shown(await ask(provider, sent)), scene.server)


def _never_asked(scene: Scene, sent: Dispatch, said: Said, calls: int) -> bool:
    """Whether no call was made that pays, as where a token or a contact has to come first, and none is claimed."""
    claimed = states(sent, said)
    return scene.paying_calls == calls and set(claimed.values()) <= {State.READY, State.FAILED, State.UNKNOWN}


def _always(raw: bytes) -> Callable[[Heard], bytes]:
    return lambda _: raw


def _in_invented_words(status: int) -> Callable[[Heard], bytes]:
    return lambda heard: http(status, answers.all_words_invented(heard.body))


def _paying(scene: Scene) -> Heard:
    """The sandbox's last answer to a paying call."""
    return next(heard for heard in reversed(scene.relay.heard) if heard.endpoint == scene.server.paying_endpoint)


def _renamed(sent: Dispatch, number: int) -> Dispatch:
    """The same dispatch under keys that were never used."""
    keys = [f"conformance{number % 10}-{number + 1_000}-{place}" for place in range(len(sent.keys))]
    return Dispatch(sent.dispatch_id, sent.chunk_id, sent.lane, sent.indexes, sent.payouts, keys)


async def _asked(scene: Scene, sent: Dispatch, said: Said = ()) -> dict[str, LookUpResult]:
    """Look up through the relay; an answer that is refused shows nothing."""
    try:
        return await ask(scene.relayed, sent, said)
    except ProviderError:
        return {}


async def _asked_again(
    scene: Scene, sent: Dispatch, said: Said, changed: Callable[[bytes], Iterator[bytes]]
) -> Sequence[Mapping[str, LookUpResult]]:
    """Look one payout up genuinely, then once for each changed copy of that answer; return what those showed."""
    known = known_by(scene.relayed, said)
    scene.relay.answer(lambda _: None)
    await _asked(scene, sent, known)
    genuine = next(heard for heard in reversed(scene.relay.heard) if heard.endpoint in scene.server.asking_endpoints)
    shown = []
    for body in changed(genuine.body):
        scene.relay.answer(_always(http(genuine.status, body)), *scene.server.asking_endpoints)
        shown.append(await _asked(scene, sent, known))
    return shown


def _shown(found: Mapping[str, LookUpResult]) -> dict[str, State]:
    return {key: seen.receipt.state for key, seen in found.items()}
