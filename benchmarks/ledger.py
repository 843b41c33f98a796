"""The stub's memory: every transfer it was asked for, and when each call arrived. Pure; its arithmetic is tested.

It is the truth a benchmark is checked against. Duplicates are counted when the ledger is audited, after the clock has
stopped, so that the server is never what is measured. Called by `stub.py`.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence

import msgspec

from payout_engine.domain import clock

BATCH_LIMIT = 100
WINDOW_SECONDS = 1.0


class Order(msgspec.Struct, frozen=True, gc=False):
    """One transfer as a call asks for it."""

    amount: int
    recipient_phone: str
    recipient_wallet: str
    ext_id: str


class Orders(msgspec.Struct, frozen=True):
    """The body of a bulk call."""

    transfers: list[Order]


class Transfer(msgspec.Struct, frozen=True, gc=False):
    """One transfer as the list shows it, every field in the document's order."""

    reference: str
    amount: int
    fees: str
    currency: str
    ip_address: str
    status: str
    live_mode: bool
    recipient_wallet: str
    recipient_phone: str
    ext_id: str
    created_at: str


class Audit(msgspec.Struct, frozen=True):
    """What a ledger holds.

    Attributes:
        calls: paying calls that arrived, refused ones too.
        calls_over_limit: calls that arrived less than a second after the one `limit` places before.
        count: transfers created.
        amount_minor: their sum.
        duplicates: transfers whose ext_id an earlier one had.
        span_seconds: from the first arrival to the last.
        steady_count: transfers created by calls after the first `limit` ones. These fill the first second at once if
            they like, so only what follows says which rate is kept: it cannot exceed the limit, however calls bunch.
        steady_seconds: from the arrival of call number `limit` to the last.
    """

    calls: int
    calls_over_limit: int
    count: int
    amount_minor: int
    duplicates: int
    span_seconds: float
    steady_count: int
    steady_seconds: float


_ORDERS = msgspec.json.Decoder(Orders)
_ENCODER = msgspec.json.Encoder()


class TooManyError(ValueError):
    """A call asks for more transfers than one call may."""


class Ledger:
    """Transfers in the order of their creation.

    Args:
        limit: calls allowed in any sliding second; 0 means any number.
    """

    def __init__(self, limit: int = 0) -> None:
        self._limit = limit
        self._bodies: list[bytes] = []
        self._counts = array("Q")
        self._amount = 0
        self._arrivals = array("d")
        self._created = array("Q")
        self._taken_at = array("d")
        self._over_limit = 0

    def arrive(self, at: float) -> bool:
        """Note that a paying call arrived, and return whether the limit allows it. Every arrival counts."""
        self._arrivals.append(at)
        self._created.append(0)
        if not self._limit or len(self._arrivals) <= self._limit:
            return True
        allowed = at - self._arrivals[-1 - self._limit] >= WINDOW_SECONDS
        self._over_limit += not allowed
        return allowed

    def take(self, body: bytes) -> int:
        """Create the transfers of a bulk body, for the call that arrived last, and return how many they are.

        Raises:
            msgspec.DecodeError: it is not the documented body.
            TooManyError: it holds more than one call may.
        """
        orders = _ORDERS.decode(body).transfers
        if len(orders) > BATCH_LIMIT:
            raise TooManyError
        for order in orders:
            self._amount += order.amount
        self._bodies.append(body)
        self._taken_at.append(clock.now())
        self._counts.append(len(orders))
        self._created[-1] += len(orders)
        return len(orders)

    def audit(self) -> Audit:
        """Count everything, duplicates too."""
        count = sum(self._counts)
        keys = {order.ext_id for body in self._bodies for order in _ORDERS.decode(body).transfers}
        opening = max(self._limit, 1)
        steady = len(self._arrivals) > opening
        return Audit(
            calls=len(self._arrivals),
            calls_over_limit=self._over_limit,
            count=count,
            amount_minor=self._amount,
            duplicates=count - len(keys),
            span_seconds=self._arrivals[-1] - self._arrivals[0] if self._arrivals else 0.0,
            steady_count=sum(self._created[opening:]),
            steady_seconds=self._arrivals[-1] - self._arrivals[opening - 1] if steady else 0.0,
        )

    def listed(self) -> Iterator[bytes]:
        """Yield the transfers known at the first step, newest first, as pieces of a JSON array without its brackets."""
        bodies = len(self._bodies)
        number = sum(self._counts)
        for index in range(bodies - 1, -1, -1):
            orders = _ORDERS.decode(self._bodies[index]).transfers
            number -= len(orders)
            if orders:
                yield (b", " if index < bodies - 1 else b"") + _shown(orders, number, self._taken_at[index])


def _shown(orders: Sequence[Order], first: int, taken_at: float) -> bytes:
    """Encode the transfers of one call, newest first; `first` is the number of its first one."""
    created_at = clock.text(taken_at)
    shown = [
        Transfer(
            reference=f"tr_{first + index:032x}",
            amount=order.amount,
            fees="1.50",
            currency="XOF",
            ip_address="127.0.0.1",
            status="success",
            live_mode=False,
            recipient_wallet=order.recipient_wallet,
            recipient_phone=order.recipient_phone,
            ext_id=order.ext_id,
            created_at=created_at,
        )
        for index, order in enumerate(orders)
    ]
    shown.reverse()
    return _ENCODER.encode(shown)[1:-1]
