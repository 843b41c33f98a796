"""Every documented call of Jemeni, typed, one method each.

Asks a customer for money in `send_payment`, and for more to come in `create_subscription`, by POST, once. Called by
`adapter.py`; usable by itself.

Source: Jemeni API document, read 2026-11-20.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import urlencode

import msgspec

from payout_engine.domain import clock
from payout_engine.domain.errors import AmbiguousError
from payout_engine.providers._http import HttpAnswer, HttpClient, OpenSession, connections
from payout_engine.providers.jemeni import wire
from payout_engine.providers.jemeni.signing import Keys, Scheme, Signable, signed_headers

BASE_URL = "https://jemeni.net/api"
SANDBOX_PREFIX = "/sandbox"
"""What stands before every path that the document prints. It prints none for real money."""


class JemeniClient:
    """One merchant at one address. Its repr shows no secret.

    Args:
        keys: the merchant's credentials.
        path_prefix: what stands before every path: `/sandbox`, or what Jemeni has told for real money.
        scheme: how calls are signed.
        base_url: the provider's address, or a sandbox's.
        timeout_seconds: for one whole call.
        loopback_only: refuse any host but this machine.
        concurrency: calls on the wire at once, at most.
        open_session: makes the connections; see `HttpClient`.

    Raises:
        ConfigError: the address cannot be used.
    """

    def __init__(
        self,
        keys: Keys,
        *,
        path_prefix: str,
        scheme: Scheme = Scheme.INTRODUCTION,
        base_url: str = BASE_URL,
        timeout_seconds: float = 60.0,
        loopback_only: bool = False,
        concurrency: int = 4,
        open_session: OpenSession = connections,
    ) -> None:
        self._keys = keys
        self._prefix = path_prefix
        self._scheme = scheme
        self._http = HttpClient(
            base_url,
            {},
            timeout_seconds=timeout_seconds,
            loopback_only=loopback_only,
            concurrency=concurrency,
            open_session=open_session,
        )

    def __repr__(self) -> str:
        return f"JemeniClient({self._http.host!r})"

    async def send_payment(self, request: wire.PaymentRequest, *, request_id: str = "") -> wire.Transaction:
        """Ask a customer for a payment. The answer's `id` is the only thing it can be looked up by.

        Args:
            request: who is asked, and for how much.
            request_id: rides along as a header that no document mentions, for those who read logs on either side.

        Raises:
            NotSentError, AmbiguousError: as `Provider.send`.
        """
        # This is the one line where money is asked for.
        return wire.read(await self._post("/send/payment", wire.body_of(request), request_id), wire.Transaction)

    async def verify_state(self, transaction_id: str) -> wire.Transaction:
        """Return a transaction by its id.

        Raises:
            ProviderError: it could not be read, or the answer is about another one.
        """
        path = f"{self._prefix}/payment/verify/state?{urlencode({'transaction_id': transaction_id})}"
        headers = self._headers("GET", path, b"")
        transaction = wire.read(await self._http.get(path, headers=headers), wire.Transaction)
        if transaction.id != transaction_id:
            raise AmbiguousError("answer_disagrees", "Jemeni answered about another transaction than was asked about")
        return transaction

    async def create_subscription(self, new: wire.NewSubscription) -> wire.Subscription:
        """Let a customer pay a plan again and again. It will ask for money, so it is sent once as a payment is.

        Raises:
            NotSentError, AmbiguousError: as `Provider.send`.
        """
        return wire.read(await self._post("/subscriptions/create", wire.body_of(new)), wire.Subscription)

    async def subscription_plans(self) -> Sequence[wire.Plan]:
        """Return the plans that are configured: a list that is asked for by a POST without a body.

        Raises:
            ProviderError: they could not be read.
        """
        return wire.read(await self._post("/subscriptions/plans", b""), list[wire.Plan])

    async def disable_subscription(self, phone: str) -> wire.Customer:
        """End a customer's subscription, and return the customer.

        Raises:
            ProviderError: it is not known whether it ended.
        """
        body = msgspec.json.encode({"phone": phone})
        return wire.read(await self._post("/subscriptions/disable", body), wire.Customer)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def _post(self, path: str, body: bytes, request_id: str = "") -> HttpAnswer:
        path = self._prefix + path
        named = {"X-Request-Id": request_id} if request_id else {}
        return await self._http.post_json(path, body, headers={**self._headers("POST", path, body), **named})

    def _headers(self, method: str, path: str, body: bytes) -> Mapping[str, str]:
        call = Signable(method, self._http.address(path), body)
        sandbox = self._prefix == SANDBOX_PREFIX
        return signed_headers(self._scheme, self._keys, call, clock.now(), sandbox=sandbox)
