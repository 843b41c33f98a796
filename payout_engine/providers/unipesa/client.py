"""Every documented call, typed, one method each. Moves money in `payment_b2c` and `payment_c2b` only, by POST, once.

Called by `adapter.py`; usable by itself. Source: Unipesa gateway API document, section “API methods”, read 2026-11-20;
it has lost its paths, which are those of a client that the provider generated for itself.
"""

from __future__ import annotations

from urllib.parse import quote

import msgspec

from payout_engine.domain.errors import ForgedError
from payout_engine.providers._http import UNREADABLE, HttpClient, OpenSession, connections
from payout_engine.providers.unipesa import wire
from payout_engine.providers.unipesa.signature import verify_callback


class UnipesaClient:
    """One merchant at one address. Its repr shows no secret.

    Args:
        public_id: the merchant's, in the path of every call.
        merchant_id: the merchant's, in the body of every call.
        secret_key: signs every call; it is never sent.
        base_url: where the gateway of this merchant is; the document names none.
        timeout_seconds: for one whole call.
        loopback_only: refuse any host but this machine.
        concurrency: paying calls on the wire at once, at most.
        open_session: makes the connections; see `HttpClient`.

    Raises:
        ConfigError: the address cannot be used.
    """

    def __init__(
        self,
        public_id: str,
        merchant_id: str,
        secret_key: str,
        *,
        base_url: str,
        timeout_seconds: float = 60.0,
        loopback_only: bool = False,
        concurrency: int = 8,
        open_session: OpenSession = connections,
    ) -> None:
        self._path = f"/{quote(public_id, safe='')}/"
        self._merchant_id = merchant_id
        self._secret_key = secret_key
        self._http = HttpClient(
            base_url,
            {},
            timeout_seconds=timeout_seconds,
            loopback_only=loopback_only,
            concurrency=concurrency,
            open_session=open_session,
        )

    def __repr__(self) -> str:
        return f"UnipesaClient({self._http.host!r})"

    async def payment_b2c(self, order: wire.Order) -> wire.Answer:
        """Pay a customer. Moves money, once for each `order_id`: the same one again is answered as it was.

        Raises:
            NotSentError, AmbiguousError: as `Provider.send`. An error code is no error here, but told by the answer.
        """
        return await self._pay("payment_b2c", order)

    async def payment_c2b(self, order: wire.Order) -> wire.Answer:
        """Ask a customer to pay the merchant. Otherwise as `payment_b2c`."""
        return await self._pay("payment_c2b", order)

    async def status(self, order_id: str, *, customer_id: str = "", otp: str = "") -> wire.Answer:
        """Return how an order stands. Moves no money by itself.

        Args:
            order_id: ours.
            customer_id: the customer's phone, and
            otp: the one-time password that they were sent, for an operator that wants it handed in by this call.

        Raises:
            NotSentError, AmbiguousError: it could not be asked.
        """
        body = wire.status_body(order_id, self._merchant_id, self._secret_key, customer_id=customer_id, otp=otp)
        return wire.read_answer(await self._http.post_json(f"{self._path}status", body))

    def hears(self, body: bytes) -> str | None:
        """Return the order that a callback speaks of: a body that the provider has signed for this merchant.

        Returns:
            Its `order_id`, or None where it names none that can be one. What else it states is a hint, and is left out.

        Raises:
            ForgedError: it is not signed with this merchant's key.
        """
        try:
            parsed = msgspec.json.decode(body)
        except UNREADABLE:
            parsed = None
        if not verify_callback(self._secret_key, parsed):
            raise ForgedError("the call is not signed with the secret_key of this account")
        order_id = parsed.get("order_id")
        return order_id if isinstance(order_id, str) and wire.ORDER_ID.fullmatch(order_id) else None

    async def aclose(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def _pay(self, call: str, order: wire.Order) -> wire.Answer:
        body = wire.order_body(order, self._merchant_id, self._secret_key)
        # This is the one line where money leaves, or is asked for.
        return wire.read_answer(await self._http.post_json(self._path + call, body))
