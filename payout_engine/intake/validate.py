"""Validating lines: each becomes a payout with a destination, or is refused with the first problem that matters.

A validator is built once per run and looks at one line at a time. It never raises for what a line holds, never repairs
what could change who is paid or how much, and every line that goes in comes out once. The order of the questions is:
can the line be read, has it a reference, who is paid, where does the money go, how much. `plain` asks the same of many
lines at once, where there is nothing to understand in them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from operator import itemgetter
from typing import NamedTuple

import msgspec

from payout_engine.domain.countries import COUNTRIES, Country, Phone, find_country, fold, read_phone
from payout_engine.domain.errors import InputError
from payout_engine.domain.limits import AMOUNT_MINOR_MAX, REFERENCE_CHARS_MAX
from payout_engine.domain.model import Block, Lane, Payout, Problem, masked
from payout_engine.domain.money import (
    DECIMALS,
    currencies_named,
    format_amount,
    parse_amount,
    parse_minor,
)
from payout_engine.domain.references import derived_start
from payout_engine.domain.rejections import problem
from payout_engine.intake.columns import RECIPIENTS, Layout
from payout_engine.intake.route import Destination, Recipient, Router

_EMAIL = re.compile(r"[^@\s,;<>\"']+@[^@\s,;<>\"'.]+(?:\.[^@\s,;<>\"'.]+)+")
_EMAIL_CHARS_MAX = 254  # Source: RFC 5321, section 4.5.3.1.3.
_ACCOUNT = re.compile(r"[A-Za-z0-9](?:[ \-./]?[A-Za-z0-9]){3,39}")
_MISSING = {"phone": "phone_missing", "email": "email_missing", "account_number": "account_number_missing"}


class Batch(msgspec.Struct):
    """Accepted lines of one lane, in order."""

    lane: Lane
    payouts: list[Payout]
    rows: list[Sequence[str]]


class Validated(msgspec.Struct):
    """What became of the lines of one block.

    Attributes:
        lines: how many there were.
        accepted: by lane.
        refused: payouts as far as they could be read, the rows, and why, side by side.
        warnings: by line.
        totals: lines that only sum up others, or close the list, with what their amount cell says.
    """

    lines: int
    accepted: dict[str, Batch]
    refused: list[tuple[Payout, Sequence[str], Problem]]
    warnings: list[tuple[int, Problem]]
    totals: list[tuple[int, str]] = []

    @property
    def payouts(self) -> int:
        """How many of the lines are payouts, good or refused."""
        return self.lines - len(self.totals)


class _Payee(NamedTuple):
    """Who is paid, as far as the line says."""

    kind: str
    recipient: str
    country: str
    operator: str = ""
    national: str = ""


class Validator:
    """Validates the lines of one run."""

    def __init__(
        self,
        layout: Layout,
        router: Router,
        *,
        default_country: str = "",
        digest: str = "",
        max_payout_amount: int | None = None,
    ) -> None:
        """Prepare for one file.

        Args:
            layout: where its columns are.
            router: where money can go.
            default_country: two-letter code of the country whose national numbers are meant, or empty.
            digest: of the content, for the references of a file that has none.
            max_payout_amount: the payer's own limit for one payout, in major units of its currency.

        Raises:
            InputError: the lines have no references and there is no content to derive them from, or they lack a column
                that a route looks at.
        """
        if not layout.has_references and not digest:
            raise InputError("The payouts have no references. Give each its own, so that none can be paid twice.")
        self.layout = layout
        self.router = router
        self.default_country = default_country
        self.derived_start = derived_start(digest)
        self.ceilings = {
            currency: AMOUNT_MINOR_MAX if max_payout_amount is None else max_payout_amount * 10**decimals
            for currency, decimals in DECIMALS.items()
        }
        served = router.kinds
        self._kinds = [(kind, getattr(layout, kind)) for kind in RECIPIENTS if getattr(layout, kind) >= 0]
        self._kinds.sort(key=lambda kind: kind[0] not in served)
        self._routed_by = [_place_of(column, layout) for column in router.columns]
        self._riding = [getattr(layout, meaning) for meaning in ("bank", "document_type", "document_number", "otp")]
        self._amount_at = max(layout.amount, layout.amount_minor)
        self._countries: dict[str, Country | None] = {}

    def by_phone_alone(self, block: Block) -> bool:
        """Tell whether each line that names a phone is paid to it, and no cell but the usual ones rides along."""
        kinds = {kind for kind, _ in self._kinds}
        if self._kinds[0][0] != "phone" or not kinds & self.router.kinds <= {"phone"}:
            return False
        if self._routed_by or self.router.by_amount:
            return False
        return not any(index >= 0 and any(map(itemgetter(index), block.rows)) for index in self._riding)

    def validate(self, block: Block) -> Validated:
        """Validate every line of a block, one by one."""
        validated = Validated(len(block.rows), {}, [], [])
        for place in range(len(block.rows)):
            found = self.validate_line(block, place, validated)
            if found is not None:
                payout, destination = found
                batch = validated.accepted.setdefault(destination.key, Batch(destination.lane, [], []))
                batch.payouts.append(payout)
                batch.rows.append(block.rows[place])
        return validated

    def validate_line(self, block: Block, place: int, validated: Validated) -> tuple[Payout, Destination] | None:
        """Validate one line of a block: return the payout and where it goes, or add it to the refused."""
        line, row = block.lines[place], block.rows[place]
        found = self._broken(block, line) or self._row(line, row)
        if isinstance(found, Problem) and self._sums_up(row):
            validated.totals.append((line, row[self._amount_at].strip()))
            return None
        if isinstance(found, Problem):
            validated.refused.append((self._sketch(line, row), row, found))
            return None
        if found[1].warning is not None:
            validated.warnings.append((line, self._at(found[1].warning, self.layout.wallet)))
        return found

    def _sums_up(self, row: Sequence[str]) -> bool:
        """Tell whether a line is no payout but the total of others, or the formula that closes a French list."""
        said = [fold(cell) for cell in row]
        paid_to = [said[index] for _, index in self._kinds]
        return any(map(_closes, said)) and all(not word or _closes(word) for word in paid_to)

    def _broken(self, block: Block, line: int) -> Problem | None:
        """Say what the source found wrong with a line, if anything."""
        if line in block.unreadable:
            return problem("line_unreadable", why=block.unreadable[line])
        if line in block.ragged:
            return problem("line_ragged", found=block.ragged[line], expected=len(self.layout.columns))
        return None

    def _row(self, line: int, row: Sequence[str]) -> tuple[Payout, Destination] | Problem:
        """Validate what a line says."""
        layout = self.layout
        reference = row[layout.reference].strip() if layout.reference >= 0 else f"{self.derived_start}{line}"
        if not reference or len(reference) > REFERENCE_CHARS_MAX or not reference.isprintable():
            return self._at(_reference_problem(reference), layout.reference)
        payee = self._payee(row)
        if isinstance(payee, Problem):
            return payee
        kind, recipient, country, operator, national = payee
        wallet_word = row[layout.wallet].strip() if layout.wallet >= 0 else ""
        currency_word = row[layout.currency].strip() if layout.currency >= 0 else ""
        cells = [fold(row[index]) for index in self._routed_by]
        known = Recipient(kind, country, operator, national, wallet_word, currency_word, cells)
        destination = self.router.find(known, partial(self._read_amount, row))
        if isinstance(destination, Problem):
            return self._unrouted(destination)
        amount_minor = self._amount(row, destination, currency_word)
        if isinstance(amount_minor, Problem):
            return self._at(amount_minor, self._amount_at)
        payout = Payout(
            reference,
            amount_minor,
            destination.lane.currency,
            recipient if kind == "phone" else "",
            email_beside(row[layout.email]) if layout.email >= 0 else "",
            recipient if kind == "account_number" else "",
            country,
            destination.wallet.code,
            tidy_name(row[layout.name]) if layout.name >= 0 else "",
            line,
            *[tidy_name(row[index]) if index >= 0 else "" for index in self._riding],
        )
        lacking = next((need for need in destination.wallet.needs if not getattr(payout, need)), "")
        if lacking:
            index = getattr(layout, lacking)
            return self._at(problem(f"{lacking}_needed", wallet=destination.wallet.title), index)
        return payout, destination

    # -- who

    def _payee(self, row: Sequence[str]) -> _Payee | Problem:
        """Read who is paid: the first recipient that is filled in, of the kinds that are served."""
        country = self.default_country
        stated = None
        if self.layout.country >= 0 and (word := row[self.layout.country].strip()):
            stated = self._country(word)
            if stated is None:
                return self._at(problem("country_unknown", text=word[:40]), self.layout.country)
            country = stated.code
        filled = [(kind, index) for kind, index in self._kinds if row[index].strip()]
        if len(filled) > 1 and self.layout.wallet >= 0:
            # Who names a wallet means the recipient that it pays to.
            meant = self.router.kinds_named(row[self.layout.wallet].strip())
            filled.sort(key=lambda each: each[0] not in meant)
        kind, index = filled[0] if filled else ("", -1)
        if kind == "phone":
            return self._phone(row[index], index, country, stated)
        if kind == "email":
            return self._email_payee(row[index].strip(), index, country)
        if kind == "account_number":
            return self._account_payee(row[index].strip(), index, country)
        if len(self._kinds) == 1:
            ((kind, index),) = self._kinds
            return self._at(problem(_MISSING[kind]), index)
        columns = ", ".join(f"“{self.layout.columns[index]}”" for _, index in self._kinds)
        return problem("recipient_missing", columns=columns)

    def _phone(self, text: str, index: int, country: str, stated: Country | None) -> _Payee | Problem:
        phone = read_phone(text, country)
        if not isinstance(phone, Phone):
            return self._at(phone, index)
        if stated is not None and phone.country != stated.code:
            owner = COUNTRIES[phone.country].name
            return self._at(problem("country_mismatch", country=owner, stated=stated.name), self.layout.country)
        return _Payee("phone", phone.digits, phone.country, phone.operator, phone.national)

    def _email_payee(self, text: str, index: int, country: str) -> _Payee | Problem:
        if len(text) > _EMAIL_CHARS_MAX or not _EMAIL.fullmatch(text):
            return self._at(problem("email_unreadable", text=text[:40]), index)
        return _Payee("email", text, country)

    def _account_payee(self, text: str, index: int, country: str) -> _Payee | Problem:
        if not _ACCOUNT.fullmatch(text):
            return self._at(problem("account_number_unreadable"), index)
        return _Payee("account_number", re.sub(r"[ \-./]", "", text), country)

    def _country(self, word: str) -> Country | None:
        """Find a country by name, remembering the names that this file uses."""
        if word not in self._countries:
            if len(self._countries) > 1_000:
                self._countries.clear()
            self._countries[word] = find_country(word)
        return self._countries[word]

    # -- where

    def _unrouted(self, found: Problem) -> Problem:
        """Name the column that a routing problem is about."""
        if found.code in ("currency_unknown", "wrong_currency"):
            return self._at(found, self.layout.currency)
        about_wallet = found.code.startswith("wallet") and self.layout.wallet >= 0
        return self._at(found, self.layout.wallet if about_wallet else self._kinds[0][1])

    # -- how much

    def _amount(self, row: Sequence[str], destination: Destination, currency_word: str) -> int | Problem:
        layout, currency = self.layout, destination.lane.currency
        if layout.amount_currencies and not currency_word and currency not in layout.amount_currencies:
            stated = " or ".join(sorted(layout.amount_currencies))
            return problem("wrong_currency", stated=stated, wallet=destination.wallet.title, currency=currency)
        amount_minor = self._read_amount(row, currency)
        if isinstance(amount_minor, Problem):
            return amount_minor
        if amount_minor > self.ceilings[currency]:
            limit = format_amount(self.ceilings[currency], currency)
            return problem("amount_above_limit", limit=limit, of="max_payout_amount in the configuration")
        return amount_minor if amount_minor in destination.amounts else destination.refuse_amount(amount_minor)

    def _read_amount(self, row: Sequence[str], currency: str) -> int | Problem:
        if self.layout.amount >= 0:
            return parse_amount(row[self.layout.amount], currency)
        return parse_minor(row[self.layout.amount_minor].strip())

    # -- what was refused

    def _at(self, found: Problem, index: int) -> Problem:
        """Name the column at fault, unless a closer look already did."""
        if found.column or index < 0:
            return found
        return Problem(found.code, found.message, self.layout.columns[index])

    def _sketch(self, line: int, row: Sequence[str]) -> Payout:
        """Return a refused line as a payout, as far as it can be read, so that it can be counted and named."""
        layout = self.layout

        def cell(index: int) -> str:
            return row[index].strip() if index >= 0 else ""

        reference = (
            cell(layout.reference)[:REFERENCE_CHARS_MAX] if layout.reference >= 0 else f"{self.derived_start}{line}"
        )
        phone = read_phone(cell(layout.phone), self.default_country)
        digits, country = (phone.digits, phone.country) if isinstance(phone, Phone) else ("", "")
        currency = self._sketch_currency(cell(layout.currency), country or self.default_country)
        amount_minor: int | Problem = 0
        if currency:
            amounts = parse_amount(cell(layout.amount), currency) if layout.amount >= 0 else None
            amount_minor = parse_minor(cell(layout.amount_minor)) if amounts is None else amounts
        return Payout(
            reference=reference,
            amount_minor=0 if isinstance(amount_minor, Problem) else amount_minor,
            currency=currency,
            phone=digits,
            email=cell(layout.email),
            account_number=cell(layout.account_number),
            country=country,
            wallet=cell(layout.wallet),
            name=tidy_name(cell(layout.name)),
            line=line,
        )

    def _sketch_currency(self, word: str, country: str) -> str:
        """Return the currency of a refused line: the stated one, or that of the country."""
        own = COUNTRIES[country].currency if country in COUNTRIES else ""
        named: Mapping[str, None] | frozenset[str] = currencies_named(word) if word else self.layout.amount_currencies
        if not word and not named:
            return own
        return own if own in named else next(iter(sorted(named)), "")


_TOTAL = re.compile(
    r"(?:sous|grand|montant)?(?:total|totaux|somme)(?:general|generaux|net|apayer|xof|xaf|fcfa|amount)*"
)


def _closes(word: str) -> bool:
    """Tell whether a folded cell says “total”, or begins “Arrêté la présente liste à la somme de ...”."""
    return _TOTAL.fullmatch(word) is not None or word.startswith(("arretelapresente", "arreteelapresente"))


def _place_of(column: str, layout: Layout) -> int:
    """Return where the column stands that a route looks at."""
    for index, header in enumerate(layout.columns):
        if fold(header) == fold(column):
            return index
    named = ", ".join(f"“{masked(header)}”" for header in layout.columns)
    raise InputError(
        f"A route of the configuration looks at the column “{column}”, which the file does not have. Its columns are: "
        f"{named}. Rename one of them, or change the route."
    )


def _reference_problem(reference: str) -> Problem:
    if not reference:
        return problem("reference_missing")
    return problem("reference_unreadable", limit=REFERENCE_CHARS_MAX)


def email_beside(text: str) -> str:
    """Return the address of a line's e-mail cell, the one that is paid or one that rides along; empty if it is none."""
    text = text.strip()
    return text if _EMAIL.fullmatch(text) else ""


def tidy_name(text: str) -> str:
    """Return a name on one line; it goes into a provider's request."""
    return text if text.isprintable() and text == text.strip() else " ".join(text.split())
