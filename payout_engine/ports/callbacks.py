"""The port of callbacks: what a provider calls to say, and how it is asked whether that is so.

A call over the network is a hint, whoever signed it: it may be forged, repeated, early, late or out of order. So it
says only what to ask about. What the provider answers then goes the way of every look-up. Kept by adapters whose
provider calls back; used by `payment/callbacks.py` and by the server in `app/serve.py`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Protocol, runtime_checkable

import msgspec

from payout_engine.domain.model import LookUpResult, Query


class Callback(msgspec.Struct, frozen=True):
    """One call as it came in, at the address of one account.

    Attributes:
        method: `GET` or `POST`.
        path: what follows the account's address, without a slash before it; usually empty.
        query: the query as it was written, without the question mark.
        headers: by name in lower case.
        body: its bytes.
    """

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes

    def __repr__(self) -> str:
        return f"Callback({self.method}, {len(self.body)} bytes)"


class Heard(msgspec.Struct, frozen=True):
    """Which payouts a call speaks of; nothing at all for one that only looks whether we answer.

    Attributes:
        keys: our provider keys, as it states them. Those that are none of ours come to nothing.
        references: the provider's own references, where it states no key.
    """

    keys: Sequence[str] = ()
    references: Sequence[str] = ()

    def __bool__(self) -> bool:
        return bool(self.keys or self.references)


@runtime_checkable
class HearsCallbacks(Protocol):
    """A provider that calls. All calls of an account come to one address, whichever direction they are about."""

    def hear(self, callback: Callback) -> Heard:
        """Return what a call speaks of. Pure: it asks nobody and remembers nothing.

        It verifies what the provider documents, in constant time, and takes over only what looks like a key or a
        reference: both become part of questions to the provider. What it does not understand speaks of nothing.

        Raises:
            ForgedError: the provider signs its calls, and has not signed this one.
        """
        ...

    def re_read(self, heard: Heard, queries: Sequence[Query]) -> AsyncIterator[Sequence[LookUpResult]]:
        """Ask the provider what became of what was heard of, in calls and answers as for `look_up`. Moves no money.

        Args:
            heard: of one or many calls, at most `QUERIES_BATCH` keys and references in all.
            queries: the payouts of its keys, as `look_up` gets them; they may stand anywhere.

        Raises:
            ProviderError: the asking did not succeed, or not to its end; what was yielded stands.
        """
        ...
