"""The things the engine speaks of: payouts, chunks, dispatches, receipts, outcomes, runs.

Plain frozen values without behaviour that matters; every room may hold them. They are `msgspec` structs because one
of them exists per row, and those that hold only texts and numbers are kept from the garbage collector's walks, which
measured a tenth of intake. A repr never shows a phone number or another person's address in full.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from enum import StrEnum

import msgspec

from payout_engine.domain.clock import Moment, least_age_seconds
from payout_engine.domain.states import State


def mask(text: str) -> str:
    """Return `text` with its middle hidden: `22670123456` becomes `2267*****56`."""
    if len(text) <= 4:
        return "*" * len(text)
    head = 4 if len(text) > 8 else 1
    return text[:head] + "*" * (len(text) - head - 2) + text[-2:]


# Seven digits are the shortest subscriber numbers. People write them in groups, and with letters that look like digits.
# What follows a letter or a dash in groups is a reference (`SAL-2026-0001`); dates and the ids of runs are left alone.
_NUMBERS = re.compile(
    r"\d{7,}|(?<![\w-])(?!\d{4}-(?:\d\d-\d\d(?!\d)|[a-z2-9]{5}(?!\w)))"
    r"\d(?:[ ./()\-\u00a0\u2007\u2009\u200b\u202f]{0,2}(?:\d|[OoIl](?![^\W\d_]))){6,}"
)


_EMAILS = re.compile(r"([^@\s,;:<>\"'(]+)(@[\w-]+(?:\.[\w-]+)+)")


def masked(text: str) -> str:
    """Return `text` with all e-mail addresses in it masked, and all numbers that could be phones, however grouped."""
    text = _EMAILS.sub(lambda found: f"{found[1][0]}***{found[2]}", text)
    return _NUMBERS.sub(lambda found: mask("".join(filter(str.isalnum, found.group()))), text)


class Payout(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One instruction: this amount to this recipient.

    Attributes:
        reference: the payer's own unique id.
        amount_minor: the amount in the currency's minor units (whole francs for XOF, cents for KES).
        currency: ISO 4217 code. Empty in a payout given by a user means the currency of the wallet that serves it.
        phone: the recipient's number as E.164 digits without `+`. Users may give any readable form.
        email: the recipient's e-mail address, for providers that pay to one.
        account_number: the recipient's bank account, for providers that pay to one.
        country: ISO 3166 two-letter code. Empty means: known from the phone or from the configuration.
        wallet: the provider's code for where the money lands. Empty means: chosen from the number.
        name: the recipient's name, for providers that want one.
        line: the line of the file, or the position in the iterable, counted from 1.
        bank: the code (or BIC) of the bank that keeps `account_number`, for providers that want one.
        document_type: the kind of the recipient's identity document, for providers that want one.
        document_number: its number.
        otp: a one-time password that the payer of a collection was given.
    """

    reference: str
    amount_minor: int
    currency: str = ""
    phone: str = ""
    email: str = ""
    account_number: str = ""
    country: str = ""
    wallet: str = ""
    name: str = ""
    line: int = 0
    bank: str = ""
    document_type: str = ""
    document_number: str = ""
    otp: str = ""

    @property
    def recipient(self) -> str:
        """The phone, account or e-mail that is paid; beside the others, an e-mail only rides along."""
        return self.phone or self.account_number or self.email

    def __repr__(self) -> str:
        return f"Payout({self.reference!r}, {self.amount_minor} {self.currency}, to={mask(self.recipient)!r})"


class Block(msgspec.Struct, frozen=True):
    """Rows of a source that travel together.

    Attributes:
        lines: `lines[i]` is the position of `rows[i]` as a person would count it.
        rows: the cells, each row as long as the header.
        ragged: by line, how many cells a row had whose length was not the header's; it was cut or filled to fit.
        unreadable: by line, why the source could not read a row, as a phrase after "the line cannot be read: ".
        blank_lines: how many lines of the input, before, among or after these, were blank and are left out.
        continued_lines: how many lines of the input belong to a row that began on an earlier line.
    """

    lines: Sequence[int]
    rows: Sequence[Sequence[str]]
    ragged: Mapping[int, int] = {}
    unreadable: Mapping[int, str] = {}
    blank_lines: int = 0
    continued_lines: int = 0

    def __repr__(self) -> str:
        return f"Block({len(self.rows)} rows)"


class Problem(msgspec.Struct, frozen=True):
    """Why our rules refused a line (or warn about it), in words a finance clerk can act on.

    Attributes:
        code: stable, such as `phone_unreadable`; see `domain/rejections.py`.
        message: one plain sentence that says what is wrong and how to mend it.
        column: the header of the column at fault, or empty.
    """

    code: str
    message: str
    column: str = ""

    def __repr__(self) -> str:
        # The message may name the number that was probably meant, which belongs in files and not in logs.
        return f"Problem({self.code!r}, column={self.column!r})"


class Lane(msgspec.Struct, frozen=True, order=True):
    """The payouts of one account that draw on one balance.

    Attributes:
        account: the account's name in the configuration.
        name: the wallet's code, such as `orange_bf`; unique within the account.
        currency: ISO 4217 code; one per lane.
    """

    account: str
    name: str
    currency: str


REJECTED_LANE = Lane("", "", "")
"""Where the lines live that our rules refused: they are kept and come out, and are never sent."""


class Chunk(msgspec.Struct, frozen=True):
    """Payouts of one lane, at most the provider's batch limit, with the rows they were read from.

    Attributes:
        lane: where they are paid from; `REJECTED_LANE` for refused lines.
        payouts: in the order of their lines.
        rows: the cells of each line as they were read, in the input's columns.
        problems: for refused lines, why, one each; otherwise empty.
    """

    lane: Lane
    payouts: Sequence[Payout]
    rows: Sequence[Sequence[str]]
    problems: Sequence[Problem] = ()

    def __repr__(self) -> str:
        return f"Chunk({self.lane.account}/{self.lane.name}, {len(self.payouts)} payouts)"


class Receipt(msgspec.Struct, frozen=True, array_like=True, repr_omit_defaults=True, gc=False):
    """What the provider (or our own rule, or a person) said of one payout.

    Attributes:
        state: where that puts the payout. From `Provider.send`: accepted, paid, failed, unknown, or ready (the
            provider documents that it refused this payout before processing; with the reason `insufficient_funds` the
            lanes of that balance stop); reversed only when it is sent again to ask. From `look_up`: accepted, paid,
            failed or reversed; `ready` only as final evidence of absence.
        reason: a stable code, such as `insufficient_funds`; empty when there is nothing to explain.
        message: the provider's own words, or ours; no secret, no full phone.
        provider_reference: the provider's id of the transfer, or empty when it gave none.
        at: when we heard it, in seconds since 1970; 0 means: filled in by the journal.
    """

    state: State
    reason: str = ""
    message: str = ""
    provider_reference: str = ""
    at: float = 0.0


class LookUpResult(msgspec.Struct, frozen=True, gc=False):
    """One transfer as a look-up showed it, not yet matched with a payout.

    Attributes:
        key: our provider key as the provider repeats it.
        receipt: what it says.
        amount_minor: the amount the provider states, or None where it states none. It must equal ours.
        recipient: the recipient the provider states, in its own spelling, or None. It is ours when either ends with
            the other (providers drop the country code) or both are the same e-mail in any case.
        conflict: why this transfer cannot be the payout's although it carries its key, as the end of a sentence about
            the payout; empty when nothing speaks against it. Such a look-up result decides nothing and reaches a
            person.
    """

    key: str
    receipt: Receipt
    amount_minor: int | None = None
    recipient: str | None = None
    conflict: str = ""

    def __repr__(self) -> str:
        return f"LookUpResult({self.key!r}, {self.receipt.state})"


class Dispatch(msgspec.Struct, frozen=True):
    """One attempt to send payouts of one chunk: durable before it leaves.

    Attributes:
        dispatch_id: the journal's number of this attempt.
        chunk_id: the chunk it belongs to.
        lane: where it is paid from.
        indexes: which payouts of the chunk it holds, ascending.
        payouts: those payouts, in that order.
        keys: the provider key of each: our unique id of the payout at the provider, the same for every attempt.
    """

    dispatch_id: int
    chunk_id: int
    lane: Lane
    indexes: Sequence[int]
    payouts: Sequence[Payout]
    keys: Sequence[str]

    @property
    def amount_minor(self) -> int:
        """The sum of the payouts' amounts."""
        return sum(payout.amount_minor for payout in self.payouts)


class Query(msgspec.Struct, frozen=True):
    """One payout to ask the provider about: an open one, or one that was paid and may have been taken back.

    Attributes:
        key: our provider key.
        provider_reference: the provider's id, or empty when it never told us.
        state: `sending`, `accepted` or `unknown`; `paid` where it is asked whether that still holds.
        sent: when it was last sent, also if only to ask again.
        payout: the payout itself.
    """

    key: str
    provider_reference: str
    state: State
    sent: Moment
    payout: Payout

    @property
    def age_seconds(self) -> float:
        """How long ago it was last sent, at least; never longer than the truth, whatever was done to the clocks."""
        return least_age_seconds(self.sent)


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """What we tell the caller about one payout.

    Attributes:
        seq: the entry of the journal's log that tells it; 0 when it comes from no journal.
    """

    run_id: str
    line: int
    reference: str
    status: State
    amount_minor: int
    currency: str
    account: str = ""
    wallet: str = ""
    reason: str = ""
    message: str = ""
    provider_reference: str = ""
    at: float = 0.0
    seq: int = 0


class Entry(msgspec.Struct, frozen=True, gc=False):
    """A payout with all that is known of it, for results and for people."""

    payout: Payout
    row: Sequence[str]
    lane: Lane
    receipt: Receipt
    key: str

    def __repr__(self) -> str:
        return f"Entry({self.payout!r}, {self.receipt.state})"


class Direction(StrEnum):
    """Which way the money of a run goes."""

    PAY = "pay"  # from the account to people
    COLLECT = "collect"  # from people to the account, once they agree


class RunState(StrEnum):
    """How far a run has come. `intake` and `judged` have sent nothing and may be thrown away."""

    INTAKE = "intake"  # lines are being recorded
    VALIDATED = "judged"  # the whole file is validated; nobody has said yes
    PAYING = "paying"  # approved; may be going on now, or paused, or waiting to be resumed
    FINISHED = "finished"  # nothing is ready and nothing is open, or a person is needed


DATA_LINES = "data_lines"
"""The entry of a run's dialect that says how many lines its file has below the header."""


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One file's (or iterable's) journey.

    Attributes:
        run_id: short and unique, for people to type.
        name: the file's name, or what the caller called the iterable.
        digest: SHA-256 of the content, in hex; empty for an iterable. Of a run that collects, another one: see
            `app.submit.open_payouts`.
        columns: the input's header, for results.
        has_references: False when references were derived because the file had none.
        dialect: how the input was written (`delimiter`, `bom`, which column is which, `data_lines`), for results in the
            input's own format.
        retry_of: the run whose unpaid lines this one pays again, or empty.
        direction: which way its money goes.
    """

    run_id: str
    name: str
    digest: str
    columns: Sequence[str]
    has_references: bool
    created_at: float
    state: RunState = RunState.INTAKE
    approved_at: float | None = None
    finished_at: float | None = None
    dialect: dict[str, str] = {}
    sandbox: bool = False
    retry_of: str = ""
    direction: Direction = Direction.PAY


class Tally(msgspec.Struct, frozen=True):
    """How many payouts, and how much money, stand in one state of one lane."""

    lane: Lane
    state: State
    count: int
    amount_minor: int


class DuplicateKind(StrEnum):
    """What two payouts have in common."""

    REFERENCE = "reference"
    REFERENCE_ALIKE = "reference_alike"  # but for zeros, spaces and signs, and payee and amount too
    CELLS = "cells"  # all of a line's cells, in whatever order
    PAYEE_AMOUNT = "payee_amount"


class Duplicate(msgspec.Struct, frozen=True):
    """A payout of a run that repeats an earlier one, of the same run or of another.

    Attributes:
        position: the journal's address of the repeating payout, for `Journal.hold`.
        payout: the repeating payout.
        earlier_run_id: the run of the payout that came first.
        earlier_line: its line.
        earlier_state: where it stands now.
        earlier_at: when its run was approved (0 within the same run), in seconds since 1970.
        earlier_reference: the reference of the payout that came first.
        earlier_has_references: whether its file had references of its own.
    """

    kind: DuplicateKind
    position: int
    payout: Payout
    earlier_run_id: str
    earlier_line: int
    earlier_state: State
    earlier_at: float
    same_run: bool
    earlier_reference: str
    earlier_has_references: bool


class Balance(msgspec.Struct, frozen=True):
    """What one balance holds, as the provider states it. `lane_name` is the `balance_name` of the wallets it serves."""

    lane_name: str
    available_minor: int
    pending_minor: int
    currency: str


class ControlKind(StrEnum):
    """What a person may ask of whoever pays a run, from another process."""

    PAUSE = "pause"  # send nothing more until a person resumes
    CANCEL = "cancel"  # send nothing more, ever, and withdraw what was never sent


class ControlRequest(msgspec.Struct, frozen=True):
    """What a person asks of whoever pays a run.

    Attributes:
        kind: what is asked.
        who: the person, as they call themselves.
        why: in their words, or empty.
        at: when, in seconds since 1970; 0 means: filled in by the journal.
        acknowledged: True once the paying process has taken it up.
    """

    kind: ControlKind
    who: str
    why: str = ""
    at: float = 0.0
    acknowledged: bool = False

    def __str__(self) -> str:
        return f"{self.who}: {self.why}" if self.why else self.who


class Choice(StrEnum):
    """What a person may decide about a payout that waits for one."""

    PAID = "paid"  # the person saw that the money arrived
    FAILED = "failed"  # the person saw that it did not, and never will
    SEND_AGAIN = "send_again"  # the person answers for sending it (once more)
    CANCEL = "cancel"  # it was never sent and never shall be


class Decision(msgspec.Struct, frozen=True):
    """A person's word on one payout.

    Attributes:
        key: our provider key of the payout.
        choice: what was decided.
        who: the person, as they call themselves.
        why: in their words.
    """

    key: str
    choice: Choice
    who: str
    why: str


class Step(msgspec.Struct, frozen=True):
    """One entry of the log as far as it speaks of one payout.

    Attributes:
        at: when, in seconds since 1970.
        kind: `hold`, `intent`, `receipts`, `recover`, `asked_again`, `sighting` or `decision`.
        receipt: what was said; None for `intent` and `asked_again`.
    """

    at: float
    kind: str
    receipt: Receipt | None
