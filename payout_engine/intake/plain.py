"""Validating blocks by column: the plain lines of a block together, and one by one only the lines that are odd.

A line is plain when nothing speaks against paying it to a phone: a reference that can be printed, a number and an
amount that can be read, within the wallet's bounds, and words for wallet, currency and country that go with them.
Nearly every line of a real file is. Nothing is refused here: whatever is not plain goes through `Validator`, which is
the truth, and a test holds both to the same answer for the same block. Made by `prepare` for each file.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import chain, compress
from operator import itemgetter
from typing import NamedTuple

from payout_engine.domain.countries import (
    COUNTRIES,
    DIAL_CODE_DIGITS_MAX,
    Phone,
    country_of,
    find_country,
    read_phone,
)
from payout_engine.domain.limits import REFERENCE_CHARS_MAX
from payout_engine.domain.model import Block, Payout, Problem
from payout_engine.domain.money import PLAIN_DIGITS_MAX, SCALES, parse_amount, parse_minor
from payout_engine.intake.route import Recipient
from payout_engine.intake.validate import Batch, Validated, Validator, email_beside, tidy_name

_REMEMBERED_MAX = 20_000
"""Targets remembered: more than a country has prefixes times the words of any real file."""

_ODD = -1
"""Stands for an amount that has to be looked at closely; no wallet takes it."""


class _Target(NamedTuple):
    """Where plain lines go that begin alike and name the same wallet and currency.

    Attributes:
        key: of the lane; empty where such lines have to be looked at closely.
        amounts: those that go through, in minor units; none where such lines have to be looked at closely.
        scale: minor units in one unit of the file's amounts.
        named: True where such lines have to name who is paid.
    """

    key: str
    country: str
    currency: str
    wallet: str
    amounts: range
    scale: int
    named: bool


_NOWHERE = _Target("", "", "", "", range(0), 1, False)


class BlockValidator:
    """Validates the lines of one run a block at a time: gives what `Validator` gives, in less time."""

    def __init__(self, careful: Validator) -> None:
        """Prepare for the file that `careful` was made for."""
        self.careful = careful
        layout = careful.layout
        self._amount_at = max(layout.amount, layout.amount_minor)
        served = [COUNTRIES[code] for code in careful.router.countries if code in COUNTRIES]
        home = COUNTRIES.get(careful.default_country)
        anywhere = "|".join(f"{one.dial_code}{one.pattern.pattern}" for one in served)
        self._home_code = home.dial_code if home is not None else ""
        self._read_plain = home.read_plain if home is not None else re.compile(rf"\+?({anywhere})", re.ASCII).fullmatch
        # As many digits as decide where a number goes; in a country that is not served, none goes anywhere.
        lengths = chain.from_iterable(one.prefix_lengths for one in served)
        self._head = DIAL_CODE_DIGITS_MAX + max([careful.router.prefix_length, *lengths])
        self._targets: dict[tuple[str, str, str], _Target] = {}

    def validate(self, block: Block) -> Validated:
        """Validate every line of a block."""
        if not self.careful.by_phone_alone(block):
            return self.careful.validate(block)
        payouts, keys = self._plain(block)
        validated = Validated(len(block.rows), {}, [], [])
        if not all(payouts):
            for place in [place for place, payout in enumerate(payouts) if payout is None]:
                found = self.careful.validate_line(block, place, validated)
                payouts[place], keys[place] = (found[0], found[1].key) if found is not None else (None, "")
        for key in filter(None, dict.fromkeys(keys)):
            chosen = list(map(key.__eq__, keys))
            accepted, rows = list(filter(None, compress(payouts, chosen))), list(compress(block.rows, chosen))
            validated.accepted[key] = Batch(self.careful.router.lanes[key], accepted, rows)
        return validated

    # -- by column; "", `_ODD` or `_NOWHERE` stand where a line has to be looked at closely

    def _plain(self, block: Block) -> tuple[list[Payout | None], list[str]]:
        """Return each line's payout and the key of its lane; None for a line that has to be looked at closely."""
        phones = self._phones(block)
        targets = self._found(phones, block)
        names = self._cells(block, self.careful.layout.name)
        if not "".join(names).isprintable() or list(map(str.strip, names)) != names:
            names = list(map(tidy_name, names))
        emails = self._cells(block, self.careful.layout.email)
        if any(emails):
            emails = list(map(email_beside, emails))
        payouts = [
            Payout(reference, minor, currency, phone, email, "", country, wallet, name, line)
            if reference and minor in amounts and (name or not named)
            else None
            for reference, minor, (_, country, currency, wallet, amounts, _, named), phone, email, name, line in zip(
                self._references(block),
                self._amounts(block, targets),
                targets,
                phones,
                emails,
                names,
                block.lines,
                strict=True,
            )
        ]
        return payouts, [target.key for target in targets]

    def _cells(self, block: Block, index: int) -> list[str]:
        """Return a column; empty cells for one that the file does not have."""
        return list(map(itemgetter(index), block.rows)) if index >= 0 else [""] * len(block.rows)

    def _words(self, block: Block, index: int) -> list[str]:
        """Return a column without the spaces around its cells."""
        cells = self._cells(block, index)
        return list(map(str.strip, cells)) if index >= 0 else cells

    def _references(self, block: Block) -> list[str]:
        if self.careful.layout.reference < 0:
            return [f"{self.careful.derived_start}{line}" for line in block.lines]
        references = self._words(block, self.careful.layout.reference)
        if max(map(len, references), default=0) <= REFERENCE_CHARS_MAX and "".join(references).isprintable():
            return references
        return [text if len(text) <= REFERENCE_CHARS_MAX and text.isprintable() else "" for text in references]

    def _amounts(self, block: Block, targets: Sequence[_Target]) -> list[int]:
        """Return the amounts in minor units of what each line is paid in."""
        cells = self._cells(block, self._amount_at)
        together = "".join(cells)
        # `isdigit` alone would let digits of other scripts through.
        if together.isdigit() and together.isascii() and all(cells) and max(map(len, cells)) <= PLAIN_DIGITS_MAX:
            return [int(cell) * target.scale for cell, target in zip(cells, targets, strict=True)]
        return list(map(self._amount, cells, targets))

    def _amount(self, cell: str, target: _Target) -> int:
        if not target.key:
            return _ODD
        found = parse_amount(cell, target.currency) if self.careful.layout.amount >= 0 else parse_minor(cell.strip())
        return _ODD if isinstance(found, Problem) else found

    def _phones(self, block: Block) -> list[str]:
        """Return the phones as E.164 digits; nothing for lines that the source could not read, too."""
        cells = self._cells(block, self.careful.layout.phone)
        phones = [self._home_code + found[1] if found is not None else "" for found in map(self._read_plain, cells)]
        if not all(phones):
            phones = [phone or self._typed(cell) for phone, cell in zip(phones, cells, strict=True)]
        if self.careful.layout.country >= 0:
            words = self._words(block, self.careful.layout.country)
            starts = {word: _dial_code(word) for word in set(words)}
            phones = [
                phone if phone.startswith(starts[word]) else "" for phone, word in zip(phones, words, strict=True)
            ]
        if block.ragged or block.unreadable:
            broken = {*block.ragged, *block.unreadable}
            phones = ["" if line in broken else phone for phone, line in zip(phones, block.lines, strict=True)]
        return phones

    def _typed(self, cell: str) -> str:
        """Return the digits of a phone as people write it; nothing if there is a doubt."""
        phone = read_phone(cell, self.careful.default_country)
        return phone.digits if isinstance(phone, Phone) else ""

    def _found(self, phones: Sequence[str], block: Block) -> list[_Target]:
        """Return where each line goes, remembering it for all that begin alike and use the same words."""
        wallets = self._words(block, self.careful.layout.wallet)
        currencies = self._words(block, self.careful.layout.currency)
        heads = [phone[: self._head] for phone in phones]
        facts = list(zip(heads, wallets, currencies, strict=True))
        new = set(facts).difference(self._targets)
        if new:
            if len(self._targets) + len(new) > _REMEMBERED_MAX:
                self._targets.clear()
                new = set(facts)
            phone_of = dict(zip(facts, phones, strict=True))
            self._targets |= {fact: self._target(phone_of[fact], fact[1], fact[2]) for fact in new}
        return list(map(self._targets.__getitem__, facts))

    def _target(self, phone: str, wallet_word: str, currency_word: str) -> _Target:
        """Decide where a number goes, as the router does."""
        country = country_of(phone)
        if country is None:
            return _NOWHERE
        national = phone.removeprefix(country.dial_code)
        operator = country.operator_of(national)
        recipient = Recipient("phone", country.code, operator, national, wallet_word, currency_word)
        found = self.careful.router.find(recipient)
        if isinstance(found, Problem) or found.warning is not None or not {"name"}.issuperset(found.wallet.needs):
            return _NOWHERE
        currency, stated = found.lane.currency, self.careful.layout.amount_currencies
        if stated and currency not in stated:
            return _NOWHERE
        # No wallet takes an amount of nothing, whatever it says is the least.
        least = found.amounts.start or found.amounts.step
        amounts = range(least, min(found.amounts.stop, self.careful.ceilings[currency] + 1), found.amounts.step)
        scale = SCALES[currency] if self.careful.layout.amount >= 0 else 1
        named = "name" in found.wallet.needs
        return _Target(found.key, country.code, currency, found.wallet.code, amounts, scale, named)


def _dial_code(word: str) -> str:
    """Return what phones begin with in the country that a word names: anything for no word, nothing for no country."""
    if not word:
        return ""
    country = find_country(word)
    return country.dial_code if country is not None else "?"
