"""The providers this installation knows: found by their registrations, never listed by hand.

Every sub-package whose name has no leading underscore exports one `REGISTRATION`; other distributions may add theirs
under the entry-point group `payout_engine.providers`. The engine and the commands ask here and nowhere else, so that
a new provider touches one folder. Importing this module imports no provider.

A folder for each: `cinetpay`, `jemeni`, `jumiapay`, `senfenico`, `unipesa`. In it `NOTES.md` has the facts, `wire` the
tables, `client` the endpoints, `adapter` the two verbs, and `sandbox` the same API from the other side. What they share
has an underscore: HTTP with its exact table of failures, and the ground on which sandboxes stand.
"""

from __future__ import annotations

import importlib
import pkgutil
from importlib.metadata import entry_points

from payout_engine.domain.errors import ConfigError
from payout_engine.ports.registration import Registration

ENTRY_POINT_GROUP = "payout_engine.providers"


def discover() -> dict[str, Registration]:
    """Return every known provider's registration by its name, in alphabetical order.

    Raises:
        ConfigError: an installed extension cannot be loaded, or takes a name that is already taken.
    """
    found = {registration.name: registration for registration in _built_in()}
    for registration in _installed():
        if registration.name in found:
            raise ConfigError(f"two providers are called {registration.name!r}: uninstall one of them")
        found[registration.name] = registration
    return dict(sorted(found.items()))


def get(name: str) -> Registration:
    """Return the registration of the provider called `name`.

    Raises:
        ConfigError: there is no such provider; the message names those there are.
    """
    known = discover()
    if name not in known:
        raise ConfigError(f"There is no provider “{name}”. Known: {', '.join(known)}.")
    return known[name]


def _built_in() -> list[Registration]:
    """The sub-packages of this package."""
    return [
        _checked(importlib.import_module(f"{__name__}.{module.name}").REGISTRATION, module.name)
        for module in pkgutil.iter_modules(__path__)
        if module.ispkg and not module.name.startswith("_")
    ]


def _installed() -> list[Registration]:
    """What other distributions offer. Their code may fail in any way, and the user must learn whose it was."""
    found = []
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        try:
            loaded = entry.load()
        except Exception as error:
            raise ConfigError(f"the provider {entry.name!r} ({entry.value}) cannot be loaded: {error}") from error
        found.append(_checked(loaded, entry.name))
    return found


def _checked(registration: object, name: str) -> Registration:
    """Refuse what is not a registration, or is registered under another name than its own."""
    if not isinstance(registration, Registration) or registration.name != name:
        raise ConfigError(f"the provider {name!r} does not export a Registration of that name")
    return registration
