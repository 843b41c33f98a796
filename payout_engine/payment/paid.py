"""Asking about what is paid: a provider may take a payment back after its verdict, and only a look-up shows that.

One round over everything that the journal holds as paid, beside the following of what is open. `run.py` runs it when a
person wants it; nothing is sent.
"""

from __future__ import annotations

import logging

import anyio

from payout_engine.domain.errors import JournalError, ProviderError
from payout_engine.domain.limits import QUERIES_BATCH
from payout_engine.payment.context import Context
from payout_engine.ports import observer
from payout_engine.ports.provider import LookUpKind

logger = logging.getLogger(__name__)

TRIES = 3
"""How often the round is begun before it is left to a person to begin it again."""

PAUSE_SECONDS = 5.0
"""Between two of them."""


async def ask_about_paid(context: Context) -> str:
    """Look each paid payout of an account up, and record what is shown; return why that failed, or an empty text.

    Raises:
        JournalError: the journal failed.
    """
    if context.provider.traits.look_up is LookUpKind.NONE:
        context.waiting("It cannot be asked what became of a payout, so neither whether any was taken back.")
        return ""
    problem = ""
    for tries_left in reversed(range(TRIES)):
        problem, futile = await _round(context)
        if not problem or futile or not tries_left:
            break
        await anyio.sleep(PAUSE_SECONDS)
    return problem


async def _round(context: Context) -> tuple[str, bool]:
    """Ask once; return what went wrong, and whether trying again is futile."""
    changed, problem, futile = 0, "", False
    try:
        if context.provider.traits.look_up is LookUpKind.SWEEP:
            async for results in context.look_up(()):
                changed += len((await context.reconcile(results)).outcomes)
        else:
            changed = await _each(context)
    except ProviderError as error:
        problem, futile = str(error), error.brake is not None
    except JournalError:
        raise
    except Exception as error:
        # Its text could hold anything the provider sent, so only its kind is told.
        logger.error("the look-up of account %s failed with %s", context.account, type(error).__name__)
        problem = "The look-up failed in a way that this program does not expect; this is a fault in payout_engine."
    context.notify(observer.LookedUp(context.account, changed, problem, 0.0))
    return problem, futile


async def _each(context: Context) -> int:
    """Ask about each, page by page; return how many payouts moved."""
    changed, after, going_on = 0, 0, True
    failed: ProviderError | None = None
    while going_on and (failed is None or failed.brake is None):
        page, after = await context.journal.paid_queries(context.run_id, context.account, QUERIES_BATCH, after)
        queries = context.askable(page)
        try:
            if queries:
                async for results in context.look_up(queries):
                    changed += len((await context.reconcile(results)).outcomes)
        except ProviderError as error:
            failed = error  # The pages behind it are asked for all the same.
        going_on = after > 0
    if failed is not None:
        raise failed
    return changed
