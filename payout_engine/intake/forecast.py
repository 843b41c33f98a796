"""What paying a run will need: money by lane, the line at which it would run out, calls, and time.

It is computed from what the journal holds as ready, so that `plan`, `run` and `resume` say the same. Fees are added
payout by payout, because each is rounded up by itself. Nothing here talks to a provider; balances are handed in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from payout_engine.domain.limits import READY_CHUNKS_AHEAD
from payout_engine.domain.model import Balance, Lane
from payout_engine.domain.states import State
from payout_engine.intake.route import Router
from payout_engine.ports.journal import Journal
from payout_engine.ports.provider import Wallet


class LaneForecast(msgspec.Struct, frozen=True, kw_only=True):
    """What the ready payouts of one lane need. Amounts are in minor units of the lane's currency.

    Attributes:
        title: the wallet's name for people.
        count: payouts.
        amount_minor: to the recipients.
        fee_minor: on top; 0 where the provider documents no tariff.
        need_minor: both together.
        balance_minor: what is available, less what lanes before this one need of the same balance; None where it is
            not known.
        shortfall_minor: what has to be added; 0 when there is enough, or when the balance is not known.
        calls: to the provider.
        runs_out_at_line: the first line that the balance does not cover; None when it covers all, or is not known.
        fee_known: False where the provider documents no tariff.
    """

    lane: Lane
    title: str
    count: int
    amount_minor: int
    fee_minor: int
    need_minor: int
    balance_minor: int | None
    shortfall_minor: int
    calls: int
    runs_out_at_line: int | None
    fee_known: bool = True


class Forecast(msgspec.Struct, frozen=True, kw_only=True):
    """What paying a run will need.

    Attributes:
        lanes: those with ready payouts.
        count: ready payouts in all.
        totals_minor: to the recipients, by currency.
        fees_minor: on top, by currency.
        needs_minor: both together, by currency.
        estimated_seconds: at the documented rates, all accounts side by side; None where one documents no rate.
        balance_problems: why balances could not be read, by account.
    """

    lanes: Sequence[LaneForecast]
    count: int
    totals_minor: Mapping[str, int]
    fees_minor: Mapping[str, int]
    needs_minor: Mapping[str, int]
    estimated_seconds: float | None
    balance_problems: Mapping[str, str]


async def forecast(
    journal: Journal,
    run_id: str,
    router: Router,
    balances: Mapping[Lane, Balance | None],
    balance_problems: Mapping[str, str] | None = None,
) -> Forecast:
    """Return what the ready payouts of a run will need.

    Args:
        journal: where the run is recorded.
        run_id: a validated run, or one that is being paid.
        router: knows the wallets' fees and the accounts' rates.
        balances: by lane, as they are now; lanes may be missing.
        balance_problems: why balances could not be read, by account.
    """
    tallies = await journal.tally(run_id)
    ready = sorted({tally.lane for tally in tallies if tally.state is State.READY})
    lanes: list[LaneForecast] = []
    left: dict[tuple[str, str], int] = {}
    for lane in ready:
        wallet, balance = router.wallet_of(lane), balances.get(lane)
        shared = lane.account, wallet.balance_name if wallet is not None else lane.name
        available = left.get(shared, None if balance is None else balance.available_minor)
        lanes.append(found := await _lane(journal, run_id, router, lane, available))
        if available is not None:
            left[shared] = max(0, available - found.need_minor)
    return Forecast(
        lanes=lanes,
        count=sum(lane.count for lane in lanes),
        totals_minor=_by_currency(lanes, "amount_minor"),
        fees_minor=_by_currency(lanes, "fee_minor"),
        needs_minor=_by_currency(lanes, "need_minor"),
        estimated_seconds=_seconds(lanes, router),
        balance_problems=balance_problems or {},
    )


async def _lane(journal: Journal, run_id: str, router: Router, lane: Lane, available: int | None) -> LaneForecast:
    """Add up the ready chunks of a lane in the order in which they will be sent."""
    wallet, served = router.wallet_of(lane), router.served.get(lane.account)
    batch_limit = served.traits.batch_limit if served is not None else 1
    count = amount_minor = fee_minor = calls = after = 0
    crossing: tuple[int, int] | None = None
    while chunks := await journal.ready_amounts(run_id, lane, after, READY_CHUNKS_AHEAD):
        for chunk_id, amounts in chunks:
            left_minor = None if available is None else available - amount_minor - fee_minor
            amount_minor += sum(amounts)
            fee_minor += _fees(amounts, wallet)
            if left_minor is not None and crossing is None and amount_minor + fee_minor > (available or 0):
                crossing = (chunk_id, left_minor)
            count += len(amounts)
            calls += -(-len(amounts) // batch_limit)
        after = chunks[-1][0]
    need_minor = amount_minor + fee_minor
    return LaneForecast(
        lane=lane,
        title=wallet.title if wallet is not None else lane.name,
        count=count,
        amount_minor=amount_minor,
        fee_minor=fee_minor,
        need_minor=need_minor,
        balance_minor=available,
        shortfall_minor=0 if available is None else max(0, need_minor - available),
        calls=calls,
        runs_out_at_line=await _crossing(journal, run_id, lane, wallet, *crossing) if crossing else None,
        fee_known=wallet is None or wallet.fee_basis_points is not None,
    )


def _fees(amounts: Sequence[int], wallet: Wallet | None) -> int:
    """Return the fees of these amounts: each is rounded up by itself."""
    return sum(map(wallet.fee_minor, amounts)) if wallet is not None and wallet.fee_basis_points else 0


async def _crossing(
    journal: Journal, run_id: str, lane: Lane, wallet: Wallet | None, chunk_id: int, left_minor: int
) -> int:
    """Return the line of the chunk that `left_minor` no longer covers."""
    (chunk,) = await journal.ready(run_id, lane, chunk_id - 1, 1)
    for payout in chunk.payouts:
        left_minor -= payout.amount_minor + _fees([payout.amount_minor], wallet)
        if left_minor < 0:
            return payout.line
    raise AssertionError("the chunk costs more than is left, so one of its payouts does")


def _by_currency(lanes: Sequence[LaneForecast], field: str) -> Mapping[str, int]:
    """Add up one field of the lanes, by currency."""
    sums: dict[str, int] = {}
    for lane in lanes:
        sums[lane.lane.currency] = sums.get(lane.lane.currency, 0) + getattr(lane, field)
    return sums


def _seconds(lanes: Sequence[LaneForecast], router: Router) -> float | None:
    """Estimate the time: the lanes of an account share its rate, and the accounts work side by side."""
    calls: dict[str, int] = {}
    for lane in lanes:
        calls[lane.lane.account] = calls.get(lane.lane.account, 0) + lane.calls
    slowest = 0.0
    for account, count in calls.items():
        served = router.served.get(account)
        if served is None or served.traits.calls_per_second is None:
            return None
        slowest = max(slowest, count / served.traits.calls_per_second)
    return slowest
