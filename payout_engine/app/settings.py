"""The configuration file `payouts.toml`, read and checked; and secrets, found without ever being shown.

Settings know no provider by name: what an account needs is said by the provider's registration, and resolved here when
the account is first used, so that validating a file never asks for a key.
"""

from __future__ import annotations

import os
import stat
import tomllib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import msgspec

from payout_engine.domain.errors import ConfigError
from payout_engine.intake.route import Route
from payout_engine.ports.registration import Account, is_loopback

DEFAULT_CONFIG = Path("payouts.toml")
DEFAULT_JOURNAL = Path("payouts.db")
SANDBOX_JOURNAL = Path("payouts-sandbox.db")

Positive = Annotated[int, msgspec.Meta(gt=0)]


def state_folder() -> Path:
    """Return the folder in which the processes of this user tell each other who pays, and has paid; perhaps not made.

    Raises:
        ConfigError: this user has no home, and names no folder instead.
    """
    # The specification has a relative path ignored; here it would give each working folder a memory of its own.
    state = Path(os.environ.get("XDG_STATE_HOME", ""))
    try:
        return (state if state.is_absolute() else Path("~/.local/state").expanduser()) / "payout_engine"
    except RuntimeError:
        raise ConfigError(
            "This user has no home folder, where processes see who is paying from an account. Nothing was sent; set "
            "XDG_STATE_HOME to a folder that can be written."
        ) from None


def made_state_folder() -> Path:
    """Return the same folder, made if there is none, and kept from everybody but this user.

    Raises:
        ConfigError: it cannot be made, leads elsewhere, or is somebody else's.
    """
    folder = state_folder()
    _make_own(folder)
    return folder


def lock_folder() -> Path:
    """Return the folder that holds the locks of keys, in this user's state folder, made if there is none.

    Raises:
        ConfigError: it cannot be made, leads elsewhere, or is somebody else's.
    """
    folder = made_state_folder() / "locks"
    _make_own(folder)
    return folder


def _make_own(folder: Path) -> None:
    """Make a folder and what is missing above it, for this user alone whatever the umask; keep it so.

    Raises:
        ConfigError: it cannot be made, leads elsewhere, or is somebody else's.
    """
    try:
        for missing in reversed([each for each in folder.parents if not each.exists()]):
            _make_private(missing)
        if not os.path.lexists(folder):
            _make_private(folder)
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            what = "belongs to another user" if stat.S_ISDIR(found.st_mode) else "is a link, or no folder"
            raise ConfigError(
                f"The folder {folder}, where processes see who is paying from an account, {what}, so others could "
                "change it. Nothing was sent; move it away, or set XDG_STATE_HOME to a folder of your own."
            )
        if stat.S_IMODE(found.st_mode) != 0o700:
            folder.chmod(0o700)
    except OSError as error:
        raise ConfigError(
            f"The folder {folder}, where processes see who is paying from an account, cannot be made "
            f"({error.strerror}). Nothing was sent; set XDG_STATE_HOME to a folder that can be written."
        ) from None


def _make_private(folder: Path) -> None:
    with suppress(FileExistsError):  # Another process of ours was quicker.
        folder.mkdir(mode=0o700)
        folder.chmod(0o700)  # The umask may have taken away even what its owner needs.


class AccountSettings(msgspec.Struct, frozen=True):
    """One account as written: the provider's code and everything else of its table, secrets unresolved."""

    provider: str
    options: Mapping[str, Any] = {}

    def __repr__(self) -> str:
        return f"AccountSettings({self.provider!r})"


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `payouts.toml` says.

    Attributes:
        journal: path of the journal file.
        accounts: by name.
        routes: in order.
        columns: meaning -> header, for files whose headers are not recognised.
        country: the country of phone numbers written without a country code, or empty.
        max_payout_amount: the largest amount of one payout, in major units of its currency; None for no limit of ours.
        max_run_amount: the most that one run may pay, in major units, for each currency; None for no limit.
        max_day_amount: the most that may be approved within 24 hours, likewise, over all runs of the journal.
        max_failure_share: a lane stops when more than this share of its settled payouts failed; 1 never stops it. None
            for 0.2 in a run that pays, and 1 in one that collects, where many do not agree.
        canary: how many payouts of each lane are paid first and waited for before the rest; None for none. A run that
            collects has none but by its command.
        unknown_patience_seconds: how long a payout without an answer is looked for before a person is asked.
        callbacks_url: where `payout-engine serve` is reached from outside, such as `https://pay.example.com`; empty if
            it is not. Each account's address below it is told to its provider.
    """

    journal: Path = DEFAULT_JOURNAL
    accounts: Mapping[str, AccountSettings] = {}
    routes: Sequence[Route] = ()
    columns: Mapping[str, str] = {}
    country: str = ""
    max_payout_amount: Positive | None = None
    max_run_amount: Positive | None = None
    max_day_amount: Positive | None = None
    max_failure_share: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    canary: Positive | None = None
    unknown_patience_seconds: Annotated[float, msgspec.Meta(ge=0)] = 300.0
    callbacks_url: str = ""

    def __post_init__(self) -> None:
        if self.callbacks_url:
            url = urlsplit(self.callbacks_url)
            if url.scheme != "https" and not (url.scheme == "http" and is_loopback(url.hostname)):
                raise ValueError("callbacks_url must begin with https://, unless it is an address of this machine")
            if not url.hostname or url.query or url.fragment or url.username is not None:
                raise ValueError("callbacks_url must be an address such as https://pay.example.com, and nothing more")


def load_settings(path: Path | None) -> Settings:
    """Read a configuration file.

    Args:
        path: the file, or None for `payouts.toml` in the current folder if there is one.

    Raises:
        ConfigError: it is missing, not TOML, or holds something that is not understood; the message names the place.
    """
    if path is None:
        if not DEFAULT_CONFIG.exists():
            return Settings()
        path = DEFAULT_CONFIG
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"There is no configuration file {path}.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The configuration file {path} cannot be read: {type(error).__name__}.") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"The configuration file {path} is not valid TOML: {error}.") from None
    return _settings(raw, path)


def _settings(raw: dict[str, Any], path: Path) -> Settings:
    tables = raw.pop("accounts", {})
    if not isinstance(tables, dict):
        raise ConfigError(f"{path}: write each account as a table of its own, such as [accounts.bf].")
    accounts = {name: _account(name, table, path) for name, table in tables.items()}

    def file_beside(wanted: type, written: Any) -> Path:
        if not isinstance(written, str):
            raise ValueError("Write the name of a file, in quotes")
        return path.parent / written

    try:
        settings = msgspec.convert({"journal": str(DEFAULT_JOURNAL)} | raw, Settings, dec_hook=file_beside)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{path}: {error}.") from None
    for route in settings.routes:
        if route.account not in accounts:
            raise ConfigError(f"{path}: a route names the account “{route.account}”, which is not configured.")
    return msgspec.structs.replace(settings, accounts=accounts)


def _account(name: str, table: Any, path: Path) -> AccountSettings:
    if not isinstance(table, dict) or not isinstance(table.get("provider"), str):
        raise ConfigError(f'{path}: [accounts.{name}] needs a line such as: provider = "senfenico".')
    options = {key: value for key, value in table.items() if key != "provider"}
    return AccountSettings(table["provider"], options)


def resolve_account(name: str, settings: AccountSettings, secret_names: Sequence[str]) -> Account:
    """Return what a provider needs to connect, with its secrets found.

    Raises:
        ConfigError: a secret is missing or may not be written where it is, or an option has the wrong type.
    """
    options = dict(settings.options)
    try:
        common = msgspec.convert(options, _Common)
    except msgspec.ValidationError as error:
        raise ConfigError(f"[accounts.{name}] {error}.") from None
    secrets = {key: _secret(name, key, options.pop(key, None), common.base_url) for key in secret_names}
    for field in _Common.__struct_fields__:
        options.pop(field, None)
    return Account(name=name, secrets=secrets, options=options, **msgspec.structs.asdict(common))


class _Common(msgspec.Struct):
    """What every account may say, whatever its provider."""

    base_url: str | None = None
    timeout_seconds: Annotated[float, msgspec.Meta(gt=0)] = 60.0


def _secret(account: str, key: str, value: Any, base_url: str | None) -> str:
    """Find one secret. Messages name where it was looked for, never what was found."""
    where = f"[accounts.{account}] {key}"
    if isinstance(value, dict) and set(value) == {"env"}:
        found = os.environ.get(str(value["env"]), "")
        missing = f"{where}: the environment variable {value['env']} is not set."
    elif isinstance(value, dict) and set(value) == {"file"}:
        try:
            found = Path(str(value["file"])).expanduser().read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            found = ""
        missing = f"{where}: the file {value['file']} is missing, empty or not readable."
    elif isinstance(value, str) and ("_test_" in value or _is_here(base_url)):
        found, missing = value, f"{where} is empty."
    elif isinstance(value, str):
        raise ConfigError(f'{where} is written out in the file. Put it elsewhere: {key} = {{ env = "NAME" }}.')
    else:
        raise ConfigError(f'{where} is missing. Write: {key} = {{ env = "NAME" }} or {{ file = "PATH" }}.')
    if not found:
        raise ConfigError(missing)
    return found


def _is_here(url: str | None) -> bool:
    """Return whether `url` surely points at this machine."""
    return url is not None and is_loopback(urlsplit(url).hostname)
