"""Every documented call about single credits, typed, one method each.

No path ends with a slash. Moves money in `create` only, by POST, once; `cancel` takes back what is unspent. Called by
`adapter.py`; usable by itself.

Source: JumiaPay Credits API document (v1), section "Single credits", read 2026-11-20.
"""

from __future__ import annotations

from urllib.parse import quote

from payout_engine.providers._http import HttpClient, OpenSession, connections
from payout_engine.providers.jumiapay import wire

BASE_URL = "https://api-pay.jumia.ci/b2ccredits"
"""The one host that the document prints. Other countries' accounts name theirs."""


class JumiaPayClient:
    """One Credit account of one business area at one address. Its repr shows no secret.

    Args:
        api_key: the value of the header `apikey`.
        business_area: the value of the header `X-Business-Area`.
        credit_account: the id of the Credit account that the money comes from.
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
        api_key: str,
        *,
        business_area: str,
        credit_account: str,
        base_url: str = BASE_URL,
        timeout_seconds: float = 60.0,
        loopback_only: bool = False,
        concurrency: int = 8,
        open_session: OpenSession = connections,
    ) -> None:
        self._credits = f"/api/v1/single-credits/{quote(credit_account, safe='')}"
        self._http = HttpClient(
            base_url,
            {"apikey": api_key, "X-Business-Area": business_area},
            timeout_seconds=timeout_seconds,
            loopback_only=loopback_only,
            concurrency=concurrency,
            open_session=open_session,
        )

    def __repr__(self) -> str:
        return f"JumiaPayClient({self._http.host!r})"

    async def create(self, credit: wire.NewCredit) -> wire.Credit:
        """Ask for a credit. Moves money, later: whether the balance is enough shows when the credit is delivered.

        Raises:
            NotSentError, RefusedError, AmbiguousError: as `Provider.send`.
        """
        # This is the one line where money leaves.
        return wire.read_credit(await self._http.post_json(self._credits, wire.body(credit)), wire.CREATED)

    async def fetch(self, uuid: str) -> wire.Credit:
        """Return one credit by the provider's id.

        Raises:
            ProviderError: it could not be read, or there is none (reason `not_found`).
        """
        return await self._get(f"{self._credits}/{quote(uuid, safe='')}")

    async def find(self, partner_credit_id: str) -> wire.Credit:
        """Return one credit by our own id.

        Raises:
            ProviderError: it could not be read, or none is shown (reason `not_found`), which proves nothing.
        """
        return await self._get(f"{self._credits}/partner-id/{quote(partner_credit_id, safe='')}")

    async def cancel(self, uuid: str) -> wire.Credit:
        """Ask to take back what is unspent of a delivered credit. Returns the credit; the rest happens later.

        Raises:
            ProviderError: it was refused, which the document says of credits that are not delivered, or it is not
                known whether it was heard.
        """
        answer = await self._http.post_json(f"{self._credits}/{quote(uuid, safe='')}/cancel", b"")
        return wire.read_credit(answer, wire.SHOWN)

    async def _get(self, path: str) -> wire.Credit:
        return wire.read_credit(await self._http.get(path), wire.SHOWN)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._http.aclose()
