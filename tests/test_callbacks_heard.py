"""How each provider's calls are heard: by its document's samples, by forgers, and from its own sandbox over HTTP."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp
import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from payout_engine import Engine, Payout, Settings
from payout_engine.app.settings import AccountSettings
from payout_engine.domain.errors import ConfigError, ForgedError
from payout_engine.domain.model import Direction
from payout_engine.domain.states import State
from payout_engine.ports.callbacks import Callback, Heard, HearsCallbacks
from payout_engine.ports.registration import Account, Registration
from payout_engine.providers import cinetpay, jumiapay, senfenico, unipesa
from payout_engine.providers.unipesa.signature import sign

KEY = "abcdefghijkl-1-0"
SECRET = unipesa.REGISTRATION.sandbox_secrets["secret_key"]

CREDIT_STATUS_CHANGE = {
    "type": "CREDIT_STATUS_CHANGE",
    "datetime": "2021-05-13T08:21:59.265720Z",
    "old_status": "processing_delivery",
    "new_status": "delivered",
    "status": None,
    "credit": {
        "uuid": "f74f6658-0168-447e-8b15-b468ec792278",
        "partner_credit_id": "HCgfE",
        "name": "Credit 123",
        "description": "Example description",
        "source_wallet_account_id": "AAE2wHesP7tcrYrrLccZss_XJq8FEucQsj-k_I4o2PDvwR7X2",
        "amount": {"value": 10, "currency": "NGN", "symbol": "NGN", "formatted_value": "NGN 10"},
        "usage": {"value": 5, "currency": "NGN", "symbol": "NGN", "formatted_value": "NGN 5"},
        "old_usage": None,
        "new_usage": None,
        "customer_email": "somebody@example.com",
        "status": {"id": "delivered", "label": "Delivered"},
        "expiration_date": None,
        "error_message": None,
    },
}
"""As JumiaPay's document prints it."""

ORDER: dict[str, Any] = {
    "merchant_id": "fffed61be9780b97c5e4c65e4e07bb6b",
    "operation_type": 16,
    "customer_id": "254000000000",
    "amount": 1000.0,
    "order_id": KEY,
    "transaction_id": "13000000",
    "transaction_ref": "",
    "status": 2,
    "provider_id": 10,
    "destination_id": None,
    "result": {"code": 0, "message": "OK é", "deep": [1, 2.5, True, {"a": False}]},
}


def adapter(registration: Registration, options: dict[str, Any] | None = None) -> HearsCallbacks:
    """Return an adapter that hears; nothing is called."""
    facts = {**registration.sandbox_options, **(options or {})}
    account = Account(
        name="test",
        secrets=registration.sandbox_secrets,
        base_url="http://127.0.0.1:9",
        options=facts,
        timeout_seconds=1,
    )
    made = registration.face(Direction.PAY).connect(account)
    assert isinstance(made, HearsCallbacks)
    return made


def hears(registration: Registration, **call: Any) -> Heard:
    """Return what a call is heard to speak of."""
    facts = {"method": "POST", "path": "", "query": "", "headers": {}, "body": b"", **call}
    heard = adapter(registration).hear(Callback(**facts))
    return Heard(tuple(heard.keys), tuple(heard.references))


def signed(document: dict[str, Any], secret: str = SECRET) -> bytes:
    """Return a call of Unipesa's, signed as its document says."""
    return json.dumps({**document, "signature": sign(secret, document)}).encode()


# -------------------------------------------------------------------------------------------------------------- Unipesa


def test_unipesa_is_heard_by_its_signature() -> None:
    """What was signed with the account's key speaks of its order, whatever it holds and however PHP writes that."""
    assert hears(unipesa.REGISTRATION, body=signed(ORDER)) == Heard((KEY,))
    assert hears(unipesa.REGISTRATION, body=signed({**ORDER, "order_id": "a b"})) == Heard()
    assert hears(unipesa.REGISTRATION, body=signed({"merchant_id": "x"})) == Heard()


@pytest.mark.parametrize("name", [name for name in ORDER if name != "destination_id"])
def test_unipesa_is_not_heard_once_anything_was_changed(name: str) -> None:
    """Each field is part of what was signed."""
    told = json.loads(signed(ORDER))
    told[name] = {"code": 1} if name == "result" else f"{told[name]}1"
    with pytest.raises(ForgedError):
        hears(unipesa.REGISTRATION, body=json.dumps(told).encode())


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"\xff",
        b"[" * 5000,
        json.dumps(ORDER).encode(),
        signed(ORDER, "another"),
        b'{"a":1e999}',
    ],
)
def test_unipesa_is_not_heard_unsigned(body: bytes) -> None:
    """Not without a signature, not with another's, nor what is no document."""
    with pytest.raises(ForgedError):
        hears(unipesa.REGISTRATION, body=body)


# ------------------------------------------------------------------------------------------------- CinetPay, JumiaPay


def test_cinetpay_is_heard_by_our_id() -> None:
    """A GET finds us there and speaks of nothing; a form speaks of its client_transaction_id."""
    form = {
        "transaction_id": "EA1",
        "client_transaction_id": KEY,
        "lot": "7",
        "comment": "Transfert effectué avec succès",
    }
    assert hears(cinetpay.REGISTRATION, method="GET") == Heard()
    assert hears(cinetpay.REGISTRATION, method="GET", body=urlencode(form).encode()) == Heard()
    assert hears(cinetpay.REGISTRATION, body=urlencode(form).encode()) == Heard((KEY,))
    raw = f"comment=effectué&client_transaction_id={KEY}".encode("latin-1")
    assert hears(cinetpay.REGISTRATION, body=raw) == Heard((KEY,))
    for odd in ("", "client_transaction_id=", f"client_transaction_id={KEY}&" * 2, "client_transaction_id=a%2Fb"):
        assert hears(cinetpay.REGISTRATION, body=odd.encode()) == Heard()


def test_jumiapay_is_heard_by_our_id() -> None:
    """Both printed calls speak of the credit that they name; what names none of ours speaks of nothing."""
    usage = {**CREDIT_STATUS_CHANGE, "type": "CREDIT_USAGE_UPDATE", "old_status": None, "new_status": None}
    for told in (CREDIT_STATUS_CHANGE, usage):
        assert hears(jumiapay.REGISTRATION, body=json.dumps(told).encode()) == Heard(("HCgfE",))
    malformed: list[Any] = [
        {**CREDIT_STATUS_CHANGE, "type": "OTHER"},
        {**CREDIT_STATUS_CHANGE, "credit": {"partner_credit_id": None}},
        {**CREDIT_STATUS_CHANGE, "credit": {"partner_credit_id": "../secret"}},
        {**CREDIT_STATUS_CHANGE, "credit": None},
        [],
    ]
    for told in malformed:
        assert hears(jumiapay.REGISTRATION, body=json.dumps(told).encode()) == Heard()


@given(body=st.binary(max_size=300) | st.text(max_size=100).map(str.encode))
def test_nothing_that_comes_in_breaks_an_adapter(body: bytes) -> None:
    """Whatever it is, it speaks of something, of nothing, or is forged."""
    for registration in (cinetpay.REGISTRATION, jumiapay.REGISTRATION):
        hears(registration, body=body)
    with pytest.raises(ForgedError):
        hears(unipesa.REGISTRATION, body=body)


def test_a_provider_without_documented_calls_hears_none() -> None:
    """Senfenico's document describes no call about a transfer, so nothing of it is taken."""
    account = Account(name="test", secrets=senfenico.REGISTRATION.sandbox_secrets)
    assert not isinstance(senfenico.REGISTRATION.face(Direction.PAY).connect(account), HearsCallbacks)


# --------------------------------------------------------------------------------------------------- from the sandboxes

PAYOUTS = {
    "cinetpay": Payout("CI-1", 500, phone="0707892525", country="CI", name="Koné Aminata", email="a@example.com"),
    "unipesa": Payout("KE-1", 520_000, phone="0722651887", country="KE", name="Kamau Grace"),
    "jumiapay": Payout("NG-1", 1_300_000, email="tunde@example.com", country="NG", name="Adeyemi Tunde"),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "cinetpay": {},
    "unipesa": {"provider_ids": {"KE/mpesa": 2390}},
    "jumiapay": {},
}
REGISTRATIONS = {one.name: one for one in (cinetpay.REGISTRATION, unipesa.REGISTRATION, jumiapay.REGISTRATION)}


@pytest.fixture
def port() -> int:
    """A port that is free."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.mark.parametrize(
    ("name", "direction"),
    [("cinetpay", "pay"), ("unipesa", "pay"), ("unipesa", "collect"), ("jumiapay", "pay")],
)
async def test_what_a_sandbox_calls_to_say_settles_what_nobody_follows(
    tmp_path: Path, port: int, name: str, direction: str
) -> None:
    """The address goes along with the payment, the sandbox calls it, and the server asks what became of it."""
    registration = REGISTRATIONS[name]
    async with registration.sandbox(None, settle_seconds=1.5) as bank:
        given = {
            key: value for key, value in registration.sandbox_options.items() if key != registration.callback_option
        }
        options = {**given, **OPTIONS[name], **registration.sandbox_secrets, "base_url": bank.base_url}
        settings = Settings(
            journal=tmp_path / "payouts.db",
            accounts={"one": AccountSettings(name, options)},
            callbacks_url=f"http://127.0.0.1:{port}",
        )
        async with Engine.open(settings) as engine, engine.serving("127.0.0.1", port) as address:
            assert address == f"http://127.0.0.1:{port}"
            run = await engine.submit([PAYOUTS[name]], direction=direction)
            ends = [one.status async for one in engine.pay(run, follow_for_seconds=0)]
            assert ends == [State.ACCEPTED]
            journal = await engine.journal()

            async def settled() -> bool:
                return (await journal.tally(run.run_id))[0].state is State.PAID

            await until(settled)
            # What else is called: forged and repeated calls change nothing.
            (path,) = (await engine.callback_paths()).values()
            async with aiohttp.ClientSession() as session, session.post(address + path, data=b"?") as answer:
                assert answer.status == (401 if name == "unipesa" else 200)
            assert (await engine.verify(run.run_id)).proven


async def until(happened: Callable[[], Any]) -> None:
    """Wait until something is so."""
    with anyio.fail_after(30):
        while not await happened():
            await anyio.sleep(0.05)


# ------------------------------------------------------------------------------------------------------ the addresses


@pytest.mark.parametrize(
    "written", ["http://pay.example.com", "ftp://x", "https://", "https://a@x", "https://x/?q", "x"]
)
def test_calls_are_taken_over_tls_alone(written: str) -> None:
    """An address that others reach has TLS, a host, and nothing else."""
    with pytest.raises(ValueError, match="callbacks_url"):
        Settings(callbacks_url=written)


def of_account(name: str, secret: str, callbacks_url: str, *, sandbox: bool = False, **options: Any) -> Any:
    """Return an engine of one account at Unipesa."""
    given = {**unipesa.REGISTRATION.sandbox_options, "base_url": "https://gateway.example.com", **options}
    accounts = {name: AccountSettings("unipesa", {**given, "secret_key": f"{secret}_test_"})}
    return Engine.open(Settings(accounts=accounts, callbacks_url=callbacks_url), sandbox=sandbox)


async def test_an_address_follows_from_the_account_and_its_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the same each time, another for each account and each key, long, and shows nothing of the key."""
    monkeypatch.chdir(tmp_path)
    parts = set()
    for name, secret in (("a", "one"), ("a", "one"), ("b", "one"), ("a", "two"), ("c/d é", "one")):
        async with of_account(name, secret, "https://pay.example.com/") as engine:
            ((account, path),) = (await engine.callback_paths()).items()
        assert account == name
        start, _, part = path.rpartition("/")
        assert len(part) >= 22
        assert secret not in part
        assert path.isascii()
        assert start.count("/") == 1
        parts.add(part)
    assert len(parts) == 4


@pytest.mark.parametrize(
    ("callbacks_url", "sandbox", "options", "told"),
    [
        ("https://pay.example.com/", False, {}, "https://pay.example.com/a/"),
        ("https://pay.example.com", False, {"callback_url": "https://own.example.com"}, "https://own.example.com"),
        ("", False, {}, ""),
        ("https://pay.example.com", True, {}, ""),
        ("http://127.0.0.1:8787", True, {}, "http://127.0.0.1:8787/a/"),
        ("http://127.0.0.1:8787", False, {}, ""),
        ("http://127.0.0.1:8787", False, {"base_url": "http://localhost:9"}, "http://127.0.0.1:8787/a/"),
    ],
)
async def test_whom_is_told_where_to_call(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    callbacks_url: str,
    sandbox: bool,
    options: dict[str, Any],
    told: str,
) -> None:
    """Every provider of an address that it can reach; an option of its own wins; a sandbox of this machine's alone."""
    monkeypatch.chdir(tmp_path)
    async with of_account("a", "one", callbacks_url, sandbox=sandbox, **options) as engine:
        provider: Any = await engine.accounts.connect("a")
        assert provider._callback_url.startswith(told)
        assert bool(provider._callback_url) == bool(told)


async def test_cinetpay_needs_an_address_from_somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its notify_url is written, or filled in where calls are taken; with neither the account cannot be used."""
    monkeypatch.chdir(tmp_path)
    accounts = {"ci": AccountSettings("cinetpay", {"api_key": "x_test_x", "password": "x_test_x"})}
    async with Engine.open(Settings(accounts=accounts, callbacks_url="https://pay.example.com")) as engine:
        assert engine.accounts.traits("ci").batch_limit == 100
        assert "ci" in await engine.callback_paths()
    async with Engine.open(Settings(accounts=accounts)) as engine:
        with pytest.raises(ConfigError, match="notify_url is missing"):
            engine.accounts.traits("ci")
