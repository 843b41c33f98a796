"""What one look-up result means for one payout: the rule by which look-ups move payouts, or do not. Pure.

Its bias: whatever does not fit moves nothing to paid or failed, and reaches a person.
"""

from __future__ import annotations

import msgspec

from payout_engine.domain.errors import IllegalMoveError
from payout_engine.domain.model import LookUpResult, Payout, Receipt, mask
from payout_engine.domain.states import MOVES, OPEN, State

CONTRADICTION = "contradiction"
"""The reason of a payout that is held because the provider contradicts itself or us."""

SPELLING_CHARS_MIN = 6
"""A shorter piece of a number is part of too many numbers to say whose it is."""

_SIGHTED = frozenset({State.ACCEPTED, State.PAID, State.FAILED, State.REVERSED, State.UNKNOWN, State.READY})
_CAN_BE_HELD = frozenset({State.ACCEPTED, State.UNKNOWN, State.READY, State.HELD, State.FAILED, State.CANCELLED})
_NEVER_SENT = frozenset({State.READY, State.HELD, State.REJECTED, State.CANCELLED})


class Verdict(msgspec.Struct, frozen=True):
    """What follows from a look-up result.

    Attributes:
        receipts: what to record, in order; each is one move, or the same state with more known.
        conflict: what does not fit, as the end of a sentence about the payout; empty when all fits.
    """

    receipts: tuple[Receipt, ...] = ()
    conflict: str = ""


NOTHING = Verdict()


def verdict_on(payout: Payout, known: Receipt, result: LookUpResult, at: float) -> Verdict:
    """Return what a look-up result means for a payout.

    Args:
        payout: ours.
        known: where it stands, with what was last said of it.
        result: what the look-up showed under its key.
        at: when it was heard, for a receipt that does not say so itself.

    Raises:
        IllegalMoveError: the look-up result claims a state that no look-up can see; a fault of the adapter.
    """
    seen = result.receipt
    if seen.state not in _SIGHTED:
        raise IllegalMoveError(f"a look-up cannot find a payout {seen.state}")
    if known.state is State.SENDING or (known.state is State.HELD and known.reason == CONTRADICTION):
        return NOTHING
    if seen.state is State.READY:
        return _absent(known, seen, at)
    conflict = _conflict(payout, known, result)
    if conflict:
        return _contradicted(known, seen, conflict, at)
    return _agreed(known, seen, at)


def _absent(known: Receipt, seen: Receipt, at: float) -> Verdict:
    """The provider proves that it never received the payout."""
    if known.state is State.UNKNOWN:
        return Verdict((_stamped(seen, seen.provider_reference, seen.at or at),))
    if known.state in (State.ACCEPTED, State.PAID):
        return _contradicted(known, seen, f"the provider shows no trace of it, but it is recorded as {known.state}", at)
    return NOTHING


def _conflict(payout: Payout, known: Receipt, result: LookUpResult) -> str:
    seen = result.receipt
    if result.conflict:
        return result.conflict
    if known.state in _NEVER_SENT:
        return f"the provider shows it as {seen.state}, but it was never sent, or was provably refused ({known.state})"
    if result.amount_minor is not None and result.amount_minor != payout.amount_minor:
        return (
            f"the provider shows an amount of {result.amount_minor}, ours is {payout.amount_minor} "
            f"(in minor units of {payout.currency})"
        )
    if result.recipient is not None and not same_recipient(payout.recipient, result.recipient):
        return f"the provider shows the recipient {mask(result.recipient)}, ours is {mask(payout.recipient)}"
    if known.provider_reference and seen.provider_reference and known.provider_reference != seen.provider_reference:
        return f"the provider shows a second transfer {seen.provider_reference} beside {known.provider_reference}"
    if _disputed(known.state, seen.state):
        return f"the provider shows it as {seen.state}, but it is recorded as {known.state}"
    return ""


def _disputed(known: State, seen: State) -> bool:
    """A final state stays, except that what was paid may be taken back. Words we do not know dispute nothing."""
    if known in OPEN or seen in (known, State.UNKNOWN):
        return False
    return (known, seen) not in MOVES


def _contradicted(known: Receipt, seen: Receipt, conflict: str, at: float) -> Verdict:
    """Record the doubt: a payout that is not final waits for a person."""
    if known.state not in _CAN_BE_HELD:
        return Verdict(conflict=conflict)
    reference = known.provider_reference or seen.provider_reference
    message = f"{conflict[0].upper()}{conflict[1:]}."
    return Verdict((Receipt(State.HELD, CONTRADICTION, message, reference, seen.at or at),), conflict)


def _agreed(known: Receipt, seen: Receipt, at: float) -> Verdict:
    reference = seen.provider_reference or known.provider_reference
    if seen.state in (known.state, State.UNKNOWN):
        if reference == known.provider_reference and seen.reason in ("", known.reason):
            return NOTHING
        words = seen if seen.reason else known
        return Verdict((Receipt(known.state, words.reason, words.message, reference, seen.at or at),))
    final = _stamped(seen, reference, seen.at or at)
    if seen.state is State.REVERSED and known.state in OPEN:
        # The lifecycle knows no shorter way, and a reader of the log should see that the money moved first.
        return Verdict((Receipt(State.PAID, provider_reference=reference, at=final.at), final))
    return Verdict((final,))


def _stamped(receipt: Receipt, reference: str, at: float) -> Receipt:
    return Receipt(receipt.state, receipt.reason, receipt.message, reference, at)


def same_recipient(ours: str, theirs: str) -> bool:
    """Whether two spellings mean one recipient: either ends with the other, apart from punctuation and case.

    Providers drop the country code or write it differently. A spelling without any letter or digit says nothing. Of
    e-mail addresses only the case may differ.
    """
    if ours == theirs:
        return True
    if "@" in ours or "@" in theirs:
        return ours.strip().casefold() == theirs.strip().casefold()
    if len(theirs) >= SPELLING_CHARS_MIN and ours.endswith(theirs):
        return True  # The usual case, before anything is rewritten.
    own, other = _bare(ours), _bare(theirs)
    return not other or (len(other) >= SPELLING_CHARS_MIN and (own.endswith(other) or other.endswith(own)))


def _bare(text: str) -> str:
    return "".join(character for character in text.casefold() if character.isalnum())
