"""Jemeni end to end over real HTTP: every call in every scheme, lost answers, strict authentication, lasting truth."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web

from payout_engine.domain import clock
from payout_engine.domain.clock import Moment
from payout_engine.domain.errors import AmbiguousError, Brake, ConfigError, NotSentError
from payout_engine.domain.model import Direction, Dispatch, Lane, LookUpResult, Payout, Query, Receipt
from payout_engine.domain.states import State
from payout_engine.ports.provider import HasBalances, KeyPromise, LookUpKind
from payout_engine.ports.registration import Account
from payout_engine.providers import get
from payout_engine.providers._http import CONNECTIONS_SPARE, connections
from payout_engine.providers._sandbox import LATE_SETTLE_FACTOR, Fault, FaultKind, serving
from payout_engine.providers.jemeni import JemeniClient, wire
from payout_engine.providers.jemeni.adapter import SECRETS, JemeniCollector, options_of, traits, wallets
from payout_engine.providers.jemeni.ledger import Ledger
from payout_engine.providers.jemeni.sandbox import FATES, SANDBOX_KEYS, JemeniSandbox, sandbox
from payout_engine.providers.jemeni.signing import Keys, Scheme, Signable, signed_headers


def account(base_url: str | None, *, keys: Keys = SANDBOX_KEYS, **options: Any) -> Account:
    return Account(
        name="ml",
        secrets={name: getattr(keys, name) for name in SECRETS},
        base_url=base_url,
        timeout_seconds=5.0,
        options={"path_prefix": "/sandbox", **options},
        loopback_only=True,
    )


@asynccontextmanager
async def connected(*, options: dict[str, Any] | None = None, **settings: Any) -> AsyncIterator[Any]:
    """A sandbox and a collector that speaks to it."""
    async with sandbox(**{"settle_seconds": 0.0, **settings}) as server:
        collector = JemeniCollector(account(server.base_url, **(options or {})))
        try:
            yield collector, server
        finally:
            await collector.aclose()


def dispatch(phone: str = "78521436", amount: int = 9_000, key: str = "key-0", **changes: Any) -> Dispatch:
    payout = msgspec.structs.replace(Payout("r", amount, "XOF", "223" + phone), **changes)
    return Dispatch(1, 1, Lane("ml", "jemeni_ml", "XOF"), [0], [payout], [key])


def query(sent: Dispatch, reference: str) -> Query:
    return Query(sent.keys[0], reference, State.ACCEPTED, Moment(0.0, "", 0.0), sent.payouts[0])


async def look(collector: JemeniCollector, queries: Iterable[Query]) -> dict[str, LookUpResult]:
    return {seen.key: seen async for batch in collector.look_up(list(queries)) for seen in batch}


async def ask_all(collector: JemeniCollector, sent: Iterable[Dispatch]) -> list[tuple[Dispatch, Receipt]]:
    return [(one, (await collector.send(one))[0]) for one in sent]


# ------------------------------------------------------------------------------------------------------- every call


@pytest.mark.parametrize("scheme", Scheme)
async def test_every_call_is_spoken_in_every_scheme(scheme: Scheme) -> None:
    """The five documented calls, signed by one scheme, to a sandbox that takes no other."""
    async with sandbox(settle_seconds=0.0, schemes=[scheme]) as server:
        client = JemeniClient(SANDBOX_KEYS, path_prefix="/sandbox", scheme=scheme, base_url=server.base_url)
        try:
            request = wire.PaymentRequest(customer_phone="78000000", amount=9_000, lang="fr")
            made = await client.send_payment(request, request_id="mine")
            found = await client.verify_state(made.id)
            new = wire.NewSubscription(phone="+22370000000", plan_id=1, frequency_id=1, start_at="2024-10-27")
            subscribed = await client.create_subscription(new)
            plans = await client.subscription_plans()
            customer = await client.disable_subscription("+22370000000")
            with pytest.raises(AmbiguousError) as again:
                await client.disable_subscription("+22370000000")
        finally:
            await client.aclose()

        assert (made.state, made.payment.status) == (1, "pending")
        assert (found.state, found.payment.status, bytes(found.amount)) == (2, "completed", b'"9000.00"')
        assert (subscribed.status, subscribed.start_at, subscribed.plan_id) == ("active", "2024-10-27 00:00:00", 1)
        assert plans[0].name == "Basic Plan"
        assert customer.phone == "+22370000000"
        assert again.value.reason == "http_404"
        assert server.paid() == {"mine": (1, 9_000)}
        assert server.calls == {"payment": 1, "state": 1, "subscribe": 1, "plans": 1, "disable": 2}


@pytest.mark.parametrize("served", Scheme)
@pytest.mark.parametrize("spoken", Scheme)
async def test_a_scheme_that_is_not_the_merchants_is_a_doubt_that_stops(served: Scheme, spoken: Scheme) -> None:
    """Nobody is asked, and nothing is claimed."""
    async with connected(options={"signing": spoken.value}, schemes=[served]) as (collector, server):
        if served is spoken:
            assert (await collector.send(dispatch()))[0].state is State.ACCEPTED
            return
        with pytest.raises(AmbiguousError) as caught:
            await collector.send(dispatch())
        assert caught.value.brake is Brake.CREDENTIALS
        assert server.ledger.payments() == []


# --------------------------------------------------------------------------------------------------------- payments


async def test_every_fate_has_its_outcome() -> None:
    """The magic numbers, as the notes describe them: before and after the late one pays. Nothing is ever failed."""
    time = [1_800_000_000.0]
    with clock.replaced(lambda: time[0]):
        async with connected(settle_seconds=1.0) as (collector, server):
            asked = []
            for ending, fate in FATES.items():
                sent = dispatch("78" + ending, key=fate.value)
                if fate.value == "refused":
                    with pytest.raises(AmbiguousError) as refused:
                        await collector.send(sent)
                else:
                    asked.append((sent, (await collector.send(sent))[0]))
            queries = [query(sent, receipt.provider_reference) for sent, receipt in asked]
            time[0] += LATE_SETTLE_FACTOR - 1
            found = await look(collector, queries)
            time[0] += 2
            later = await look(collector, queries)
            paid = server.paid()

        assert refused.value.brake is None and "Invalid Input Data" in str(refused.value)
        assert {receipt.state for _, receipt in asked} == {State.ACCEPTED}
        assert {key: (seen.receipt.state.value, seen.receipt.reason) for key, seen in found.items()} == {
            "never_confirmed": ("accepted", ""),
            "undocumented_state": ("accepted", "status_not_documented"),
            "words_disagree": ("accepted", "status_not_documented"),
            "settles_late": ("accepted", ""),
        }
        assert later["settles_late"].receipt.state is State.PAID
        assert set(paid) == {"settles_late", "not_shown"}


async def test_one_franc_is_asked_for() -> None:
    """No smallest amount is documented."""
    async with connected() as (collector, server):
        await collector.send(dispatch(amount=1))
        assert server.paid() == {"key-0": (1, 1)}


async def test_asking_twice_asks_twice() -> None:
    """No reference of ours is documented, so the sandbox does not pretend it, and the traits do not promise it."""
    async with connected() as (collector, server):
        await collector.send(dispatch())
        await collector.send(dispatch())

        assert server.paid() == {"key-0": (2, 18_000)}
        assert server.summary()["requests_paid_twice"] == 1
    assert (traits({}).key_promise, traits({}).look_up) == (KeyPromise.NONE, LookUpKind.REFERENCE)


async def test_a_lost_answer_is_for_a_person() -> None:
    """The customer pays; without the reference nothing is asked, and nothing is shown as anything."""
    async with connected(faults=[Fault(FaultKind.RESET_AFTER, "payment")]) as (collector, server):
        with pytest.raises(AmbiguousError) as caught:
            await collector.send(dispatch())
        assert caught.value.brake is None
        assert await look(collector, [query(dispatch(), "")]) == {}

        assert server.paid() == {"key-0": (1, 9_000)}
        assert server.calls == {"payment": 1}


async def test_one_that_is_not_found_hides_no_other() -> None:
    """Not found is not absent, another failure is told at the end, and a doubt about the keys ends the asking."""
    async with connected(options={"concurrency": 2}) as (collector, server):
        asked = await ask_all(collector, [dispatch(f"7852{n:04d}", key=f"key-{n}") for n in range(7)])
        queries = [query(sent, receipt.provider_reference) for sent, receipt in asked]
        queries[0] = query(asked[0][0], "01nobody")

        assert set(await look(collector, queries)) == {f"key-{n}" for n in range(1, 7)}

        server.faults.add(Fault(FaultKind.STATUS_BEFORE, "state"))
        found = []
        with pytest.raises(AmbiguousError, match="502"):
            async for batch in collector.look_up(queries[1:]):
                found += batch
        assert len(found) == 5

        server.faults.add(Fault(FaultKind.STATUS_BEFORE, "state", status=401), Fault(FaultKind.TRUNCATED, "state"))
        before = server.calls["state"]
        with pytest.raises(AmbiguousError) as caught:
            await look(collector, queries[1:])
        assert caught.value.brake is Brake.CREDENTIALS and server.calls["state"] == before + 2


async def test_an_answer_about_another_transaction_shows_nothing() -> None:
    """Its id is the only bond between a request and what became of it."""
    async with connected() as (collector, server):
        (_, receipt), (other, _) = await ask_all(collector, [dispatch(), dispatch("78521437", key="key-1")])
        ledger = server.ledger
        ledger.fetch = lambda _, genuine=ledger.fetch: genuine(receipt.provider_reference)
        with pytest.raises(AmbiguousError) as caught:
            await look(collector, [query(other, "01another")])
    assert caught.value.reason == "answer_disagrees"


@pytest.mark.parametrize(
    "malformed",
    [
        dispatch("785214360"),
        msgspec.structs.replace(dispatch(), payouts=[Payout("r", 500, "XOF", "22678521436")]),
        msgspec.structs.replace(dispatch(), payouts=(*dispatch().payouts, *dispatch().payouts)),
        dispatch(currency="XAF"),
        dispatch(amount=0),
        dispatch(key=""),
        msgspec.structs.replace(dispatch(), lane=Lane("ml", "orange_ml", "XOF")),
        msgspec.structs.replace(dispatch(), keys=()),
        msgspec.structs.replace(dispatch(), payouts=(*dispatch().payouts, *dispatch().payouts), keys=("a", "b")),
        dispatch(phone="", email="a@example.com"),
    ],
)
async def test_what_must_never_come_this_far_never_leaves(malformed: Dispatch) -> None:
    """A fault of ours proves that nobody was asked."""
    async with connected() as (collector, server):
        with pytest.raises(NotSentError) as caught:
            await collector.send(malformed)
        assert caught.value.reason in ("dispatch_malformed", "dispatch_too_large")
        assert not server.calls


# ---------------------------------------------------------------------------------------------------------- account


@pytest.mark.parametrize(
    "options",
    [
        {"path_prefix": "sandbox"},
        {"path_prefix": "/sandbox/"},
        {"path_prefix": "/a?b"},
        {"signing": "plain"},
        {"concurrency": 0},
        {"lang": "de"},
        {"return_url": "http://example.com"},
        {"return_url": "https://"},
        {"rate_per_second": 5},
    ],
)
def test_an_option_that_cannot_be_used_is_refused(options: dict[str, Any]) -> None:
    """By its name."""
    with pytest.raises(ConfigError, match=next(iter(options))):
        options_of(options)


def test_the_bounds_themselves_are_allowed() -> None:
    """And what is written beside the options is passed over; what nobody writes stays with Jemeni."""
    for concurrency in (1, 1_000):
        assert traits({"concurrency": concurrency}).concurrency == concurrency
    with pytest.raises(ConfigError):
        options_of({"concurrency": 1_001})
    beside = {**dict.fromkeys(SECRETS, "x"), "base_url": "https://example.com", "timeout_seconds": 5.0}
    assert options_of(beside) == options_of({})
    found = options_of({})
    assert (found.path_prefix, found.signing, found.lang, found.return_url) == ("", Scheme.INTRODUCTION, "", "")
    with pytest.raises(ConfigError, match="no_such"):
        wallets({"no_such": 1})
    with pytest.raises(ConfigError) as caught:
        options_of({"lang": "de"})
    assert str(caught.value).endswith("- at `$.lang`")


@pytest.mark.parametrize("options", [{}, {"lang": "en"}, {"return_url": "https://example.com/back"}])
async def test_options_reach_the_request(options: dict[str, Any]) -> None:
    """Over HTTP: what is written is sent, and what is not is left out."""
    bodies: list[dict[str, Any]] = []

    async def hear(request: web.Request) -> web.Response:
        bodies.append(await request.json())
        return web.Response(status=503)

    app = web.Application()
    app.router.add_post("/sandbox/send/payment", hear)
    async with serving(app, "127.0.0.1", 0) as served:
        collector = JemeniCollector(account(served.base_url, **options))
        with pytest.raises(AmbiguousError):
            await collector.send(dispatch())
        await collector.aclose()
    printed = {
        "customer_phone": "78521436",
        "amount": 9_000,
        "device": "FCFA",
        "country_code": "ml",
        "notifiable": True,
    }
    assert bodies == [{**printed, **options}]


async def test_settings_reach_the_connection() -> None:
    """The time-out, this machine alone, and the provider's own address where none is written."""
    slow = Fault(FaultKind.SLOW, "payment", seconds=1.0)
    async with sandbox(faults=[slow]) as server:
        hasty = msgspec.structs.replace(account(server.base_url), timeout_seconds=0.2)
        collector = JemeniCollector(hasty)
        try:
            with pytest.raises(AmbiguousError) as caught:
                await collector.send(dispatch())
        finally:
            await collector.aclose()
    assert caught.value.reason == "timeout"
    with pytest.raises(ConfigError, match="only to this machine"):
        JemeniCollector(account(None))
    limits: list[int] = []

    def counted(headers: Mapping[str, str], limit: int) -> aiohttp.ClientSession:
        limits.append(limit)
        return connections(headers, limit)

    async with sandbox() as server:
        collector = JemeniCollector(account(server.base_url, concurrency=7), open_session=counted)
        await collector.send(dispatch())
        await collector.aclose()
    assert limits == [7 + CONNECTIONS_SPARE]
    real = JemeniCollector(msgspec.structs.replace(account(None), loopback_only=False))
    assert "jemeni.net" in repr(real)


async def test_a_fault_of_ours_while_sending_is_a_doubt() -> None:
    """Its text could show anything, so only its kind is told."""

    def broken() -> float:
        raise RuntimeError("a secret")

    async with connected() as (collector, _):
        with clock.replaced(broken), pytest.raises(AmbiguousError) as caught:
            await collector.send(dispatch())
    assert caught.value.reason == "fault_after_sending"
    assert "RuntimeError" in str(caught.value) and "secret" not in str(caught.value)


async def test_a_look_up_that_never_left_says_so() -> None:
    """Nobody listens: what was asked about stays as it is."""
    collector = JemeniCollector(account("http://127.0.0.1:9"))
    with pytest.raises(NotSentError):
        await look(collector, [query(dispatch(), "01a")])
    await collector.aclose()


def test_an_unknown_scheme_is_answered_with_the_known_ones() -> None:
    """So that nobody has to read the code."""
    with pytest.raises(ConfigError, match="introduction, endpoints, hmac"):
        options_of({"signing": "sha1"})


@pytest.mark.parametrize(
    ("prefix", "key", "said"),
    [
        ("", "pk_live_1", "path_prefix is missing"),
        ("/sandbox", "pk_live_1", "pk_live_"),
        ("/live", "pk_test_1", "pk_test_"),
        ("/sandbox", "pk_test_1", ""),
        ("/live", "pk_live_1", ""),
        ("/v2/live", "other", ""),
    ],
)
def test_tests_and_real_money_are_not_mixed(prefix: str, key: str, said: str) -> None:
    """No prefix is guessed, and a key goes with its own world only."""
    keys = Keys(key, "sk", "tk")
    if not said:
        JemeniCollector(account("http://127.0.0.1:9", keys=keys, path_prefix=prefix))
        return
    with pytest.raises(ConfigError, match=said):
        JemeniCollector(account("http://127.0.0.1:9", keys=keys, path_prefix=prefix))


async def test_an_account_for_real_money_can_be_rehearsed_as_it_is() -> None:
    """Whatever its prefix, its language and its scheme."""
    options = {"path_prefix": "/live", "lang": "fr", "return_url": "https://example.com/back", "signing": "hmac"}
    async with connected(options=options) as (collector, server):
        assert (await collector.send(dispatch()))[0].state is State.ACCEPTED
        assert server.paid() == {"key-0": (1, 9_000)}


def test_it_collects_and_does_not_pay() -> None:
    """From any mobile number of Mali, in francs, and with no balance to look at."""
    registration = get("jemeni")
    (wallet,) = wallets({})

    assert list(registration.faces) == [Direction.COLLECT]
    assert (wallet.country, wallet.currency, wallet.recipient, wallet.automatic) == ("ML", "XOF", "phone", True)
    assert (wallet.operators, wallet.amount_minor_max, wallet.fee_basis_points) == ((), None, None)
    assert (wallet.title, wallet.decimals, wallet.amount_minor_min) == ("JemeniPay", 0, 1)
    assert (traits({}).batch_limit, traits({}).concurrency, traits({}).calls_per_second) == (1, 4, None)
    assert not issubclass(JemeniCollector, HasBalances)


# ------------------------------------------------------------------------------------------------------- the sandbox


async def call(server: JemeniSandbox, headers: dict[str, str], body: bytes = b"") -> int:
    url = server.base_url + "/sandbox/send/payment"
    async with aiohttp.ClientSession() as session, session.post(url, data=body, headers=headers) as answer:
        assert (await answer.json())["status"] == ("success" if answer.status == 200 else "error")
        return answer.status


@pytest.mark.parametrize("scheme", Scheme)
async def test_a_caller_who_does_not_authenticate_is_refused(scheme: Scheme) -> None:
    """Each part of the signature counts, and so does the time."""
    body = wire.body_of(wire.PaymentRequest(customer_phone="78000000", amount=9_000))
    async with sandbox() as server:
        url = server.base_url + "/sandbox/send/payment"
        now = clock.now()

        def headers(at: float = now, keys: Keys = SANDBOX_KEYS, told: bool = True, **changes: Any) -> dict[str, str]:
            signed = Signable(**{"method": "POST", "url": url, "body": body, **changes})
            return {**signed_headers(scheme, keys, signed, at, sandbox=told), "Accept": "application/json"}

        assert await call(server, headers(), body) == 200
        assert await call(server, headers(now - 200), body) == 200
        for wrong in (
            headers(now - 301),
            headers(now + 302),
            headers(method="GET"),
            headers(url=url + "?a"),
            headers(body=b"{}"),
            headers(keys=Keys("pk_sandbox", "other", "tk_sandbox")),
            headers(keys=Keys("other", "sk_sandbox", "other")),
            {**headers(), "auth-signature": ""},
            {},
        ):
            if scheme is Scheme.HMAC and wrong == headers(url=url + "?a"):
                continue  # It does not sign the query of a POST.
            assert await call(server, wrong, body) == 401
        if scheme is Scheme.HMAC:
            assert await call(server, headers(told=False), body) == 403
            assert await call(server, {**headers(), "Accept": "text/html"}, body) == 403
        assert len(server.ledger.payments()) == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"customer_phone": "7800000"},
        {"customer_phone": "+22678000000"},
        {"customer_phone": 78000000},
        {"amount": 0},
        {"amount": "9000"},
        {"amount": True},
        {"country_code": "bf"},
        {"lang": 1},
    ],
)
async def test_what_is_no_request_is_refused(changes: dict[str, Any]) -> None:
    """As invalid, and nobody is asked."""
    request = {"customer_phone": "78000000", "amount": 9_000, "country_code": "ml", **changes}
    async with sandbox() as server:
        body = msgspec.json.encode(request)
        signed = Signable("POST", server.base_url + "/sandbox/send/payment", body)
        headers = dict(signed_headers(Scheme.INTRODUCTION, SANDBOX_KEYS, signed, clock.now(), sandbox=True))
        assert await call(server, headers, body) == (200 if changes == {"customer_phone": 78000000} else 400)
        assert len(server.ledger.payments()) == (changes == {"customer_phone": 78000000})


async def test_a_limit_is_kept_where_one_is_set() -> None:
    """Too many calls are a doubt that stops: the document names no pause."""
    async with connected(calls_per_second=2) as (collector, server):
        await ask_all(collector, [dispatch(), dispatch()])
        with pytest.raises(AmbiguousError) as caught:
            await collector.send(dispatch())
        assert (caught.value.reason, caught.value.brake) == ("http_429", Brake.LIMIT)
        assert len(server.ledger.payments()) == 2


def test_a_ledger_survives_the_death_of_its_process(tmp_path: Path) -> None:
    """What was committed before a kill is there after it."""
    path = tmp_path / "ledger.db"
    code = f"""
import os, pathlib
from payout_engine.providers.jemeni.ledger import Fate, Ledger, LedgerPayment
ledger = Ledger(pathlib.Path({str(path)!r}))
ledger.add(LedgerPayment("01a", "key", "r", "JP-1", "78000000", 500, Fate.PAID, 0.0, 0.0))
os.kill(os.getpid(), 9)
"""
    root = Path(__file__).parent.parent
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == -9

    ledger = Ledger(path)
    assert ledger.paid() == {"key": (1, 500)}
    assert ledger.totals()["payments"] == {"completed": {"count": 1, "amount": 500}}
    ledger.close()
