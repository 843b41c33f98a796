"""Jemeni: payments asked of customers in Mali. It collects, and pays nobody.

`REGISTRATION` is all that the rest of the package knows of this folder. Facts with their sources: NOTES.md.
"""

from __future__ import annotations

from payout_engine.ports.registration import Face, Registration
from payout_engine.providers.jemeni.adapter import SECRETS, JemeniCollector, traits, wallets
from payout_engine.providers.jemeni.client import BASE_URL, SANDBOX_PREFIX, JemeniClient
from payout_engine.providers.jemeni.sandbox import SANDBOX_KEYS, sandbox

__all__ = ["REGISTRATION", "JemeniClient"]

REGISTRATION = Registration(
    name="jemeni",
    title="Jemeni",
    collects=Face(traits=traits, wallets=wallets, connect=JemeniCollector),
    secrets=SECRETS,
    sandbox=sandbox,
    sandbox_secrets={name: getattr(SANDBOX_KEYS, name) for name in SECRETS},
    sandbox_options={"path_prefix": SANDBOX_PREFIX},
    summary="Collects in Mali in XOF from customers of JemeniPay, one request per call; it pays nobody.",
    base_url=BASE_URL,
)
