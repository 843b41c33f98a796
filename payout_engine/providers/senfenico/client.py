"""Every documented call about transfers and balances, typed, one method each.

Slashes are as printed: creation and the list end with one, the fetch of one transfer and the balances do not. Moves
money only in `create` and `bulk_create`, by POST, once. Called by `adapter.py`; usable by itself.

Source: Senfenico API document, sections "balance" and "transfers", read 2026-11-20. The document's other calls
(checkouts, charges, settlements) collect money or bring it home; a payout never needs them.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from urllib.parse import quote

from payout_engine.domain.errors import AmbiguousError
from payout_engine.domain.limits import LIST_BYTES_MAX, LIST_SECONDS_MAX
from payout_engine.providers._http import HttpClient, OpenSession, connections
from payout_engine.providers.senfenico import wire
from payout_engine.providers.senfenico.balances import WalletBalance, read_balances
from payout_engine.providers.senfenico.envelope import read_envelope
from payout_engine.providers.senfenico.listing import NewestFirst, TransferListReader
from payout_engine.providers.senfenico.shown import Listed, Transfer, read_created, read_transfer

BASE_URL = "https://api.senfenico.com"

TRANSFERS = "/v1/payment/transfers/"
BULK = "/v1/payment/transfers/bulk/"
BALANCES = "/v1/payment/balances"


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

    async def create(self, order: wire.Order) -> Transfer:
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
        self, since: float | None = None, *, bytes_max: int = LIST_BYTES_MAX, seconds_max: float = LIST_SECONDS_MAX
    ) -> AsyncGenerator[Sequence[Listed]]:
        """Yield every transfer of the account, newest first, in pieces of bounded size.

        Args:
            since: end where the list shows that all newer ones are behind, in seconds since 1970; None for never.
            bytes_max: how long the list may be.
            seconds_max: how long it may take.

        Raises:
            ProviderError: the list could not be read, or not to its end; what was yielded stands.
        """
        async with self._http.stream(TRANSFERS, bytes_max=bytes_max, seconds_max=seconds_max) as stream:
            if stream.status != 200:
                read_envelope(await stream.answer())
                raise AmbiguousError("answer_unreadable", f"Senfenico answered its list with HTTP {stream.status}")
            reader = TransferListReader(stream.status)
            order = None if since is None else NewestFirst(since)
            async for chunk in stream.chunks():
                transfers = reader.feed(chunk)
                if not transfers:
                    continue
                yield transfers
                if order is not None and order.is_past(transfers) and reader.said_success():
                    return
            reader.close()

    async def fetch(self, reference: str) -> Transfer:
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

    async def aclose(self) -> None:
        """Close all connections."""
        await self._http.aclose()
