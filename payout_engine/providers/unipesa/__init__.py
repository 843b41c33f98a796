"""Unipesa: a gateway to mobile money in 19 African countries, which pays and collects.

`REGISTRATION` is all that the rest of the package knows of this folder. Facts with their sources: NOTES.md.
"""

from __future__ import annotations

from functools import partial

from payout_engine.domain.model import Direction
from payout_engine.ports.registration import Face, Registration
from payout_engine.providers.unipesa.adapter import UnipesaProvider
from payout_engine.providers.unipesa.client import UnipesaClient
from payout_engine.providers.unipesa.options import closed_wallets, traits, wallets
from payout_engine.providers.unipesa.sandbox import MERCHANT_ID, PUBLIC_ID, SECRET_KEY, sandbox
from payout_engine.providers.unipesa.signature import verify_callback

__all__ = ["REGISTRATION", "UnipesaClient", "verify_callback"]


def _face(direction: Direction) -> Face:
    return Face(
        traits=traits,
        wallets=partial(wallets, direction=direction),
        connect=partial(UnipesaProvider, direction=direction),
        closed=partial(closed_wallets, direction=direction),
    )


REGISTRATION = Registration(
    name="unipesa",
    title="Unipesa",
    pays=_face(Direction.PAY),
    collects=_face(Direction.COLLECT),
    secrets=("secret_key",),
    identity=("public_id", "merchant_id"),
    sandbox=sandbox,
    sandbox_secrets={"secret_key": SECRET_KEY},
    sandbox_options={"public_id": PUBLIC_ID, "merchant_id": MERCHANT_ID},
    summary="Mobile money and some banks in 19 countries, one payment per call; operators with several provider ids "
    "are served by the one that the account names.",
)
