"""CinetPay end to end over real HTTP: every call of its client, its tokens and contacts, and money at most once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import orjson
import pytest
from aiohttp import web

from payout_engine.domain import clock
from payout_engine.domain.errors import (
    AmbiguousError,
    Brake,
    ConfigError,
    NotSentError,
    ProviderError,
    RefusedError,
)
from payout_engine.domain.model import Dispatch, Lane, LookUpResult, Payout, Query, Receipt
from payout_engine.domain.states import State
from payout_engine.ports.provider import KEY_LIFETIME_SECONDS_DEFAULT, KeyPromise, LookUpKind
from payout_engine.ports.registration import Account
from payout_engine.providers._sandbox import Fault, FaultKind, serving
from payout_engine.providers.cinetpay import REGISTRATION, CinetPayClient, wire
from payout_engine.providers.cinetpay.adapter import CinetPayProvider
from payout_engine.providers.cinetpay.options import options_of, traits, wallets
from payout_engine.providers.cinetpay.sandbox import FATES, CinetPaySandbox, sandbox

SECRETS = {"api_key": "key_test_never_shown", "password": "word_test_never_shown"}
OPTIONS = {"notify_url": "https://pay.example.com/cinetpay", "contact_email": "pay@example.com"}


def account(base_url: str | None, **options: Any) -> Account:
    return Account(
        name="ci", secrets=SECRETS, base_url=base_url, timeout_seconds=5.0, options={**OPTIONS, **options},
        loopback_only=True,
    )  # fmt: skip


@asynccontextmanager
async def connected(
    options: Mapping[str, Any] = {}, **settings: Any
) -> AsyncIterator[tuple[CinetPayProvider, CinetPaySandbox]]:
    """A sandbox and a provider that speaks to it."""
    async with sandbox(**{"settle_seconds": 0.0, **settings}) as server:
        provider = CinetPayProvider(account(server.base_url, **options))
        try:
            yield provider, server
        finally:
            await provider.aclose()


@asynccontextmanager
async def client(server: CinetPaySandbox) -> AsyncIterator[CinetPayClient]:
    made = CinetPayClient(
        SECRETS["api_key"], SECRETS["password"], base_url=server.base_url, loopback_only=True, timeout_seconds=5.0
    )
    try:
        yield made
    finally:
        await made.aclose()


def dispatch(*phones: str, first: int = 0, amount: int = 1_000, wallet: str = "CI", email: str = "") -> Dispatch:
    payouts = [
        Payout(f"R{first + n}", amount + 5 * n, "XOF", phone, name="Awa Koné", email=email)
        for n, phone in enumerate(phones or ("2250701020304",))
    ]
    keys = [f"key-{first}-{n}" for n in range(len(payouts))]
    return Dispatch(1, 1, Lane("ci", wallet, "XOF"), list(range(len(payouts))), payouts, keys)


def queries(sent: Dispatch) -> list[Query]:
    pairs = zip(sent.keys, sent.payouts, strict=True)
    return [Query(key, "", State.UNKNOWN, clock.moment(), payout) for key, payout in pairs]


async def look_up(provider: CinetPayProvider, *sent: Dispatch) -> dict[str, LookUpResult]:
    asked = [query for one in sent for query in queries(one)]
    return {seen.key: seen async for page in provider.look_up(asked) for seen in page}


async def failure(provider: CinetPayProvider, sent: Dispatch) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await provider.send(sent)
    return caught.value


def states(receipts: Sequence[Receipt]) -> list[State]:
    return [receipt.state for receipt in receipts]


PHONES = ("2250701020304", "2250701020305", "2250701020306")


# -------------------------------------------------------------------------------------------------- the client's calls


async def test_login_gives_a_token_for_the_right_secrets_only() -> None:
    async with sandbox() as server, client(server) as ours:
        assert await ours.login() != await ours.login()
        stranger = CinetPayClient("wrong", SECRETS["password"], base_url=server.base_url)
        with pytest.raises(RefusedError) as caught:
            await stranger.login()
        await stranger.aclose()
    assert caught.value.brake is Brake.CREDENTIALS and caught.value.reason == "invalid_credentials"


async def test_balance_tells_what_each_country_holds() -> None:
    async with sandbox(balances={"CI": 500, "SN": 300}, settle_seconds=60.0) as server, client(server) as ours:
        before = (await ours.balance()).by_country
        await ours.add_contacts([contact()])
        await ours.send_money([transfer("a", 200)])
        after = (await ours.balance()).by_country
    assert (before["CI"], after["CI"], before["SN"], after["SN"]) == ((500, 0), (300, 200), (300, 0), (300, 0))


async def test_add_contacts_says_who_is_one() -> None:
    """New, known, and refused; asking twice does no harm."""
    async with sandbox() as server, client(server) as ours:
        for code in (0, 726):
            (added,) = await ours.add_contacts([contact()])
            assert added.code == code and not wire.refused_contacts([added])
        (refused,) = await ours.add_contacts([contact("01020304")])
        assert wire.refused_contacts([refused]) == {"22501020304": "-1: Undefined index: country"}


async def test_send_money_pays_contacts_in_one_call() -> None:
    async with sandbox(settle_seconds=0.0) as server, client(server) as ours:
        await ours.add_contacts([contact()])
        sent = await ours.send_money([transfer("a", 500), transfer("b", 505, "WAVECI")])
        assert [(one.code, one.status, one.treatment_status) for one in sent] == [(0, "success", "NEW")] * 2
        assert len({one.lot for one in sent}) == 1 and len({one.transaction_id for one in sent}) == 2
        assert server.paid() == {"a": (1, 500), "b": (1, 505)} and server.calls["send"] == 1


async def test_check_finds_by_each_of_the_three() -> None:
    """By CinetPay's id, by ours, by the lot; and shows nothing of what it does not find."""
    async with sandbox(settle_seconds=0.0) as server, client(server) as ours:
        await ours.add_contacts([contact()])
        first, second = await ours.send_money([transfer("a", 500), transfer("b", 505)])
        (by_reference,) = await ours.check(transaction_id=first.transaction_id or "")
        (by_ours,) = await ours.check(client_transaction_id="b")
        both = await ours.check(lot=second.lot or "")
        assert (by_reference.client_transaction_id, by_ours.transaction_id) == ("a", second.transaction_id)
        assert {one.client_transaction_id for one in both} == {"a", "b"}
        assert await ours.check(client_transaction_id="c") == ()


def contact(phone: str = "0701020304") -> wire.Contact:
    return wire.Contact("225", phone, "Koné", "Awa", "awa@example.com")


def transfer(key: str, amount: int, method: str = "") -> wire.Transfer:
    return wire.Transfer("225", "0701020304", amount, "https://pay.example.com", key, method)


# -------------------------------------------------------------------------------------------------------------- tokens


async def test_one_login_serves_all_calls_that_wait() -> None:
    """At the beginning, and when the token is no longer accepted."""
    async with connected() as (provider, server):
        for number in range(2):
            async with anyio.create_task_group() as tasks:
                for place in range(8):
                    tasks.start_soon(provider.send, dispatch(first=10 * number + place))
            assert server.calls["login"] == number + 1
            server._tokens.clear()
        assert {count for count, _ in server.paid().values()} == {1} and len(server.paid()) == 16


async def test_one_failed_login_answers_all_calls_that_wait_and_nothing_was_sent() -> None:
    """Whoever waited is told the same; who comes later tries anew."""
    async with connected() as (provider, server):
        server.faults.add(Fault(FaultKind.STATUS_AFTER, "login", status=500))
        errors: list[ProviderError] = []

        async def pay(number: int) -> None:
            errors.append(await failure(provider, dispatch(first=number)))

        async with anyio.create_task_group() as tasks:
            for number in range(5):
                tasks.start_soon(pay, number)
        assert server.calls["login"] == 1 and {type(error) for error in errors} == {NotSentError}
        assert states(await provider.send(dispatch())) == [State.ACCEPTED]


async def test_a_login_that_fails_after_a_refused_token_leaves_nothing_in_doubt() -> None:
    """The payment was refused, and not asked for again: it may be sent later."""
    async with connected() as (provider, server):
        await provider.send(dispatch())
        server.faults.add(Fault(FaultKind.EXPIRED, "send"), Fault(FaultKind.RESET_AFTER, "login"))
        assert isinstance(await failure(provider, dispatch(first=1)), NotSentError)
        assert set(server.paid()) == {"key-0-0"}


async def test_a_token_is_renewed_before_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A minute ahead, so that no call is refused for it."""
    async with connected(token_seconds=300.0) as (provider, server):
        await provider.send(dispatch())
        begun = anyio.current_time()
        for later_seconds, logins in ((239.0, 1), (241.0, 2), (300.0, 2)):
            monkeypatch.setattr(anyio, "current_time", lambda later=later_seconds: begun + later)
            await provider.send(dispatch(first=int(later_seconds)))
            assert server.calls["login"] == logins
        assert server.calls["send"] == 4


@pytest.mark.parametrize("endpoint", ["contact", "send", "check", "balance"])
async def test_a_call_refused_for_its_token_is_made_once_more(endpoint: str) -> None:
    """With a new token; what is refused again stops the account, and has paid nobody."""
    async with connected() as (provider, server):
        await provider.send(dispatch())
        for times in (1, 2):
            server.faults.add(Fault(FaultKind.EXPIRED, endpoint, times=times))
            before, error = server.calls[endpoint], None
            try:
                await provider.send(dispatch(f"225070203040{times}", first=times))
                await look_up(provider, dispatch())
                await provider.balances()
            except RefusedError as refused:
                error = refused
            assert server.calls[endpoint] == before + 2
            assert (error is not None and error.brake is Brake.CREDENTIALS) is (times == 2)
        assert {count for count, _ in server.paid().values()} == {1}


async def test_no_token_is_kept_where_it_could_be_shown() -> None:
    """Not in a repr, nor in the addresses that are kept."""
    async with connected() as (provider, server):
        await provider.send(dispatch())
        ours = provider._client
        kept = repr([vars(provider), vars(ours), vars(ours._http), repr(ours._tokens)])
        (token,) = server._tokens
        assert token not in kept and "0701020304" not in kept


# ------------------------------------------------------------------------------------------------------------ contacts


async def test_contacts_are_added_first_and_only_once() -> None:
    """By this process: another one asks again, and hears that they are contacts already."""
    async with connected() as (provider, server):
        for number in range(2):
            await provider.send(dispatch(*PHONES, first=number))
        assert (server.calls["contact"], server.calls["send"]) == (1, 2)
        other = CinetPayProvider(account(server.base_url))
        assert states(await other.send(dispatch(*PHONES, first=2))) == [State.ACCEPTED] * 3
        await other.aclose()
        assert server.calls["contact"] == 2


async def test_a_contact_that_is_refused_is_left_out_and_has_failed() -> None:
    """The others are paid; nothing was sent to the one."""
    async with connected() as (provider, server):
        receipts = await provider.send(dispatch(PHONES[0], "2250701000007", PHONES[2]))
        assert states(receipts) == [State.ACCEPTED, State.FAILED, State.ACCEPTED]
        assert receipts[1].reason == "contact_refused" and "802: INVALID_PHONE" in receipts[1].message
        assert set(server.paid()) == {"key-0-0", "key-0-2"}
        assert states(await provider.send(dispatch("2250701000007", first=9))) == [State.FAILED]
        assert server.calls["send"] == 1


async def test_where_all_contacts_are_refused_for_one_each_is_asked_for_alone() -> None:
    """By whichever code that is about one of them."""
    async with answering() as (provider, bank):
        bank.say("contact", *[error(802, "INVALID_PHONE"), *[success([])] * 2, error(802, "INVALID_PHONE")])
        assert states(await provider.send(dispatch(*PHONES))) == [State.ACCEPTED] * 2 + [State.FAILED]
        assert [len(items) for items in bank.heard["contact"]] == [3, 1, 1, 1]
        assert [item["phone"] for item in bank.heard["send"][0]] == ["0701020304", "0701020305"]

    async with answering() as (provider, bank):
        known = error(726, "ERROR_PHONE_ALREADY_MY_CONTACT")
        bank.say("contact", known, known, success([]), known)
        assert states(await provider.send(dispatch(*PHONES))) == [State.ACCEPTED] * 3


@pytest.mark.parametrize("kind", [FaultKind.RESET_AFTER, FaultKind.STATUS_AFTER, FaultKind.TRUNCATED])
async def test_a_doubt_about_contacts_is_none_about_money(kind: FaultKind) -> None:
    """No payment was asked for, and the same dispatch may go out again."""
    async with connected() as (provider, server):
        server.faults.add(Fault(kind, "contact"))
        assert isinstance(await failure(provider, dispatch(*PHONES)), NotSentError)
        assert not server.calls["send"]
        assert states(await provider.send(dispatch(*PHONES))) == [State.ACCEPTED] * 3


async def test_a_doubt_about_the_payment_leaves_who_was_no_contact_failed() -> None:
    """It is only of those that were sent."""
    async with connected() as (provider, server):
        server.faults.add(Fault(FaultKind.RESET_AFTER, "send"))
        receipts = await provider.send(dispatch(PHONES[0], "2250701000007"))
        assert states(receipts) == [State.UNKNOWN, State.FAILED] and receipts[0].reason == "connection_reset"
        assert set(server.paid()) == {"key-0-0"}


async def test_a_name_of_one_word_is_both_names_and_an_own_address_comes_first() -> None:
    async with answering() as (provider, bank):
        bank.say("contact", success([]), success([]))
        for name, email in (("Awa Koné Traoré", "awa@example.com"), ("Awa", "")):
            sent = dispatch("2250701020304" if email else "2250701020305", email=email)
            payout = Payout("R", 1_000, "XOF", sent.payouts[0].phone, name=name, email=email)
            await provider.send(Dispatch(1, 1, sent.lane, [0], [payout], sent.keys))
        first, second = (items[0] for items in bank.heard["contact"])
    assert (first["surname"], first["name"], first["email"]) == ("Awa", "Koné Traoré", "awa@example.com")
    assert (second["surname"], second["name"], second["email"]) == ("Awa", "Awa", "pay@example.com")


# ------------------------------------------------------------------------------------------------------------- sending


async def test_everything_that_is_documented_is_sent_and_nothing_else() -> None:
    """National numbers, whole units, our key, notify_url; the wallet only where the payer named it."""
    async with answering() as (provider, bank):
        await provider.send(dispatch(wallet="WAVECI"))
        await provider.send(dispatch(first=1))
    common = {"prefix": "225", "phone": "0701020304", "amount": 1_000, "notify_url": OPTIONS["notify_url"]}
    waves, mobile = ({**common, "client_transaction_id": key} for key in ("key-0-0", "key-1-0"))
    assert bank.heard["send"] == [[{**waves, "payment_method": "WAVECI"}], [mobile]]


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        ((717, "ERROR_PHONE_NOT_PARTICULAR"), RefusedError),
        ((805, "CLIENT_TRANSACTION_ID_EXIST"), AmbiguousError),
        ((804, "OPERATOR_UNAVAILABLE"), AmbiguousError),
    ],
)
async def test_a_refused_call_of_one_is_made_once(answer: tuple[int, str], state: type[ProviderError]) -> None:
    """Failed where the refusal is documented, else looked for; never sent again by itself."""
    async with answering() as (provider, bank):
        bank.say("send", error(*answer))
        found = await failure(provider, dispatch())
        assert isinstance(found, state) and len(bank.heard["send"]) == 1
        assert not isinstance(found, RefusedError) or found.final


async def test_a_promise_of_the_owner_makes_the_key_worth_asking_with() -> None:
    """Then CinetPay refuses what it has had: nobody is paid twice, and nothing that is refused is called failed."""
    promised = {"duplicates_refused": True}
    async with connected(promised, duplicates_refused=True) as (provider, server):
        assert provider.traits.key_promise is KeyPromise.IDEMPOTENT
        sent = dispatch(*PHONES)
        assert states(await provider.send(sent)) == [State.ACCEPTED] * 3
        assert states(await provider.send(sent)) == [State.UNKNOWN] * 3
        refused = dispatch("2250701000003", "2250701000007", first=5)
        assert states(await provider.send(refused)) == [State.UNKNOWN] * 2
        assert {count for count, _ in server.paid().values()} == {1}


def test_the_key_promises_nothing_by_itself() -> None:
    """And with the owner's word only for a time."""
    assert (traits(OPTIONS).key_promise, traits(OPTIONS).key_lifetime_seconds) == (KeyPromise.NONE, None)
    promised = traits({**OPTIONS, "duplicates_refused": True})
    assert promised.key_lifetime_seconds == KEY_LIFETIME_SECONDS_DEFAULT
    never = traits({**OPTIONS, "duplicates_refused": True, "key_lifetime_seconds": 0})
    assert (never.key_promise, never.key_lifetime_seconds) == (KeyPromise.NONE, None)
    assert promised.look_up is LookUpKind.EACH
    assert promised.calls_per_second is promised.absence_final_seconds is None


@pytest.mark.parametrize(
    "change",
    [
        {"phones": ("2217701020304",)},
        {"phones": ("22501020304",)},
        {"amount": 1_001},
        {"wallet": "BJ"},
        {"phones": PHONES * 34},
    ],
)
async def test_what_cinetpay_would_refuse_never_leaves(change: dict[str, Any]) -> None:
    """Another country's number, one of the old plan, an amount off its step, a wallet that is not served, too many."""
    async with connected() as (provider, server):
        assert isinstance(await failure(provider, dispatch(*change.pop("phones", ()), **change)), NotSentError)
        assert not server.calls


# ---------------------------------------------------------------------------------------------------------- looking up


async def test_one_look_up_by_id_and_one_by_lot_show_a_whole_call() -> None:
    """For each call, whatever else is asked about; in any order."""
    async with connected() as (provider, server):
        many = [dispatch(*PHONES, first=10 * number) for number in range(3)]
        for sent in many:
            await provider.send(sent)
        found = await look_up(provider, *many)
        assert {seen.receipt.state for seen in found.values()} == {State.PAID} and len(found) == 9
        assert server.calls["check"] == 6
        assert len(await look_up(provider, dispatch(first=10))) == 1 and server.calls["check"] == 7


async def test_what_is_not_found_proves_nothing() -> None:
    """It is passed over, and the others are shown."""
    async with connected() as (provider, server):
        await provider.send(dispatch(PHONES[0], "2250701000006", PHONES[2]))
        assert set(await look_up(provider, dispatch(first=5), dispatch(*PHONES))) == {"key-0-0", "key-0-2"}
        assert set(server.paid()) == {"key-0-0", "key-0-1", "key-0-2"}


async def test_a_rejection_in_one_lot_is_asked_about_by_its_id() -> None:
    """A person had it sent again: the second call paid it, and the first call's lot would call it failed."""
    async with connected() as (provider, server):
        rejected = dispatch(PHONES[0], "2250701000001")
        await provider.send(rejected)
        again = Dispatch(2, 1, rejected.lane, [1], [dispatch().payouts[0]], rejected.keys[1:])
        await provider.send(again)
        assert [one.verdict for one in server.ledger.transfers()] == ["VAL", "REJ", "VAL"]
        found = await look_up(provider, rejected)
        assert found["key-0-0"].receipt.state is State.PAID and not found["key-0-0"].conflict
        assert found["key-0-1"].conflict == "the provider shows 2 transfers under its id"


async def test_a_look_up_that_fails_goes_on_and_says_so() -> None:
    """What could be asked is shown; a key that is refused ends it at once."""
    async with connected() as (provider, server):
        for number in range(2):
            await provider.send(dispatch(first=number))
        server.faults.add(Fault(FaultKind.STATUS_BEFORE, "check"))
        shown: list[str] = []
        with pytest.raises(AmbiguousError):
            async for page in provider.look_up(queries(dispatch()) + queries(dispatch(first=1))):
                shown += [seen.key for seen in page]
        assert shown == ["key-1-0"]
        server.faults.add(Fault(FaultKind.EXPIRED, "check", times=2))
        with pytest.raises(RefusedError):
            await look_up(provider, dispatch(), dispatch(first=1))
        assert server.calls["check"] == 3 + 2


async def test_what_waits_for_confirmation_says_so_until_it_is_confirmed() -> None:
    """Accepted, with the reason, and paid by nobody's patience alone."""
    async with connected(confirmation=True) as (provider, server):
        sent = dispatch(*PHONES)
        assert states(await provider.send(sent)) == [State.ACCEPTED] * 3
        found = await look_up(provider, sent)
        assert {(seen.receipt.state, seen.receipt.reason) for seen in found.values()} == {
            (State.ACCEPTED, "awaiting_confirmation")
        }
        assert not server.paid()
        assert server.confirm() == 3
        assert {seen.receipt.state for seen in (await look_up(provider, sent)).values()} == {State.PAID}


# ----------------------------------------------------------------------------------------------- balances and brakes


async def test_balances_are_told_by_country() -> None:
    """As the answer tells them; the printed one, without countries, only to an account with one."""
    async with connected(balances={"CI": 700, "SN": 800}) as (provider, _):
        assert {(one.lane_name, one.available_minor) for one in await provider.balances()} == {("CI", 700), ("SN", 800)}
    for countries, expected in ((["CI"], [("CI", 663, 0)]), (["CI", "SN"], [])):
        async with answering({"countries": countries}) as (provider, bank):
            bank.say("balance", success({"amount": 663, "inUsing": 0, "available": 663}))
            told = await provider.balances()
            assert [(one.lane_name, one.available_minor, one.pending_minor) for one in told] == expected


async def test_funds_and_addresses_stop_what_they_should() -> None:
    """A short balance its lane, an address that is not allowed the account; nothing moved."""
    async with connected(balances={"CI": 1_000}) as (provider, server):
        short = await failure(provider, dispatch(*PHONES))
        assert isinstance(short, RefusedError) and short.brake is Brake.FUNDS and "4 233" not in str(short)
        server.ip_allowed = False
        barred = await failure(provider, dispatch())
        assert isinstance(barred, RefusedError) and barred.reason == "ip_not_allowed"
        assert barred.brake is Brake.CREDENTIALS and not server.paid()


# ------------------------------------------------------------------------------------------------------------- options


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"notify_url": ""}, "notify_url"),
        ({"notify_url": "http://pay.example.com/x"}, "notify_url"),
        ({"notify_url": "ftp://pay.example.com"}, "notify_url"),
        ({"notify_url": "https://"}, "notify_url"),
        ({"notify_url": "pay.example.com"}, "notify_url"),
        ({"notify_url": "https://pay.example.com/a b"}, "notify_url"),
        ({"contact_email": "nobody"}, "contact_email"),
        ({"batch_limit": 0}, "batch_limit"),
        ({"batch_limit": 101}, "batch_limit"),
        ({"concurrency": 0}, "concurrency"),
        ({"key_lifetime_seconds": -1}, "key_lifetime_seconds"),
        ({"key_lifetime_seconds": float("nan")}, "key_lifetime_seconds"),
        ({"countries": []}, "countries"),
        ({"countries": ["XX"]}, "countries"),
        ({"countries": ["BJ"]}, "BJ"),
        ({"countries": {"BJ": {"minimum": 500}}}, "BJ"),
        ({"countries": {"CI": {"minimum": 0}}}, "CI"),
        ({"countries": {"CI": {"minimum": 500, "maximum": 400}}}, "CI"),
        ({"countries": {"CI": {"min": 5}}}, "min"),
        ({"no_such": 1}, "no_such"),
    ],
)
def test_a_configuration_that_cannot_be_used_is_told_by_name(options: dict[str, Any], named: str) -> None:
    """In a sentence, before anything is sent."""
    for read in (options_of, traits, wallets):
        with pytest.raises(ConfigError, match=named):
            read({**OPTIONS, **options})
    with pytest.raises(ConfigError, match=named):
        CinetPayProvider(account(None, **options))


def test_the_remedy_stands_beside_a_missing_notify_url() -> None:
    with pytest.raises(ConfigError, match="https://") as caught:
        options_of({})
    assert "missing" in str(caught.value)
    for here in ("http://127.0.0.1:8080/x", "http://localhost/x", "http://[::1]:80/x", "https://example.com/x?y=1"):
        assert options_of({"notify_url": here}).notify_url == here


def test_the_wallets_follow_the_countries() -> None:
    """Mobile money by the number, Wave by name; a country's wallets share its balance; multiples of five."""
    found = {wallet.code: wallet for wallet in wallets(OPTIONS)}
    assert list(found) == ["CI", "WAVECI", "SN", "WAVESN"]
    assert [found[code].automatic for code in found] == [True, False, True, False]
    assert {wallet.balance_name for wallet in found.values()} == {"CI", "SN"}
    assert {wallet.multiple_of_minor for wallet in found.values()} == {5}
    assert {wallet.fee_basis_points for wallet in found.values()} == {None}
    assert {tuple(wallet.needs) for wallet in found.values()} == {("name",)}
    assert {tuple(wallet.needs) for wallet in wallets({"notify_url": "https://x.example.com"})} == {("name", "email")}
    more = {"CI": {"minimum": 100}, "CD": {"minimum": 1_000, "maximum": 2_000_000}}
    ours, theirs = (wallet for wallet in wallets({**OPTIONS, "countries": more}) if not wallet.code.startswith("WAVE"))
    assert (ours.amount_minor_min, ours.amount_minor_max) == (100, 1_500_000)
    assert (theirs.currency, theirs.amount_minor_min, theirs.multiple_of_minor) == ("CDF", 100_000, 500)


@pytest.mark.parametrize("secret", ["", " ", "line\nbreak"])
def test_a_secret_that_is_none_is_refused(secret: str) -> None:
    for name in SECRETS:
        made = Account(name="ci", secrets={**SECRETS, name: secret}, options=OPTIONS)
        with pytest.raises(ConfigError, match=name):
            REGISTRATION.face(direction=next(iter(REGISTRATION.faces))).connect(made)


def test_every_fate_of_the_sandbox_is_in_the_notes() -> None:
    """People find the numbers there."""
    notes = Path(wire.__file__).with_name("NOTES.md").read_text(encoding="utf-8")
    assert all(f"| {ending} |" in notes for ending in FATES)


# -------------------------------------------------------------------------------------------- a bank that says anything


class Bank:
    """Answers each endpoint with what was scripted for it, else as if all went well, and remembers what it heard."""

    def __init__(self) -> None:
        self.heard: dict[str, list[list[dict[str, Any]]]] = {"contact": [], "send": []}
        self._script: dict[str, list[object]] = {}

    def say(self, endpoint: str, *answers: object) -> None:
        self._script.setdefault(endpoint, []).extend(answers)

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/v1/auth/login", self._answer("login", lambda _: success({"token": "t"})))
        app.router.add_get("/v1/transfer/check/balance", self._answer("balance", lambda _: success({})))
        app.router.add_post("/v1/transfer/contact", self._answer("contact", lambda _: success([])))
        app.router.add_post("/v1/transfer/money/send/contact", self._answer("send", sent_well))
        return app

    def _answer(self, endpoint: str, usual: Callable[[Any], object]) -> Callable[[web.Request], Any]:
        async def handle(request: web.Request) -> web.Response:
            fields = await request.post()
            items = orjson.loads(str(fields.get("data", "[]")))
            self.heard.setdefault(endpoint, []).append(items)
            script = self._script.get(endpoint)
            return web.Response(body=orjson.dumps(script.pop(0) if script else usual(items)))

        return handle


def success(data: object) -> dict[str, object]:
    return {"code": 0, "message": "OPERATION_SUCCES", "data": data}


def error(code: int, word: str) -> dict[str, object]:
    return {"code": code, "message": word, "data": []}


def sent_well(items: list[dict[str, Any]]) -> object:
    return success([[{**item, "code": 0, "status": "success", "treatment_status": "NEW"} for item in items]])


@asynccontextmanager
async def answering(options: Mapping[str, Any] = {}) -> AsyncIterator[tuple[CinetPayProvider, Bank]]:
    bank = Bank()
    async with serving(bank.app(), "127.0.0.1", 0) as served:
        provider = CinetPayProvider(account(served.base_url, **options))
        try:
            yield provider, bank
        finally:
            await provider.aclose()
