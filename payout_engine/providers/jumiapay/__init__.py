"""JumiaPay: credits to the e-mail address of a Jumia customer, in nine countries, one currency for each account.

`REGISTRATION` is all that the rest of the package knows of this folder; `JumiaPayClient` is for who wants the calls
alone. Facts with their sources: NOTES.md.
"""

from __future__ import annotations

from payout_engine.ports.registration import Face, Registration
from payout_engine.providers.jumiapay.adapter import JumiaPayProvider, traits, wallets
from payout_engine.providers.jumiapay.client import BASE_URL, JumiaPayClient
from payout_engine.providers.jumiapay.sandbox import sandbox
from payout_engine.providers.jumiapay.wire import REFUSES_CREDENTIALS

__all__ = ["REGISTRATION", "JumiaPayClient"]

REGISTRATION = Registration(
    name="jumiapay",
    title="JumiaPay",
    pays=Face(traits=traits, wallets=wallets, connect=JumiaPayProvider),
    secrets=("api_key",),
    identity=("business_area", "credit_account"),
    sandbox=sandbox,
    sandbox_secrets={"api_key": "jumiapay_test_sandbox"},
    sandbox_options={
        "business_area": "01234567-abcd-0000-1111-abc123456789",
        "credit_account": "sandbox_credit_account",
        "currency": "NGN",
    },
    summary="Credits to e-mail addresses of Jumia customers: NG, EG, GH, KE, MA, CI, TN, UG or DZ, one per call.",
    base_url=BASE_URL,
    refusing_statuses=frozenset({REFUSES_CREDENTIALS}),
)
