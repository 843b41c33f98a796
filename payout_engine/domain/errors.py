"""Every error this package raises on purpose, split by what may have happened to the money.

    PayoutEngineError
    |-- UserError              something the user can mend; exit code 2; nothing was sent
    |   |-- InputError         the payout file (or standard input, or iterable) cannot be used
    |   |-- ConfigError        the configuration or the options cannot be used
    |   `-- JournalError       the journal cannot be used
    |       |-- JournalDamagedError  |-- JournalNewerError
    |       |-- JournalFullError     `-- JournalBusyError
    |   |-- LimitError         the payer's own money limits forbid the run
    |   |-- DecisionError      a person's decision cannot be carried out; nothing of it was recorded
    |   |-- UnansweredError    a provider could not say what it already has, so nothing was sent
    |-- ProviderError          something said, or not said, by a provider
    |   |-- NotSentError       the bytes provably never left: safe to send again
    |   |-- RefusedError       the provider documents that it refused the whole call before processing it
    |   `-- AmbiguousError     the provider may have acted: never send again without proof
    |-- ForgedError            a call that its provider has not signed, though it signs its calls
    |-- SinkError              results could not be written; money is not affected
    `-- IllegalMoveError       a fault of ours: the lifecycle has no such arrow

No message holds a secret or a full phone number.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """Who holds a lease and what for, in its own words, for those who wait for it. True while it lives, at most.

    Attributes:
        pid: its process.
        task: what it does, such as `paying` or `validating`.
        journal: the path of its journal.
        run_id: the run it is about, or empty.
        name: what that run's file is called.
        since: when it began, in seconds since 1970.
    """

    pid: int
    task: str
    journal: str
    run_id: str = ""
    name: str = ""
    since: Annotated[float, msgspec.Meta(ge=0, lt=2**37)] = 0.0


class PayoutEngineError(Exception):
    """The base of all errors raised on purpose by this package."""


class UserError(PayoutEngineError):
    """Something the user can mend; the message says how. Nothing was sent."""


class InputError(UserError):
    """The input cannot be used as a payout file; nothing was recorded and nothing was sent."""


class ConfigError(UserError):
    """The configuration or an option cannot be used."""


class JournalError(UserError):
    """The journal cannot be used, so nothing may be sent."""


class JournalDamagedError(JournalError):
    """The journal file is not a readable journal."""


class JournalNewerError(JournalError):
    """The journal was written by a newer version of payout_engine."""


class JournalFullError(JournalError):
    """The disk is full or the journal cannot be written."""


class JournalBusyError(JournalError):
    """Another process is paying for the same account, or validating the same file.

    Attributes:
        holder: who, as far as it told; None when that cannot be read.
    """

    def __init__(self, message: str, holder: Holder | None = None) -> None:
        super().__init__(message)
        self.holder = holder


class DecisionError(UserError):
    """A person's decisions cannot be carried out as they stand; none of them was recorded."""


class LimitError(UserError):
    """The payer's own money limits forbid this run; nothing was sent."""


class UnansweredError(UserError):
    """A provider could not say what it already has of lines that may have been sent before; nothing was sent."""


class Brake(StrEnum):
    """Why paying stopped before everything was sent."""

    FUNDS = "funds"  # this lane's balance is too low; lanes that draw on another go on
    CREDENTIALS = "credentials"  # the account's key is not accepted, or not the one that was meant; the account stops
    PROVIDER_DOWN = "provider_down"  # the provider cannot be reached, or answers nothing usable; the account stops
    LIMIT = "limit"  # the provider refuses our calls as too large or malformed; the account stops
    FAILURES = "failures"  # too many of this lane's payouts fail; other lanes go on
    CANARY = "canary"  # the first few payouts of this lane did not all arrive; other lanes go on
    ASKED = "asked"  # a person asked us to stop


class ProviderError(PayoutEngineError):
    """Something a provider said, or failed to say.

    Attributes:
        reason: a stable code, such as `timeout` or the provider's own error code in lower case.
        brake: why nothing more may be sent until a person has looked, or None: `FUNDS` stops the lanes of the balance,
            any other the account. Of a look-up only `CREDENTIALS` counts: others of its failures say nothing of paying.
    """

    def __init__(self, reason: str, message: str, *, brake: Brake | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.brake = brake


class NotSentError(ProviderError):
    """The bytes provably never left this machine: every payout of the call is `ready` again."""


class RefusedError(ProviderError):
    """The provider documents that it refused the whole call before processing any of it.

    Attributes:
        too_fast: the call came over the provider's rate; slow down and send again.
        retry_after_seconds: how long the provider asks us to wait, or None.
        final: True when sending the same call again is futile, so that its payouts are `failed`.
    """

    def __init__(
        self,
        reason: str,
        message: str,
        *,
        brake: Brake | None = None,
        too_fast: bool = False,
        retry_after_seconds: float | None = None,
        final: bool = False,
    ) -> None:
        super().__init__(reason, message, brake=brake)
        self.too_fast = too_fast
        self.retry_after_seconds = retry_after_seconds
        self.final = final


class AmbiguousError(ProviderError):
    """The provider may have acted on the call: its payouts are `unknown` until a look-up or a person says more.

    With a `brake` it says as well that the next call would fare no better, and leave one more chunk in doubt: so an
    answer that means “no” in words which the provider's document does not promise.
    """


class ForgedError(PayoutEngineError):
    """A call came in that its provider has not signed, though it documents that it signs its calls."""


class SinkError(PayoutEngineError):
    """Results could not be written. Money is not affected; write them again with `payout-engine results`."""


class IllegalMoveError(PayoutEngineError):
    """The lifecycle has no such arrow. This is a fault in payout_engine."""
