"""CinetPay's transfer API: mobile money of Côte d'Ivoire, Senegal and others, many recipients in a call.

`REGISTRATION` is all that the rest of the package knows of this folder, and `CinetPayClient` is for whoever wants the
calls themselves. Facts with their sources: NOTES.md.
"""

from __future__ import annotations

from payout_engine.ports.registration import Face, Registration
from payout_engine.providers.cinetpay.adapter import CinetPayProvider
from payout_engine.providers.cinetpay.client import BASE_URL, CinetPayClient
from payout_engine.providers.cinetpay.options import traits, wallets
from payout_engine.providers.cinetpay.sandbox import PASSWORD, sandbox

__all__ = ["REGISTRATION", "CinetPayClient"]

REGISTRATION = Registration(
    name="cinetpay",
    title="CinetPay",
    pays=Face(traits=traits, wallets=wallets, connect=CinetPayProvider),
    secrets=("api_key", "password"),
    sandbox=sandbox,
    sandbox_secrets={"api_key": "cinetpay_test_sandbox", "password": PASSWORD},
    # A name that never resolves: the sandbox calls back on this machine only, and nobody listens unless told to.
    sandbox_options={"notify_url": "https://callbacks.invalid/cinetpay"},
    callback_option="notify_url",
    summary="Côte d'Ivoire and Senegal in XOF: mobile money and Wave, up to 100 transfers per call; others by option.",
    base_url=BASE_URL,
)
