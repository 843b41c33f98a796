"""Senfenico end to end over real HTTP: every fault gives the right class of error, and money moves at most once."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import anyio.to_thread
import pytest
import requests

from payout_engine import providers
from payout_engine.domain import clock
from payout_engine.domain.clock import Moment
from payout_engine.domain.errors import AmbiguousError, Brake, ConfigError, NotSentError, RefusedError
from payout_engine.domain.model import Direction, Dispatch, Lane, LookUpResult, Payout, Query, Receipt
from payout_engine.domain.states import State
from payout_engine.ports.provider import HasBalances
from payout_engine.ports.registration import Account
from payout_engine.providers._sandbox import LATE_SETTLE_FACTOR, Fault, FaultKind
from payout_engine.providers.senfenico import wire
from payout_engine.providers.senfenico.adapter import SenfenicoProvider, wallets
from payout_engine.providers.senfenico.client import SenfenicoClient
from payout_engine.providers.senfenico.ledger import LedgerTransfer
from payout_engine.providers.senfenico.sandbox import FATES, SenfenicoSandbox, sandbox

KEY = "sk_test_never_show_this"
PLENTY = {"orange_bf": 10**9, "moov_bf": 10**9, "sank_bf": 10**9}


def account(base_url: str | None, **options: Any) -> Account:
    timeout_seconds = options.pop("timeout_seconds", 5.0)
    return Account(
        name="bf",
        secrets={"api_key": options.pop("api_key", KEY)},
        base_url=base_url,
        timeout_seconds=timeout_seconds,
        options=options,
        loopback_only=True,
    )


@asynccontextmanager
async def connected(
    *, options: dict[str, Any] | None = None, **settings: Any
) -> AsyncIterator[tuple[SenfenicoProvider, SenfenicoSandbox]]:
    """A sandbox and a provider that speaks to it."""
    settings = {"balances": PLENTY, "settle_seconds": 0.0, **settings}
    async with sandbox(**settings) as server:
        provider = SenfenicoProvider(account(server.base_url, **(options or {})))
        try:
            yield provider, server
        finally:
            await provider.aclose()


def dispatch(*phones: str, amount: int = 1_000, wallet: str = "orange_bf", first: int = 0) -> Dispatch:
    payouts = [Payout(f"r{n}", amount + n, "XOF", "226" + phone) for n, phone in enumerate(phones)]
    keys = [f"key-{first + n}" for n in range(len(phones))]
    return Dispatch(1, 1, Lane("bf", wallet, "XOF"), list(range(len(phones))), payouts, keys)


THREE = dispatch("76000000", "77000000", "65000000")


def states(receipts: Iterable[Receipt]) -> list[str]:
    return [receipt.state.value for receipt in receipts]


async def sweep(provider: SenfenicoProvider, queries: list[Query] | None = None) -> dict[str, LookUpResult]:
    return {seen.key: seen async for batch in provider.look_up(queries or []) for seen in batch}


# ---------------------------------------------------------------------------------------------------------- paying


async def test_a_dispatch_is_accepted_then_found_paid() -> None:
    """The bulk answer names no references; the list does, with amount and phone to compare."""
    async with connected() as (provider, server):
        assert states(await provider.send(THREE)) == ["accepted"] * 3
        found = await sweep(provider)

    assert {key: seen.receipt.state for key, seen in found.items()} == dict.fromkeys(THREE.keys, State.PAID)
    assert found["key-1"].amount_minor == 1_001
    assert found["key-1"].recipient == "77000000"
    assert found["key-1"].receipt.provider_reference.startswith("tr_")
    assert server.calls == {"bulk": 1, "list": 1}


async def test_a_list_is_read_back_to_a_moment_and_hardly_further() -> None:
    """Of four thousand transfers of an hour ago a thousand are read, which show that the list is newest first."""
    time = [1_800_000_000.0]
    with clock.replaced(lambda: time[0]):
        async with connected(calls_per_second=100_000) as (provider, _):
            for first in range(0, 4_000, 100):
                await provider.send(dispatch(*["76000000"] * 100, first=first))
            time[0] += 3_600.0
            await provider.send(dispatch(*["77000000"] * 5, first=4_000))
            bounded = [seen async for batch in provider.look_up_since([], time[0] - 60.0) for seen in batch]
            whole = await sweep(provider)

    assert len(whole) == 4_005
    assert {f"key-{4_000 + n}" for n in range(5)} <= {seen.key for seen in bounded}
    assert 1_005 <= len(bounded) < 4_005


async def test_every_fate_has_its_outcome() -> None:
    """The magic numbers, as the notes describe them: after the time to settle, and before that of the late one."""
    time = [1_800_000_000.0]
    with clock.replaced(lambda: time[0]):
        async with connected(settle_seconds=1.0) as (provider, _):
            sent = await provider.send(dispatch(*[f"76{ending}" for ending in FATES]))
            time[0] += LATE_SETTLE_FACTOR - 1
            found = await sweep(provider)
            time[0] += 2
            later = await sweep(provider)

    assert states(sent) == ["accepted", "accepted", "failed", "accepted", "accepted", "accepted"]
    assert {key: (seen.receipt.state.value, seen.receipt.reason) for key, seen in found.items()} == {
        "key-0": ("failed", "failed_at_provider"),
        "key-1": ("accepted", ""),
        "key-3": ("accepted", ""),
        "key-4": ("accepted", "status_not_documented"),
    }
    assert {key for key in later if later[key].receipt != found[key].receipt} == {"key-3"}
    assert later["key-3"].receipt.state is State.PAID


async def test_the_documents_own_test_numbers_succeed() -> None:
    """What a newcomer tries first works."""
    phones = {
        "orange_bf": ["76000000", "77000000", "65000000"],
        "moov_bf": ["70000000", "71000000", "72000000"],
        "sank_bf": ["72000000", "75000000", "68000000"],
    }
    async with connected() as (provider, server):
        for place, (wallet, numbers) in enumerate(phones.items()):
            await provider.send(dispatch(*numbers, wallet=wallet, first=place * 3))

        assert {transfer.verdict for transfer in server.ledger.transfers()} == {"success"}
        assert len(server.ledger.paid_by_ext_id()) == 9


async def test_a_lane_without_funds_leaves_its_payouts_ready() -> None:
    """Fees come on top: 2000 + 30 pays, the second of the same size does not."""
    async with connected(balances={"orange_bf": 3_000}) as (provider, server):
        receipts = await provider.send(dispatch("76000000", "77000000", amount=2_000))

        assert states(receipts) == ["accepted", "ready"]
        assert receipts[1].reason == "insufficient_funds"
        assert server.ledger.available()["orange_bf"] == 3_000 - 2_030


@pytest.mark.parametrize(
    "malformed",
    [
        dispatch(),
        dispatch("76000000", wallet="coris_bf"),
        dispatch("760000000"),
        dispatch("76000000", amount=0),
        Dispatch(1, 1, THREE.lane, [0], [Payout("r", 100, "KES", "22676000000")], ["k"]),
        Dispatch(1, 1, THREE.lane, [0], [Payout("r", 100, "XOF", "22576000000")], ["k"]),
        Dispatch(1, 1, THREE.lane, [0], [Payout("r", 100, "XOF", "22676000000")], [""]),
        Dispatch(1, 1, THREE.lane, [0, 1], THREE.payouts[:2], ["k", "k"]),
        Dispatch(1, 1, THREE.lane, [0, 1], THREE.payouts[:2], ["k"]),
    ],
)
async def test_what_must_never_come_this_far_never_leaves(malformed: Dispatch) -> None:
    """A fault of ours proves that nothing was sent."""
    async with connected() as (provider, server):
        with pytest.raises(NotSentError):
            await provider.send(malformed)

        assert not server.calls


# ---------------------------------------------------------------------------------------------------------- faults


async def test_there_are_as_many_connections_as_calls_at_once() -> None:
    """And a fault in making them leaves everybody in doubt, without repeating what it says."""
    opened: list[int] = []

    def faulty(headers: Mapping[str, str], limit: int) -> Any:
        opened.append(limit)
        raise KeyError("secret")

    for concurrency in (3, 7):
        provider = SenfenicoProvider(account("http://127.0.0.1:9", concurrency=concurrency), open_session=faulty)
        with pytest.raises(AmbiguousError) as caught:
            await provider.send(THREE)
        assert "secret" not in str(caught.value)
        await provider.aclose()
    assert opened[1] - opened[0] == 4


async def test_late_visibility_is_not_absence() -> None:
    """A queued transfer may be missing from the list at first."""
    time = [1_800_000_000.0]
    late = Fault(FaultKind.LATE, "bulk", seconds=60.0)
    with clock.replaced(lambda: time[0]):
        async with connected(faults=[late]) as (provider, _):
            await provider.send(THREE)

            assert await sweep(provider) == {}
            time[0] += 61.0
            assert len(await sweep(provider)) == 3
            assert provider.traits.absence_final_seconds is None


async def test_a_key_that_is_not_accepted_stops_the_account() -> None:
    """At the first answer, whatever was asked."""
    async with connected(keys=["sk_test_another"]) as (provider, server):
        with pytest.raises(RefusedError) as paying:
            await provider.send(THREE)
        with pytest.raises(RefusedError) as asking:
            await provider.balances()
        with pytest.raises(RefusedError) as listing:
            await sweep(provider)

        assert server.ledger.transfers() == []
    for caught in (paying, asking, listing):
        assert caught.value.brake is Brake.CREDENTIALS
        assert KEY not in repr(caught.value)


async def test_sending_the_same_key_twice_pays_twice() -> None:
    """Nothing documents otherwise, so the sandbox does not pretend it, and the traits do not promise it."""
    async with connected() as (provider, server):
        await provider.send(THREE)
        await provider.send(THREE)

        assert set(server.ledger.paid_by_ext_id().values()) == {2}
        assert server.summary()["ext_ids_paid_twice"] == 3


# -------------------------------------------------------------------------------------------------------- look-ups


def query(transfer: LedgerTransfer, reference: str | None = None) -> Query:
    payout = Payout("r", transfer.amount, "XOF", "226" + transfer.phone)
    shown = transfer.reference if reference is None else reference
    return Query(transfer.ext_id or "", shown, State.ACCEPTED, Moment(0.0, "", 0.0), payout)


async def test_known_references_are_fetched_one_by_one() -> None:
    """A few known transfers do not cost a sweep, and one that is not shown does not hide the others."""
    async with connected() as (provider, server):
        await provider.send(THREE)
        queries = [query(transfer) for transfer in server.ledger.transfers()]
        found = await sweep(provider, [query(server.ledger.transfers()[0], "tr_nobody"), *queries])

        assert set(found) == set(THREE.keys)
        assert server.calls == {"bulk": 1, "fetch": 4}


async def test_a_doubt_about_the_key_ends_the_fetching() -> None:
    """The next question would be answered alike, and a later failure of another kind must not hide it."""
    faults = [Fault(FaultKind.STATUS_BEFORE, "fetch", status=401), Fault(FaultKind.RESET_BEFORE, "fetch", times=9)]
    async with connected(faults=faults) as (provider, server):
        await provider.send(THREE)
        with pytest.raises(AmbiguousError) as caught:
            await sweep(provider, [query(transfer) for transfer in server.ledger.transfers()])

        assert caught.value.brake is Brake.CREDENTIALS
        assert server.calls["fetch"] == 1


async def test_one_unknown_reference_makes_it_a_sweep() -> None:
    """What has no reference can only be found in the list."""
    async with connected() as (provider, server):
        await provider.send(THREE)
        await sweep(provider, [query(server.ledger.transfers()[0]), query(server.ledger.transfers()[1], "")])

        assert server.calls == {"bulk": 1, "list": 1}


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Fault(FaultKind.STATUS_BEFORE, "list"), AmbiguousError),
        (Fault(FaultKind.RATE_LIMITED, "list"), RefusedError),
        (Fault(FaultKind.TRUNCATED, "list"), AmbiguousError),
        (Fault(FaultKind.SLOW, "list", seconds=2.0), AmbiguousError),
    ],
    ids=lambda value: str(getattr(value, "kind", "")),
)
async def test_a_list_that_fails_says_so(fault: Fault, kind: type[Exception]) -> None:
    """A sweep that did not come to its end is never an answer."""
    async with connected(faults=[fault], options={"timeout_seconds": 0.3}) as (provider, _):
        await provider.send(THREE)
        with pytest.raises(kind):
            await sweep(provider)


@pytest.mark.parametrize(("api_key", "shown"), [("sk_live_a", False), ("sk_test_a", True)])
@pytest.mark.parametrize("few", [False, True], ids=["swept", "fetched"])
async def test_a_payout_shown_in_the_other_mode_is_a_contradiction_and_stops(
    api_key: str, shown: bool, few: bool
) -> None:
    """A live key whose transfers are tests pays nobody; a test key whose transfers are live pays in earnest."""
    options = {"api_key": api_key}
    async with connected(keys=[api_key], live_mode=shown, options=options) as (provider, server):
        await provider.send(THREE)
        queries = [query(transfer, None if few else "") for transfer in server.ledger.transfers()]
        found: list[LookUpResult] = []
        with pytest.raises(AmbiguousError, match="live_mode") as caught:
            async for batch in provider.look_up(queries):
                found += batch

        assert caught.value.brake is Brake.CREDENTIALS
        assert ("fetch" in server.calls) is few
    assert {seen.key for seen in found if seen.conflict} == set(THREE.keys)


async def test_other_peoples_transfers_in_the_other_mode_stop_nobody() -> None:
    """Whether a live list shows the tests that were made before going live, nobody documents."""
    async with connected(live_mode=True) as (provider, _):
        await provider.send(THREE)

        assert all(seen.conflict for seen in (await sweep(provider)).values())
    async with connected(keys=["sk_live_a"], options={"api_key": "sk_live_a"}) as (provider, server):
        await provider.send(THREE)

        assert not any(
            seen.conflict for seen in (await sweep(provider, [query(server.ledger.transfers()[0])])).values()
        )


async def test_a_reset_before_a_get_is_harmless() -> None:
    """Asking again moves no money, whoever does it."""
    async with connected(faults=[Fault(FaultKind.RESET_BEFORE, "fetch")]) as (provider, server):
        await provider.send(THREE)
        found: dict[str, LookUpResult] = {}
        with suppress(AmbiguousError):
            found = await sweep(provider, [query(transfer) for transfer in server.ledger.transfers()])

        assert set(found) <= set(THREE.keys)
        assert set(server.ledger.paid_by_ext_id().values()) == {1}


async def test_balances_are_by_lane() -> None:
    """The provider's keys become our lane names, in whole francs."""
    async with connected(balances={"orange_bf": 5_000, "moov_bf": 0, "sank_bf": 7}, settle_seconds=60) as (provider, _):
        assert isinstance(provider, HasBalances)
        await provider.send(dispatch("76000000", amount=1_000))
        shown = {balance.lane_name: balance for balance in await provider.balances()}

    assert (shown["orange_bf"].available_minor, shown["orange_bf"].pending_minor) == (3_985, 1_015)
    assert (shown["moov_bf"].available_minor, shown["sank_bf"].available_minor) == (0, 7)
    assert shown["orange_bf"].currency == "XOF"


# ----------------------------------------------------------------------------------------------- settings, secrets


def test_options_override_what_the_document_says() -> None:
    """A contract may say other figures."""
    provider = SenfenicoProvider(account("http://127.0.0.1:1", batch_limit=10, rate_per_second=2, concurrency=3))

    assert (provider.traits.batch_limit, provider.traits.calls_per_second, provider.traits.concurrency) == (10, 2, 3)


@pytest.mark.parametrize(
    "options",
    [
        {"batch_limit": 0},
        {"batch_limit": 101},
        {"batch_limit": "many"},
        {"rate_per_second": 0},
        {"concurrency": 0},
        {"fee_percent": "a lot"},
        {"rate_per_secnod": 5},
        {"extra_prefixes": {"orange_bf": "44"}},
        {"extra_prefixes": {"orange_bf": ["440"]}},
        {"extra_prefixes": {"sank_bf": ["44"]}},
        {"extra_prefixes": ["44"]},
    ],
)
def test_an_option_that_cannot_be_used_is_refused(options: dict[str, Any]) -> None:
    """Before anything is planned, with a word about which."""
    with pytest.raises(ConfigError, match=next(iter(options))):
        wallets(options)


@pytest.mark.parametrize("api_key", ["", "sk_test_a\r\nX-Evil: 1", "sk test", "clé"])
def test_a_key_that_is_no_key_is_refused_without_showing_it(api_key: str) -> None:
    """Headers cannot be forged by a pasted line break."""
    with pytest.raises(ConfigError) as caught:
        SenfenicoProvider(account("http://127.0.0.1:1", api_key=api_key))

    assert not api_key or api_key not in str(caught.value)


def test_a_sandbox_run_cannot_reach_the_provider() -> None:
    """Without an address of its own it would be the real one, and is refused."""
    with pytest.raises(ConfigError):
        SenfenicoProvider(account(None))


def test_wallets_are_the_documents() -> None:
    """Prefixes as printed, the fee as configured, Sank only when named."""
    orange, moov, sank = wallets({"fee_percent": 2, "api_key": {"env": "X"}, "base_url": "x", "timeout_seconds": 3})

    assert " ".join(orange.prefixes) == "04 05 06 07 54 55 56 57 64 65 66 67 74 75 76 77"
    assert " ".join(moov.prefixes) == "01 02 03 50 51 52 53 60 61 62 63 70 71 72 73"
    assert (orange.operators, moov.operators, sank.operators) == (("Orange",), ("Moov Africa",), ())
    assert (orange.automatic, moov.automatic, sank.automatic) == (True, True, False)
    assert (orange.fee_minor(101), orange.amount_minor_min, orange.decimals) == (3, 100, 0)


async def test_numbers_that_the_document_does_not_print_are_paid_when_both_sides_say_so() -> None:
    """The sandbox is as strict as the document unless it is told otherwise, item by item."""
    prefixes = {"orange_bf": ["44", "46"]}
    assert wallets({"extra_prefixes": prefixes})[0].prefixes[-2:] == ("44", "46")
    async with connected() as (provider, _):
        assert states(await provider.send(dispatch("44000000", "76000000"))) == ["failed", "accepted"]
        assert states(await provider.send(dispatch("44000000", wallet="sank_bf", first=2))) == ["accepted"]
    async with connected(extra_prefixes=prefixes) as (provider, _):
        assert states(await provider.send(dispatch("44000000", "45000000"))) == ["accepted", "failed"]


def test_the_registration_is_discovered() -> None:
    """By its folder, not by a list."""
    registration = providers.get("senfenico")

    assert registration.name in providers.discover()
    assert registration.face(Direction.PAY).traits({}).batch_limit == 100
    with pytest.raises(ConfigError, match="senfenico"):
        providers.get("nobody")


# ------------------------------------------------------------------------------------------- independent programs


async def test_our_own_client_speaks_every_documented_call() -> None:
    """Single creation and fetch, which the adapter seldom or never needs, work as documented."""
    async with sandbox() as server:
        client = SenfenicoClient(KEY, base_url=server.base_url, loopback_only=True)
        try:
            order = wire.Order(100, "63000000", "sank_bf", "mine")
            made = await client.create(order)
            fetched = await client.fetch(made.reference)
            with pytest.raises(RefusedError) as caught:
                await client.create(wire.Order(99_999, "63000000", "sank_bf", "too much"))
        finally:
            await client.aclose()

    assert fetched.ext_id == "mine"
    assert caught.value.brake is Brake.FUNDS


async def test_the_official_client_is_satisfied(monkeypatch: pytest.MonkeyPatch) -> None:
    """senfenico 0.3.0 from PyPI builds its objects from exact keys; redirected to the sandbox, it can."""
    import senfenico

    async with sandbox(settle_seconds=0.0) as server:
        send = requests.Session.send

        def redirected(self: Any, request: Any, **kwargs: Any) -> Any:
            request.url = request.url.replace("https://api.senfenico.com", server.base_url)
            return send(self, request, **kwargs)

        monkeypatch.setattr(requests.Session, "send", redirected)
        monkeypatch.setattr(senfenico, "api_key", "sk_test_official")

        def speak() -> tuple[Any, ...]:
            made = senfenico.Transfer.create(100, "63000000", "sank_bf", ext_id="one")
            bulk = senfenico.Transfer.bulk_create(
                [
                    {"amount": 100, "recipient_phone": "65000000", "recipient_wallet": "orange_bf"},
                    {"amount": 99, "recipient_phone": "63000000", "ext_id": "too little"},
                    {"amount": 100, "recipient_phone": "58000000", "ext_id": "telecel"},
                ]
            )
            listed = senfenico.Transfer.list()
            fetched = senfenico.Transfer.fetch(made.data.reference)
            missing = senfenico.Transfer.fetch("tr_nobody")
            senfenico.api_key = "sk_live_no"
            return made, bulk, listed, fetched, missing, senfenico.Transfer.list(), senfenico.Balance.fetch()

        made, bulk, listed, fetched, missing, keyless, _ = await anyio.to_thread.run_sync(speak)

    assert (made.message, made.data.status, made.data.fees) == ("Transfer has been queued", "success", 1.5)
    assert bulk.message == "1 transfers queued for processing"
    assert [item.data.ext_id for item in bulk.failed_transfers] == ["too little", "telecel"]
    assert set(bulk.failed_transfers[0].errors) == {"amount"}
    assert set(bulk.failed_transfers[1].errors) == {"recipient_wallet"}
    assert [transfer.recipient_wallet for transfer in listed.data] == ["orange_bf", "sank_bf"]
    assert (fetched.data.ext_id, fetched.data.fees) == ("one", "1.50")
    assert missing.error_code == "TRANSACTION_NOT_FOUND"
    assert (keyless.status, keyless.message) == (False, "Invalid API key")


async def test_a_restarted_sandbox_goes_on_where_it_ended(tmp_path: Path) -> None:
    """The ledger file holds transfers, settling times and balances."""
    path = tmp_path / "senfenico.db"
    async with connected(ledger=path, settle_seconds=0.2) as (provider, server):
        await provider.send(THREE)
        left = server.ledger.available()
    started = time.monotonic()
    async with connected(ledger=path, balances={"orange_bf": 1}) as (provider, server):
        assert server.ledger.available() == left
        await anyio.sleep(max(0.0, 0.25 - (time.monotonic() - started)))
        found = await sweep(provider)

    assert {seen.receipt.state for seen in found.values()} == {State.PAID}
    assert len(found) == 3
