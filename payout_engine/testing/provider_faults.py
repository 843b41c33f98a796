"""The provider suite's questions about failures: not sent, refused or in doubt, and never more than once."""

from __future__ import annotations

import socket

import anyio
import pytest

from payout_engine.domain.errors import AmbiguousError, Brake, ConfigError, NotSentError, ProviderError, RefusedError
from payout_engine.domain.model import Dispatch
from payout_engine.domain.states import State
from payout_engine.ports.provider import HasBalances, KeyPromise, LookUpKind, Provider
from payout_engine.providers._sandbox import FaultKind
from payout_engine.testing.provider_answers import HTML
from payout_engine.testing.provider_relay import http
from payout_engine.testing.provider_scene import (
    TIMEOUT_SECONDS,
    ProviderTests,
    Said,
    Scene,
    Side,
    ask,
    ask_until_paid,
    attempt,
    connected,
    contradictions,
    dispatch,
    findable,
    known_by,
    playing,
    skip_unless_asked,
    skip_unless_played,
    states,
)

SILENCE_SECONDS = 0.4
"""The time-out of an adapter that meets a silent provider."""

NOTHING_MOVED = ("reset_before", "500_before", "502_before", "503_before")
MONEY_MOVED = (
    *("reset_after", "500_after", "502_after", "503_after"),
    *("silent_before", "silent_after", "truncated", "html_200"),
)
DOUBTS = (*NOTHING_MOVED, *MONEY_MOVED)
"""What proves nothing, by whether the provider had processed the call."""

RETRY_AFTER_SECONDS = 7.0


class FaultSuite(ProviderTests):
    """Each failure has the class that says what happened to the money."""

    # -------------------------------------------------------------------------------------------------------- not sent

    async def test_a_closed_port_proves_that_nothing_was_sent(self, payer: Side) -> None:
        """No connection, no request."""
        with socket.socket() as reserved:
            reserved.bind(("127.0.0.1", 0))
            base_url = f"http://127.0.0.1:{reserved.getsockname()[1]}"
            async with connected(payer, base_url) as provider:
                said = await attempt(provider, dispatch(payer.wallets[0], {}, 1, first=0, ending=""))
        assert isinstance(said, NotSentError)

    async def test_an_unknown_host_proves_that_nothing_was_sent(self, payer: Side) -> None:
        """A name under .invalid never resolves."""
        async with connected(payer, "https://payouts.invalid", loopback_only=False) as provider:
            said = await attempt(provider, dispatch(payer.wallets[0], {}, 1, first=0, ending=""))
        assert isinstance(said, NotSentError)

    # --------------------------------------------------------------------------------------------------------- refused

    @pytest.mark.parametrize("seconds", [0.0, RETRY_AFTER_SECONDS], ids=["when_unsaid", "when_said"])
    async def test_too_fast_is_a_refusal(self, payer: Side, seconds: float) -> None:
        """Nothing moves, and the wait the provider asks for is handed on."""
        async with playing(payer) as scene:
            skip_unless_played(scene, FaultKind.RATE_LIMITED)
            scene.strike(FaultKind.RATE_LIMITED, seconds=seconds)
            said = await attempt(scene.provider, scene.dispatch())
            assert isinstance(said, RefusedError) and said.too_fast and not said.final
            assert said.retry_after_seconds == (seconds or None)
            assert not scene.server.paid()

    async def test_calls_over_the_documented_rate_move_nothing(self, payer: Side) -> None:
        """What the sandbox admits is paid, what it refuses is ready, and the two together are all that was sent."""
        rate = payer.traits.calls_per_second
        if rate is None or rate > 50:
            pytest.skip(f"{payer.title} documents no rate that a test could exceed")
        async with playing(payer, calls_per_second=max(1, int(rate))) as scene:
            refused = 0
            for number in range(int(rate) + 3):
                sent = scene.dispatch(1, first=number)
                said = await attempt(scene.provider, sent)
                refused += isinstance(said, RefusedError) and said.too_fast
                assert not contradictions(states(sent, said), scene.server), said
            assert refused and len(scene.server.paid()) == int(rate) + 3 - refused

    async def test_an_empty_balance_leaves_everything_ready(self, payer: Side) -> None:
        """It is no failure of the payee's: after a top-up the same payouts can be sent."""
        async with playing(payer) as scene:
            skip_unless_played(scene, FaultKind.LOW_BALANCE)
            scene.strike(FaultKind.LOW_BALANCE)
            sent = scene.dispatch()
            said = await attempt(scene.provider, sent)
            if isinstance(said, RefusedError):
                assert said.brake is Brake.FUNDS
            assert set(states(sent, said).values()) == {State.READY}, said
            assert not scene.server.paid()

    async def test_credentials_that_are_not_accepted_stop_the_account(self, payer: Side) -> None:
        """Whatever was asked: no doubt about money, and the brake that stops the account."""
        wrong = dict.fromkeys(payer.registration.secrets, "not_the_right_one")
        async with playing(payer) as scene:
            try:
                async with connected(payer, scene.server.base_url, secrets=wrong) as stranger:
                    errors: list[Said] = [await attempt(stranger, scene.dispatch())]
                    if isinstance(stranger, HasBalances):
                        with pytest.raises(ProviderError) as caught:
                            await stranger.balances()
                        errors.append(caught.value)
            except ConfigError:
                return  # Seen at once: better still.
            for error in errors:
                # Refused, or in doubt where the provider's document does not say how it refuses a key.
                assert isinstance(error, RefusedError | AmbiguousError) and error.brake is Brake.CREDENTIALS, error
            assert not scene.server.paid()

    @pytest.mark.parametrize(
        "body", [HTML, b"", b"{}", b'{"error":"unauthorized"}'], ids=["html", "empty", "bare", "json"]
    )
    async def test_a_refusal_of_credentials_in_no_documented_words_frees_nobody_and_stops(
        self, payer: Side, body: bytes
    ) -> None:
        """HTTP 401 from whoever stands before the provider: money may have moved, and the next call fares no better.

        Where the document says that the provider refuses by this very status it may be believed, and stops as well.
        """
        async with playing(payer) as scene:
            before = scene.dispatch(1, first=50)
            known = await attempt(scene.provider, before)
            scene.relay.answer(lambda _: http(401, body), scene.server.paying_endpoint, *scene.server.asking_endpoints)
            sent = scene.dispatch()
            said = await attempt(scene.relayed, sent)
            believed = isinstance(said, RefusedError) and 401 in payer.registration.refusing_statuses
            assert isinstance(said, AmbiguousError) or (believed and body != HTML), said
            assert isinstance(said, ProviderError) and said.brake is Brake.CREDENTIALS, said
            assert set(scene.server.paid()) == {*before.keys, *sent.keys}
            if scene.provider.traits.look_up is not LookUpKind.NONE:
                with pytest.raises(ProviderError) as caught:
                    await ask(scene.relayed, before, known_by(scene.relayed, known))
                assert caught.value.brake is Brake.CREDENTIALS

    async def test_an_expired_token_is_renewed_and_pays_once(self, payer: Side) -> None:
        """A call refused for its token moved nothing, so a new token and a second call is no second payment."""
        async with playing(payer) as scene:
            skip_unless_played(scene, FaultKind.EXPIRED)
            first, second = scene.dispatch(1), scene.dispatch(1, first=10)
            await attempt(scene.provider, first)
            scene.strike(FaultKind.EXPIRED)
            said = await attempt(scene.provider, second)
            assert not contradictions(states(second, said), scene.server)
            if isinstance(said, ProviderError):
                assert isinstance(said, NotSentError) or (isinstance(said, RefusedError) and not said.final)
                said = await attempt(scene.provider, second)
            assert {count for count, _ in scene.server.paid().values()} == {1}
            assert set(scene.server.paid()) == {*first.keys, *second.keys}

    # ----------------------------------------------------------------------------------------------- in doubt, and once

    @pytest.mark.parametrize("doubt", DOUBTS)
    async def test_a_doubt_is_told_and_money_moves_at_most_once(self, payer: Side, doubt: str) -> None:
        """The call is not repeated; a look-up shows the payout if money moved, and does not invent it if none did.

        Where the provider documents that a key pays once, sending again under it is safe, and is tried.
        """
        changes = {"timeout_seconds": SILENCE_SECONDS if doubt.startswith("silent") else TIMEOUT_SECONDS}
        async with playing(payer, changes=changes) as scene:
            warm = scene.dispatch(1, first=50)
            await attempt(scene.relayed if doubt == "html_200" else scene.provider, warm)
            calls = scene.paying_calls
            sent = scene.dispatch()
            provider = scene.provider
            if doubt == "html_200":
                provider = scene.relayed
                scene.relay.answer(lambda _: http(200, HTML, content_type="text/html"), scene.server.paying_endpoint)
            else:
                kind, seconds, status = _fault(doubt)
                scene.strike(kind, seconds=seconds, status=status)
            said = await attempt(provider, sent)
            assert isinstance(said, AmbiguousError) or (
                not isinstance(said, ProviderError) and {receipt.state for receipt in said} == {State.UNKNOWN}
            ), said
            assert scene.paying_calls == calls + 1, "the call was sent again, or never"

            async with connected(payer, scene.server.base_url) as asking:
                if doubt == "silent_before":
                    # The sandbox pays after the adapter has given up.
                    await anyio.sleep(2 * SILENCE_SECONDS)
                assert (set(sent.keys) <= set(scene.server.paid())) is (doubt not in NOTHING_MOVED)
                await _nothing_is_paid_twice(scene, asking, sent, said)

    async def test_a_look_up_that_fails_says_so(self, payer: Side) -> None:
        """An answer that did not come to its end is never taken for one that shows nothing."""
        async with playing(payer, changes={"timeout_seconds": SILENCE_SECONDS}) as scene:
            skip_unless_asked(scene)
            sent = scene.dispatch()
            said = await attempt(scene.provider, sent)
            for kind, seconds in (
                (FaultKind.STATUS_BEFORE, 0.0),
                (FaultKind.TRUNCATED, 0.0),
                (FaultKind.SLOW_BEFORE, 3 * SILENCE_SECONDS),
            ):
                for endpoint in scene.server.asking_endpoints:
                    scene.strike(kind, at=endpoint, seconds=seconds)
                with pytest.raises(ProviderError):
                    await ask(scene.provider, sent, said)
            for kept in (0.5, 0.9, 1.0):
                scene.relay.answer(
                    lambda heard, kept=kept: http(200, heard.body[: int((len(heard.body) - 1) * kept)]),  # type: ignore[misc]
                    *scene.server.asking_endpoints,
                )
                with pytest.raises(ProviderError):
                    await ask(scene.relayed, sent, said)


def _fault(doubt: str) -> tuple[FaultKind, float, int]:
    """What the sandbox has to play for a doubt: kind, seconds, status."""
    if doubt.startswith("silent"):
        kind = FaultKind.SLOW_BEFORE if doubt.endswith("before") else FaultKind.SLOW
        return kind, 1.5 * SILENCE_SECONDS, 0
    if doubt[0].isdigit():
        status, _, when = doubt.partition("_")
        return (FaultKind.STATUS_BEFORE if when == "before" else FaultKind.STATUS_AFTER), 0.0, int(status)
    return FaultKind(doubt), 0.0, 0


async def _nothing_is_paid_twice(scene: Scene, asking: Provider, sent: Dispatch, said: Said) -> None:
    """Compare the ledger with what a look-up shows, now and after a repetition where one is promised to be safe."""
    ledger = scene.server.paid()
    moved = [key for key in sent.keys if key in ledger]
    found = [key for key in findable(asking, sent, said) if key in ledger]
    shown = await ask_until_paid(asking, sent, said, found)
    assert {key for key in shown if shown[key].receipt.state is State.PAID} <= set(moved)
    assert not contradictions({key: seen.receipt.state for key, seen in shown.items()}, scene.server), shown
    assert set(found) <= set(shown), "money moved, and no look-up shows it"
    if asking.traits.key_promise is KeyPromise.IDEMPOTENT:
        again = await attempt(asking, sent)
        assert not contradictions(states(sent, again), scene.server), again
        assert set(scene.server.paid()) >= set(sent.keys), "sending again under the same key did not pay"
