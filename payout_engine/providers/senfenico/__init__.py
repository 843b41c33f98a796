"""Senfenico: mobile-money wallets of Burkina Faso, in bulk.

`REGISTRATION` is all that the rest of the package knows of this folder. Facts with their sources: NOTES.md.
"""

from __future__ import annotations

from payout_engine.ports.registration import Face, Registration
from payout_engine.providers.senfenico.adapter import SenfenicoProvider, traits, wallets
from payout_engine.providers.senfenico.client import BASE_URL, SenfenicoClient
from payout_engine.providers.senfenico.codes import DESCRIPTIONS
from payout_engine.providers.senfenico.sandbox import sandbox

__all__ = ["DESCRIPTIONS", "REGISTRATION", "SenfenicoClient"]

REGISTRATION = Registration(
    name="senfenico",
    title="Senfenico",
    pays=Face(traits=traits, wallets=wallets, connect=SenfenicoProvider),
    secrets=("api_key",),
    sandbox=sandbox,
    sandbox_secrets={"api_key": "sk_test_sandbox"},
    summary="Burkina Faso in XOF: Orange Money, Moov Money and Sank Money, up to 100 transfers per call.",
    base_url=BASE_URL,
)
