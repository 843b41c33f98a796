"""The adapter and client of Unipesa over real HTTP, against its strict sandbox."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import anyio
import msgspec
import pytest
from aiohttp import web

from payout_engine.domain import clock
from payout_engine.domain.countries import COUNTRIES
from payout_engine.domain.errors import AmbiguousError, Brake, ConfigError, ForgedError, NotSentError, ProviderError
from payout_engine.domain.model import Direction, Dispatch, Lane, LookUpResult, Payout, Query
from payout_engine.domain.states import State
from payout_engine.ports.callbacks import Callback, Heard, HearsCallbacks
from payout_engine.ports.provider import KeyPromise
from payout_engine.ports.registration import Account
from payout_engine.providers._sandbox import Fault, FaultKind, serving
from payout_engine.providers.unipesa import REGISTRATION, UnipesaClient, verify_callback, wire
from payout_engine.providers.unipesa.adapter import UnipesaProvider
from payout_engine.providers.unipesa.ledger import LedgerOrder
from payout_engine.providers.unipesa.sandbox import MERCHANT_ID, PUBLIC_ID, SECRET_KEY, UnipesaSandbox, sandbox
from payout_engine.providers.unipesa.signature import sign
from payout_engine.providers.unipesa.tables import FACES, IDS, OPERATORS, place

OPTIONS: Mapping[str, Any] = {
    **REGISTRATION.sandbox_options,
    "extra_currencies": ["GHS", "SLE", "XAF", "ZAR"],
    "return_url": "https://example.com/back",
    "callback_url": "https://example.com/hears",
}

# A national mobile number of each country, not one of the sandbox's special endings.
NATIONAL = {code: country.example for code, country in COUNTRIES.items()}


def account(base_url: str | None, **options: Any) -> Account:
    return Account(
        name="test",
        secrets=REGISTRATION.sandbox_secrets,
        base_url=base_url,
        timeout_seconds=10,
        options={**OPTIONS, **options},
        loopback_only=True,
    )


@asynccontextmanager
async def connected(
    direction: Direction = Direction.PAY, *, options: Mapping[str, Any] = {}, **served: Any
) -> AsyncIterator[tuple[UnipesaProvider, UnipesaSandbox]]:
    """A provider and its sandbox, which settles at once unless told."""
    async with sandbox(None, **{"settle_seconds": 0.0, **served}) as server:
        provider = UnipesaProvider(account(server.base_url, **options), direction=direction)
        try:
            yield provider, server
        finally:
            await provider.aclose()


@asynccontextmanager
async def client_of(server: UnipesaSandbox, secret: str = SECRET_KEY) -> AsyncIterator[UnipesaClient]:
    client = UnipesaClient(PUBLIC_ID, MERCHANT_ID, secret, base_url=server.base_url, loopback_only=True)
    try:
        yield client
    finally:
        await client.aclose()


def order(**changes: Any) -> wire.Order:
    """An order that the sandbox takes, with changes."""
    facts = {
        "order_id": "run-1-0",
        "customer_id": "229" + NATIONAL["BJ"],
        "amount": "1500.00",
        "currency": "XOF",
        "provider_id": 9210,
        "country": "BJ",
    }
    return wire.Order(**{**facts, **changes})


def dispatch(wallet: str, currency: str, key: str = "run-1-0", **payout: Any) -> Dispatch:
    """One payout of a wallet, told all that any of them wants."""
    code = wallet.split("_")[1].upper()
    facts = {
        "phone": COUNTRIES[code].dial_code + NATIONAL[code],
        "account_number": "0123456789",
        "name": "Awa Traoré",
        "email": "awa@example.com",
        "bank": "000001",
        "otp": "5647",
        "document_type": "CNI",
        "document_number": "A1234567",
    }
    made = Payout("SAL-1", payout.pop("amount_minor", 1_000_000), currency, **{**facts, **payout})
    return Dispatch(1, 1, Lane("test", wallet, currency), [0], [made], [key])


def query(sent: Dispatch) -> Query:
    return Query(sent.keys[0], "", State.UNKNOWN, clock.moment(), sent.payouts[0])


async def looked_up(provider: UnipesaProvider, *sent: Dispatch) -> list[LookUpResult]:
    return [one async for page in provider.look_up([query(each) for each in sent]) for one in page]


def ordered(server: UnipesaSandbox, key: str = "run-1-0") -> LedgerOrder:
    found = server.ledger.find(key)
    assert found is not None
    return found


# ------------------------------------------------------------------------------------------------- the three calls


async def test_payment_b2c() -> None:
    """Answered with the order in progress, and once more in the same words for the same order id."""
    async with sandbox(settle_seconds=0.0) as server, client_of(server) as client:
        first = await client.payment_b2c(order())
        again = await client.payment_b2c(order())

        assert first == again and server.paid() == {"run-1-0": (1, 1_500)}
        assert (first.order_id, first.word, first.code) == ("run-1-0", "1", "0")
        assert first.transaction_id and not first.waits_for_confirmation


async def test_payment_c2b() -> None:
    """The same towards the merchant; its answer has no confirmation to wait for."""
    async with sandbox(settle_seconds=0.0) as server, client_of(server) as client:
        answer = await client.payment_c2b(order())

        assert (answer.word, answer.code, answer.confirm_type) == ("1", "0", None)
        assert ordered(server).call == "payment_c2b"


async def test_status() -> None:
    """How an order stands, with a one-time password or without; of one that nobody knows, nothing."""
    async with sandbox(settle_seconds=0.0) as server, client_of(server) as client:
        await client.payment_c2b(order())
        found = await client.status("run-1-0")
        with_otp = await client.status("run-1-0", customer_id=order().customer_id, otp="7374")
        unknown = await client.status("run-1-1")

        assert found.word == with_otp.word == "2" and found.transaction_ref
        assert unknown.word == "-1" and unknown.code != "0"


# ------------------------------------------------------------------------------------------------ every provider id


@pytest.mark.parametrize("direction", Direction)
async def test_every_id_is_spoken_to_as_the_document_wants(direction: Direction) -> None:
    """In both directions the strict sandbox takes what is sent: currency, limits, fields, form of the customer."""
    face = FACES[direction]
    ids = [(id, name) for id, name in IDS.items() if face in OPERATORS[name][1].faces]
    async with sandbox(settle_seconds=0.0) as server:
        for id, name in ids:
            of = place(name, id, face)
            provider = UnipesaProvider(account(server.base_url, provider_ids={name: id}), direction=direction)
            wallet = next(
                one
                for one in REGISTRATION.face(direction).wallets({**OPTIONS, "provider_ids": {name: id}})
                if one.code == of.code
            )
            amount = wallet.amount_minor_min + 10 * wallet.multiple_of_minor
            sent = dispatch(of.code, of.currency, f"run-{id}", amount_minor=amount)
            (receipt,) = await provider.send(sent)
            found = await looked_up(provider, sent)
            await provider.aclose()

            assert receipt.state is State.ACCEPTED, (id, receipt)
            (seen,) = found
            assert seen.receipt.state is State.PAID and seen.receipt.provider_reference == receipt.provider_reference
            assert ordered(server, f"run-{id}").provider_id == id
        amounts = server.paid()
        assert len(amounts) == len(ids) and {count for count, _ in amounts.values()} == {1}


@pytest.mark.parametrize(
    ("wallet", "currency", "customer"),
    [
        ("orange_cd_2197", "CDF", "0{national}"),
        ("africell_cd_2199", "CDF", "0{national}"),
        ("airtel_cd_2198", "CDF", "{national}"),
        ("vodacom_cd_2196", "CDF", "243{national}"),
        ("orange_eg_2314", "EGP", "20{national}"),
        ("orange_sl_2361", "SLE", "232{national}"),
        ("mtn_rw_2352", "RWF", "250{national}"),
        ("bank_tz_2405", "TZS", "0123456789"),
    ],
)
async def test_customers_are_written_as_their_id_wants(wallet: str, currency: str, customer: str) -> None:
    """DR Congo has three forms; Egypt, Sierra Leone and Togo get real numbers instead of the printed ones."""
    national = NATIONAL[wallet.split("_")[1].upper()]
    async with connected() as (provider, server):
        await provider.send(dispatch(wallet, currency))
        assert ordered(server).customer_id == customer.format(national=national)


async def test_what_rides_along_is_what_the_id_wants_and_no_more() -> None:
    """Names and addresses of people go nowhere without being asked for; bodies are texts."""
    heard: list[dict[str, Any]] = []

    async def hear(request: web.Request) -> web.Response:
        heard.append(msgspec.json.decode(await request.read()))
        return web.json_response({})

    app = web.Application()
    app.router.add_post("/{public_id}/{call}", hear)
    async with serving(app, "127.0.0.1", 0) as served:

        async def extra(direction: Direction, wallet: str, currency: str, **options: Any) -> Any:
            provider = UnipesaProvider(account(served.base_url, **options), direction=direction)
            await provider.send(dispatch(wallet, currency))
            await provider.aclose()
            return heard[-1].get("extra")

        bank = {"bank_code": "000001", "customer_email": "awa@example.com", "customer_name": "Awa Traoré"}
        identity = {
            "customer_doc_number": "A1234567",
            "customer_doc_type": "national_id",
            "customer_name": "Awa Traoré",
        }
        asked = {"customer_name": "Awa Traoré", "otp": "5647", "return_url": "https://example.com/back"}
        assert await extra(Direction.PAY, "mtn_bj_9210", "XOF") is None
        assert await extra(Direction.PAY, "mtn_rw_2352", "RWF") == {"customer_name": "Awa Traoré"}
        assert await extra(Direction.COLLECT, "mtn_bj_9210", "XOF") == {"otp": "5647"}
        assert await extra(Direction.COLLECT, "orange_eg_2314", "EGP") == asked
        assert await extra(Direction.PAY, "bank_tz_2405", "TZS") == {"bic": "000001", "customer_name": "Awa Traoré"}
        assert await extra(Direction.PAY, "bank_ng_2311", "NGN", provider_ids={"NG/bank": 2311}) == bank
        documents = {"provider_ids": {"TZ/yas": 2403}, "documents_for": [2403]}
        assert await extra(Direction.PAY, "yas_tz_2403", "TZS", **documents) == identity
    for document in heard:
        assert all(isinstance(value, str) for name, value in document.items() if name != "extra")
        assert document["callback_url"] == "https://example.com/hears"
        assert document["amount"].endswith(".00") and verify_callback(SECRET_KEY, document)


async def test_a_document_that_nobody_knows_never_leaves() -> None:
    """The provider knows three kinds."""
    options = {"provider_ids": {"TZ/yas": 2403}, "documents_for": [2403]}
    async with connected(options=options) as (provider, server):
        with pytest.raises(NotSentError, match="document_type"):
            await provider.send(dispatch("yas_tz_2403", "TZS", document_type="library card"))
        assert not server.calls


@pytest.mark.parametrize("key", ["run 1", "run/1", "é", "x" * 129, ""])
async def test_a_key_that_is_no_order_id_never_leaves(key: str) -> None:
    """Only letters, digits and four signs, and no more than 128 of them."""
    async with connected() as (provider, server):
        with pytest.raises(NotSentError):
            await provider.send(dispatch("mtn_bj_9210", "XOF", key))
        assert not server.calls


# ------------------------------------------------------------------------------------------------- fates and doubts

FATES = {
    "000001": (State.ACCEPTED, State.FAILED, "failed_at_provider"),
    "000002": (State.ACCEPTED, State.ACCEPTED, ""),
    "000003": (State.UNKNOWN, None, ""),
    "000004": (State.ACCEPTED, State.PAID, ""),
    "000005": (State.ACCEPTED, State.ACCEPTED, "status_not_documented"),
    "000006": (State.ACCEPTED, None, ""),
    "000007": (State.ACCEPTED, State.FAILED, "cancelled_at_provider"),
    "000008": (State.ACCEPTED, State.ACCEPTED, ""),
    "000009": (State.PAID, State.PAID, ""),
}


@pytest.mark.parametrize("ending", FATES)
async def test_every_fate_of_the_sandbox(ending: str) -> None:
    """What is told at once, and what a look-up shows."""
    told, shown, reason = FATES[ending]
    async with connected() as (provider, server):
        assert set(server.fates) == set(FATES)
        sent = dispatch("mtn_bj_9210", "XOF", phone="2290166" + ending)
        (receipt,) = await provider.send(sent)
        found = await looked_up(provider, sent)

        assert receipt.state is told
        assert [one.receipt.state for one in found] == ([] if shown is None else [shown])
        assert not found or found[0].receipt.reason == reason
        assert (receipt.reason == "confirmation_needed") == (ending == "000008")
        assert (receipt.reason == "result_10301") == (ending == "000003")


async def test_the_simulator_stays_in_progress() -> None:
    """Provider 14, of any operator: accepted, shown as such, and never paid."""
    for direction in Direction:
        async with connected(direction, options={"provider_ids": {"KE/mpesa": 14}}) as (provider, server):
            sent = dispatch("mpesa_ke_14", "KES")
            (receipt,) = await provider.send(sent)
            (seen,) = await looked_up(provider, sent)

            assert receipt.state is seen.receipt.state is State.ACCEPTED and not server.paid()


async def test_the_payer_is_told_where_to_go() -> None:
    """The page comes with the look-up; a transfer to a bank's account with the answer."""
    async with connected(Direction.COLLECT, settle_seconds=60.0) as (provider, _):
        sent = dispatch("mtn_rw_2352", "RWF")
        (receipt,) = await provider.send(sent)
        (seen,) = await looked_up(provider, sent)
        assert (receipt.reason, seen.receipt.reason) == ("", "customer_redirect")
        assert seen.receipt.message.startswith("https://pay.example/")
    async with connected(Direction.COLLECT, options={"provider_ids": {"NG/bank": 2311}}) as (provider, _):
        (receipt,) = await provider.send(dispatch("bank_ng_2311", "NGN"))
        assert receipt.reason == "transfer_awaited" and "4000000000" in receipt.message


async def test_a_wrong_key_or_merchant_stops_the_account_and_claims_nothing() -> None:
    """In answer to a payment and to a question: in doubt, with the brake."""
    async with sandbox(settle_seconds=0.0) as server:
        for changes in ({"secrets": {"secret_key": "not_the_one"}}, {"options": {**OPTIONS, "merchant_id": "other"}}):
            wrong = msgspec.structs.replace(account(server.base_url), **changes)
            provider = UnipesaProvider(wrong, direction=Direction.PAY)
            sent = dispatch("mtn_bj_9210", "XOF")
            with pytest.raises(AmbiguousError) as paying:
                await provider.send(sent)
            with pytest.raises(ProviderError) as asking:
                await looked_up(provider, *[sent] * 40)
            await provider.aclose()
            assert paying.value.brake is asking.value.brake is Brake.CREDENTIALS
        assert not server.paid() and server.calls["status"] == 2 * provider.traits.concurrency


async def test_one_answer_that_fails_keeps_no_other_from_being_shown() -> None:
    """Thirty payouts, one question lost: the other twenty-nine are shown, then the failure is told."""
    async with connected() as (provider, server):
        sent = [dispatch("mtn_bj_9210", "XOF", f"run-1-{number}") for number in range(30)]
        for each in sent:
            await provider.send(each)
        server.faults.add(Fault(FaultKind.STATUS_BEFORE, "status"))
        shown: list[str] = []
        with pytest.raises(ProviderError):
            async for page in provider.look_up([query(each) for each in sent]):
                shown += [one.key for one in page]

        assert len(shown) == len(set(shown)) == 29


async def test_a_provider_that_answers_nobody_is_not_asked_about_all() -> None:
    """After a handful without an answer the rest is left for the next look-up."""
    async with connected() as (provider, server):
        server.faults.add(Fault(FaultKind.STATUS_BEFORE, "status", times=100))
        with pytest.raises(ProviderError):
            await looked_up(provider, *[dispatch("mtn_bj_9210", "XOF", f"run-1-{number}") for number in range(50)])
        assert server.calls["status"] == provider.traits.concurrency


async def test_one_order_that_is_never_answered_hides_nobody_behind_it() -> None:
    """Also where only one call may be on the wire."""
    async with connected(options={"concurrency": 1}) as (provider, server):
        sent = [dispatch("mtn_bj_9210", "XOF", f"run-1-{number}") for number in range(5)]
        for each in sent:
            await provider.send(each)
        server.faults.add(Fault(FaultKind.STATUS_BEFORE, "status"))
        shown: list[str] = []
        with pytest.raises(ProviderError):
            async for page in provider.look_up([query(each) for each in sent]):
                shown += [one.key for one in page]

        assert shown == [f"run-1-{number}" for number in range(1, 5)]


async def test_one_answer_that_the_account_is_not_accepted_ends_the_asking() -> None:
    """It is told before any other failure, after what was shown; and nobody else is asked about."""
    async with connected() as (provider, server):
        sent = [dispatch("mtn_bj_9210", "XOF", f"run-1-{number}") for number in range(30)]
        for each in sent:
            await provider.send(each)
        server.faults.add(
            Fault(FaultKind.STATUS_BEFORE, "status"), Fault(FaultKind.STATUS_BEFORE, "status", status=401)
        )
        shown: list[str] = []
        with pytest.raises(ProviderError) as caught:
            async for page in provider.look_up([query(each) for each in sent]):
                shown += [one.key for one in page]

        handful = provider.traits.concurrency
        assert caught.value.brake is Brake.CREDENTIALS
        assert server.calls["status"] == handful and len(shown) == handful - 2


GOOD = dispatch("vodacom_cd_2196", "CDF")
MALFORMED: dict[str, dict[str, Any]] = {
    "two payouts": {"payouts": [*GOOD.payouts] * 2, "keys": ["a", "b"]},
    "no payout": {"payouts": []},
    "two keys": {"keys": ["a", "b"]},
    "no key": {"keys": []},
    "a wallet of another id": {"lane": Lane("test", "vodacom_cd_2197", "CDF")},
    **{
        f"{field} {value!r}": {"payouts": [msgspec.structs.replace(GOOD.payouts[0], **{field: value})]}
        for field, value in (
            *(("currency", "XOF"), ("amount_minor", 0), ("amount_minor", -1), ("phone", ""), ("phone", "0812345678")),
            *(("phone", "24381234567"), ("phone", "2438123456789"), ("phone", "24381234567x"), ("phone", "812345678")),
        )
    },
}


@pytest.mark.parametrize("name", MALFORMED)
async def test_what_is_malformed_never_leaves(name: str) -> None:
    """And the refusal shows no number."""
    async with connected() as (provider, server):
        with pytest.raises(NotSentError) as caught:
            await provider.send(msgspec.structs.replace(GOOD, **MALFORMED[name]))
        assert caught.value.reason.startswith("dispatch_") and "8123" not in str(caught.value)
        assert not server.calls
        assert (await provider.send(GOOD))[0].state is State.ACCEPTED


@pytest.mark.parametrize(
    ("wallet", "need"), [("bank_tz_2405", "account_number"), ("bank_tz_2405", "bank"), ("mtn_rw_2352", "name")]
)
async def test_what_an_id_wants_is_insisted_on(wallet: str, need: str) -> None:
    """Intake sees to it; nothing leaves without it all the same."""
    async with connected() as (provider, server):
        with pytest.raises(NotSentError, match=need.replace("_", " ")):
            await provider.send(dispatch(wallet, "TZS" if "tz" in wallet else "RWF", **{need: ""}))
        assert not server.calls


@pytest.mark.parametrize("name", ["public_id", "merchant_id"])
def test_who_the_merchant_is_has_to_be_said(name: str) -> None:
    """By the option's name."""
    options = {key: value for key, value in OPTIONS.items() if key != name}
    with pytest.raises(ConfigError, match=name):
        UnipesaProvider(
            msgspec.structs.replace(account("http://127.0.0.1:1"), options=options), direction=Direction.PAY
        )


async def test_sending_again_after_a_lost_answer_pays_once() -> None:
    """The order id is the promise: before and after the first call was heard."""
    for kind in (FaultKind.RESET_AFTER, FaultKind.RESET_BEFORE):
        async with connected() as (provider, server):
            server.faults.add(Fault(kind, "payment"))
            sent = dispatch("mtn_bj_9210", "XOF")
            with pytest.raises(AmbiguousError):
                await provider.send(sent)
            (receipt,) = await provider.send(sent)

            assert receipt.state is State.ACCEPTED
            assert server.paid() == {"run-1-0": (1, 1_000_000)}


# --------------------------------------------------------------------------------------------------------- callbacks


def called(body: bytes, method: str = "POST") -> Callback:
    return Callback(method, "", "", {}, body)


@pytest.mark.parametrize(("direction", "operation"), [(Direction.PAY, 16), (Direction.COLLECT, 17)])
async def test_what_the_provider_calls_to_say_is_heard(direction: Direction, operation: int) -> None:
    """Signed with numbers in it, as the document prints it; heard of it is the order alone, which is asked about."""
    bodies: list[bytes] = []
    came = anyio.Event()

    async def hear(request: web.Request) -> web.Response:
        bodies.append(await request.read())
        came.set()
        return web.Response()

    app = web.Application()
    app.router.add_post("/secret", hear)
    async with serving(app, "127.0.0.1", 0) as listener:
        options = {"callback_url": f"{listener.base_url}/secret"}
        async with connected(direction, options=options) as (provider, _):
            await provider.send(dispatch("orange_eg_2314", "EGP", amount_minor=40_050))
            with anyio.fail_after(5):
                await came.wait()
            told = msgspec.json.decode(bodies[0])
            heard = provider.hear(called(bodies[0]))
            shown = [one async for page in provider.re_read(heard) for one in page]

            assert (told["amount"], told["status"], told["operation_type"]) == (400.5, 2, operation)
            assert list(told)[-2:] == ["result", "signature"] and heard == Heard(["run-1-0"])
            assert [(one.key, one.receipt.state) for one in shown] == [("run-1-0", State.PAID)]
            for forged in (bodies[0].replace(b"400.5", b"400.6"), bodies[0][:-1], b"", b"[]", b"null", b"\xff", b"{}"):
                with pytest.raises(ForgedError):
                    provider.hear(called(forged))


async def test_a_signed_call_about_nothing_that_can_be_ours_speaks_of_nothing() -> None:
    """It goes into a question: only what can be an order id is taken over. And who only looks, says nothing."""
    async with connected() as (provider, _):
        for order_id in ("../status", "", None, 5, "x" * 129, ["run-1-0"]):
            document = {"order_id": order_id, "status": 2}
            body = msgspec.json.encode({**document, "signature": sign(SECRET_KEY, document)})
            assert not provider.hear(called(body))
        assert not provider.hear(called(b"", "GET"))
        assert isinstance(provider, HearsCallbacks)


# ------------------------------------------------------------------------------------------------------- the account


def test_a_key_lives_an_hour_unless_the_account_says_otherwise() -> None:
    """The document promises that an order id pays once and says no time; 0 believes nothing."""
    traits = REGISTRATION.face(Direction.PAY).traits
    assert (traits({}).key_promise, traits({}).key_lifetime_seconds) == (KeyPromise.IDEMPOTENT, 3_600.0)
    assert traits({"key_lifetime_seconds": 60}).key_lifetime_seconds == 60
    none = traits({"key_lifetime_seconds": 0})
    assert (none.key_promise, none.key_lifetime_seconds) == (KeyPromise.NONE, None)
    assert traits({}).calls_per_second is None and traits({}).batch_limit == 1


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"provider_ids": {"CI/mtn": 2304}}, "2303, 2333"),
        ({"provider_ids": {"CI/lonestar": 1}}, "CI/lonestar"),
        ({"provider_ids": {"BJ/mtn": 391}}, "9210"),
        ({"extra_currencies": ["USD"]}, "XAF"),
        ({"limits": {"391": {"b2c_min": 2_000}}}, "391"),
        ({"limits": {"9210": {"b2c_max": 10}}}, "least"),
        ({"limits": {"9210": {"b2c_min": -1}}}, "limits.9210"),
        ({"limits": {"9210": {"multiple_of": 0}}}, "multiple_of"),
        ({"limits": {"9210": {"most": 1}}}, "most"),
        ({"documents_for": [1]}, "no provider id"),
        ({"callback_url": "http://example.com"}, "callback_url"),
        ({"callback_url": "http://127.0.0.1.example.com/x"}, "callback_url"),
        ({"callback_url": "https://"}, "callback_url"),
        ({"callback_url": "https://example.com/é"}, "callback_url"),
        ({"callback_url": "https://example.com/a b"}, "callback_url"),
        ({"return_url": "example.com"}, "return_url"),
        ({"public_id": "../other"}, "public_id"),
        ({"merchant_id": "a b"}, "merchant_id"),
        ({"key_lifetime_seconds": -1}, "key_lifetime_seconds"),
        ({"key_lifetime_seconds": float("inf")}, "key_lifetime_seconds"),
        ({"key_lifetime_seconds": float("nan")}, "key_lifetime_seconds"),
        ({"concurrency": 0}, "concurrency"),
        ({"rate_per_second": 0}, "rate_per_second"),
        ({"batch_limit": 2}, "batch_limit"),
    ],
)
def test_an_option_that_cannot_be_used_is_refused_by_its_name(options: dict[str, Any], named: str) -> None:
    """Before anything is read or sent."""
    with pytest.raises(ConfigError, match=named):
        REGISTRATION.face(Direction.PAY).wallets({**REGISTRATION.sandbox_options, **options})


def test_an_account_needs_an_address() -> None:
    """The document names none."""
    with pytest.raises(ConfigError, match="base_url"):
        UnipesaProvider(account(None), direction=Direction.PAY)


def test_limits_that_the_manager_has_said_are_the_wallet_s() -> None:
    """By id, each figure by itself; 0 is no limit; the other direction keeps its own."""
    own = {"provider_ids": {"CI/mtn": 2303}, "limits": {"2303": {"b2c_max": 0, "b2c_min": 1, "multiple_of": 1}}}
    found = {
        direction: next(one for one in REGISTRATION.face(direction).wallets(own) if one.code == "mtn_ci_2303")
        for direction in Direction
    }
    paying, collecting = found[Direction.PAY], found[Direction.COLLECT]
    assert (paying.amount_minor_min, paying.amount_minor_max, paying.multiple_of_minor) == (1, None, 1)
    assert (collecting.amount_minor_min, collecting.amount_minor_max) == (300, 550_000)
