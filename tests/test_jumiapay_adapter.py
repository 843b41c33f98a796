"""JumiaPay end to end over real HTTP: what is sent, what each answer makes of it, and that money moves at most once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from payout_engine import providers
from payout_engine.app.accounts import key_of
from payout_engine.domain import clock
from payout_engine.domain.errors import AmbiguousError, Brake, ConfigError, NotSentError, ProviderError, RefusedError
from payout_engine.domain.model import Dispatch, Lane, LookUpResult, Payout, Query, Receipt
from payout_engine.domain.states import State
from payout_engine.intake.route import amounts_of
from payout_engine.ports.provider import KeyPromise, LookUpKind
from payout_engine.ports.registration import Account
from payout_engine.providers._sandbox import Fault, FaultKind
from payout_engine.providers.jumiapay.adapter import JumiaPayProvider, traits, wallets
from payout_engine.providers.jumiapay.sandbox import JumiaPaySandbox, sandbox
from payout_engine.providers.jumiapay.wire import MARKETS
from payout_engine.testing.provider_relay import Relay, http, relaying

REGISTRATION = providers.get("jumiapay")
OPTIONS = REGISTRATION.sandbox_options


def account(base_url: str | None, **options: Any) -> Account:
    return Account(
        name="vouchers",
        secrets=REGISTRATION.sandbox_secrets,
        base_url=base_url,
        timeout_seconds=5.0,
        options={**OPTIONS, **options},
        loopback_only=True,
    )


@asynccontextmanager
async def connected(
    settings: dict[str, Any] | None = None, **options: Any
) -> AsyncIterator[tuple[JumiaPayProvider, JumiaPaySandbox, Relay]]:
    """A provider that speaks to a sandbox through a relay."""
    async with sandbox(**{"settle_seconds": 0.0, **(settings or {})}) as server, relaying(server) as relay:
        provider = JumiaPayProvider(account(relay.base_url, **options))
        try:
            yield provider, server, relay
        finally:
            await provider.aclose()


def dispatch(email: str = "awa@example.com", amount: int = 10_099, key: str = "key-1-0", **changes: Any) -> Dispatch:
    payout = Payout("SAL-1", amount, **{"currency": "NGN", "email": email, "country": "NG", **changes})
    code = f"jumiapay_{MARKETS[payout.currency].country.lower()}"
    return Dispatch(1, 1, Lane("vouchers", code, payout.currency), [0], [payout], [key])


def queries(*sent: Dispatch) -> list[Query]:
    return [Query(one.keys[0], "", State.UNKNOWN, clock.moment(), one.payouts[0]) for one in sent]


async def look_up(provider: JumiaPayProvider, *sent: Dispatch) -> dict[str, LookUpResult]:
    return {seen.key: seen async for page in provider.look_up(queries(*sent)) for seen in page}


async def error_of(provider: JumiaPayProvider, sent: Dispatch) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await provider.send(sent)
    return caught.value


# ------------------------------------------------------------------------------------------------------------ sending


async def test_a_credit_is_accepted_then_found_paid() -> None:
    """By our key; 201 never pays by itself, since the balance is looked at later."""
    async with connected() as (provider, server, _):
        sent = dispatch()
        (receipt,) = await provider.send(sent)
        seen = (await look_up(provider, sent))["key-1-0"]
        (stored,) = server.ledger.credits()
    assert receipt == Receipt(State.ACCEPTED, provider_reference=stored.uuid)
    assert (seen.receipt.state, seen.amount_minor, seen.recipient) == (State.PAID, 10_099, "awa@example.com")
    assert (stored.name, stored.description, stored.partner_credit_id) == ("JumiaPay credit", "SAL-1", "key-1-0")
    assert server.calls == {"create": 1, "find": 1}


async def test_what_the_account_says_goes_with_every_credit() -> None:
    """Name, description, expiry and callback, within the printed limits."""
    written: dict[str, Any] = {
        "credit_name": "x" * 50,
        "description": "y" * 255,
        "expiration_date": "2100-03-27T23:59:59Z",
        "callback_url": "https://example.com/callback?a=b",
    }
    async with connected(**written) as (provider, server, _):
        await provider.send(dispatch())
        (stored,) = server.ledger.credits()
    assert (stored.name, stored.description) == ("x" * 50, "y" * 255)
    assert (stored.expiration_date, stored.callback_url) == tuple(list(written.values())[2:])


async def test_a_long_reference_is_cut_and_the_credit_given() -> None:
    """The description is for the business; our key says which payout it is."""
    async with connected() as (provider, server, _):
        long = msgspec.structs.replace(dispatch().payouts[0], reference="r" * 300)
        await provider.send(msgspec.structs.replace(dispatch(), payouts=[long]))
        assert server.ledger.credits()[0].description == "r" * 255


@pytest.mark.parametrize(("currency", "minor"), [("XOF", 1_000), ("TND", 12_340), ("UGX", 7), ("KES", 1)])
async def test_amounts_arrive_to_the_minor_unit(currency: str, minor: int) -> None:
    """With the decimals that are printed for the currency, three of ours among them."""
    async with connected(currency=currency) as (provider, server, relay):
        sent = dispatch(amount=minor, currency=currency)
        await provider.send(sent)
        assert server.paid() == {"key-1-0": (1, minor)}
        assert (await look_up(provider, sent))["key-1-0"].amount_minor == minor
        assert not any(heard.status >= 400 for heard in relay.heard)


def test_an_amount_that_two_decimals_cannot_say_is_no_amount_of_the_wallet() -> None:
    """TND has three decimals for us and two for JumiaPay: a line with millimes is refused before it is sent."""
    (wallet,) = wallets({**OPTIONS, "currency": "TND"})
    assert 12_340 in amounts_of(wallet) and 12_345 not in amounts_of(wallet)


@pytest.mark.parametrize(
    "wrong",
    [
        dispatch(currency="TND", amount=12_345),
        dispatch(currency="KES"),
        dispatch(email="nobody"),
        dispatch(phone="2348012345678"),
        dispatch(key="key/1"),
        dispatch(key="k" * 65),
    ],
    ids=["decimals", "currency", "address", "a_phone_is_paid", "key", "long_key"],
)
async def test_what_cannot_be_said_never_leaves(wrong: Dispatch) -> None:
    """Proved to be not sent, by what the sandbox heard."""
    currency = "TND" if wrong.payouts[0].currency == "TND" else "NGN"
    async with connected(currency=currency) as (provider, server, _):
        assert isinstance(await error_of(provider, wrong), NotSentError)
        assert not server.calls


async def test_an_expiry_that_is_over_stops_the_account_before_anything_is_sent() -> None:
    """It is refused by JumiaPay; but who only follows is not kept from it."""
    time = [1_800_000_000.0]
    with clock.replaced(lambda: time[0]):
        async with connected(expiration_date="2027-03-27T23:59:59Z") as (provider, server, _):
            sent = dispatch()
            await provider.send(sent)
            time[0] += 365 * 86_400.0
            error = await error_of(provider, dispatch(key="key-1-1"))
            assert isinstance(error, NotSentError) and error.brake is Brake.LIMIT
            assert (await look_up(provider, sent))["key-1-0"].receipt.state is State.REVERSED
            assert server.calls["create"] == 1


# ------------------------------------------------------------------------------------------------------- in doubt


@pytest.mark.parametrize("status", [200, 400, 403, 404, 409, 422, 429, 500, 503])
@pytest.mark.parametrize("body", [b"", b'{"message":"partner_credit_id must be unique"}'], ids=["empty", "words"])
async def test_every_undocumented_or_doubtful_answer_is_a_doubt(status: int, body: bytes) -> None:
    """Money moved, and the answer says anything but 201 and 401: the payout is looked for and not sent again."""
    async with connected() as (provider, server, relay):
        relay.answer(lambda _: http(status, body), "create")
        error = await error_of(provider, dispatch())
        assert isinstance(error, AmbiguousError) and error.brake is None
        assert server.paid() == {"key-1-0": (1, 10_099)}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("partner_credit_id", "another"),
        ("partner_credit_id", None),
        ("customer_email", "other@example.com"),
        ("amount", {"value": 100.98, "currency": "NGN"}),
        ("amount", {"value": 100.99, "currency": "KES"}),
        ("status", {"id": None}),
        ("uuid", None),
    ],
)
async def test_201_with_another_credit_is_a_doubt(field: str, value: Any) -> None:
    """Accepted is only what repeats our key, amount, currency and address."""
    async with connected() as (provider, _, relay):

        def changed(heard: Any) -> bytes:
            return http(201, msgspec.json.encode(msgspec.json.decode(heard.body) | {field: value}))

        relay.answer(changed, "create")
        assert isinstance(await error_of(provider, dispatch()), AmbiguousError)


@pytest.mark.parametrize("word", ["delivered", "failed", "cancelled", "in_review"])
async def test_201_accepts_whatever_status_it_shows(word: str) -> None:
    """Only a look-up pays or fails."""
    async with connected() as (provider, _, relay):
        relay.answer(lambda heard: http(201, heard.body.replace(b"processing_delivery", word.encode())), "create")
        (receipt,) = await provider.send(dispatch())
        assert receipt.state is State.ACCEPTED


async def test_wrong_credentials_refuse_and_stop() -> None:
    """By the printed status; nothing was made, so the payout waits as it is."""
    async with connected({"keys": ["jumiapay_test_other"]}) as (provider, server, _):
        error = await error_of(provider, dispatch())
        assert isinstance(error, RefusedError) and error.brake is Brake.CREDENTIALS and not error.final
        assert not server.ledger.credits()


async def test_a_second_call_under_one_key_pays_once_and_says_nothing() -> None:
    """400 may be our own first call, so it is a doubt; the look-up then shows what became of it."""
    async with connected(duplicates_refused=True) as (provider, server, _):
        assert provider.traits.key_promise is KeyPromise.IDEMPOTENT
        sent = dispatch()
        await provider.send(sent)
        assert isinstance(await error_of(provider, sent), AmbiguousError)
        assert server.paid() == {"key-1-0": (1, 10_099)}
        assert (await look_up(provider, sent))["key-1-0"].receipt.state is State.PAID


# ---------------------------------------------------------------------------------------------------------- looking up


async def test_every_fate_is_told() -> None:
    """The endings of the notes: what each becomes, and what is not shown is not there."""
    async with connected() as (provider, server, _):
        sent = {ending: dispatch(f"awa{ending}@example.com", key=f"key-1-{n}") for n, ending in enumerate(server.fates)}
        for one in sent.values():
            try:
                await provider.send(one)
            except AmbiguousError as error:
                assert error.reason == "http_400" and ".refused@" in one.payouts[0].email
        found = await look_up(provider, *sent.values())
        server.ledger.expire(sent[".kept"].keys[0])
        later = await look_up(provider, *sent.values())
    told = {
        ending: (found[one.keys[0]].receipt.state.value, found[one.keys[0]].receipt.reason)
        for ending, one in sent.items()
        if one.keys[0] in found
    }
    assert told == {
        ".fails": ("failed", "failed_at_provider"),
        ".stays": ("accepted", ""),
        ".late": ("paid", ""),
        ".odd": ("accepted", "status_not_documented"),
        ".returned": ("reversed", "expired"),
        ".partly": ("paid", "partly_returned"),
        ".kept": ("paid", ""),
    }
    assert later[sent[".kept"].keys[0]].receipt.reason == "expiration_failed"


async def test_404_is_no_absence() -> None:
    """Not shown, and no error either; the others are."""
    async with connected(concurrency=2) as (provider, _, relay):
        shown, hidden = dispatch(), dispatch("awa.hidden@example.com", key="key-1-1")
        await provider.send(shown)
        await provider.send(hidden)
        assert (await look_up(provider, hidden, shown)).keys() == {"key-1-0"}
        assert [heard.status for heard in relay.heard if heard.endpoint == "find"] in ([404, 200], [200, 404])
    assert TRAITS_OF_DOCUMENT.absence_final_seconds is None


async def test_one_that_cannot_be_asked_does_not_keep_the_others_from_it() -> None:
    """Every payout is asked about, and the failure is told at the end."""
    async with connected({"faults": [Fault(FaultKind.STATUS_BEFORE, "find")]}, concurrency=2) as (provider, server, _):
        sent = [dispatch(key=f"key-1-{n}") for n in range(5)]
        for one in sent:
            await provider.send(one)
        found: dict[str, LookUpResult] = {}
        with pytest.raises(AmbiguousError, match="HTTP 502"):
            async for page in provider.look_up(queries(*sent)):
                found |= {seen.key: seen for seen in page}
        assert len(found) == 4 and server.calls["find"] == 5


async def test_a_look_up_ends_when_nobody_answers() -> None:
    """A provider that is away is not asked a thousand times."""
    down = [Fault(FaultKind.STATUS_BEFORE, "find", times=100)]
    async with connected({"faults": down}, concurrency=2) as (provider, server, _):
        with pytest.raises(AmbiguousError, match="HTTP 502"):
            await look_up(provider, *(dispatch(key=f"key-1-{n}") for n in range(50)))
        assert server.calls["find"] == 2


async def test_wrong_credentials_end_a_look_up() -> None:
    """The others would be answered alike."""
    async with connected({"keys": ["jumiapay_test_other"]}, concurrency=2) as (provider, server, _):
        with pytest.raises(RefusedError) as caught:
            await look_up(provider, *(dispatch(key=f"key-1-{n}") for n in range(50)))
        assert caught.value.brake is Brake.CREDENTIALS and server.calls["find"] == 2


async def test_an_answer_about_another_key_is_none() -> None:
    """What is shown under a key that we did not ask for decides nothing."""
    async with connected() as (provider, _, relay):
        sent = dispatch()
        await provider.send(sent)
        relay.answer(lambda heard: http(200, heard.body.replace(b"key-1-0", b"key-1-9")), "find")
        with pytest.raises(AmbiguousError, match="another credit"):
            await look_up(provider, sent)


# -------------------------------------------------------------------------------------------------------- the settings


TRAITS_OF_DOCUMENT = traits({})


def test_the_document_promises_little() -> None:
    """No rate, no batch, no key that pays once, no proof of absence, no tariff."""
    assert (TRAITS_OF_DOCUMENT.batch_limit, TRAITS_OF_DOCUMENT.calls_per_second) == (1, None)
    assert (TRAITS_OF_DOCUMENT.key_promise, TRAITS_OF_DOCUMENT.look_up) == (KeyPromise.NONE, LookUpKind.EACH)
    (wallet,) = wallets(OPTIONS)
    assert (wallet.recipient, wallet.needs, wallet.fee_basis_points) == ("email", (), None)


@pytest.mark.parametrize("currency", MARKETS)
def test_the_currency_says_country_and_decimals(currency: str) -> None:
    """Nine currencies, one wallet each."""
    (wallet,) = wallets({**OPTIONS, "currency": currency})
    assert (wallet.currency, wallet.country, wallet.decimals) == (currency, *msgspec.structs.astuple(MARKETS[currency]))


def test_what_the_owner_says_of_repeated_keys_is_believed_for_an_hour() -> None:
    """Or for as long as the owner says; for no time at all it is not believed."""
    assert traits({"duplicates_refused": True}).key_lifetime_seconds == 3_600.0
    assert traits({"duplicates_refused": True, "key_lifetime_seconds": 60}).key_lifetime_seconds == 60.0
    assert traits({"duplicates_refused": True, "key_lifetime_seconds": 0}).key_promise is KeyPromise.NONE
    assert traits({"key_lifetime_seconds": 60}).key_promise is KeyPromise.NONE


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("currency", "USD"),
        ("currency", ""),
        ("business_area", ""),
        ("business_area", "two words"),
        ("credit_account", ""),
        ("credit_name", ""),
        ("credit_name", "x" * 51),
        ("description", "x" * 256),
        ("expiration_date", "2027-03-27"),
        ("callback_url", "http://example.com"),
        ("callback_url", "https://"),
        ("callback_url", "http://10.0.0.1/"),
        ("concurrency", 0),
        ("key_lifetime_seconds", -1),
        ("duplicates_refused", "yes"),
    ],
)
def test_an_option_that_cannot_be_used_is_refused_by_its_name(option: str, value: Any) -> None:
    """Before anything is sent."""
    with pytest.raises(ConfigError, match=option):
        JumiaPayProvider(account("http://127.0.0.1:1", **{option: value}))


def test_two_credit_accounts_under_one_key_are_two_accounts() -> None:
    """What is counted by account at the provider is counted by business area and Credit account."""
    first = account("https://api-pay.jumia.ci/b2ccredits")
    marks = {
        key_of(REGISTRATION, msgspec.structs.replace(first, options={**OPTIONS, **changes}))
        for changes in ({}, {"business_area": "other"}, {"credit_account": "other"}, {"credit_name": "other"})
    }
    assert len(marks) == 3
