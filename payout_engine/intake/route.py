"""Which account and which wallet pay a line, or why none does.

Routes of the configuration come first, in their order. Within an account the payer's own word for the wallet counts,
however it is spelled, and must agree with the number; without one the wallet is chosen from the number where the
provider's wallets allow that. What was decided is remembered per operator and spelling, so that a row costs one look
into a dictionary. Intake asks for every line; forecasts ask for wallets by lane.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

import msgspec

from payout_engine.domain.countries import COUNTRIES, fold
from payout_engine.domain.errors import ConfigError
from payout_engine.domain.limits import AMOUNT_MINOR_MAX
from payout_engine.domain.model import Direction, Lane, Problem
from payout_engine.domain.money import DECIMALS, currencies_named, format_amount
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
    """

    account: str
    direction: Direction = Direction.PAY
    country: str = ""
    operator: str = ""
    wallet: str = ""
    currency: str = ""


class Recipient(msgspec.Struct, frozen=True):
    """What routing needs to know of one line.

    Attributes:
        kind: `phone`, `email` or `account_number`.
        country: two-letter code, or empty when it is not known.
        operator: whose number it is, or empty.
        national: the national number; empty for other kinds.
        wallet_word: what the payer wrote for the wallet or operator, or empty.
        currency_word: what the payer wrote for the currency, or empty.
    """

    kind: str
    country: str
    operator: str = ""
    national: str = ""
    wallet_word: str = ""
    currency_word: str = ""


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

    def __init__(self, served: Sequence[AccountWallets], routes: Sequence[Route] = ()) -> None:
        """Prepare the routing.

        Args:
            served: the accounts, in the configuration's order.
            routes: the rules; without any, the first account that serves a line pays it.

        Raises:
            ConfigError: a route names an unknown account, country or wallet, or there is no account.
        """
        self.served: Mapping[str, AccountWallets] = {one.account: one for one in served}
        self.routes = tuple(routes) or tuple(Route(account) for account in self.served)
        self._given = bool(routes)
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

    def find(
        self,
        kind: str,
        country: str,
        operator: str = "",
        national: str = "",
        wallet_word: str = "",
        currency_word: str = "",
    ) -> Destination | Problem:
        """Return where the line's money goes, or why no account pays it. The arguments are those of `Recipient`."""
        key = (kind, country, operator, national[: self.prefix_length], wallet_word, currency_word)
        known = self._remembered.get(key)
        if known is None:
            if len(self._remembered) >= _REMEMBERED_MAX:
                self._remembered.clear()
            known = self._decide(Recipient(kind, country, operator, national, wallet_word, currency_word))
            self._remembered[key] = known
        return known

    def _decide(self, recipient: Recipient) -> Destination | Problem:
        """Try the rules in order. A rule that fits decides; without rules, the first account that can pay does."""
        refusal: Problem | None = None
        for route in self.routes:
            if route.country not in ("", recipient.country):
                continue
            if route.operator and not same_operator(route.operator, recipient.operator):
                continue
            one = self.served[route.account]
            decided = self._within(one, recipient)
            if isinstance(decided, Problem) and decided.code in _MAY_BE_CLOSED:
                decided = _closed(one, recipient) or decided
            if route.wallet and not (isinstance(decided, Destination) and decided.wallet.code == route.wallet):
                continue
            if route.currency and not (isinstance(decided, Destination) and decided.lane.currency == route.currency):
                continue
            if isinstance(decided, Destination) or self._given:
                return decided
            if refusal is None or refusal.code in ("country_not_served", "recipient_kind_not_served"):
                # Of several refusals the one of an account that at least serves the country says most.
                refusal = decided
        return refusal or problem("route_missing", facts=_facts(recipient))

    def _within(self, one: AccountWallets, recipient: Recipient) -> Destination | Problem:
        """Choose the wallet of an account."""
        wallets = [wallet for wallet in one.wallets if wallet.recipient == recipient.kind]
        if not wallets:
            kinds = ", ".join(sorted({wallet.recipient for wallet in one.wallets}))
            return problem("recipient_kind_not_served", account=one.account, kind=recipient.kind, served=kinds)
        wallets = [wallet for wallet in wallets if recipient.country in ("", wallet.country)]
        if not wallets:
            served = ", ".join(COUNTRIES[code].name for code in self.countries if code in COUNTRIES)
            name = COUNTRIES[recipient.country].name if recipient.country in COUNTRIES else recipient.country
            return problem("country_not_served", country=name, served=served)
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


# ----------------------------------------------------------------------------------------------------------- decisions


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
        # Nothing in an e-mail address or an account number says which wallet it is of.
        if len(automatic) == 1:
            return automatic[0]
        codes = ", ".join(wallet.code for wallet in wallets)
        return problem("wallet_ambiguous", account=one.account, codes=codes)
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
        if wallet.recipient != recipient.kind or recipient.country not in ("", wallet.country):
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
