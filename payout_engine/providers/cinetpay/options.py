"""What an account at CinetPay may set, and the traits and wallets that follow from it. Pure. Facts: NOTES.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from yarl import URL

from payout_engine.domain.countries import COUNTRIES
from payout_engine.domain.errors import ConfigError
from payout_engine.domain.money import SCALES
from payout_engine.ports.provider import KEY_LIFETIME_SECONDS_DEFAULT, KeyPromise, LookUpKind, Traits, Wallet
from payout_engine.ports.registration import is_loopback
from payout_engine.providers.cinetpay.wire import BATCH_LIMIT, MULTIPLE_OF, WAVE

_COMMON = frozenset({"api_key", "password", "base_url", "timeout_seconds"})
"""Settings that stand beside the options in the configuration and are read elsewhere."""

_SOURCE = "CinetPay transfer document, sections 'Wallet Available' and 'Good to know', read 2026-11-20"

_NOTIFY_URL = (
    "notify_url is missing or cannot be used: CinetPay calls it when a transfer is done, so write an address that "
    'begins with https://, such as notify_url = "https://pay.example.com/cinetpay" (http:// only on this machine)'
)


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The smallest and the largest amount that CinetPay sends to a country, in whole units of its currency."""

    minimum: int | None = None
    maximum: int | None = None


# Unverified: no figure is in the document, which points to a chart elsewhere. These are what others have used in
# production, and the largest that another page of CinetPay's documentation names, for airtime. A transfer below the
# limit may put its whole call in doubt, so it is refused here, until the account says better.
LIMITS: Mapping[str, Limits] = {"CI": Limits(200, 1_500_000), "SN": Limits(200, 1_500_000)}
"""The documented countries. Others have to bring their limits."""


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The account's settings beyond the ones every account has.

    Attributes:
        notify_url: what CinetPay calls when a transfer is done. Required.
        contact_email: the e-mail address of contacts whose line has none. Without it every line needs one.
        countries: where this account pays to: codes, or a table of codes with their limits, such as
            `{ CI = {}, BJ = { minimum = 500, maximum = 1500000 } }`.
        batch_limit: transfers in one call.
        concurrency: calls on the wire at once.
        duplicates_refused: True if CinetPay has promised this account to refuse an id that it has had (code 805).
        key_lifetime_seconds: for how long after the first call that is believed.
    """

    notify_url: str = ""
    contact_email: str = ""
    countries: dict[str, Limits] | list[str] = msgspec.field(default_factory=lambda: list(LIMITS))
    batch_limit: int = BATCH_LIMIT
    concurrency: int = 8
    duplicates_refused: bool = False
    key_lifetime_seconds: float = KEY_LIFETIME_SECONDS_DEFAULT

    def limits(self) -> Mapping[str, Limits]:
        """Return the limits by country, where the account sets none those of `LIMITS`."""
        given = self.countries if isinstance(self.countries, dict) else dict.fromkeys(self.countries, Limits())
        found = {}
        for code, limits in given.items():
            known = LIMITS.get(code, Limits())
            minimum = known.minimum if limits.minimum is None else limits.minimum
            maximum = known.maximum if limits.maximum is None else limits.maximum
            found[code] = Limits(minimum, maximum)
        return found


def options_of(written: Mapping[str, Any]) -> Options:
    """Check the options as written in the configuration.

    Raises:
        ConfigError: one is missing, unknown or out of bounds.
    """
    try:
        options = msgspec.convert({key: value for key, value in written.items() if key not in _COMMON}, Options)
    except msgspec.ValidationError as error:
        raise ConfigError(f"cinetpay options: {error}") from None
    if not _can_be_called(options.notify_url):
        raise ConfigError(_NOTIFY_URL)
    if options.contact_email and "@" not in options.contact_email.strip("@"):
        raise ConfigError("contact_email must be an e-mail address, or be left out")
    if not 1 <= options.batch_limit <= BATCH_LIMIT:
        raise ConfigError(f"batch_limit must be 1 to {BATCH_LIMIT}")
    if not 1 <= options.concurrency <= 1_000:
        raise ConfigError("concurrency must be 1 to 1000")
    if not options.key_lifetime_seconds >= 0:
        raise ConfigError("key_lifetime_seconds must be 0 (CinetPay's promise is not believed) or more")
    _check_countries(options.limits())
    return options


def _can_be_called(notify_url: str) -> bool:
    try:
        url = URL(notify_url)
    except ValueError:
        return False
    plain = notify_url.isascii() and notify_url.isprintable() and " " not in notify_url
    return plain and bool(url.host) and (url.scheme == "https" or (url.scheme == "http" and is_loopback(url.host)))


def _check_countries(limits: Mapping[str, Limits]) -> None:
    if not limits:
        raise ConfigError('countries must name at least one country, such as countries = ["CI"]')
    for code, limit in limits.items():
        if code not in COUNTRIES:
            raise ConfigError(f"countries: {code!r} is no country that this program knows; write a code such as CI")
        if limit.minimum is None or limit.maximum is None:
            raise ConfigError(
                f"countries: CinetPay's document has no limits for {code}; write those of your contract, such as "
                f"countries = {{ {code} = {{ minimum = 500, maximum = 1500000 }} }}"
            )
        if not 0 < limit.minimum <= limit.maximum:
            raise ConfigError(f"countries: the minimum of {code} must be above 0 and not above its maximum")


def traits(written: Mapping[str, Any]) -> Traits:
    """Return what the engine does differently for an account with these options.

    Raises:
        ConfigError: an option cannot be used.
    """
    options = options_of(written)
    promised = options.duplicates_refused and options.key_lifetime_seconds > 0
    return Traits(
        batch_limit=options.batch_limit,
        calls_per_second=None,
        concurrency=options.concurrency,
        key_promise=KeyPromise.IDEMPOTENT if promised else KeyPromise.NONE,
        key_lifetime_seconds=options.key_lifetime_seconds if promised else None,
        look_up=LookUpKind.EACH,
        absence_final_seconds=None,
    )


def wallets(written: Mapping[str, Any]) -> Sequence[Wallet]:
    """Return where an account with these options can pay to: per country the number's operator, and Wave by name.

    Raises:
        ConfigError: an option cannot be used.
    """
    options = options_of(written)
    needs = ("name",) if options.contact_email else ("name", "email")
    found = []
    for code, limits in options.limits().items():
        assert limits.minimum is not None and limits.maximum is not None  # `options_of` has seen to it.
        currency = COUNTRIES[code].currency
        for wallet, title in ((code, "Mobile money"), (WAVE.get(code, ""), "Wave")):
            if wallet:
                found.append(
                    Wallet(
                        code=wallet,
                        title=f"{title} ({COUNTRIES[code].name})",
                        country=code,
                        currency=currency,
                        decimals=0,
                        needs=needs,
                        balance=code,
                        automatic=wallet == code,
                        amount_minor_min=limits.minimum * SCALES[currency],
                        amount_minor_max=limits.maximum * SCALES[currency],
                        multiple_of_minor=MULTIPLE_OF * SCALES[currency],
                        source=_SOURCE,
                    )
                )
    return found
