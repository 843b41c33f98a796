"""How a provider makes itself known, what it needs to connect, and what its sandbox offers.

The rest of the package meets a provider through one value, its `Registration`; adding one edits nothing else. Written
against `ports.Provider`; used by the engine, the doors and the conformance suites.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from ipaddress import ip_address
from typing import Any, Protocol

import msgspec

from payout_engine.domain.errors import ConfigError
from payout_engine.domain.model import Direction
from payout_engine.ports.provider import ClosedWallet, Provider, Traits, Wallet


def is_loopback(host: str | None) -> bool:
    """Return whether `host` surely is this machine: `localhost` or a loopback address."""
    if host == "localhost":
        return True
    try:
        address = ip_address(host or "")
    except ValueError:
        return False
    return bool((getattr(address, "ipv4_mapped", None) or address).is_loopback)


class FaultScript(Protocol):
    """What is going to go wrong in a sandbox. The faults and their kinds are those of `providers/_sandbox.py`."""

    def add(self, *faults: Any) -> None:
        """Script more faults behind those that wait."""
        ...


class SandboxServer(Protocol):
    """A provider's API played from the other side, on this machine, with a ledger that is the truth.

    Attributes:
        base_url: where it listens.
        paying_endpoint: its short name, in `calls` and in faults, of the call that sends a dispatch.
        asking_endpoints: the short names of the calls that look payouts up.
        own_faults: the kinds of faults it plays beside the transport's, such as `rate_limited` or `expired`.
        fates: endings of recipients, each with one word for what becomes of a payout to it. All others are paid.
        calls: how many calls each endpoint has had, by short name.
    """

    base_url: str
    paying_endpoint: str
    asking_endpoints: Sequence[str]
    own_faults: frozenset[str]
    fates: Mapping[str, str]
    calls: Mapping[str, int]

    @property
    def faults(self) -> FaultScript:
        """What is going to go wrong."""
        ...

    def paid(self) -> Mapping[str, tuple[int, int]]:
        """Return, for each provider key, how often money has moved or will by itself, and how much in minor units."""
        ...

    async def aclose(self) -> None:
        """Stop serving."""
        ...


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """What a provider needs to connect: resolved settings of one account. Its repr shows no secret.

    Attributes:
        name: the account's name in the configuration.
        secrets: values such as `api_key`; never shown.
        base_url: overrides the provider's own address, or None.
        timeout_seconds: for one call.
        options: the provider's other settings as written in the configuration.
        loopback_only: True in a sandbox run: any other host is refused before a connection is made.
        callback_url: where the provider can call us about this account, to be sent along unless an option of the
            provider's own says another address; None where it cannot. It holds a secret part.
    """

    name: str
    secrets: Mapping[str, str]
    base_url: str | None = None
    timeout_seconds: float = 60.0
    options: Mapping[str, Any] = {}
    loopback_only: bool = False
    callback_url: str | None = None

    def __repr__(self) -> str:
        return f"Account({self.name!r})"


class Face(msgspec.Struct, frozen=True, kw_only=True):
    """What a provider does in one direction: it pays people, or it collects from them.

    Attributes:
        traits: from the account's options (none: as documented), what the engine does differently.
        wallets: from the account's options, the places it can pay to, or collect from.
        connect: opens one account. It sends in this direction and no other.
        closed: from the account's options, further places that it could use if something were configured.
    """

    traits: Callable[[Mapping[str, Any]], Traits]
    wallets: Callable[[Mapping[str, Any]], Sequence[Wallet]]
    connect: Callable[[Account], Provider]
    closed: Callable[[Mapping[str, Any]], Sequence[ClosedWallet]] = lambda _: ()


class Registration(msgspec.Struct, frozen=True, kw_only=True):
    """How a provider folder makes itself known: its module exports one as `REGISTRATION`.

    Attributes:
        name: the code written in the configuration.
        title: for people.
        pays: how it pays people, or None if it cannot.
        collects: how it collects from them, or None if it cannot.
        secrets: the names of the secrets it needs.
        identity: options that, beside secrets and address, say whose account it is, such as a merchant's number: what
            is counted by account at the provider is counted by these.
        sandbox: starts the provider's sandbox: a path for its ledger (None: in memory) and options to a server. Every
            sandbox takes `host`, `port`, `balances` (whole units by wallet), `settle_seconds`, `calls_per_second`; one
            whose wallets have `prefixes` also `extra_prefixes`, as the account's option.
        sandbox_secrets: values that the sandbox accepts.
        sandbox_options: options without which its account cannot be used, with values that the sandbox accepts.
        summary: one sentence for `payout-engine providers`.
        base_url: the provider's own address, or empty if every account names one.
        callback_option: the option that says where the provider calls, if it cannot do without one: where it is not
            written, and `Account.callback_url` is there, that is filled in.
        refusing_statuses: the HTTP statuses that its document prints as refusing a call by themselves, in whatever
            words. Of all others the suite insists that they prove nothing.
    """

    name: str
    title: str
    secrets: Sequence[str]
    sandbox: Callable[..., AbstractAsyncContextManager[SandboxServer]]
    sandbox_secrets: Mapping[str, str]
    summary: str
    pays: Face | None = None
    collects: Face | None = None
    identity: Sequence[str] = ()
    sandbox_options: Mapping[str, Any] = {}
    base_url: str = ""
    callback_option: str = ""
    refusing_statuses: frozenset[int] = frozenset()

    def face(self, direction: Direction) -> Face:
        """Return what the provider does in a direction.

        Raises:
            ConfigError: it does nothing there.
        """
        face = self.pays if direction is Direction.PAY else self.collects
        if face is None:
            does, verb = ("collects", "pay out") if direction is Direction.PAY else ("pays out", "collect")
            raise ConfigError(f"{self.title} only {does}: it cannot {verb}.")
        return face

    @property
    def faces(self) -> Mapping[Direction, Face]:
        """What the provider does, by direction: at least one."""
        both = {Direction.PAY: self.pays, Direction.COLLECT: self.collects}
        return {direction: face for direction, face in both.items() if face is not None}
