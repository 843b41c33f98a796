"""CinetPay as a `Provider`: send, look_up, balances.

It promises what `ports.Provider` promises. Recipients are made contacts first, which moves nothing; then a dispatch
goes out as one call, each payout under its provider key as `client_transaction_id`. What became of a payout is asked by
that id, and for the rest of its call by the lot that the first answer names. An absence proves nothing.

Called by the engine through the registration. Facts with their sources: NOTES.md.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from urllib.parse import parse_qs

from payout_engine.domain.countries import COUNTRIES
from payout_engine.domain.errors import AmbiguousError, ConfigError, NotSentError, ProviderError
from payout_engine.domain.model import Balance, Dispatch, LookUpResult, Payout, Query, Receipt
from payout_engine.domain.money import SCALES
from payout_engine.domain.states import State
from payout_engine.ports.callbacks import Callback, Heard
from payout_engine.ports.provider import KeyPromise
from payout_engine.ports.registration import Account
from payout_engine.providers._http import OpenSession, connections
from payout_engine.providers.cinetpay import wire
from payout_engine.providers.cinetpay.client import BASE_URL, CinetPayClient
from payout_engine.providers.cinetpay.contacts import Contacts, contact_of
from payout_engine.providers.cinetpay.options import options_of, traits, wallets

TOLD_FIELDS_MAX = 100
"""Fields of a call that are looked at. CinetPay's pages name ten."""

_KEY = re.compile(r"[A-Za-z0-9_-]{1,64}")


class CinetPayProvider:
    """One account at CinetPay.

    Args:
        account: its settings.
        open_session: makes the connections; see `HttpClient`.

    Raises:
        ConfigError: the account's secrets, address or options cannot be used.
    """

    def __init__(self, account: Account, open_session: OpenSession = connections) -> None:
        self._options = options_of(account.options)
        self.traits = traits(account.options)
        self._wallets = {wallet.code: wallet for wallet in wallets(account.options)}
        self._client = CinetPayClient(
            _secret(account, "api_key"),
            _secret(account, "password"),
            base_url=account.base_url or BASE_URL,
            timeout_seconds=account.timeout_seconds,
            loopback_only=account.loopback_only,
            concurrency=self._options.concurrency,
            open_session=open_session,
        )
        self._contacts = Contacts(self._client)
        # Where an id is said to pay once, the engine asks by sending again. A refusal may then be of the repetition.
        self._is_resent = self.traits.key_promise is KeyPromise.IDEMPOTENT

    def __repr__(self) -> str:
        return f"CinetPayProvider({self._client!r})"

    async def send(self, dispatch: Dispatch) -> Sequence[Receipt]:
        """Pay a dispatch by one call, after its recipients are contacts. See `ports.Provider.send`."""
        transfers = self._transfers(dispatch)
        people = [
            contact_of(payout, one.prefix, one.phone, self._options.contact_email)
            for payout, one in zip(dispatch.payouts, transfers, strict=True)
        ]
        refused = await self._contacts.add(people)
        going = [one for one in transfers if one.prefix + one.phone not in refused]
        sent = await self._sent(going, alone=not refused)
        receipts = [
            sent.get(one.client_transaction_id) or _no_contact(refused[one.prefix + one.phone]) for one in transfers
        ]
        return [_of_this_call(receipt) for receipt in receipts] if self._is_resent else receipts

    async def _sent(self, transfers: Sequence[wire.Transfer], *, alone: bool) -> Mapping[str, Receipt]:
        """Send what has contacts, and return receipts by key; a doubt is one of theirs alone."""
        if not transfers:
            return {}
        doubt: AmbiguousError
        try:
            receipts = wire.receipts(transfers, await self._client.send_money(transfers))
            return {one.client_transaction_id: got for one, got in zip(transfers, receipts, strict=True)}
        except AmbiguousError as error:
            doubt = error
        except ProviderError:
            raise
        except Exception as error:
            # A fault of ours after the bytes may have left. Its text could show anything, so only its kind is told.
            doubt = AmbiguousError("fault_after_sending", f"unexpected {type(error).__name__}")
        if alone:
            raise doubt
        unknown = Receipt(State.UNKNOWN, doubt.reason, str(doubt))
        return {one.client_transaction_id: unknown for one in transfers}

    def look_up(self, queries: Sequence[Query]) -> AsyncIterator[Sequence[LookUpResult]]:
        """Ask by our id, and for others of the same call by its lot. See `ports.Provider.look_up`."""
        return self._shown(queries)

    async def _shown(self, queries: Sequence[Query]) -> AsyncGenerator[Sequence[LookUpResult]]:
        waiting = {query.key: query for query in queries}
        lots: set[str] = set()
        failed: ProviderError | None = None
        for query in queries:
            if query.key not in waiting:
                continue  # Shown with the lot of another.
            try:
                checked = await self._client.check(client_transaction_id=query.key)
                found = wire.results(checked, {query.key: query})
                del waiting[query.key]
                if found:
                    yield found
                named = {one.lot for one in checked if one.lot and one.client_transaction_id == query.key}
                for lot in named - lots if waiting else ():
                    lots.add(lot)
                    found = _surely(wire.results(await self._client.check(lot=lot), waiting))
                    for result in found:
                        waiting.pop(result.key, None)
                    if found:
                        yield found
            except ProviderError as error:
                if error.brake is not None:
                    raise  # The others would be answered alike.
                failed = failed or error
        if failed is not None:
            raise failed

    def hear(self, callback: Callback) -> Heard:
        """Return the transfer that a call speaks of; a GET only looks whether we answer, and no call is signed.

        See `ports.HearsCallbacks`.
        """
        if callback.method != "POST":
            return Heard()
        try:
            told = parse_qs(callback.body.decode(errors="replace"), max_num_fields=TOLD_FIELDS_MAX)
        except ValueError:
            return Heard()
        keys = told.get("client_transaction_id", ())
        return Heard(tuple(keys)) if len(keys) == 1 and _KEY.fullmatch(keys[0]) else Heard()

    def re_read(self, heard: Heard, queries: Sequence[Query]) -> AsyncIterator[Sequence[LookUpResult]]:
        """Ask about each transfer by our id, as any look-up does."""
        return self._shown(queries)

    async def balances(self) -> Sequence[Balance]:
        """Return what each country's balance holds, as far as CinetPay tells it apart. See `ports.HasBalances`."""
        funds = await self._client.balance()
        told = dict(funds.by_country)
        countries = list(self._options.limits())
        if not told and len(countries) == 1:
            # The document prints one figure, and says that each country has its own: of one country they are the same.
            told = {countries[0]: (funds.available, funds.in_using)}
        return [
            Balance(code, told[code][0] * scale, told[code][1] * scale, currency)
            for code in countries
            if code in told
            for currency in [COUNTRIES[code].currency]
            for scale in [SCALES[currency]]
        ]

    async def aclose(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    def _transfers(self, dispatch: Dispatch) -> Sequence[wire.Transfer]:
        """Spell a dispatch as CinetPay does, refusing what must never have come this far."""
        if not 0 < len(dispatch.payouts) <= self.traits.batch_limit:
            raise NotSentError("dispatch_too_large", f"a call holds 1 to {self.traits.batch_limit} payouts")
        wallet, keys = self._wallets.get(dispatch.lane.name), dispatch.keys
        if wallet is None:
            raise NotSentError("dispatch_malformed", "the wallet is none of this account's")
        if not len(dispatch.payouts) == len(keys) == len(set(keys)) or not all(keys):
            raise NotSentError("dispatch_malformed", "the keys are not one for each payout")
        country, step = COUNTRIES[wallet.country], wallet.multiple_of_minor
        method = "" if wallet.code == wallet.country else wallet.code
        transfers = []
        for payout, key in zip(dispatch.payouts, keys, strict=True):
            national = payout.phone.removeprefix(country.dial_code)
            if not payout.phone.startswith(country.dial_code) or not country.is_mobile(national):
                raise NotSentError("dispatch_malformed", f"a phone number is not one of {country.name}")
            if payout.currency != wallet.currency or payout.amount_minor <= 0 or payout.amount_minor % step:
                raise NotSentError("dispatch_malformed", "an amount is not one that CinetPay sends")
            if _lacks(payout, wallet.needs):
                raise NotSentError("dispatch_malformed", "a recipient has no name, or no e-mail address")
            amount = payout.amount_minor // SCALES[wallet.currency]
            transfers.append(wire.Transfer(country.dial_code, national, amount, self._options.notify_url, key, method))
        return transfers


def _lacks(payout: Payout, needs: Sequence[str]) -> bool:
    return not all(getattr(payout, need) for need in needs)


def _no_contact(why: str) -> Receipt:
    message = f"CinetPay did not take the recipient as a contact, so nothing was sent: {why}"
    return Receipt(State.FAILED, "contact_refused", message)


def _of_this_call(receipt: Receipt) -> Receipt:
    """Take a refusal back to a doubt: it may be of a repetition, and says nothing of what was sent before."""
    if receipt.state is not State.FAILED:
        return receipt
    return Receipt(State.UNKNOWN, receipt.reason, receipt.message)


def _surely(found: Sequence[LookUpResult]) -> list[LookUpResult]:
    """Leave out rejections and contradictions: a lot shows one call, and the same id may have been paid by another.

    They are asked about by their id, which shows all that were made under it.
    """
    return [result for result in found if result.receipt.state is not State.FAILED and not result.conflict]


def _secret(account: Account, name: str) -> str:
    """Return a secret that can be sent as it is.

    Raises:
        ConfigError: it is missing, or holds what no key or password does.
    """
    secret = account.secrets.get(name, "")
    if not secret.strip() or not secret.isprintable():
        raise ConfigError(f"the {name} of account {account.name!r} is missing, or holds signs that cannot be printed")
    return secret
