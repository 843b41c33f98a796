"""Unipesa as a `Provider`, once for each direction: send and look_up.

It promises what `ports.Provider` promises. Each payout is one call, under its provider key as `order_id`, which the
document promises to pay once; what became of it is asked by that key. A status call states neither amount nor customer,
so it is believed by the order id alone.

Called by the engine through the registration. Facts with their sources: NOTES.md.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence

import anyio

from payout_engine.domain.countries import COUNTRIES
from payout_engine.domain.errors import AmbiguousError, ConfigError, NotSentError, ProviderError
from payout_engine.domain.model import Direction, Dispatch, LookUpResult, Payout, Query, Receipt
from payout_engine.domain.money import to_decimals
from payout_engine.ports.callbacks import Callback, Heard
from payout_engine.ports.registration import Account
from payout_engine.providers._http import OpenSession, connections, plain_secret
from payout_engine.providers.unipesa import wire
from payout_engine.providers.unipesa.client import UnipesaClient
from payout_engine.providers.unipesa.options import document_type, options_of, places, traits
from payout_engine.providers.unipesa.tables import Place

UNANSWERED_MAX = 8
"""Status calls in a row without an answer, after which the rest is left for the next look-up. One alone may be about an
order that is never answered, and must not keep those behind it from being asked about."""

EXTRA: Mapping[str, str] = {
    "name": "customer_name",
    "email": "customer_email",
    "document_number": "customer_doc_number",
    "otp": "otp",
}
"""Cells by what the document calls them in `extra`."""


class UnipesaProvider:
    """One merchant, in one direction. Its repr shows no secret.

    Args:
        account: its settings.
        direction: whether it pays or collects; it does nothing else.
        open_session: makes the connections; see `HttpClient`.

    Raises:
        ConfigError: something that it cannot do without is missing or cannot be used.
    """

    def __init__(self, account: Account, *, direction: Direction, open_session: OpenSession = connections) -> None:
        options = options_of(account.options)
        secret_key = plain_secret(account, "secret_key")
        for name in ("public_id", "merchant_id"):
            if not getattr(options, name):
                raise ConfigError(f"{name} is missing: write it as the provider gave it")
        if not account.base_url:
            raise ConfigError("base_url is missing: write the address of the gateway that the provider gave you")
        self.traits = traits(account.options)
        self._direction = direction
        self._callback_url = options.callback_url or account.callback_url or ""
        self._return_url = options.return_url
        self._places = {place.code: place for place in places(options, direction)}
        self._client = UnipesaClient(
            options.public_id,
            options.merchant_id,
            secret_key,
            base_url=account.base_url,
            timeout_seconds=account.timeout_seconds,
            loopback_only=account.loopback_only,
            concurrency=options.concurrency,
            open_session=open_session,
        )

    def __repr__(self) -> str:
        return f"UnipesaProvider({self._client!r}, {self._direction})"

    async def send(self, dispatch: Dispatch) -> Sequence[Receipt]:
        """Pay, or ask for, the one payout of a dispatch. See `ports.Provider.send`."""
        order = self._order(dispatch)
        call = self._client.payment_b2c if self._direction is Direction.PAY else self._client.payment_c2b
        try:
            return [wire.receipt(await call(order), order.order_id)]
        except ProviderError:
            raise
        except Exception as error:
            # A fault of ours after the bytes may have left. Its text could show anything, so only its kind is told.
            raise AmbiguousError("fault_after_sending", f"unexpected {type(error).__name__}") from None

    def look_up(self, queries: Sequence[Query]) -> AsyncIterator[Sequence[LookUpResult]]:
        """Ask about each order by its key, a few at once. See `ports.Provider.look_up`."""
        return self._shown([query.key for query in queries])

    def hear(self, callback: Callback) -> Heard:
        """Return the order that a signed call speaks of. See `ports.HearsCallbacks`."""
        if callback.method != "POST":
            return Heard()
        order_id = self._client.hears(callback.body)
        return Heard([order_id] if order_id is not None else ())

    def re_read(self, heard: Heard, queries: Sequence[Query] = ()) -> AsyncIterator[Sequence[LookUpResult]]:
        """Ask about the orders that were heard of: by our keys, so that nothing more has to be known of them."""
        return self._shown(heard.keys)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def _shown(self, keys: Sequence[str]) -> AsyncGenerator[Sequence[LookUpResult]]:
        """Yield what is shown; then raise what failed, once the others were asked about.

        Nothing more is asked where the account is not accepted, or where too many in a row got no answer.
        """
        failures: list[ProviderError] = []
        in_a_row = 0
        for start in range(0, len(keys), self.traits.concurrency):
            found: list[LookUpResult] = []
            failed: list[ProviderError] = []
            handful = keys[start : start + self.traits.concurrency]
            async with anyio.create_task_group() as tasks:
                for key in handful:
                    tasks.start_soon(self._ask, key, found, failed)
            if found:
                yield found
            # One that says that the account is not accepted says most.
            failures = sorted([*failures, *failed], key=lambda error: error.brake is None)
            in_a_row = in_a_row + len(failed) if len(failed) == len(handful) else 0
            if failures and (failures[0].brake is not None or in_a_row >= UNANSWERED_MAX):
                break
        if failures:
            raise failures[0]

    async def _ask(self, key: str, found: list[LookUpResult], failed: list[ProviderError]) -> None:
        try:
            result = wire.look_up_result(await self._client.status(key), key)
        except ProviderError as error:
            failed.append(error)
        else:
            found += [] if result is None else [result]

    # ------------------------------------------------------------------------------------------------------ one order

    def _order(self, dispatch: Dispatch) -> wire.Order:
        """Spell a dispatch as Unipesa does, refusing what must never have come this far."""
        place = self._places.get(dispatch.lane.name)
        if len(dispatch.payouts) != 1:
            raise NotSentError("dispatch_too_large", "a call holds one payout")
        if place is None:
            raise NotSentError("dispatch_malformed", "the wallet is none of this account's, as it is configured")
        if len(dispatch.keys) != 1 or not wire.ORDER_ID.fullmatch(dispatch.keys[0]):
            raise NotSentError("dispatch_malformed", "the key is missing, or is no order id of Unipesa's")
        (payout,), (key,) = dispatch.payouts, dispatch.keys
        if payout.currency != place.currency or payout.amount_minor <= 0:
            raise NotSentError("dispatch_malformed", "the amount is not a positive one in the wallet's currency")
        lacking = next((need for need in place.needs if not getattr(payout, need)), "")
        if lacking:
            raise NotSentError("dispatch_malformed", f"{lacking} is missing, which this provider id wants")
        return wire.Order(
            order_id=key,
            customer_id=_customer_id(place, payout),
            amount=to_decimals(payout.amount_minor, payout.currency, wire.AMOUNT_DECIMALS),
            currency=place.currency,
            provider_id=place.id,
            country=place.country,
            callback_url=self._callback_url,
            extra=self._extra(place, payout),
        )

    def _extra(self, place: Place, payout: Payout) -> Mapping[str, str]:
        """What rides along: all that the id wants, and a one-time password if the line has one."""
        wanted = {*place.needs, *(("otp",) if self._direction is Direction.COLLECT else ())}
        extra = {word: getattr(payout, cell) for cell, word in EXTRA.items() if cell in wanted}
        if "bank" in wanted:
            extra[place.operator.bank_field] = payout.bank
        if "document_type" in wanted:
            extra["customer_doc_type"] = document_type(payout.document_type)
            if not extra["customer_doc_type"]:
                raise NotSentError(
                    "document_type_unknown",
                    "document_type is none of international passport, driving license and national id; correct line "
                    f"{payout.line}",
                )
        if place.return_url:
            extra["return_url"] = self._return_url
        return extra


def _customer_id(place: Place, payout: Payout) -> str:
    """Return whom the call is about, in the form that the id wants."""
    if place.recipient == "account_number":
        if not payout.account_number:
            raise NotSentError("dispatch_malformed", "the account number is missing")
        return payout.account_number
    country = COUNTRIES[place.country]
    national = payout.phone.removeprefix(country.dial_code)
    if payout.phone == national or len(national) not in country.lengths or not national.isdecimal():
        raise NotSentError("dispatch_malformed", f"the phone is no mobile number of {country.name}")
    lead = place.operator.phone_lead
    return (country.dial_code if lead is None else lead) + national
