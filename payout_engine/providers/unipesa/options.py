"""What an account says of itself, and the wallets that follow from it.

An operator with one id is served as it is. One with several is served by the id that the account names, since only the
provider's manager knows which is the merchant's; until then it is a closed wallet, and a line for it is refused with
the option to set. The same holds for currencies that the document uses and does not list. Called by `adapter.py`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from payout_engine.domain.countries import fold
from payout_engine.domain.errors import ConfigError
from payout_engine.domain.model import Direction
from payout_engine.domain.money import DECIMALS
from payout_engine.ports.provider import (
    KEY_LIFETIME_SECONDS_DEFAULT,
    ClosedWallet,
    KeyPromise,
    LookUpKind,
    Traits,
    Wallet,
)
from payout_engine.ports.registration import is_loopback
from payout_engine.providers.unipesa.tables import (
    COUNTRY_TABLES,
    FACES,
    IDS,
    OPERATORS,
    SIMULATOR,
    Limits,
    Operator,
    Place,
    place,
)

TRAITS = Traits(
    batch_limit=1,
    calls_per_second=None,
    # Not documented. Enough to keep a gateway busy that answers in half a second.
    concurrency=8,
    key_promise=KeyPromise.IDEMPOTENT,
    key_lifetime_seconds=KEY_LIFETIME_SECONDS_DEFAULT,
    look_up=LookUpKind.EACH,
    absence_final_seconds=None,
)

DOCUMENT_TYPES: Mapping[str, str] = {
    **dict.fromkeys(("intlpassport", "internationalpassport", "passport", "passeport"), "intl_passport"),
    **dict.fromkeys(("drivinglicense", "drivinglicence", "permisdeconduire", "permis"), "driving_license"),
    **dict.fromkeys(("nationalid", "id", "idcard", "cni", "cartedidentite", "carteidentite"), "national_id"),
}
"""What people call an identity document, without case and signs, and the document's three words."""

UNLISTED: Sequence[str] = sorted({table.currency for table in COUNTRY_TABLES.values() if not table.listed})
"""Currencies of operators whose own is not in the document's table of currencies."""

_COMMON = frozenset({"secret_key", "base_url", "timeout_seconds"})
"""Settings that stand beside the options in the configuration and are read elsewhere."""

_ID = re.compile(r"[A-Za-z0-9_\-]{1,128}")
_SOURCE = "Unipesa gateway API document, provider and limit tables, read 2026-11-20"


class OwnLimits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the provider's manager has said of one id, in whole units. What is left out stays; a most of 0 is none."""

    b2c_min: int | None = None
    b2c_max: int | None = None
    c2b_min: int | None = None
    c2b_max: int | None = None
    multiple_of: int | None = None


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The account's settings beyond the ones every account has.

    Attributes:
        public_id: the merchant's, in the path of every call.
        merchant_id: the merchant's, in the body of every call.
        callback_url: where the provider tells how an order ended; if it is left out, where callbacks are taken, or
            nowhere.
        return_url: where a payer comes back to; needed to collect in Egypt.
        provider_ids: by operator, the id that is the merchant's, such as `{ "CI/mtn" = 2303 }`; 14 is the simulator,
            whose orders stay in progress for ever.
        extra_currencies: those in use that the document does not list, such as `["XAF"]`.
        limits: by id, the limits that the manager has said, such as `{ 2303 = { b2c_max = 1000000 } }`. Limits of a day
            (Rwanda, Togo) are not kept: the document does not say whose day they are of.
        documents_for: ids whose customers' identity documents are wanted (some of Tanzania's; it is not said which).
        key_lifetime_seconds: how long an order id is believed to pay once, which is promised without a time; 0: never.
        rate_per_second: paying calls per second, if the contract says; the document does not.
        concurrency: calls on the wire at once.
    """

    public_id: str = ""
    merchant_id: str = ""
    callback_url: str = ""
    return_url: str = ""
    provider_ids: Mapping[str, int] = {}
    extra_currencies: Sequence[str] = ()
    limits: Mapping[str, OwnLimits] = {}
    documents_for: Sequence[int] = ()
    key_lifetime_seconds: float = KEY_LIFETIME_SECONDS_DEFAULT
    rate_per_second: float | None = None
    concurrency: int = TRAITS.concurrency


def options_of(written: Mapping[str, Any]) -> Options:
    """Check the options as written in the configuration.

    Raises:
        ConfigError: one is unknown or out of bounds.
    """
    try:
        options = msgspec.convert({key: value for key, value in written.items() if key not in _COMMON}, Options)
    except msgspec.ValidationError as error:
        raise ConfigError(f"unipesa options: {error}") from None
    for refused in _refused(options):
        raise ConfigError(refused)
    return options


def _refused(options: Options) -> Iterator[str]:
    """Say what is wrong with options that have the right types."""
    for name in ("public_id", "merchant_id"):
        if getattr(options, name) and not _ID.fullmatch(getattr(options, name)):
            yield f"{name} must be one word of letters, digits, “_” and “-”, as the provider gave it"
    for name in ("callback_url", "return_url"):
        if getattr(options, name) and not _is_address(getattr(options, name)):
            yield f"{name} must be an address that begins with https://"
    for name, id in options.provider_ids.items():
        if name not in OPERATORS:
            yield f"provider_ids: {name!r} is no operator; write one of {', '.join(OPERATORS)}"
        elif id not in (*OPERATORS[name][1].ids, SIMULATOR):
            known = ", ".join(map(str, OPERATORS[name][1].ids))
            yield f"provider_ids: {id} is none of the ids of {name}: {known}, or {SIMULATOR} for the simulator"
    for currency in options.extra_currencies:
        if currency not in UNLISTED:
            yield f"extra_currencies: {currency!r} is none of {', '.join(UNLISTED)}"
    for written in (*options.limits, *map(str, options.documents_for)):
        if written not in map(str, (*IDS, SIMULATOR)):
            yield f"{written!r} is no provider id of the document"
    for written, own in options.limits.items():
        least_most = ((own.b2c_min, own.b2c_max), (own.c2b_min, own.c2b_max))
        if any(value is not None and value < 0 for pair in least_most for value in pair) or own.multiple_of == 0:
            yield f"limits.{written}: amounts must be whole and not negative, multiple_of above 0"
    if not 0 <= options.key_lifetime_seconds < math.inf:
        yield "key_lifetime_seconds must be 0 (an order id promises nothing) or more, and not without end"
    if options.rate_per_second is not None and not 0 < options.rate_per_second <= 1_000_000:
        yield "rate_per_second must be above 0"
    if not 1 <= options.concurrency <= 1_000:
        yield "concurrency must be 1 to 1000"


def _is_address(text: str) -> bool:
    """Whether it can be called from elsewhere without being overheard; on this machine, plain HTTP will do."""
    found = re.fullmatch(r"(https?)://([^/:?#]+|\[[0-9a-f:]+\])(:\d+)?([/?#][!-~]*)?", text[:500], re.ASCII)
    return found is not None and text.isascii() and (found[1] == "https" or is_loopback(found[2].strip("[]")))


def traits(written: Mapping[str, Any]) -> Traits:
    """Return the documented traits with the account's own figures in place.

    Raises:
        ConfigError: an option cannot be used.
    """
    options = options_of(written)
    lives = options.key_lifetime_seconds > 0
    return msgspec.structs.replace(
        TRAITS,
        calls_per_second=options.rate_per_second,
        concurrency=options.concurrency,
        key_promise=KeyPromise.IDEMPOTENT if lives else KeyPromise.NONE,
        key_lifetime_seconds=options.key_lifetime_seconds if lives else None,
    )


# ----------------------------------------------------------------------------------------------------------- wallets


def wallets(written: Mapping[str, Any], direction: Direction) -> Sequence[Wallet]:
    """Return where an account with these options can pay to, or collect from.

    Raises:
        ConfigError: an option cannot be used.
    """
    return [wallet_of(found) for found in places(options_of(written), direction)]


def closed_wallets(written: Mapping[str, Any], direction: Direction) -> Sequence[ClosedWallet]:
    """Return the operators that it could serve as well, each with the option to set.

    Raises:
        ConfigError: an option cannot be used.
    """
    options = options_of(written)
    closed = []
    for name, operator in _operators(direction):
        remedy = _remedy(options, name, operator, FACES[direction])
        if remedy:
            shown = wallet_of(place(name, operator.ids[0], FACES[direction]))
            code = name.split("/")[1] + "_" + shown.country.lower()
            closed.append(ClosedWallet(msgspec.structs.replace(shown, code=code), remedy))
    return closed


def places(options: Options, direction: Direction) -> Sequence[Place]:
    """Return the ids that an account can use, with the limits and needs that it has said."""
    face = FACES[direction]
    found = []
    for name, operator in _operators(direction):
        if not _remedy(options, name, operator, face):
            one = place(name, options.provider_ids.get(name, operator.ids[0]), face)
            needs = [*one.needs, *(("document_type", "document_number") if one.id in options.documents_for else ())]
            limits = _limits(one.limits, options.limits.get(str(one.id)), face)
            found.append(msgspec.structs.replace(one, needs=needs, limits=limits))
    return found


def _operators(direction: Direction) -> Iterator[tuple[str, Operator]]:
    return ((name, found) for name, (_, found) in OPERATORS.items() if FACES[direction] in found.faces)


def _remedy(options: Options, name: str, operator: Operator, face: str) -> str:
    """What has to be configured before an operator can be used; empty if nothing."""
    country, _ = OPERATORS[name]
    table = COUNTRY_TABLES[country]
    if not table.listed and table.currency not in options.extra_currencies:
        return f'extra_currencies = ["{table.currency}"], once the provider says that it uses {table.currency}'
    if len(operator.ids) > 1 and name not in options.provider_ids:
        ids = ", ".join(map(str, operator.ids))
        return f'provider_ids = {{ "{name}" = ID }}, with the one that the provider gave you of {ids}'
    if face in table.return_url and not options.return_url:
        return 'return_url = "https://...", where the payer comes back to'
    return ""


def _limits(printed: Limits, own: OwnLimits | None, face: str) -> Limits:
    """Put what the account says in place of what the document prints."""
    if own is None:
        return printed
    least, most = getattr(own, f"{face}_min"), getattr(own, f"{face}_max")
    found = Limits(
        least=printed.least if least is None else least,
        most=printed.most if most is None else most or None,
        multiple_of=printed.multiple_of if own.multiple_of is None else own.multiple_of,
        sure=True,
        daily=printed.daily,
    )
    if found.most is not None and found.most < found.least:
        raise ConfigError(f"limits: the most of an id, {found.most}, is below its least, {found.least}")
    return found


def wallet_of(found: Place) -> Wallet:
    """Return a place as the engine knows it."""
    unit = 10 ** DECIMALS[found.currency]
    limits = found.limits
    certain = "" if limits.sure else "; which limits are this id's is not said, so the strictest count"
    a_day = f"; printed as well and not kept: {limits.daily}" if limits.daily else ""
    return Wallet(
        code=found.code,
        title=found.operator.title,
        country=found.country,
        currency=found.currency,
        decimals=DECIMALS[found.currency],
        recipient=found.recipient,
        needs=found.needs,
        operators=found.operator.serves,
        automatic=bool(found.operator.serves) or found.face in found.operator.unnamed,
        amount_minor_min=max(1, limits.least * unit),
        amount_minor_max=None if limits.most is None else limits.most * unit,
        multiple_of_minor=limits.multiple_of * unit if limits.multiple_of > 1 else 1,
        daily_limit=limits.daily,
        source=_SOURCE + certain + a_day,
    )


def document_type(word: str) -> str:
    """Return the document's word for a kind of identity document, or nothing for one that it does not know."""
    return DOCUMENT_TYPES.get(fold(word), "")
