"""The provider suite's questions about manners: cancelled, crowded, closed, and silent about what nobody may see."""

from __future__ import annotations

import logging
import socket
import traceback
from collections.abc import Callable

import anyio
import pytest

from payout_engine.domain.errors import ConfigError, ProviderError
from payout_engine.domain.model import Receipt
from payout_engine.domain.states import State
from payout_engine.ports.provider import HasBalances, Provider
from payout_engine.providers._sandbox import FaultKind
from payout_engine.testing.provider_answers import HTML, NOT_HTTP
from payout_engine.testing.provider_relay import http
from payout_engine.testing.provider_scene import (
    ProviderTests,
    Scene,
    Side,
    account,
    ask,
    attempt,
    connected,
    dispatch,
    known_by,
    playing,
    states,
)

MARKER = "_marker_5f0c9d"
"""Added to secrets so that nothing contains them by accident."""

SECRET_CHARS_MIN = 8
"""A shorter secret, such as a merchant's number, cannot be told from other text."""

AT_ONCE = 100
SEEN_SECONDS_MAX = 2.0
"""How long what one side does may take to be seen on the other."""

ELSEWHERE = ("https://payouts.invalid", "https://198.51.100.7", "https://127.0.0.1.example.com")
"""Other machines: a name that does not exist, an address for documents, and a name dressed up as this machine."""


class MannersSuite(ProviderTests):
    """What an adapter does besides paying."""

    async def test_cancelling_a_payment_leaks_nothing(self, payer: Side) -> None:
        """The cancellation comes through, nothing stays open, and money moved at most once."""
        async with playing(payer) as scene:
            sent = scene.dispatch()
            scene.strike(FaultKind.SLOW, seconds=0.5)
            finished = False
            with anyio.CancelScope() as scope:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(_cancel_once_heard, scene, scope)
                    await scene.relayed.send(sent)
                    finished = True
            assert scope.cancelled_caught and not finished
            await scene.relayed.aclose()
            await _all_closed(scene)
            assert {count for count, _ in scene.server.paid().values()} <= {1}

    async def test_a_hundred_payments_at_once_come_out_once_each(self, payer: Side) -> None:
        """With as many on the wire as the traits allow, no more connections than that, and none lost or doubled."""
        async with playing(payer) as scene:
            traits = scene.provider.traits
            slots = anyio.CapacityLimiter(traits.concurrency)
            sent = [scene.dispatch(1, first=number) for number in range(AT_ONCE)]
            claimed: dict[str, State] = {}

            async def pay(number: int) -> None:
                async with slots:
                    claimed.update(states(sent[number], await attempt(scene.relayed, sent[number])))

            async with anyio.create_task_group() as tasks:
                for number in range(AT_ONCE):
                    tasks.start_soon(pay, number)
            assert len(claimed) == AT_ONCE and set(claimed.values()) <= {State.ACCEPTED, State.PAID}
            assert {key: count for key, (count, _) in scene.server.paid().items()} == dict.fromkeys(claimed, 1)
            assert scene.relay.open_connections <= traits.concurrency

    async def test_nothing_is_open_after_closing(self, payer: Side) -> None:
        """Closing lets go of every connection, may be done twice, and needs no connection to have been made."""
        async with playing(payer) as scene:
            await attempt(scene.relayed, scene.dispatch())
            await _ask_all(scene.relayed, scene)
            await scene.relayed.aclose()
            await scene.relayed.aclose()
            await _all_closed(scene)
        await payer.face.connect(account(payer, "http://127.0.0.1:1")).aclose()

    # ------------------------------------------------------------------------------------------------------ where to

    async def test_another_machine_is_never_spoken_to_in_the_clear(self, payer: Side) -> None:
        """Plain HTTP is for this machine only; nothing is connected to."""
        await _never_connects(payer, loopback_only=False, base_urls=["http://payouts.invalid", "http://198.51.100.7"])

    async def test_a_sandbox_run_speaks_to_this_machine_only(self, payer: Side) -> None:
        """Any other host is refused before a connection is made, whatever its scheme, and the provider's own is too."""
        await _never_connects(payer, loopback_only=True, base_urls=[*ELSEWHERE, None])

    # --------------------------------------------------------------------------------------------------------- secrets

    @pytest.mark.parametrize("marker", ["", MARKER], ids=["accepted", "marked"])
    async def test_no_secret_and_no_phone_is_shown(
        self, payer: Side, marker: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Not in a repr, a log record, or an error with all the errors behind it, whatever goes wrong."""
        caplog.set_level(logging.DEBUG)
        secrets = {name: value + marker for name, value in payer.registration.sandbox_secrets.items()}
        shown: list[str] = []
        async with playing(payer, changes={"secrets": secrets}) as scene:
            sent = scene.dispatch()
            for provider in (scene.provider, scene.relayed):
                shown += [repr(provider), str(provider), repr(vars(provider))]
            for kind in (FaultKind.RESET_BEFORE, FaultKind.RESET_AFTER, FaultKind.TRUNCATED, FaultKind.STATUS_AFTER):
                scene.strike(kind)
                shown += _everything(await attempt(scene.provider, sent))
            for raw in (*NOT_HTTP, http(200, HTML), http(400, HTML), http(401, HTML), http(200, b"{}")):
                scene.relay.answer(lambda _, raw=raw: raw)  # type: ignore[misc]
                shown += _everything(await attempt(scene.relayed, sent))
                shown += await _ask_all(scene.relayed, scene)
            with socket.socket() as reserved:
                reserved.bind(("127.0.0.1", 0))
                closed = f"http://127.0.0.1:{reserved.getsockname()[1]}"
                for base_url in (closed, "https://payouts.invalid"):
                    async with connected(payer, base_url, secrets=secrets, loopback_only=False) as provider:
                        shown += _everything(await attempt(provider, sent))
            shown += [repr(account(payer, None, secrets=secrets)), str(account(payer, None, secrets=secrets))]
        hidden = [value for value in secrets.values() if len(value) >= SECRET_CHARS_MIN]
        hidden += [payout.recipient for payout in sent.payouts]
        for place, text in enumerate([caplog.text, *shown]):
            found = [secret[:4] for secret in hidden if secret in text]
            assert not found, f"text {place} shows what begins with {found}"

    @pytest.mark.parametrize("broken", ["line\r\nX-Evil: 1", "", "  "], ids=["line_break", "empty", "blank"])
    def test_a_secret_that_cannot_be_one_is_refused_unseen(self, payer: Side, broken: str) -> None:
        """A secret with a line break would become a header of its own; the refusal does not repeat it."""
        for name in payer.registration.secrets:
            secrets = {**payer.registration.sandbox_secrets, name: broken}
            with pytest.raises(ConfigError) as caught:
                payer.face.connect(account(payer, "http://127.0.0.1:1", secrets=secrets))
            assert "X-Evil" not in "".join(_everything(caught.value))


async def _cancel_once_heard(scene: Scene, scope: anyio.CancelScope) -> None:
    await _until(lambda: scene.paying_calls > 0)
    scope.cancel()


async def _all_closed(scene: Scene) -> None:
    await _until(lambda: scene.relay.open_connections == 0)


async def _until(happened: Callable[[], bool]) -> None:
    """Wait for what only the other side of a connection can see."""
    with anyio.fail_after(SEEN_SECONDS_MAX):
        while not happened():  # noqa: ASYNC110 - the sandbox has no event to wait for
            await anyio.sleep(0.005)


async def _ask_all(provider: Provider, scene: Scene) -> list[str]:
    """Look up and read balances; return all that was shown if that failed."""
    shown: list[str] = []
    sent = scene.dispatch()
    told = [Receipt(State.ACCEPTED, provider_reference=f"reference{number}") for number in range(len(sent.keys))]
    try:
        await ask(provider, sent, known_by(provider, told))
    except ProviderError as error:
        shown += _everything(error)
    if isinstance(provider, HasBalances):
        try:
            await provider.balances()
        except ProviderError as error:
            shown += _everything(error)
    return shown


async def _never_connects(payer: Side, *, loopback_only: bool, base_urls: list[str | None]) -> None:
    """An address that means this machine, but is none of its own, tells whether anybody knocked."""
    knocks: list[object] = []

    async def knock(stream: anyio.abc.SocketStream) -> None:
        knocks.append(stream)
        await stream.aclose()

    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, knock)
            for base_url in (f"http://0.0.0.0:{port}", *base_urls):
                with pytest.raises(ConfigError):
                    async with connected(payer, base_url, loopback_only=loopback_only) as provider:
                        await provider.send(dispatch(payer.wallets[0], {}, 1, first=0, ending=""))
            await anyio.sleep(0.02)
            tasks.cancel_scope.cancel()
    assert not knocks


def _everything(said: object) -> list[str]:
    """All that an error can show, with the errors behind it, also those that a traceback would leave out."""
    shown = [repr(said), str(said)]
    seen: set[int] = set()
    waiting = [said]
    while waiting:
        error = waiting.pop()
        if isinstance(error, BaseException) and id(error) not in seen:
            seen.add(id(error))
            shown += [repr(error), str(error), repr(vars(error)), *traceback.format_exception(error)]
            waiting += [error.__cause__, error.__context__]
    return shown
