"""Which account and which wallet pay a line, or why none does.

Routes of the configuration come first, in their order. Within an account the payer's own word for the wallet counts,
however it is spelled, and must agree with the number; without one the wallet is chosen from the number where the
provider's wallets allow that. What was decided is remembered per operator and spelling, so that a row costs one look
into a dictionary. Intake asks for every line; forecasts ask for wallets by lane.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated

import msgspec

from payout_engine.domain.countries import COUNTRIES, fold
from payout_engine.domain.errors import ConfigError
from payout_engine.domain.limits import AMOUNT_MINOR_MAX
from payout_engine.domain.model import Direction, Lane, Problem
from payout_engine.domain.money import DECIMALS, SCALES, currencies_named, format_amount
from payout_engine.domain.rejections import problem
from payout_engine.ports.provider import ClosedWallet, Traits, Wallet

_REMEMBERED_MAX = 20_000
"""Decisions kept: more than any real file has operators and spellings, and a bound for one that is made to hurt."""


class AccountWallets(msgspec.Struct, frozen=True):
    """One account with what its provider can do, and what it could do if more were configured."""

    account: str
    traits: Traits
    wallets: Sequence[Wallet]
    closed: Sequence[ClosedWallet] = ()


class Route(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One routing rule: payouts that agree with every given field go to `account`. The first match wins.

    Attributes:
        direction: the runs that it is for.
        recipient: what names who is paid: `phone`, `email` or `account_number`.
        column: a header of the file. Together with `equals`.
        equals: what the cell of that column says; case, accents and punctuation do not matter.
        min_amount: the smallest amount, in major units of `currency`, which must be given with it.
        max_amount: the largest, likewise.
    """

    account: str
    direction: Direction = Direction.PAY
    country: str = ""
    operator: str = ""
    wallet: str = ""
    currency: str = ""
    recipient: str = ""
    column: str = ""
    equals: str = ""
    min_amount: Annotated[int, msgspec.Meta(ge=0)] | None = None
    max_amount: Annotated[int, msgspec.Meta(ge=0)] | None = None

    @property
    def by_amount(self) -> bool:
        """True when it looks at the amount."""
        return self.min_amount is not None or self.max_amount is not None


Amount = Callable[[str], int | Problem]
"""Reads the amount of a line as one in a currency, in minor units."""

WhoServes = Callable[[str, str], Sequence[str]]
"""Returns the names of providers, with an account or without, that pay to a kind of recipient in a country."""


def _nobody(kind: str, country: str) -> Sequence[str]:
    return ()


class Recipient(msgspec.Struct, frozen=True):
    """What routing needs to know of one line.

    Attributes:
        kind: `phone`, `email` or `account_number`.
        country: two-letter code, or empty when it is not known.
        operator: whose number it is, or empty.
        national: the national number; empty for other kinds.
        wallet_word: what the payer wrote for the wallet or operator, or empty.
        currency_word: what the payer wrote for the currency, or empty.
        cells: what the columns say that routes look at, in the order of `Router.columns`, folded.
    """

    kind: str
    country: str
    operator: str = ""
    national: str = ""
    wallet_word: str = ""
    currency_word: str = ""
    cells: Sequence[str] = ()


class Destination(msgspec.Struct, frozen=True):
    """Where a line's money goes.

    Attributes:
        lane: the balance it is paid from.
        wallet: the provider's rules for it.
        key: names the lane in one string.
        amounts: those that the wallet takes, in minor units: its bounds, and its multiple and decimals as the step.
        warning: something the payer should know, or None.
    """

    lane: Lane
    wallet: Wallet
    key: str
    amounts: range
    warning: Problem | None = None

    def refuse_amount(self, amount_minor: int) -> Problem:
        """Return why the wallet does not take an amount that is not one of `amounts`."""
        wallet, currency = self.wallet, self.lane.currency
        if amount_minor < wallet.amount_minor_min:
            minimum = format_amount(wallet.amount_minor_min, currency)
            return problem("amount_below_minimum", wallet=wallet.title, minimum=minimum)
        if amount_minor >= self.amounts.stop:
            limit = format_amount(self.amounts.stop - 1, currency)
            return problem("amount_above_limit", limit=limit, of=wallet.title)
        multiple = format_amount(self.amounts.step, currency)
        return problem("amount_multiple", wallet=wallet.title, multiple=multiple)


class Router:
    """The accounts and the rules between them."""

    def __init__(
        self, served: Sequence[AccountWallets], routes: Sequence[Route] = (), who_serves: WhoServes = _nobody
    ) -> None:
        """Prepare the routing.

        Args:
            served: the accounts, in the configuration's order.
            routes: the rules; without any, the first account that serves a line pays it.
            who_serves: tells who would serve what none of the accounts does.

        Raises:
            ConfigError: a route names an unknown account, country or wallet, or is not complete.
        """
        self._who_serves = who_serves
        self.served: Mapping[str, AccountWallets] = {one.account: one for one in served}
        self.routes = tuple(routes) or tuple(Route(account) for account in self.served)
        self._given = bool(routes)
        self.columns = list(dict.fromkeys(route.column for route in self.routes if route.column))
        self.by_amount = any(route.by_amount for route in self.routes)
        self._check()
        self.prefix_length = max(
            (len(prefix) for one in served for wallet in one.wallets for prefix in wallet.prefixes), default=0
        )
        self._wallets = {
            Lane(one.account, wallet.code, wallet.currency): wallet for one in served for wallet in one.wallets
        }
        self.lanes: Mapping[str, Lane] = {_key(lane): lane for lane in self._wallets}
        self._remembered: dict[tuple[str, ...], Destination | Problem] = {}

    def _check(self) -> None:
        for route in self.routes:
            if route.account not in self.served:
                raise ConfigError(f"A route names the account “{route.account}”, which is not configured.")
            if route.country and route.country not in COUNTRIES:
                raise ConfigError(f"A route names the country “{route.country}”; write a code such as BF.")
            codes = [wallet.code for wallet in self.served[route.account].wallets]
            if route.wallet and route.wallet not in codes:
                raise ConfigError(f"A route names the wallet “{route.wallet}”; {route.account} has {', '.join(codes)}.")
            if route.recipient not in ("", "phone", "email", "account_number"):
                raise ConfigError(
                    f"A route names the recipient “{route.recipient}”; write phone, email or account_number."
                )
            if bool(route.column) != bool(route.equals):
                raise ConfigError(
                    "A route looks at a column and does not say what is in it, or the other way round. Write both, "
                    'such as: column = "Site", equals = "Abidjan".'
                )
            if route.by_amount and route.currency not in DECIMALS:
                raise ConfigError(
                    'A route with min_amount or max_amount needs their currency, such as: currency = "XOF".'
                )

    @property
    def kinds(self) -> frozenset[str]:
        """The kinds of recipients that some account pays."""
        return frozenset(wallet.recipient for wallet in self._wallets.values())

    def kinds_named(self, word: str) -> frozenset[str]:
        """Return the kinds of recipients that the wallets pay to which a word could mean; none for no word."""
        if not word:
            return frozenset()
        return frozenset(wallet.recipient for wallet in self._wallets.values() if fold(word) in _spellings(wallet))

    @property
    def countries(self) -> Sequence[str]:
        """The two-letter codes of the countries that some account pays to."""
        return sorted({wallet.country for one in self.served.values() for wallet in one.wallets})

    def wallet_of(self, lane: Lane) -> Wallet | None:
        """Return the wallet behind a lane, or None when the configuration no longer has it."""
        return self._wallets.get(lane)

    def find(self, recipient: Recipient, amount: Amount | None = None) -> Destination | Problem:
        """Return where a line's money goes, or why no account pays it.

        Args:
            recipient: what the line says of who is paid.
            amount: reads the line's amount; only asked where a route looks at it.
        """
        kind, country, operator, national, wallet_word, currency_word, cells = msgspec.structs.astuple(recipient)
        key = (kind, country, operator, national[: self.prefix_length], wallet_word, currency_word, *cells)
        known = None if self.by_amount else self._remembered.get(key)
        if known is None:
            if len(self._remembered) >= _REMEMBERED_MAX:
                self._remembered.clear()
            known = self._remembered[key] = self._decide(recipient, amount)
        return known

    def _decide(self, recipient: Recipient, amount: Amount | None) -> Destination | Problem:
        """Try the rules in order. A rule that fits decides; without rules, the first account that can pay does."""
        refusal: Problem | None = None
        found: list[Destination] = []
        for route in self.routes:
            if not self._speaks_of(route, recipient):
                continue
            one = self.served[route.account]
            decided = self._within(one, recipient)
            if isinstance(decided, Problem) and decided.code in _MAY_BE_CLOSED:
                decided = _closed(one, recipient) or decided
            if isinstance(decided, Destination):
                if _agrees(route, decided, amount):
                    found.append(decided)
                    if self._given or recipient.kind == "phone":
                        break  # Nothing in an address says whose it is: without a rule, the others are asked as well.
            elif route.wallet or route.currency:
                continue
            elif self._given and decided.code != "recipient_kind_not_served":
                return decided
            elif refusal is None or refusal.code in ("country_not_served", "recipient_kind_not_served"):
                # Of several refusals the one of an account that at least serves the country says most.
                refusal = decided
        if len(found) > 1:
            codes = ", ".join(f"{one.wallet.code} of {one.lane.account}" for one in found)
            return problem("wallet_ambiguous", codes=codes)
        return found[0] if found else refusal or problem("route_missing", facts=_facts(recipient))

    def _speaks_of(self, route: Route, recipient: Recipient) -> bool:
        """Tell whether a rule is about such a line, as far as that is known before a wallet is."""
        return (
            route.country in ("", recipient.country)
            and route.recipient in ("", recipient.kind)
            and (not route.operator or same_operator(route.operator, recipient.operator))
            and (not route.column or recipient.cells[self.columns.index(route.column)] == fold(route.equals))
        )

    def _within(self, one: AccountWallets, recipient: Recipient) -> Destination | Problem:
        """Choose the wallet of an account."""
        wallets = [wallet for wallet in one.wallets if wallet.recipient == recipient.kind]
        if not wallets:
            kinds = ", ".join(sorted({wallet.recipient.replace("_", " ") for wallet in one.wallets}))
            kind, hint = recipient.kind.replace("_", " "), self._elsewhere(recipient)
            return problem("recipient_kind_not_served", account=one.account, kind=kind, served=kinds, hint=hint)
        wallets = [wallet for wallet in wallets if recipient.country in ("", wallet.country)]
        if not wallets:
            served = ", ".join(COUNTRIES[code].name for code in self.countries if code in COUNTRIES)
            name = COUNTRIES[recipient.country].name if recipient.country in COUNTRIES else recipient.country
            return problem("country_not_served", country=name, served=served, hint=self._elsewhere(recipient))
        stated = currencies_named(recipient.currency_word)
        if recipient.currency_word and not stated:
            return problem("currency_unknown", text=recipient.currency_word[:40])
        wallets = [wallet for wallet in wallets if wallet.currency in stated] or wallets
        wallet = _choose(one, wallets, recipient)
        if isinstance(wallet, Problem):
            return wallet
        if stated and wallet.currency not in stated:
            said = recipient.currency_word
            return problem("wrong_currency", stated=said, wallet=wallet.title, currency=wallet.currency)
        if _unlisted(wallet, recipient):
            return _prefix_refused(one, wallet, wallets, recipient)
        warning = _mismatch(wallet, recipient) or _daily_limit(wallet)
        if warning is not None and warning.code == "wallet_mismatch":
            return warning
        lane = Lane(one.account, wallet.code, wallet.currency)
        return Destination(lane, wallet, _key(lane), amounts_of(wallet), warning)

    def _elsewhere(self, recipient: Recipient) -> str:
        """Say which providers would serve a line that no account does, in a sentence with the space before it."""
        who = self._who_serves(recipient.kind, recipient.country)
        return f" {' and '.join(who)} would; add an account there to the configuration." if who else ""


# ----------------------------------------------------------------------------------------------------------- decisions


def _agrees(route: Route, destination: Destination, amount: Amount | None) -> bool:
    """Tell whether a rule is about a line whose wallet is known."""
    if route.wallet not in ("", destination.wallet.code) or route.currency not in ("", destination.lane.currency):
        return False
    if not route.by_amount:
        return True
    found = amount(route.currency) if amount is not None else 0
    if isinstance(found, Problem):
        return True  # Whichever account it is, the amount is what the payer has to mend.
    scale = SCALES[route.currency]
    most = math.inf if route.max_amount is None else route.max_amount * scale
    return (route.min_amount or 0) * scale <= found <= most


def same_operator(one: str, other: str) -> bool:
    """Return True when two names mean one operator: `Moov` and `Moov Africa`, in any spelling."""
    first, second = sorted((_words(one), _words(other)), key=len)
    return bool(first) and first == second[: len(first)]


def _key(lane: Lane) -> str:
    """Name a lane in one string."""
    return f"{lane.account}/{lane.name}"


def _words(text: str) -> list[str]:
    return [fold(word) for word in re.split(r"[\W_]+", text) if word]


def _facts(recipient: Recipient) -> str:
    facts = (recipient.country, recipient.operator, recipient.wallet_word, recipient.currency_word)
    return ", ".join(filter(None, facts)) or recipient.kind


def amounts_of(wallet: Wallet) -> range:
    """Return the amounts that a wallet takes; one without cents takes whole units only."""
    whole_minor: int = 10 ** max(0, DECIMALS[wallet.currency] - wallet.decimals)
    step = math.lcm(wallet.multiple_of_minor, whole_minor)
    least = -(-wallet.amount_minor_min // step) * step
    most = AMOUNT_MINOR_MAX if wallet.amount_minor_max is None else wallet.amount_minor_max
    return range(least, most + 1, step)


def _choose(one: AccountWallets, wallets: Sequence[Wallet], recipient: Recipient) -> Wallet | Problem:
    """Return the wallet that the payer named or, without a name, the one that the number says."""
    word = recipient.wallet_word
    if word:
        named = _named(wallets, word)
        if named is not None:
            return named
        if not (recipient.operator and same_operator(word, recipient.operator)):
            codes = ", ".join(wallet.code for wallet in wallets)
            return problem("wallet_unknown", text=word[:40], account=one.account, codes=codes)
    automatic = [wallet for wallet in wallets if wallet.automatic]
    if recipient.kind != "phone":
        # Nothing in an e-mail address or an account number says which wallet it is of; without a country, nor whether
        # a place is meant that is not configured.
        elsewhere = [closed for closed in one.closed if closed.wallet.recipient == recipient.kind]
        if len(automatic) == 1 and (recipient.country or not elsewhere):
            return automatic[0]
        codes = ", ".join(wallet.code for wallet in wallets)
        return problem("wallet_ambiguous", codes=codes)
    for serves in (_lists, _serves_operator, _serves_anyone):
        found = next((wallet for wallet in automatic if serves(wallet, recipient)), None)
        if found is not None:
            return found  # It may be one whose list lacks the number, which the caller then says.
    return _unserved(one, wallets, recipient)


_MAY_BE_CLOSED = frozenset(
    {
        *("country_not_served", "recipient_kind_not_served", "operator_not_served"),
        *("wallet_unknown", "wallet_ambiguous", "wallet_needed"),
    }
)
"""What is said of a line that an account might pay if more were configured."""


def _closed(one: AccountWallets, recipient: Recipient) -> Problem | None:
    """Say what to configure if the line is meant for a place that the account's provider serves and it does not."""
    for closed in one.closed:
        wallet, word = closed.wallet, recipient.wallet_word
        if wallet.recipient != recipient.kind or recipient.country != wallet.country:
            continue
        by_number = _serves_operator(wallet, recipient) or (recipient.kind != "phone" and wallet.automatic)
        if fold(word) in _spellings(wallet) if word else by_number:
            return problem("wallet_closed", wallet=wallet.title, account=one.account, remedy=closed.remedy)
    return None


def _daily_limit(wallet: Wallet) -> Problem | None:
    """Tell of a limit of a day, which cannot be kept here: it may be the recipient's, over all who pay them."""
    return problem("daily_limit", wallet=wallet.title, limit=wallet.daily_limit) if wallet.daily_limit else None


def _lists(wallet: Wallet, recipient: Recipient) -> bool:
    """The provider's own list of prefixes names the number."""
    return bool(recipient.national) and recipient.national.startswith(tuple(wallet.prefixes))


def _unlisted(wallet: Wallet, recipient: Recipient) -> bool:
    """The provider prints a list of prefixes, and the number, which is not another operator's, is not on it."""
    if not wallet.prefixes or not recipient.national or _lists(wallet, recipient):
        return False
    return not recipient.operator or _serves_operator(wallet, recipient)


def _serves_operator(wallet: Wallet, recipient: Recipient) -> bool:
    """The number belongs to an operator that the wallet serves."""
    return any(same_operator(operator, recipient.operator) for operator in wallet.operators)


def _serves_anyone(wallet: Wallet, recipient: Recipient) -> bool:
    """The wallet is not tied to an operator."""
    return not wallet.operators and not wallet.prefixes


def _unserved(one: AccountWallets, wallets: Sequence[Wallet], recipient: Recipient) -> Problem:
    """Say which operators are served, and which wallets may be named for such a number."""
    served = sorted({operator for wallet in wallets if wallet.automatic for operator in wallet.operators})
    if not served:
        codes = ", ".join(wallet.code for wallet in wallets)
        return problem("wallet_needed", account=one.account, codes=codes)
    operator = recipient.operator or "This operator's"
    hint = _hint(wallets, recipient)
    return problem("operator_not_served", operator=operator, account=one.account, served=", ".join(served), hint=hint)


def _prefix_refused(one: AccountWallets, wallet: Wallet, wallets: Sequence[Wallet], recipient: Recipient) -> Problem:
    """Say that the provider's own list lacks such numbers, and what to do if it pays them all the same."""
    return problem(
        "prefix_not_served",
        wallet=wallet.title,
        wallet_code=wallet.code,
        account=one.account,
        prefix=recipient.national[: max(map(len, wallet.prefixes))],
        hint=_hint(wallets, recipient),
    )


def _hint(wallets: Sequence[Wallet], recipient: Recipient) -> str:
    """Name the wallets that may be written for any number, in a sentence with the space before it."""
    codes = ", ".join(wallet.code for wallet in wallets if _serves_anyone(wallet, recipient))
    return f" Ask the recipient for another number, or write {codes} as the wallet if they have one." if codes else ""


def _named(wallets: Sequence[Wallet], word: str) -> Wallet | None:
    """Return the wallet that a word means, or None when it means none, or could mean two."""
    wanted = fold(word)
    for wallet in wallets:
        if wanted == fold(wallet.code):
            return wallet
    found = [wallet for wallet in wallets if wanted in _spellings(wallet)]
    return found[0] if len(found) == 1 else None


def _spellings(wallet: Wallet) -> set[str]:
    """Return the ways a person may write a wallet: `Orange Money`, `orange`, `OM`, or its operator."""
    title = _words(wallet.title)
    spellings = {"".join(title), title[0], "".join(word[0] for word in title) if len(title) > 1 else title[0]}
    for operator in wallet.operators:
        words = _words(operator)
        spellings |= {"".join(words), words[0], words[0] + "money"}
    code = _words(wallet.code)
    return spellings | {"".join(code), code[0], code[0] + "money"}


def _mismatch(wallet: Wallet, recipient: Recipient) -> Problem | None:
    """Compare the wallet's operators with the number's. Where numbers are ported the prefix proves nothing."""
    operator = recipient.operator
    if not wallet.operators or not operator or _serves_operator(wallet, recipient) or _lists(wallet, recipient):
        return None
    country = COUNTRIES.get(recipient.country)
    code = "wallet_mismatch_possible" if country is not None and country.ports_numbers else "wallet_mismatch"
    return problem(code, operator=operator, wallet=wallet.title)
