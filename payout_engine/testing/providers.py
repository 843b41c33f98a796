"""What every provider must do, as tests: subclass `ProviderSuite` and give it a fixture `registration`.

    class TestMyProvider(ProviderSuite):
        @pytest.fixture
        def registration(self):
            return my_provider.REGISTRATION

The suite drives the adapter against the provider's own sandbox, over real HTTP on this machine, and compares whatever
it claims with the sandbox's ledger. It needs nothing but the registration; `registration.SandboxServer` says what it
asks of a sandbox, and `providers/_sandbox.py` brings most of it. What a provider does not have (tokens, a
documented rate, look-ups) is skipped with the reason. It needs `pytest`, `pytest-asyncio` in its automatic mode, and
`hypothesis`.

How the documented words map is for the provider's own tests: the suite cannot read its document.
"""

from __future__ import annotations

from payout_engine.testing.provider_faults import FaultSuite
from payout_engine.testing.provider_manners import MannersSuite
from payout_engine.testing.provider_shape import ShapeSuite
from payout_engine.testing.provider_truth import TruthSuite


class ProviderSuite(ShapeSuite, TruthSuite, FaultSuite, MannersSuite):
    """The promises of `ports.Provider`, `registration.Registration` and, where it is offered, `ports.HasBalances`."""
