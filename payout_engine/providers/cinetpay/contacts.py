"""Who has to be made a contact before a payment, and who is one already, as far as this process knows.

No money moves here, so nothing here is in doubt: an error means that no payment was asked for. Called by `adapter.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from payout_engine.domain.errors import AmbiguousError, ProviderError, RefusedError
from payout_engine.domain.model import Payout
from payout_engine.providers.cinetpay.client import CinetPayClient
from payout_engine.providers.cinetpay.codes import ITEM_REASONS, unsent
from payout_engine.providers.cinetpay.wire import Contact, refused_contacts

KNOWN_MAX = 100_000
"""Contacts that are remembered. Beyond, all are forgotten: adding somebody twice costs a call and does nothing."""


class Contacts:
    """The contacts of one account. Its repr shows nobody."""

    def __init__(self, client: CinetPayClient) -> None:
        self._client = client
        self._known: set[str] = set()

    def __repr__(self) -> str:
        return "Contacts()"

    async def add(self, contacts: Sequence[Contact]) -> Mapping[str, str]:
        """Add those who are not known to be contacts, and return why others are refused, by prefix and phone.

        Raises:
            NotSentError, RefusedError: it cannot be told who is one.
        """
        strangers = {one.prefix + one.phone: one for one in contacts}
        strangers = {number: one for number, one in strangers.items() if number not in self._known}
        if not strangers:
            return {}
        refused = await self._added(list(strangers.values()))
        if len(self._known) + len(strangers) > KNOWN_MAX:
            self._known.clear()
        self._known |= strangers.keys() - refused.keys()
        return refused

    async def _added(self, contacts: Sequence[Contact]) -> Mapping[str, str]:
        failure: ProviderError
        try:
            return refused_contacts(await self._client.add_contacts(contacts))
        except RefusedError as error:
            if error.final:  # It was one alone.
                return {contacts[0].prefix + contacts[0].phone: str(error)}
            failure = error
        except ProviderError as error:
            failure = error
        if len(contacts) == 1 or not isinstance(failure, AmbiguousError) or failure.reason not in ITEM_REASONS:
            raise unsent(failure)
        # One of several is refused, and the answer does not say which.
        refused: dict[str, str] = {}
        for contact in contacts:
            refused |= await self._added([contact])
        return refused


def contact_of(payout: Payout, prefix: str, phone: str, email: str) -> Contact:
    """Return the recipient of a payout as a contact; CinetPay wants two names where we know one.

    Args:
        payout: who is paid.
        prefix: the dial code of their country.
        phone: the rest of their number.
        email: for who has no address of their own.
    """
    first, _, rest = payout.name.partition(" ")
    return Contact(prefix, phone, name=rest.strip() or first, surname=first, email=payout.email or email)
