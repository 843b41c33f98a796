"""Judging lines: each becomes a payout with a destination, or is refused with the first problem that matters.

A judge is built once per run and sees whole blocks. It never raises for what a line holds, it never repairs what could
change who is paid or how much, and every line that goes in comes out once. The order of the questions is: can the line
be read, has it a reference, who is paid, where does the money go, how much.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from payout_engine.domain.countries import COUNTRIES, Country, Phone, find_country, read_phone
from payout_engine.domain.errors import InputError
from payout_engine.domain.limits import AMOUNT_MINOR_MAX, REFERENCE_CHARS_MAX
from payout_engine.domain.model import Block, Lane, Payout, Problem
from payout_engine.domain.money import (
    DECIMALS,
    PLAIN_DIGITS_MAX,
    SCALES,
    currencies_named,
    format_amount,
    parse_amount,
    parse_minor,
)
from payout_engine.domain.references import derived_start
from payout_engine.domain.rejections import problem
from payout_engine.intake.columns import RECIPIENTS, Layout
from payout_engine.intake.route import Destination, Router

_EMAIL = re.compile(r"[^@\s,;<>\"']+@[^@\s,;<>\"'.]+(?:\.[^@\s,;<>\"'.]+)+")
_EMAIL_CHARS_MAX = 254  # Source: RFC 5321, section 4.5.3.1.3.
_ACCOUNT = re.compile(r"[A-Za-z0-9](?:[ \-./]?[A-Za-z0-9]){3,39}")
_REMEMBERED_MAX = 20_000
"""Destinations remembered: more than a country has prefixes times the words of any real file."""

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
    """

    lines: int
    accepted: dict[str, Batch]
    refused: list[tuple[Payout, Sequence[str], Problem]]
    warnings: list[tuple[int, Problem]]


class _Payee(NamedTuple):
    """Who is paid, as far as the line says."""

    kind: str
    recipient: str
    country: str
    operator: str = ""
    national: str = ""


class Validator:
    """Judges the lines of one run."""

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
            InputError: the lines have no references and there is no content to derive them from.
        """
        if not layout.has_references and not digest:
            raise InputError("The payouts have no references. Give each its own, so that none can be paid twice.")
        self.layout = layout
        self.router = router
        self.default_country = default_country
        self._derived = derived_start(digest)
        self._ceilings = {
            currency: AMOUNT_MINOR_MAX if max_payout_amount is None else max_payout_amount * 10**decimals
            for currency, decimals in DECIMALS.items()
        }
        served = router.kinds
        self._kinds = [(kind, getattr(layout, kind)) for kind in RECIPIENTS if getattr(layout, kind) >= 0]
        self._kinds.sort(key=lambda kind: kind[0] not in served)
        self._amount_at = max(layout.amount, layout.amount_minor)
        self._plain_amounts = layout.amount >= 0 and not layout.amount_currencies
        self._countries: dict[str, Country | None] = {}
        # The common file pays phones of one country, most of them plain digits: one match and one look-up for each.
        common = self._kinds[0][0] == "phone" and layout.country < 0
        home = COUNTRIES.get(default_country) if common else None
        self._plain_phone = home.read_plain if home is not None else _never
        self._dial_code = home.dial_code if home is not None else ""
        self._head = max(router.prefix_length, *home.prefix_lengths) if home is not None else 0
        self._known: dict[tuple[str, str, str], Destination | Problem] = {}

    def judge(self, block: Block) -> Validated:
        """Judge every line of a block."""
        judged = Validated(len(block.rows), {}, [], [])
        broken = {**dict.fromkeys(block.ragged), **dict.fromkeys(block.unreadable)}
        for line, row in zip(block.lines, block.rows, strict=True):
            found = self._broken(block, line) if line in broken else self._row(line, row)
            if isinstance(found, Problem):
                judged.refused.append((self._sketch(line, row), row, found))
                continue
            payout, destination = found
            batch = judged.accepted.get(destination.key)
            if batch is None:
                batch = judged.accepted[destination.key] = Batch(destination.lane, [], [])
            batch.payouts.append(payout)
            batch.rows.append(row)
            if destination.warning is not None:
                judged.warnings.append((line, self._at(destination.warning, self.layout.wallet)))
        return judged

    def _broken(self, block: Block, line: int) -> Problem:
        """Say what the source found wrong with a line."""
        if line in block.unreadable:
            return problem("line_unreadable", why=block.unreadable[line])
        return problem("line_ragged", found=block.ragged[line], expected=len(self.layout.columns))

    def _row(self, line: int, row: Sequence[str]) -> tuple[Payout, Destination] | Problem:
        """Judge one line: this runs once for every line there is."""
        layout = self.layout
        if layout.reference >= 0:
            reference = row[layout.reference].strip()
            if not reference or len(reference) > REFERENCE_CHARS_MAX or not reference.isprintable():
                return self._at(_reference_problem(reference), layout.reference)
        else:
            reference = f"{self._derived}{line}"
        wallet_word = row[layout.wallet].strip() if layout.wallet >= 0 else ""
        currency_word = row[layout.currency].strip() if layout.currency >= 0 else ""
        plain = self._plain_phone(row[layout.phone])
        if plain is not None:
            kind, country, national = "phone", self.default_country, plain[1]
            recipient = self._dial_code + national
            destination = self._plain_destination(national, wallet_word, currency_word)
        else:
            payee = self._payee(row)
            if isinstance(payee, Problem):
                return payee
            kind, recipient, country, operator, national = payee
            destination = self.router.find(kind, country, operator, national, wallet_word, currency_word)
        if isinstance(destination, Problem):
            return self._unrouted(destination)
        amount_minor = self._plain_amount(row[self._amount_at], destination) or self._amount(
            row, destination, currency_word
        )
        if isinstance(amount_minor, Problem):
            return self._at(amount_minor, self._amount_at)
        payout = Payout(
            reference,
            amount_minor,
            destination.lane.currency,
            recipient if kind == "phone" else "",
            self._email(row, kind) if layout.email >= 0 else "",
            recipient if kind == "account_number" else "",
            country,
            destination.wallet.code,
            _tidy_name(row[layout.name]) if layout.name >= 0 else "",
            line,
        )
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
        kind, index = next(((kind, index) for kind, index in self._kinds if row[index].strip()), ("", -1))
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

    def _email(self, row: Sequence[str], kind: str) -> str:
        """Return the address that is paid, or one that rides along with a phone number, if it is one."""
        text = row[self.layout.email].strip()
        return text if kind != "account_number" and _EMAIL.fullmatch(text) else ""

    def _country(self, word: str) -> Country | None:
        """Find a country by name, remembering the names that this file uses."""
        if word not in self._countries:
            if len(self._countries) > 1_000:
                self._countries.clear()
            self._countries[word] = find_country(word)
        return self._countries[word]

    # -- where

    def _plain_destination(self, national: str, wallet_word: str, currency_word: str) -> Destination | Problem:
        """Find where a number of the default country is paid, remembering it for all numbers that begin alike."""
        key = (national[: self._head], wallet_word, currency_word)
        known = self._known.get(key)
        if known is None:
            if len(self._known) >= _REMEMBERED_MAX:
                self._known.clear()
            operator = COUNTRIES[self.default_country].operator_of(national)
            known = self.router.find("phone", self.default_country, operator, national, wallet_word, currency_word)
            self._known[key] = known
        return known

    def _unrouted(self, found: Problem) -> Problem:
        """Name the column that a routing problem is about."""
        if found.code in ("currency_unknown", "wrong_currency"):
            return self._at(found, self.layout.currency)
        about_wallet = found.code.startswith("wallet") and self.layout.wallet >= 0
        return self._at(found, self.layout.wallet if about_wallet else self._kinds[0][1])

    # -- how much

    def _plain_amount(self, text: str, destination: Destination) -> int:
        """Read an amount of plain digits that nothing speaks against; 0 means: look closer."""
        if self._plain_amounts and len(text) <= PLAIN_DIGITS_MAX and text.isdigit() and text.isascii():
            currency = destination.lane.currency
            amount_minor = int(text) * SCALES[currency]
            if amount_minor in destination.amounts and amount_minor <= self._ceilings[currency]:
                return amount_minor
        return 0

    def _amount(self, row: Sequence[str], destination: Destination, currency_word: str) -> int | Problem:
        layout, currency = self.layout, destination.lane.currency
        if layout.amount_currencies and not currency_word and currency not in layout.amount_currencies:
            stated = " or ".join(sorted(layout.amount_currencies))
            return problem("wrong_currency", stated=stated, wallet=destination.wallet.title, currency=currency)
        if layout.amount >= 0:
            amount_minor = parse_amount(row[layout.amount], currency)
        else:
            amount_minor = parse_minor(row[layout.amount_minor].strip())
        if isinstance(amount_minor, Problem):
            return amount_minor
        if amount_minor > self._ceilings[currency]:
            limit = format_amount(self._ceilings[currency], currency)
            return problem("amount_above_limit", limit=limit, of="max_payout_amount in the configuration")
        return amount_minor if amount_minor in destination.amounts else destination.refuse_amount(amount_minor)

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

        reference = cell(layout.reference)[:REFERENCE_CHARS_MAX] if layout.reference >= 0 else f"{self._derived}{line}"
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
            name=_tidy_name(cell(layout.name)),
            line=line,
        )

    def _sketch_currency(self, word: str, country: str) -> str:
        """Return the currency of a refused line: the stated one, or that of the country."""
        own = COUNTRIES[country].currency if country in COUNTRIES else ""
        named: Mapping[str, None] | frozenset[str] = currencies_named(word) if word else self.layout.amount_currencies
        if not word and not named:
            return own
        return own if own in named else next(iter(sorted(named)), "")


def _reference_problem(reference: str) -> Problem:
    if not reference:
        return problem("reference_missing")
    return problem("reference_unreadable", limit=REFERENCE_CHARS_MAX)


def _never(text: str) -> None:
    """Read no phone: every line is looked at closely."""


def _tidy_name(text: str) -> str:
    """Return a name on one line; it goes into a provider's request."""
    return text if text.isprintable() and text == text.strip() else " ".join(text.split())
