"""The stub's memory: every transfer it was asked for, and when each call arrived. Pure; its arithmetic is tested.

It is the truth a benchmark is checked against. Duplicates are counted when the ledger is audited, after the clock has
stopped, so that the server is never what is measured. Called by `stub.py`.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from itertools import pairwise

import msgspec

from payout_engine.domain import clock

BATCH_LIMIT = 100
WINDOW_SECONDS = 1.0

OLDER_SECONDS = 3_600.0
OLDER_PER_SECOND = 500
OLDER_FROM = 1 << 64


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
        silence_seconds: the longest time between two arrivals.
        listed_bytes: of the list of transfers, written to whoever asked for it.
    """

    calls: int
    calls_over_limit: int
    count: int
    amount_minor: int
    duplicates: int
    span_seconds: float
    steady_count: int
    steady_seconds: float
    silence_seconds: float
    listed_bytes: int


_OLDER = [Order(1_000, "70000000", "moov_bf", f"older-{number}") for number in range(BATCH_LIMIT)]
_ORDERS = msgspec.json.Decoder(Orders)
_ENCODER = msgspec.json.Encoder()


class TooManyError(ValueError):
    """A call asks for more transfers than one call may."""


class Ledger:
    """Transfers in the order of their creation.

    Args:
        limit: calls allowed in any sliding second; 0 means any number.
        settles_after_seconds: how long a transfer is shown as pending.
        older: transfers that somebody made before, 500 a second until an hour ago; they are listed and not counted.

    Attributes:
        listed_bytes: added to by whoever writes the list.
    """

    def __init__(self, limit: int = 0, older: int = 0, settles_after_seconds: float = 0.0) -> None:
        self.listed_bytes = 0
        self._settles_after_seconds = settles_after_seconds
        self._limit = limit
        self._older = older
        self._began_at = clock.now()
        self._bodies: list[bytes] = []
        self._times = array("d")
        self._counts = array("Q")
        self._amount = 0
        self._arrivals = array("d")
        self._created = array("Q")
        self._over_limit = 0

    @property
    def calls(self) -> int:
        """How many paying calls have arrived."""
        return len(self._arrivals)

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
        self._times.append(clock.now())
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
            silence_seconds=max((after - before for before, after in pairwise(self._arrivals)), default=0.0),
            listed_bytes=self.listed_bytes,
        )

    def listed(self) -> Iterator[bytes]:
        """Yield the transfers known at the first step, newest first, as pieces of a JSON array without its brackets."""
        bodies = len(self._bodies)
        number = sum(self._counts)
        for index in range(bodies - 1, -1, -1):
            orders = _ORDERS.decode(self._bodies[index]).transfers
            number -= len(orders)
            if orders:
                at = self._times[index]
                pending = clock.now() - at < self._settles_after_seconds
                yield (b", " if index < bodies - 1 else b"") + _shown(orders, number, at, pending=pending)
        for number in range(self._older // BATCH_LIMIT):
            at = self._began_at - OLDER_SECONDS - number * BATCH_LIMIT / OLDER_PER_SECOND
            yield (b", " if number or bodies else b"") + _shown(_OLDER, OLDER_FROM + number * BATCH_LIMIT, at)


def merged(audits: Sequence[Audit]) -> Audit:
    """Return several ledgers as one: sums of everything, and the longest of what is no sum."""
    sums = {name: sum(getattr(audit, name) for audit in audits) for name in Audit.__struct_fields__}
    longest = {name: max(getattr(audit, name) for audit in audits) for name in ("span_seconds", "silence_seconds")}
    return Audit(**{**sums, **longest})


def _shown(orders: Sequence[Order], first: int, at: float, *, pending: bool = False) -> bytes:
    """Encode the transfers of one call, newest first; `first` is the number of its first one, `at` when it came."""
    created_at = clock.text(at).replace("Z", "000Z")
    shown = [
        Transfer(
            reference=f"tr_{first + index:032x}",
            amount=order.amount,
            fees="1.50",
            currency="XOF",
            ip_address="127.0.0.1",
            status="pending" if pending else "success",
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
