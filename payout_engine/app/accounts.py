"""The configured accounts: which wallets they serve, and their connections, opened when first needed.

In a sandbox run every account talks to an embedded sandbox of its provider, whatever the configuration says of hosts
and keys, and its connection refuses any host but this machine.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import msgspec
from yarl import URL

from payout_engine import providers
from payout_engine.app.settings import AccountSettings, Settings, lock_folder, resolve_account
from payout_engine.domain.errors import ConfigError, ProviderError
from payout_engine.domain.model import Balance, Direction, Lane
from payout_engine.intake.route import AccountWallets, Router
from payout_engine.payment.rate_limiter import Pace
from payout_engine.payment.run import Payer
from payout_engine.ports.provider import ClosedWallet, HasBalances, Provider, Traits, Wallet
from payout_engine.ports.registration import Account, Face, Registration, SandboxServer, is_loopback

SANDBOX_BALANCE_MINOR = 1_000_000_000
"""What each wallet of an embedded sandbox holds at first: enough for a demonstration, and visible when spent."""


def known_providers() -> Mapping[str, Registration]:
    """Return the registrations of all providers that this installation knows, by name."""
    return providers.discover()


class Balances(msgspec.Struct, frozen=True):
    """Balances by lane, and what kept others from being read, by account, in words."""

    found: Mapping[Lane, Balance]
    problems: Mapping[str, str]


class Accounts:
    """All accounts of one engine; their connections are closed with the engine's stack.

    Attributes:
        keys: of each connected account, the fingerprint of its credentials.
        callback_paths: of each connected account, the path that it is called back at.

    Args:
        settings: the configuration.
        stack: what is opened is closed with it.
        only: use only this account.
        sandbox: talk to embedded sandboxes only.

    Raises:
        ConfigError: the account `only` does not exist.
    """

    def __init__(self, settings: Settings, stack: AsyncExitStack, *, only: str | None, sandbox: bool) -> None:
        self.sandbox = sandbox
        self.keys: dict[str, str] = {}
        self.callback_paths: dict[str, str] = {}
        self._callbacks_url = settings.callbacks_url.rstrip("/")
        self._settings = _chosen(settings, only, sandbox)
        self._configured = bool(settings.accounts)
        self._routes = [route for route in settings.routes if only is None or route.account == only]
        self._stack = stack
        self._journal = settings.journal
        self._connections: dict[tuple[str, Direction], Provider] = {}
        self._routers: dict[Direction, Router] = {}
        self._sandboxes: dict[str, SandboxServer] = {}

    def router(self, direction: Direction = Direction.PAY) -> Router:
        """Return what says where each payout goes (or who asks for it).

        Raises:
            ConfigError: no account goes in this direction, or a provider or an option is not understood.
        """
        if direction not in self._routers:
            if not self._settings:
                raise ConfigError("No account is configured. Write a payouts.toml (see the README), or try --sandbox.")
            routes = [route for route in self._routes if route.direction is direction]
            for route in routes:
                self.traits(route.account, direction)  # Refuses a route to an account that goes the other way.
            served = [
                AccountWallets(
                    name, self.traits(name, direction), self.wallets(name, direction), self.closed(name, direction)
                )
                for name in self._settings
                if direction in self.directions(name)
            ]
            if not served:
                does = "pays out" if direction is Direction.PAY else "collects"
                raise ConfigError(f"None of the configured accounts {does}.")
            self._routers[direction] = Router(served, routes, partial(who_serves, direction))
        return self._routers[direction]

    @property
    def default_country(self) -> str:
        """The country of numbers without a country code: in a sandbox without accounts, that of the first's wallets."""
        if self._configured or not self.sandbox:
            return ""
        countries = _phone_countries(self._registration(next(iter(self._settings))))
        return next(iter(countries)) if len(countries) == 1 else ""

    @property
    def names(self) -> Sequence[str]:
        """The accounts' names."""
        return list(self._settings)

    def lanes(self, name: str) -> Sequence[Lane]:
        """Return every lane that an account pays from."""
        if Direction.PAY not in self.directions(name):
            return []
        return [Lane(name, wallet.code, wallet.currency) for wallet in self.wallets(name)]

    async def payers(
        self, names: Iterable[str], used_before: bool, direction: Direction = Direction.PAY
    ) -> Mapping[str, Payer]:
        """Connect accounts for paying. Accounts with one key share one pace: the provider counts by key.

        Raises:
            ConfigError: the run needs an account that is not configured, or its secrets are missing.
        """
        providers = {name: await self.connect(name, direction) for name in names}
        rates: dict[str, list[float]] = {}
        for name, provider in providers.items():
            rate = provider.traits.calls_per_second
            rates.setdefault(self.keys[name], []).extend([] if rate is None else [rate])
        paces = {key: Pace(min(found, default=None), used_before=used_before) for key, found in rates.items()}
        balances = {
            name: {wallet.code: wallet.balance_name for wallet in self.wallets(name, direction)} for name in providers
        }
        return {
            name: Payer(name, provider, paces[self.keys[name]], balances[name]) for name, provider in providers.items()
        }

    async def locks(self, names: Iterable[str], direction: Direction = Direction.PAY) -> Mapping[Path, str]:
        """Return the files whose locks go with the keys of accounts, over all journals of this user.

        Each comes with the name of one of its accounts.

        An embedded sandbox is nobody else's, and needs none.

        Raises:
            ConfigError: a secret is missing, or the folder for the locks cannot be made.
        """
        found: dict[Path, str] = {}
        for name in names if not self.sandbox else ():
            await self.connect(name, direction)
            found.setdefault(lock_folder() / f"{self.keys[name]}.lock", name)
        return dict(sorted(found.items()))

    async def connect(self, name: str, direction: Direction = Direction.PAY) -> Provider:
        """Return the account's connection, opened at the first call; no byte is sent by this."""
        if (name, direction) not in self._connections:
            if name not in self._settings:
                raise ConfigError(
                    f"The run needs the account “{name}”, which is not configured or was left out with --account."
                )
            with _about(name):
                registration = self._registration(name)
                account = await self._account(name, registration)
                self.callback_paths[name] = callback_path(registration, account)
                account = self._called_back(account, registration)
                connection = registration.face(direction).connect(account)
                self.keys[name] = key_of(registration, account)
            self._connections[name, direction] = connection
            self._stack.push_async_callback(connection.aclose)
        return self._connections[name, direction]

    async def balances(self, lanes: Iterable[Lane]) -> Balances:
        """Read the balances behind these lanes; what cannot be read is told, not raised."""
        found: dict[Lane, Balance] = {}
        problems: dict[str, str] = {}
        wanted = set(lanes)
        for name in sorted({lane.account for lane in wanted if lane.account}):
            try:
                provider = await self.connect(name)
                read = await provider.balances() if isinstance(provider, HasBalances) else ()
            except (ProviderError, ConfigError) as error:
                problems[name] = str(error)
                continue
            by_name = {balance.lane_name: balance for balance in read}
            names = {wallet.code: wallet.balance_name for wallet in self.wallets(name)}
            own = [lane for lane in wanted if lane.account == name]
            found |= {lane: by_name[names[lane.name]] for lane in own if names.get(lane.name) in by_name}
        return Balances(found, problems)

    async def _account(self, name: str, registration: Registration) -> Account:
        settings = self._settings[name]
        if not self.sandbox:
            return resolve_account(name, settings, registration.secrets)
        options = {key: value for key, value in self._options(name).items() if key not in registration.secrets}
        server = await self._sandbox(registration)
        account = resolve_account(name, AccountSettings(settings.provider, options), ())
        return msgspec.structs.replace(
            account, secrets=registration.sandbox_secrets, base_url=server.base_url, loopback_only=True
        )

    def _called_back(self, account: Account, registration: Registration) -> Account:
        """Say where an account is called back, if its provider can reach that."""
        base = self._reached(account.name)
        if not base:
            return account
        url, option, written = base + self.callback_paths[account.name], registration.callback_option, account.options
        unwritten = {option: url} if option and option not in self._settings[account.name].options else {}
        return msgspec.structs.replace(account, callback_url=url, options={**written, **unwritten})

    def _reached(self, name: str) -> str:
        """Return where callbacks are taken, if an account's provider can reach that; nothing of it is secret.

        What runs here can reach an address of this machine, and a sandbox is told of no other.
        """
        base_url = str(self._settings[name].options.get("base_url", ""))
        runs_here = self.sandbox or is_loopback(urlsplit(base_url).hostname)
        is_here = is_loopback(urlsplit(self._callbacks_url).hostname)
        return self._callbacks_url if (runs_here if is_here else not self.sandbox) else ""

    async def _sandbox(self, registration: Registration) -> SandboxServer:
        """Start the provider's sandbox once, with its ledger beside the journal so that it outlives this process."""
        if registration.name not in self._sandboxes:
            ledger = self._journal.with_name(f"{self._journal.stem}-{registration.name}-ledger.db")
            codes = {*wallet_codes(registration), *self._codes_of(registration)}
            options: dict[str, Any] = {"balances": dict.fromkeys(sorted(codes), SANDBOX_BALANCE_MINOR)}
            extra = self._extra_prefixes(registration)
            if extra:
                options["extra_prefixes"] = extra
            server = registration.sandbox(ledger, **options)
            self._sandboxes[registration.name] = await self._stack.enter_async_context(server)
        return self._sandboxes[registration.name]

    def _codes_of(self, registration: Registration) -> Iterator[str]:
        """Yield the codes of the wallets that a provider's accounts have as they are configured."""
        for name, settings in self._settings.items():
            if settings.provider == registration.name:
                for direction in self.directions(name):
                    yield from (wallet.code for wallet in self.wallets(name, direction))

    def _extra_prefixes(self, registration: Registration) -> Mapping[str, Sequence[str]]:
        """Return, by wallet, which numbers the provider has said it pays beyond its document, by any account's word."""
        found: dict[str, Sequence[str]] = {}
        for settings in self._settings.values():
            if settings.provider == registration.name:
                for face in registration.faces.values():
                    # Refuses options that are not what they should be.
                    face.traits({**registration.sandbox_options, **settings.options})
                found |= settings.options.get("extra_prefixes", {})
        return found

    def directions(self, name: str) -> Collection[Direction]:
        """Return the directions in which an account moves money."""
        with _about(name):
            return self._registration(name).faces

    def traits(self, name: str, direction: Direction = Direction.PAY) -> Traits:
        """Return what the engine does differently for an account."""
        with _about(name):
            return self._registration(name).face(direction).traits(self._options(name))

    def wallets(self, name: str, direction: Direction = Direction.PAY) -> Sequence[Wallet]:
        """Return the places an account can pay to, or collect from."""
        with _about(name):
            return self._registration(name).face(direction).wallets(self._options(name))

    def closed(self, name: str, direction: Direction) -> Sequence[ClosedWallet]:
        """Return what an account could pay to as well, if it were configured otherwise."""
        with _about(name):
            return self._registration(name).face(direction).closed(self._options(name))

    def _options(self, name: str) -> Mapping[str, Any]:
        """Return an account's options as written; in a sandbox, as an account that the sandbox knows."""
        registration, base = self._registration(name), self._reached(name)
        called = {registration.callback_option: base} if registration.callback_option and base else {}
        written = {**called, **self._settings[name].options}
        if not self.sandbox:
            return written
        own = {
            option: value for option, value in registration.sandbox_options.items() if option in registration.identity
        }
        return {**registration.sandbox_options, **written, **own}

    def _registration(self, name: str) -> Registration:
        return providers.get(self._settings[name].provider)


def who_serves(direction: Direction, kind: str, country: str) -> Sequence[str]:
    """Return the names of the providers that serve a kind of recipient in a country, with an account or without."""

    def serves(entry: Registration, face: Face) -> bool:
        closed = [one.wallet for one in face.closed(entry.sandbox_options)]
        return any(
            wallet.recipient == kind and country in ("", wallet.country)
            for wallet in [*face.wallets(entry.sandbox_options), *closed]
        )

    known = providers.discover().values()
    return [entry.title for entry in known if direction in entry.faces and serves(entry, entry.face(direction))]


def wallet_codes(registration: Registration) -> Sequence[str]:
    """Return the codes of all wallets that a provider's sandbox can know, each once."""
    faces = registration.faces.values()
    return list(dict.fromkeys(one.code for face in faces for one in face.wallets(registration.sandbox_options)))


def _phone_countries(registration: Registration) -> set[str]:
    """Return the countries whose numbers a provider pays to."""
    found = registration.pays.wallets(registration.sandbox_options) if registration.pays else ()
    return {wallet.country for wallet in found if wallet.recipient == "phone"}


def key_of(registration: Registration, account: Account) -> str:
    """Return a fingerprint of an account's credentials and address; the secrets cannot be read from it."""
    address = _address(account.base_url or registration.base_url)
    facts = [address, *(f"{name}={secret}" for name, secret in sorted(account.secrets.items()))]
    facts += [f"{name}={account.options.get(name, '')}" for name in registration.identity]
    digest = blake2b("\0".join(facts).encode(), key=registration.name.encode(), digest_size=12)
    return f"{registration.name}-{digest.hexdigest()}"


def callback_path(registration: Registration, account: Account) -> str:
    """Return the path at which a provider calls us about an account: its name, and a part that nobody can guess.

    That part follows from the account's secrets, so that it is stored nowhere, is the same in every process, and
    changes with them; they cannot be read from it.
    """
    facts = [registration.name, account.name, *(f"{name}={secret}" for name, secret in sorted(account.secrets.items()))]
    digest = blake2b("\0".join(facts).encode(), key=b"payout_engine callback address", digest_size=24)
    return f"/{quote(account.name, safe='')}/{urlsafe_b64encode(digest.digest()).decode()}"


def _address(base_url: str) -> str:
    """Return one spelling for all that lead to the same place: with or without the port, a last slash, capitals.

    All names and addresses of this machine are one: whatever listens behind a port of it is the same.
    """
    url = URL(base_url)
    host = (url.host or "").rstrip(".")
    here = is_loopback(host) or host.endswith(".localhost")
    return f"{url.scheme}://{'localhost' if here else host}:{url.port}{url.path.rstrip('/')}"


@contextmanager
def _about(name: str) -> Iterator[None]:
    """Let an error name the account whose configuration it is about."""
    try:
        yield
    except ConfigError as error:
        where = f"[accounts.{name}]"
        raise ConfigError(str(error) if str(error).startswith(where) else f"{where} {error}") from error


def _chosen(settings: Settings, only: str | None, sandbox: bool) -> Mapping[str, AccountSettings]:
    """Return the accounts in use: the configured ones, or one for each provider in a sandbox without any."""
    accounts = dict(settings.accounts)
    if not accounts and sandbox:
        found = sorted(providers.discover().values(), key=lambda entry: len(_phone_countries(entry)) or 1_000)
        accounts = {entry.name: AccountSettings(entry.name) for entry in found}
    if only is not None and only not in accounts:
        raise ConfigError(f"There is no account “{only}”. Configured: {', '.join(accounts) or 'none'}.")
    return accounts if only is None else {only: accounts[only]}
