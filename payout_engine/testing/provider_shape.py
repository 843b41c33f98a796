"""The provider suite's questions about shape: the registration, and what a dispatch must look like to leave at all."""

from __future__ import annotations

import msgspec
import pytest

from payout_engine.domain.countries import COUNTRIES
from payout_engine.domain.errors import ConfigError, NotSentError
from payout_engine.domain.limits import CHUNK_SIZE
from payout_engine.domain.model import Direction, Dispatch, Lane
from payout_engine.domain.money import DECIMALS
from payout_engine.ports.provider import HasBalances, KeyPromise, Traits
from payout_engine.ports.registration import Registration
from payout_engine.testing.provider_scene import ProviderTests, Side, account, attempt, playing, states

TRAITS_MAX = 12
RECIPIENTS = frozenset({"phone", "email", "account_number"})
NEEDS = frozenset({"name", "email", "bank", "document_type", "document_number", "otp"})


class ShapeSuite(ProviderTests):
    """What can be known without money, and what never leaves."""

    def test_the_registration_is_complete(self, registration: Registration) -> None:
        """A person can choose it, and its sandbox needs exactly the secrets that it needs."""
        assert registration.name and registration.title and registration.summary.endswith(".")
        assert set(registration.sandbox_secrets) == set(registration.secrets)

    def test_the_traits_are_sane(self, payer: Side) -> None:
        """Few, with limits above zero and bounds the engine can keep."""
        traits = payer.traits
        assert len(Traits.__struct_fields__) < TRAITS_MAX
        assert 1 <= traits.batch_limit <= CHUNK_SIZE
        assert traits.concurrency >= 1
        assert traits.calls_per_second is None or traits.calls_per_second > 0
        assert traits.absence_final_seconds is None or traits.absence_final_seconds > 0
        assert traits.key_lifetime_seconds is None or traits.key_lifetime_seconds > 0
        assert traits.key_lifetime_seconds is None or traits.key_promise is KeyPromise.IDEMPOTENT

    def test_the_wallets_are_sane(self, payer: Side) -> None:
        """Each is one lane, in a currency and a country we know, with bounds that hold an amount, and a source."""
        wallets = payer.wallets
        assert wallets and len({wallet.code for wallet in wallets}) == len(wallets)
        for wallet in wallets:
            assert wallet.code and wallet.title and wallet.source
            assert wallet.country in COUNTRIES and 0 <= wallet.decimals <= DECIMALS[wallet.currency]
            assert wallet.amount_minor_min >= 1 and wallet.multiple_of_minor >= 1
            assert wallet.amount_minor_max is None or wallet.amount_minor_max >= wallet.amount_minor_min
            assert wallet.fee_basis_points is None or 0 <= wallet.fee_basis_points <= 10_000
            assert wallet.recipient in RECIPIENTS and NEEDS.issuperset(wallet.needs)
        codes = {wallet.code: wallet.currency for wallet in wallets}
        for wallet in wallets:
            assert codes.get(wallet.balance, wallet.currency) == wallet.currency

    def test_an_option_nobody_knows_is_refused(self, payer: Side) -> None:
        """A slip of the pen in the configuration is told, not passed over."""
        for read in (payer.face.traits, payer.face.wallets):
            with pytest.raises(ConfigError, match="no_such_option"):
                read({**payer.registration.sandbox_options, "no_such_option": 1})

    def test_a_missing_secret_is_refused(self, payer: Side) -> None:
        """Before anything is sent, and in words."""
        for name in payer.registration.secrets:
            present = {key: value for key, value in payer.registration.sandbox_secrets.items() if key != name}
            with pytest.raises(ConfigError):
                payer.face.connect(account(payer, "http://127.0.0.1:1", secrets=present))

    def test_a_missing_option_is_refused(self, payer: Side) -> None:
        """Before anything is sent, and by its name."""
        for name in payer.registration.sandbox_options:
            present = {key: value for key, value in payer.registration.sandbox_options.items() if key != name}
            with pytest.raises(ConfigError, match=name):
                payer.face.connect(account(payer, "http://127.0.0.1:1", options=present))

    async def test_every_payout_of_a_full_call_gets_its_receipt(self, payer: Side) -> None:
        """One each, in the dispatch's order, for every wallet."""
        async with playing(payer) as scene:
            for number, wallet in enumerate(payer.wallets):
                sent = scene.dispatch(scene.provider.traits.batch_limit, wallet=wallet, first=number * 100)
                said = await attempt(scene.provider, sent)
                assert scene.paying_calls == number + 1
                assert set(states(sent, said).values()) <= {"accepted", "paid"}, said

    async def test_receipts_are_in_the_order_of_the_dispatch(self, payer: Side) -> None:
        """A payout that ends otherwise than its neighbours has its receipt in its own place."""
        async with playing(payer) as scene:
            batch = scene.provider.traits.batch_limit
            if batch < 3:
                pytest.skip(f"{payer.title} takes {batch} in a call")
            for number, ending in enumerate(scene.server.fates):
                odd = scene.dispatch(1, ending=ending, first=10 * number)
                alone = states(odd, await attempt(scene.provider, odd))[odd.keys[0]]
                fresh = scene.dispatch(3, first=500 + 10 * number)
                payouts = [odd.payouts[0], *fresh.payouts[1:]]
                mixed = msgspec.structs.replace(fresh, payouts=payouts)
                together = states(mixed, await attempt(scene.provider, mixed))
                assert together[mixed.keys[0]] is alone
                assert {together[key] for key in mixed.keys[1:]} <= {"accepted", "paid"}

    async def test_what_is_over_the_limit_never_leaves(self, payer: Side) -> None:
        """The batch limit is ours to keep."""
        async with playing(payer) as scene:
            limit = scene.provider.traits.batch_limit
            assert isinstance(await attempt(scene.provider, _duplicated(scene.dispatch(1), limit + 1)), NotSentError)
            assert not scene.server.calls

    async def test_what_must_never_come_this_far_never_leaves(self, payer: Side) -> None:
        """A dispatch that is not well made proves a fault of ours, and that nothing was sent."""
        async with playing(payer) as scene:
            good = scene.dispatch(1)
            replace = msgspec.structs.replace
            wrong = [
                replace(good, payouts=(), keys=(), indexes=()),
                replace(good, keys=()),
                replace(good, keys=("",)),
                replace(good, lane=Lane(good.lane.account, "no_such_wallet", good.lane.currency)),
                replace(good, payouts=[replace(good.payouts[0], amount_minor=0)]),
                replace(good, payouts=[replace(good.payouts[0], amount_minor=-100)]),
                replace(good, payouts=[replace(good.payouts[0], currency="XXX")]),
                replace(good, payouts=[replace(good.payouts[0], phone="", email="", account_number="")]),
            ]
            if scene.provider.traits.batch_limit > 1:
                twice = _duplicated(good, 2)
                wrong.append(replace(twice, keys=[good.keys[0]] * 2))
            for dispatch in wrong:
                assert isinstance(await attempt(scene.provider, dispatch), NotSentError), dispatch
            assert not scene.paying_calls

    async def test_balances_are_told_by_lane(self, payer: Side) -> None:
        """Each under the name that its wallets give it, in their currency; what was sent is no longer available."""
        async with playing(payer, settle_seconds=60.0) as scene:
            if not isinstance(scene.provider, HasBalances):
                pytest.skip(f"{payer.title} tells no balances")
            before = {balance.lane_name: balance for balance in await scene.provider.balances()}
            sent = scene.dispatch()
            await attempt(scene.provider, sent)
            after = {balance.lane_name: balance for balance in await scene.provider.balances()}
            currencies = {wallet.balance_name: wallet.currency for wallet in payer.wallets}
            assert {name: balance.currency for name, balance in before.items()} == currencies
            name = scene.wallet.balance_name
            spent = before[name].available_minor - after[name].available_minor
            assert spent >= sent.amount_minor

    def test_it_goes_in_no_other_direction(self, registration: Registration) -> None:
        """A provider without payouts has nothing to pay with, and one that only pays has nothing to collect with."""
        assert registration.faces
        for direction in Direction:
            if direction not in registration.faces:
                with pytest.raises(ConfigError, match=registration.title):
                    registration.face(direction)

    async def test_what_a_wallet_needs_is_insisted_on(self, payer: Side) -> None:
        """A payout without it never leaves."""
        async with playing(payer) as scene:
            for wallet in payer.wallets:
                for need in wallet.needs:
                    good = scene.dispatch(1, wallet=wallet)
                    lacking = msgspec.structs.replace(good.payouts[0], **{need: ""})
                    said = await attempt(scene.provider, msgspec.structs.replace(good, payouts=[lacking]))
                    assert isinstance(said, NotSentError), (wallet.code, need)
            assert not scene.paying_calls


def _duplicated(one: Dispatch, count: int) -> Dispatch:
    """A dispatch of one payout many times, each under a key of its own."""
    keys = [f"{one.keys[0]}{place:04d}" for place in range(count)]
    return msgspec.structs.replace(one, payouts=list(one.payouts) * count, keys=keys, indexes=list(range(count)))
