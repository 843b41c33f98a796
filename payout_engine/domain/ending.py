"""How paying a run ended: what stopped it too early, if anything did."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from payout_engine.domain.errors import Brake
from payout_engine.domain.model import Lane


class Stop(msgspec.Struct, frozen=True):
    """Why a lane, or the whole account when `lane` is None, or the run when `account` is empty, stopped too early."""

    account: str
    lane: Lane | None
    brake: Brake
    message: str


class Ending(msgspec.Struct, frozen=True):
    """How paying ended.

    Attributes:
        stops: the brakes that stopped lanes or accounts.
        timed_out: True when the follow-up time, or the patience with failing look-ups, ended with payouts still open.
        interrupted: True when the process was asked to stop, by a signal or by its caller.
    """

    stops: Sequence[Stop] = ()
    timed_out: bool = False
    interrupted: bool = False
