"""One account at Senfenico: what its options may be, where it pays to, what it refuses to send, what it asks about."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from test_senfenico_adapter import THREE, account, connected, dispatch, query, sweep

from payout_engine.domain.errors import AmbiguousError, ConfigError, NotSentError
from payout_engine.domain.model import Dispatch, Payout
from payout_engine.providers._sandbox import Fault, FaultKind
from payout_engine.providers.senfenico import wire
from payout_engine.providers.senfenico.adapter import FETCH_QUERIES_MAX, SenfenicoProvider, options_of, traits, wallets


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("batch_limit", (1, 100), (0, 101, -1)),
        ("rate_per_second", (0.1, 1, 1_000_000), (0, -1, 1_000_001, float("nan"))),
        ("concurrency", (1, 1_000), (0, 1_001)),
        (
            "extra_prefixes",
            ({}, {"orange_bf": ["44"]}),
            ({"other": ["44"]}, *({"moov_bf": [p]} for p in ("4", "444", "4a", "٤٤", ""))),
        ),
    ],
)
def test_options_have_bounds(name: str, good: tuple[Any, ...], bad: tuple[Any, ...]) -> None:
    """The bounds themselves are allowed, what lies beyond is told."""
    for value in good:
        assert getattr(options_of({name: value}), name) == value
    for value in bad:
        with pytest.raises(ConfigError):
            options_of({name: value})


def test_options_reach_the_traits_and_the_wallets() -> None:
    """What a person wrote is what is done."""
    own = traits({"batch_limit": 7, "rate_per_second": 2.5, "concurrency": 3})
    assert (own.batch_limit, own.calls_per_second, own.concurrency) == (7, 2.5, 3)
    told = wallets({"extra_prefixes": {"orange_bf": ["44"]}})
    assert [wallet.code for wallet in told] == list(wire.BALANCE_KEYS)
    assert {(wallet.country, wallet.currency, wallet.decimals, wallet.amount_minor_min) for wallet in told} == {
        ("BF", "XOF", 0, 100)
    }
    orange, moov, sank = told
    assert tuple(orange.prefixes) == (*wire.PREFIXES["orange_bf"], "44")
    assert tuple(moov.prefixes) == tuple(wire.PREFIXES["moov_bf"])
    assert (orange.automatic, moov.automatic, sank.automatic) == (True, True, False)
    assert all(wallet.source for wallet in told)


@pytest.mark.parametrize("key", ["", "two words", "é", "line\nbreak", "tab\t"])
def test_a_key_is_one_plain_word(key: str) -> None:
    """Anything else would be refused by the HTTP library in words that show it; no key at all is told as well."""
    with pytest.raises(ConfigError, match="api_key of account 'bf'"):
        SenfenicoProvider(account("http://127.0.0.1:9", api_key=key))
    nobody = msgspec.structs.replace(account("http://127.0.0.1:9"), secrets={})
    with pytest.raises(ConfigError, match="api_key of account 'bf'"):
        SenfenicoProvider(nobody)


async def test_the_smallest_and_the_largest_call_are_sent() -> None:
    """One franc, and as many as a call may hold, go out; one more provably does not. What never left has its reason."""
    async with connected(options={"batch_limit": 3}) as (provider, server):
        await provider.send(THREE)
        await provider.send(dispatch("76000001", amount=1, first=10))
        assert server.calls == {"bulk": 2}
        wrong: dict[str, list[Dispatch]] = {
            "dispatch_too_large": [dispatch(), dispatch(*["76000000"] * 4)],
            "dispatch_malformed": [
                dispatch("76000000", wallet="coris_bf"),
                dispatch("760000000"),
                dispatch("76000000", amount=0),
                Dispatch(1, 1, THREE.lane, [0], [Payout("r", 100, "XOF", "22676000000")], [""]),
            ],
        }
        for reason, dispatches in wrong.items():
            for refused in dispatches:
                with pytest.raises(NotSentError) as caught:
                    await provider.send(refused)
                assert caught.value.reason == reason
        assert server.calls == {"bulk": 2}


@pytest.mark.parametrize(
    ("count", "asked"), [(1, "fetch"), (FETCH_QUERIES_MAX, "fetch"), (FETCH_QUERIES_MAX + 1, "list")]
)
async def test_a_few_are_fetched_and_many_are_swept(count: int, asked: str) -> None:
    """Up to a number of known references each is fetched; of more the whole list is read."""
    async with connected() as (provider, server):
        await provider.send(dispatch(*[f"7600{n:02d}00" for n in range(count)]))
        assert len(await sweep(provider, [query(transfer) for transfer in server.ledger.transfers()])) == count
        assert server.calls == {"bulk": 1, asked: count if asked == "fetch" else 1}


@pytest.mark.parametrize("failing", [0, 1, 2])
async def test_a_fetch_that_failed_is_not_forgotten(failing: int) -> None:
    """The others are still asked about, and the look-up says that it was not whole."""
    async with connected() as (provider, server):
        await provider.send(THREE)
        queries = [query(transfer) for transfer in server.ledger.transfers()]
        nobody = query(server.ledger.transfers()[0], "tr_nobody")
        found: list[str] = []
        fault = Fault(FaultKind.STATUS_BEFORE, "fetch")
        server.faults.add(*([fault] if failing == 0 else []))
        with pytest.raises(AmbiguousError) as caught:
            async for batch in provider.look_up([*queries, nobody]):
                found += [seen.key for seen in batch]
                server.faults.add(*([fault] if len(found) == failing else []))
        assert caught.value.reason == "http_502"
        assert len(found) == 2


async def test_one_payout_in_the_other_mode_is_enough() -> None:
    """It is not forgotten when what is shown after it is somebody else's."""
    async with connected(live_mode=True) as (provider, server):
        await provider.send(THREE)
        first, *others = [query(transfer) for transfer in server.ledger.transfers()]
        strangers = [msgspec.structs.replace(other, key=f"other-{n}") for n, other in enumerate(others)]
        with pytest.raises(AmbiguousError) as caught:
            await sweep(provider, [first, *strangers])
        assert caught.value.reason == "other_mode"


async def test_what_a_look_up_shows_of_an_account_names_no_key() -> None:
    """The provider's own repr says which host it speaks to, and shows no secret."""
    provider = SenfenicoProvider(account("http://127.0.0.1:9"))
    assert repr(provider).startswith("SenfenicoProvider(") and "never_show" not in repr(provider)
    await provider.aclose()
