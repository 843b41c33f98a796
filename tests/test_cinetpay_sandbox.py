"""CinetPay's sandbox, called as by a stranger: strict as the document, and its ledger tells the truth."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import anyio
import orjson
import pytest
from aiohttp import web

from payout_engine.providers._sandbox import LATE_SETTLE_FACTOR, Fault, FaultKind, serving
from payout_engine.providers.cinetpay.sandbox import CinetPaySandbox, sandbox

KEYS = {"apikey": "a_test_key", "password": "a_test_word"}
LOGIN, BALANCE, CONTACT = "/v1/auth/login", "/v1/transfer/check/balance", "/v1/transfer/contact"
SEND, CHECK = "/v1/transfer/money/send/contact", "/v1/transfer/check/money"
AWA = {"prefix": "225", "phone": "0102324373", "name": "Koné", "surname": "Awa", "email": "awa@example.com"}


class Caller:
    """Somebody who reads the document and calls."""

    def __init__(self, session: aiohttp.ClientSession, server: CinetPaySandbox) -> None:
        self._session = session
        self.server = server
        self.query = {"lang": "fr"}

    async def post(self, path: str, fields: Any, **query: str) -> Any:
        url = self.server.base_url + path
        async with self._session.post(url, data=fields, params={**self.query, **query}) as got:
            return orjson.loads(await got.read())

    async def get(self, path: str, **query: str) -> Any:
        async with self._session.get(self.server.base_url + path, params={**self.query, **query}) as got:
            return orjson.loads(await got.read())

    async def post_items(self, path: str, *items: Any) -> Any:
        return await self.post(path, {"data": orjson.dumps(items).decode()})

    async def send(self, *changes: dict[str, Any]) -> Any:
        """Send transfers: the printed one, with changes."""
        printed = {"prefix": "225", "phone": "0102324373", "amount": 500, "notify_url": "https://yourdomain.com/n"}
        return await self.post_items(SEND, *({**printed, **change} for change in changes))


@asynccontextmanager
async def calling(**settings: Any) -> AsyncIterator[Caller]:
    """A caller with a token and one contact."""
    async with sandbox(**{"settle_seconds": 0.0, **settings}) as server, aiohttp.ClientSession() as session:
        caller = Caller(session, server)
        caller.query["token"] = (await caller.post(LOGIN, KEYS))["data"]["token"]
        await caller.post_items(CONTACT, AWA)
        yield caller


def code_of(answer: Any) -> tuple[Any, str]:
    """The code of an answer, or of the only item in it."""
    if answer["code"] == 0:
        ((item,),) = answer["data"]
        return item["code"], item["status"]
    return answer["code"], answer["message"]


async def test_codes_have_the_types_that_are_printed() -> None:
    """701 and 706 are texts, 0, 602 and 723 numbers; a refusal holds an empty list, its words as printed."""
    async with calling(balances={"CI": 4_233}) as caller:
        bad_key = await caller.post(LOGIN, {**KEYS, "password": "wrong"})
        bad_token = await caller.get(BALANCE, token="wrong")
        poor = await caller.send({"amount": 32_000})
        nothing = await caller.get(CHECK, lot="1")
    assert bad_key == {
        "code": "701",
        "message": "INVALID_CREDENTIALS",
        "description": "Identifiant de connexion incorrect",
        "data": [],
    }
    assert (bad_token["code"], bad_token["description"]) == ("706", "Votre token est invalide")
    assert poor == {
        "code": 602,
        "message": "INSUFFICIENT_BALANCE",
        "description": "Fonds Insuffisant :disponible 4 233,00, Total de l'operation à effectuer : 32 000,00",
        "data": [],
    }
    assert (nothing["code"], nothing["message"], nothing["data"]) == (723, "NOT_FOUND", [])


async def test_answers_are_nested_as_printed() -> None:
    """A list in a list for contacts and transfers, a plain one for a look-up, where amounts are texts."""
    async with calling() as caller:
        ((contact,),) = (await caller.post_items(CONTACT, {**AWA, "phone": "0102324374"}))["data"]
        ((sent,),) = (await caller.send({"client_transaction_id": "A"}))["data"]
        (checked,) = (await caller.get(CHECK, client_transaction_id="A"))["data"]
    assert contact["code"] == 0 and contact["status"] == "success" and contact["name"] == "Koné"
    assert sent["treatment_status"] == "NEW" and sent["amount"] == 500 and sent["transaction_id"].startswith("EA")
    assert set(checked) == {
        *("transaction_id", "client_transaction_id", "lot", "amount", "receiver", "receiver_e164", "operator"),
        *("sending_status", "transfer_valid", "treatment_status", "comment", "validated_at"),
    }
    assert (checked["amount"], checked["receiver_e164"]) == ("500", "+2250102324373")
    assert (checked["sending_status"], checked["treatment_status"], checked["lot"]) == ("CONFIRM", "VAL", sent["lot"])


async def test_data_need_not_be_quoted() -> None:
    """Real callers send it as it is."""
    async with calling() as caller:
        raw = b"data=" + orjson.dumps([{**AWA, "phone": "0102324374"}])
        url = f"{CONTACT}?token={quote(caller.query['token'])}"
        async with aiohttp.ClientSession() as session:
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            async with session.post(f"{caller.server.base_url}{url}&lang=en", data=raw, headers=headers) as got:
                assert code_of(orjson.loads(await got.read())) == (0, "success")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"amount": 503}, 801),
        ({"amount": 0}, 801),
        ({"amount": "500"}, 801),
        ({"phone": "0102324399"}, 724),
        ({"phone": "01020304"}, -1),
        ({"prefix": "+225"}, -1),
        ({"prefix": "1"}, -1),
        ({"payment_method": "WAVESN"}, 716),
        ({"notify_url": ""}, 725),
    ],
)
async def test_what_the_document_forbids_is_refused(change: dict[str, Any], code: int) -> None:
    """Off the multiple of 5, to a stranger, with a sign before the prefix, by another country's wallet, without url."""
    async with calling() as caller:
        assert code_of(await caller.send(change))[0] == code
        assert not caller.server.ledger.transfers()
        assert code_of(await caller.send({"payment_method": "WAVECI"})) == (0, "success")


async def test_an_item_is_refused_alone_and_a_call_whole() -> None:
    """One bad amount leaves the others; one balance that is short takes all."""
    async with calling(balances={"CI": 900}) as caller:
        ((good, bad),) = (await caller.send({"client_transaction_id": "A"}, {"amount": 501}))["data"]
        assert (good["code"], bad["code"]) == (0, 801)
        assert (await caller.send({"amount": 300}, {"amount": 200}))["code"] == 602
        assert len(caller.server.ledger.transfers()) == 1


@pytest.mark.parametrize("fields", [{}, {"data": "x"}, {"data": "[]"}, {"data": "{}"}, {"data": "[1]"}])
async def test_a_body_that_is_no_list_of_objects_is_refused(fields: dict[str, str]) -> None:
    async with calling() as caller:
        for path in (CONTACT, SEND):
            assert (await caller.post(path, fields))["code"] == 718


async def test_a_contact_needs_every_field_and_stays_one() -> None:
    async with calling() as caller:
        assert code_of(await caller.post_items(CONTACT, AWA)) == (726, "ERROR_PHONE_ALREADY_MY_CONTACT")
        for field in ("name", "surname", "email"):
            stranger = {**AWA, "phone": "0102324374", field: ""}
            assert code_of(await caller.post_items(CONTACT, stranger))[0] == 716


async def test_a_token_lives_its_time_and_no_longer() -> None:
    """It and the language are asked for in every call."""
    async with calling(token_seconds=0.3) as caller:
        assert (await caller.get(BALANCE))["code"] == 0
        assert (await caller.get(BALANCE, lang="de"))["code"] == "704"
        await anyio.sleep(0.35)
        assert (await caller.get(BALANCE))["code"] == "705"


async def test_balances_are_by_country_and_come_back() -> None:
    """What is on its way is in use, what is rejected returns, and one country does not pay for another."""
    async with calling(balances={"CI": 1_000, "SN": 2_000}, settle_seconds=60.0) as caller:
        await caller.send({"amount": 400})
        held = (await caller.get(BALANCE))["data"]
    assert held["countryBalance"]["CI"] == {"available": 600, "inUsing": 400}
    assert held["countryBalance"]["SN"] == {"available": 2_000, "inUsing": 0}
    async with calling(balances={"CI": 1_000}) as caller:
        await caller.post_items(CONTACT, {**AWA, "phone": "0102000001"})
        await caller.send({"phone": "0102000001"})
        assert caller.server.ledger.available()["CI"] == 1_000 and not caller.server.paid()


async def test_an_address_that_is_not_allowed_moves_nothing() -> None:
    """By a control call; everything but a payment goes on."""
    async with calling() as caller:
        await caller.post("/_sandbox/ip", b'{"allowed": false}')
        barred = await caller.send({})
        assert (barred["code"], barred["description"]) == (709, "This IP is not allow to execute this action")
        assert (await caller.get(BALANCE))["code"] == 0 and not caller.server.ledger.transfers()
        await caller.post("/_sandbox/ip", b'{"allowed": true}')
        assert code_of(await caller.send({})) == (0, "success")


async def test_transfers_wait_for_confirmation_by_a_control_call() -> None:
    async with calling(confirmation=True) as caller:
        await caller.send({"client_transaction_id": "A"})
        (waiting,) = (await caller.get(CHECK, client_transaction_id="A"))["data"]
        assert (waiting["sending_status"], waiting["treatment_status"]) == ("PENDING", "NEW")
        assert not caller.server.paid()
        assert await caller.post("/_sandbox/confirm", b"") == {"confirmed": 1}
        (done,) = (await caller.get(CHECK, client_transaction_id="A"))["data"]
        assert (done["sending_status"], done["treatment_status"]) == ("CONFIRM", "VAL")
        assert caller.server.paid() == {"A": (1, 500)}


async def test_a_repeated_id_pays_twice_unless_it_is_refused() -> None:
    """The ledger shows it."""
    for refuses, paid in ((False, 2), (True, 1)):
        async with calling(duplicates_refused=refuses) as caller:
            codes = [code_of(await caller.send({"client_transaction_id": "A"}))[0] for _ in range(2)]
            assert codes == ([0, 805] if refuses else [0, 0])
            assert caller.server.paid() == {"A": (paid, 500 * paid)}
            assert caller.server.summary()["ids_paid_twice"] == int(not refuses)


async def test_an_id_that_pays_in_two_countries_pays_twice() -> None:
    """It is one id, whatever the countries."""
    fatou = {"prefix": "221", "phone": "771234567"}
    async with calling() as caller:
        await caller.post_items(CONTACT, {**AWA, **fatou})
        for where in ({}, fatou):
            await caller.send({"client_transaction_id": "A", **where})
        assert caller.server.paid() == {"A": (2, 1_000)}
        assert caller.server.summary()["ids_paid_twice"] == 1


async def test_fates_and_late_ones() -> None:
    """Some stay in progress, some settle late, some are never shown; all by their last six digits."""
    async with calling(settle_seconds=0.05) as caller:
        for ending in ("000002", "000004", "000005", "000006", "000008"):
            phone = f"0102{ending}"
            await caller.post_items(CONTACT, {**AWA, "phone": phone})
            await caller.send({"phone": phone, "client_transaction_id": ending})
        await anyio.sleep(0.1)
        shown = {key: (await caller.get(CHECK, client_transaction_id=key))["data"] for key in ("000002", "000004")}
        assert [found[0]["treatment_status"] for found in shown.values()] == ["REC", "REC"]
        assert (await caller.get(CHECK, client_transaction_id="000005"))["data"][0]["treatment_status"] == "NOS"
        assert (await caller.get(CHECK, client_transaction_id="000006"))["code"] == 723
        (odd,) = (await caller.get(CHECK, client_transaction_id="000008"))["data"]
        assert (odd["treatment_status"], odd["transfer_valid"]) == ("VAL", "N")
        await anyio.sleep(0.05 * LATE_SETTLE_FACTOR)
        assert (await caller.get(CHECK, client_transaction_id="000004"))["data"][0]["treatment_status"] == "VAL"
        assert set(caller.server.paid()) == {"000004", "000006"}


async def test_faults_of_its_own() -> None:
    """A balance that is empty, a token that has expired, a transfer that is shown late."""
    async with calling() as caller:
        for kind, code in ((FaultKind.LOW_BALANCE, 602), (FaultKind.EXPIRED, "705")):
            caller.server.faults.add(Fault(kind, "send"))
            assert (await caller.send({}))["code"] == code
        caller.server.faults.add(Fault(FaultKind.LATE, "send", seconds=0.1))
        await caller.send({"client_transaction_id": "A"})
        assert (await caller.get(CHECK, client_transaction_id="A"))["code"] == 723
        await anyio.sleep(0.15)
        assert (await caller.get(CHECK, client_transaction_id="A"))["code"] == 0


# ---------------------------------------------------------------------------------------------------------- callbacks


@asynccontextmanager
async def listening(status: int = 200) -> AsyncIterator[tuple[str, list[tuple[str, dict[str, str]]]]]:
    """Somebody who is called back, and what they heard."""
    heard: list[tuple[str, dict[str, str]]] = []

    async def hear(request: web.Request) -> web.Response:
        fields = await request.post()
        heard.append((request.method, {name: str(text) for name, text in fields.items()}))
        return web.Response(status=status)

    app = web.Application()
    app.router.add_route("*", "/hear", hear)
    async with serving(app, "127.0.0.1", 0) as served:
        yield f"{served.base_url}/hear", heard


async def until_heard(heard: list[Any], count: int) -> None:
    with anyio.fail_after(5):
        while len(heard) < count:
            await anyio.sleep(0.01)


async def test_who_is_to_be_called_is_pinged_and_then_told() -> None:
    """A GET without anything, then a form, once the transfer is done: at its end, or after its confirmation."""
    async with listening() as (url, heard), calling(confirmation=True) as caller:
        await caller.send({"client_transaction_id": "A", "notify_url": url})
        await anyio.sleep(0.05)
        assert not heard
        caller.server.confirm()
        await until_heard(heard, 2)
    (ping, nothing), (told, fields) = heard
    assert (ping, nothing, told) == ("GET", {}, "POST")
    assert set(fields) == {
        *("transaction_id", "client_transaction_id", "lot", "amount", "receiver", "sending_status", "comment"),
        *("treatment_status", "operator_transaction_id", "validated_at"),
    }
    assert (fields["client_transaction_id"], fields["amount"], fields["treatment_status"]) == ("A", "500", "VAL")


async def test_who_does_not_answer_the_ping_is_not_told() -> None:
    async with listening(status=404) as (url, heard), calling() as caller:
        await caller.send({"notify_url": url}, {"notify_url": "http://127.0.0.1:9/closed"}, {"notify_url": url})
        await until_heard(heard, 2)
        await anyio.sleep(0.05)
    assert [method for method, _ in heard] == ["GET", "GET"]


async def test_no_other_machine_is_ever_called() -> None:
    """Nothing is even planned for an address elsewhere, nor called after the end."""
    async with listening() as (url, heard):
        async with calling(settle_seconds=0.2) as caller:
            await caller.send(
                {"notify_url": "https://198.51.100.7/x"}, {"notify_url": "http://127.0.0.1.example.com/x"}
            )
            assert caller.server._callbacks._task is None
            await caller.send({"notify_url": url})
        await anyio.sleep(0.3)
    assert not heard


# ------------------------------------------------------------------------------------------------------------- ledger


SERVE_AND_DIE = """
import asyncio, os, pathlib, signal, sys
from payout_engine.providers.cinetpay import CinetPayClient
from payout_engine.providers.cinetpay.sandbox import sandbox
from payout_engine.providers.cinetpay.wire import Contact, Transfer

async def main():
    async with sandbox(pathlib.Path(sys.argv[1]), settle_seconds=0.0) as server:
        client = CinetPayClient("a_test_key", "a_test_word", base_url=server.base_url)
        await client.add_contacts([Contact("225", "0102324373", "A", "B", "c@example.com")])
        await client.send_money([Transfer("225", "0102324373", 500, "https://example.com", "A")])
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


async def test_the_ledger_outlives_a_killed_process(tmp_path: Path) -> None:
    """Transfers, contacts and balances are there again, and are not made anew."""
    path = tmp_path / "ledger.db"
    died = subprocess.run([sys.executable, "-c", SERVE_AND_DIE, str(path)], check=False)
    assert died.returncode == -9
    async with calling(ledger=path, balances={"CI": 5}) as caller:
        assert caller.server.paid() == {"A": (1, 500)}
        assert (await caller.get(CHECK, client_transaction_id="A"))["data"][0]["treatment_status"] == "VAL"
        assert (await caller.get(BALANCE))["data"]["countryBalance"]["CI"]["available"] == 1_000_000 - 500
