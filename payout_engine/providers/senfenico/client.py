"""Every documented call of Senfenico, typed, one method each.

Slashes are as printed: what makes something ends with one (but for `submit_otp`), what shows one thing does not, and
the cancelling of a settlement is a GET that does. Pays only in `create` and `bulk_create`, by POST, once. Called by
`adapter.py`, which needs transfers and balances; the rest collects money or brings it home, for programs that use this
class by itself.

Every method raises `NotSentError` if the call provably never left, `RefusedError` if the document prints the answer as
a refusal of this call, and `AmbiguousError` for anything else that is no plain yes; `reason` is the code in lower case.

Source: Senfenico API document, read 2026-11-20.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from urllib.parse import quote

import msgspec

from payout_engine.domain.errors import AmbiguousError
from payout_engine.domain.limits import LIST_BYTES_MAX, LIST_SECONDS_MAX
from payout_engine.providers._http import HttpClient, OpenSession, connections
from payout_engine.providers.senfenico import wire
from payout_engine.providers.senfenico.balances import Statement, WalletBalance, read_balances, read_statement
from payout_engine.providers.senfenico.collecting import (
    CANCEL_REFUSALS,
    CHARGE_REFUSALS,
    SUBMIT_REFUSALS,
    Charge,
    Checkout,
    NewCharge,
    NewCheckout,
    Settlement,
    StartedCharge,
    StartedCheckout,
)
from payout_engine.providers.senfenico.envelope import read_data, read_envelope
from payout_engine.providers.senfenico.listing import NewestFirst, TransferListReader
from payout_engine.providers.senfenico.shown import FullTransfer, Listed, read_created, read_transfer

BASE_URL = "https://api.senfenico.com"

TRANSFERS = "/v1/payment/transfers/"
BULK = "/v1/payment/transfers/bulk/"
BALANCES = "/v1/payment/balances"
CHECKOUTS = "/v1/payment/checkouts"
CHARGES = "/v1/payment/charges"
SETTLEMENTS = "/v1/payment/settlements"


class SenfenicoClient:
    """One API key at one address. Its repr shows no secret.

    Args:
        api_key: `sk_test_...` or `sk_live_...`; the key decides the mode.
        base_url: the provider's address, or a sandbox's.
        timeout_seconds: for one whole call.
        loopback_only: refuse any host but this machine.
        concurrency: paying calls on the wire at once, at most.
        open_session: makes the connections; see `HttpClient`.

    Raises:
        ConfigError: the address cannot be used.
    """

    def __init__(
        self,
        api_key: str,
        *,
        base_url: str = BASE_URL,
        timeout_seconds: float = 60.0,
        loopback_only: bool = False,
        concurrency: int = 8,
        open_session: OpenSession = connections,
    ) -> None:
        self._http = HttpClient(
            base_url,
            {"X-API-KEY": api_key},
            timeout_seconds=timeout_seconds,
            loopback_only=loopback_only,
            concurrency=concurrency,
            open_session=open_session,
        )

    def __repr__(self) -> str:
        return f"SenfenicoClient({self._http.host!r})"

    async def create(self, order: wire.Order) -> FullTransfer:
        """Ask for one transfer. Moves money.

        Raises:
            NotSentError, RefusedError, AmbiguousError: as `Provider.send`.
        """
        return read_created(await self._http.post_json(TRANSFERS, wire.single_body(order)))

    async def bulk_create(self, orders: Sequence[wire.Order]) -> wire.BulkAnswer:
        """Ask for up to 100 transfers. Moves money. The answer holds no references.

        Raises:
            NotSentError, RefusedError, AmbiguousError: as `Provider.send`.
        """
        # This is the one line where money leaves. The document's headings print GET here, all its samples POST.
        return wire.read_bulk(await self._http.post_json(BULK, wire.bulk_body(orders)))

    async def transfers(
        self,
        since: float | None = None,
        *,
        complete: bool = False,
        bytes_max: int = LIST_BYTES_MAX,
        seconds_max: float = LIST_SECONDS_MAX,
    ) -> AsyncGenerator[Sequence[Listed]]:
        """Yield every transfer of the account, newest first, in pieces of bounded size.

        Args:
            since: end where the list shows that all newer ones are behind, in seconds since 1970; None for never.
            complete: hand out every documented field (`FullTransfer`), where they can be read.
            bytes_max: how long the list may be.
            seconds_max: how long it may take.

        Raises:
            ProviderError: the list could not be read, or not to its end; what was yielded stands.
        """
        async with self._http.stream(TRANSFERS, bytes_max=bytes_max, seconds_max=seconds_max) as stream:
            if stream.status != 200:
                read_envelope(await stream.answer())
                raise AmbiguousError("answer_unreadable", f"Senfenico answered its list with HTTP {stream.status}")
            reader = TransferListReader(stream.status, complete=complete)
            order = None if since is None else NewestFirst(since)
            async for chunk in stream.chunks():
                transfers = reader.feed(chunk)
                if not transfers:
                    continue
                yield transfers
                if order is not None and order.is_past(transfers) and reader.said_success():
                    return
            reader.close()

    async def fetch(self, reference: str) -> FullTransfer:
        """Return one transfer by the provider's reference.

        Raises:
            ProviderError: it could not be read, or there is none.
        """
        return read_transfer(await self._http.get(TRANSFERS + quote(reference, safe="")))

    async def balances(self) -> Sequence[WalletBalance]:
        """Return the transfer balance of each wallet.

        Raises:
            ProviderError: it could not be read.
        """
        return read_balances(await self._http.get(BALANCES))

    async def statement(self) -> Statement:
        """Return all that is told of the account's money: what was collected, and what can be paid out.

        Raises:
            ProviderError: it could not be read.
        """
        return read_statement(await self._http.get(BALANCES))

    # -- collecting by a page of Senfenico's

    async def initialize_checkout(self, new: NewCheckout) -> StartedCheckout:
        """Open a page on which a customer can pay, and return its address."""
        return read_data(
            await self._http.post_json(f"{CHECKOUTS}/initialize/", msgspec.json.encode(new)), StartedCheckout
        )

    async def fetch_checkout(self, reference: str) -> Checkout:
        """Return one checkout by its reference."""
        return read_data(await self._http.get(f"{CHECKOUTS}/{quote(reference, safe='')}"), Checkout)

    async def checkouts(self) -> Sequence[Checkout]:
        """Return every checkout of the account: no paging is documented, and a list of over 16 MiB is no answer."""
        return read_data(await self._http.get(CHECKOUTS), list[Checkout])

    # -- collecting by ourselves

    async def create_charge(self, new: NewCharge) -> StartedCharge:
        """Ask for money from a customer's wallet; `status` and `display_text` say what the customer does next."""
        return read_data(await self._http.post_json(f"{CHARGES}/", new.body()), StartedCharge)

    async def submit_otp(self, charge_reference: str, otp: str) -> Charge:
        """Hand on the code that the customer was given, which completes the charge. `otp_invalid` is a refusal."""
        body = msgspec.json.encode({"otp": otp, "charge_reference": charge_reference})
        return read_data(await self._http.post_json(f"{CHARGES}/submit", body), Charge, SUBMIT_REFUSALS)

    async def fetch_charge(self, reference: str) -> Charge:
        """Return one charge by its reference. `charge_not_found` is a refusal."""
        return read_data(await self._http.get(f"{CHARGES}/{quote(reference, safe='')}"), Charge, CHARGE_REFUSALS)

    async def charges(self) -> Sequence[Charge]:
        """Return every charge of the account. Otherwise as `checkouts`."""
        return read_data(await self._http.get(CHARGES), list[Charge])

    # -- bringing it home

    async def create_settlement(self, amount: int) -> Settlement:
        """Send collected money, in whole francs, to the merchant's own payment account, which must have been set up."""
        return read_data(
            await self._http.post_json(f"{SETTLEMENTS}/", msgspec.json.encode({"amount": amount})), Settlement
        )

    async def fetch_settlement(self, reference: str) -> Settlement:
        """Return one settlement by its reference."""
        return read_data(await self._http.get(f"{SETTLEMENTS}/{quote(reference, safe='')}"), Settlement)

    async def settlements(self) -> Sequence[Settlement]:
        """Return every settlement of the account. Otherwise as `checkouts`."""
        return read_data(await self._http.get(SETTLEMENTS), list[Settlement])

    async def cancel_settlement(self, reference: str) -> Settlement:
        """Cancel a settlement that is still `processing`: a GET that changes something, as the document prints it.

        `settlement_not_processing` is a refusal, but a GET may be repeated on its way when a connection is lost: the
        second finds what the first has cancelled. Fetch the settlement before anything is made of it.
        """
        path = f"{SETTLEMENTS}/{quote(reference, safe='')}/cancel/"
        return read_data(await self._http.get(path), Settlement, CANCEL_REFUSALS)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._http.aclose()
