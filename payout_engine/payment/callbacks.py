"""Acting on what providers called to say: ask the provider, and believe its answer as that of any look-up.

Whoever uses this holds the account's lease: the follower of a process that pays, between its look-ups, or the server
that takes the calls. Many calls about the same payouts lead to one question. What the provider does not show proves
nothing here, whatever its traits say: a hint is no reason to send anything again.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import anyio

from payout_engine.domain.errors import JournalError, ProviderError
from payout_engine.domain.limits import CALLBACKS_PAGE, CALLBACKS_ROUND, QUERIES_BATCH
from payout_engine.domain.model import Query
from payout_engine.domain.states import OPEN, State
from payout_engine.payment.context import Context
from payout_engine.ports import observer
from payout_engine.ports.callbacks import Heard, HearsCallbacks
from payout_engine.ports.journal import StoredCallback

logger = logging.getLogger(__name__)

CALLBACKS_SECONDS = 1.0
"""How often it is looked whether any call waits, which is one small reading."""

FAILED_SECONDS = 5.0
"""How long an account is left alone after its provider could not be asked."""

AGAIN_SECONDS = (60.0, 3_600.0)
"""A call that could not be acted on is taken up again after the first of these, then each time after twice as long."""


class CallbackReader:
    """Asks about what stored calls of one account speak of. Made by `callback_reader`.

    Args:
        context: the account. Of its run only the outcomes are told; what is asked about may be of any run.
        provider: the account's connection, which hears callbacks.
    """

    def __init__(self, context: Context, provider: HearsCallbacks) -> None:
        self._context = context
        self._provider = provider
        self._not_before = 0.0
        self._failed: dict[int, tuple[float, float]] = {}

    async def is_due(self) -> bool:
        """Tell whether there is anything to ask about now."""
        return bool(await self._choose())

    async def act(self) -> int:
        """Ask once, if any call waits, and record what is shown. A failure is told, not raised.

        Returns:
            How many payouts moved.
        """
        chosen = await self._choose()
        if not chosen:
            return 0
        journal, account = self._context.journal, self._context.account
        queries = await journal.queries(account, _union(chosen).keys)
        known = {query.key for query in queries}
        # What is being sent since it was chosen waits for the end of that.
        chosen = [one for one in chosen if known.issuperset(one.heard.keys)]
        changed, problem, shown = 0, "", set[str]()
        try:
            if chosen:
                changed = await self._ask(_union(chosen), queries, shown)
        except ProviderError as error:
            problem = str(error)
        except JournalError:
            raise
        except Exception as error:
            # Its text could hold anything the provider sent, so only its kind is told.
            logger.error("asking about calls of account %s failed with %s", account, type(error).__name__)
            problem = "Asking about a call failed in a way that this program does not expect; a fault in payout_engine."
        done = self._done_in_spite(chosen, shown) if problem else chosen
        if done:
            await journal.settle_callbacks([one.number for one in done])
        self._context.notify(observer.LookedUp(account, changed, problem, 0.0))
        return changed

    async def _ask(self, heard: Heard, queries: Sequence[Query], shown: set[str]) -> int:
        """Record what the provider shows, and add to `shown` of what that was; return how many payouts moved."""
        changed = 0
        if not heard:
            return changed
        asked = _standing(queries)
        async for batch in self._provider.re_read(heard, queries):
            # An answer takes its time: what was sent meanwhile, for the first time or again, it says nothing of.
            present = _standing(await self._context.journal.queries(self._context.account, list(asked)))
            seen = [one for one in batch if one.key not in asked or asked[one.key] == present.get(one.key)]
            applied = await self._context.reconcile([one for one in seen if one.receipt.state is not State.READY])
            changed += len(applied.outcomes)
            shown |= {found for one in batch for found in (one.key, one.receipt.provider_reference)}
        return changed

    async def _choose(self) -> Sequence[StoredCallback]:
        """Return the oldest calls that wait, of as many payouts as can be asked about at once."""
        now = anyio.current_time()
        if now < self._not_before:
            return []
        if len(self._failed) > CALLBACKS_ROUND:
            self._failed.clear()
        chosen: list[StoredCallback] = []
        payouts: set[str] = set()
        after, read = 0, 0
        while read < CALLBACKS_ROUND:
            page, after = await self._context.journal.stored_callbacks(self._context.account, CALLBACKS_PAGE, after)
            read += CALLBACKS_PAGE
            for one in page:
                more = payouts | {*one.heard.keys, *one.heard.references}
                if self._failed.get(one.number, (0.0, 0.0))[0] <= now and len(more) <= QUERIES_BATCH:
                    chosen.append(one)
                    payouts = more
            if not after:
                break
        return chosen

    def _done_in_spite(self, chosen: Sequence[StoredCallback], shown: set[str]) -> Sequence[StoredCallback]:
        """Return the calls about which enough was shown before the asking failed; the others come again later."""
        present = anyio.current_time()
        self._not_before = present + FAILED_SECONDS
        done = [one for one in chosen if shown.issuperset((*one.heard.keys, *one.heard.references))]
        numbers = {one.number for one in done}
        for one in chosen:
            if one.number not in numbers:
                waited = self._failed.get(one.number, (0.0, 0.0))[1]
                wait = min(max(AGAIN_SECONDS[0], 2 * waited), AGAIN_SECONDS[1])
                self._failed[one.number] = (present + wait, wait)
        return done


def callback_reader(context: Context) -> CallbackReader | None:
    """Return what acts on the calls of an account; None if its provider makes none."""
    return CallbackReader(context, context.provider) if isinstance(context.provider, HearsCallbacks) else None


def _standing(queries: Sequence[Query]) -> Mapping[str, object]:
    """Return, by key, since when what is open was last sent; of all else, where it stands."""
    return {query.key: query.sent if query.state in OPEN else query.state for query in queries}


def _union(chosen: Sequence[StoredCallback]) -> Heard:
    """Return everything that these calls speak of, once."""
    keys = dict.fromkeys(key for one in chosen for key in one.heard.keys)
    references = dict.fromkeys(reference for one in chosen for reference in one.heard.references)
    return Heard(tuple(keys), tuple(references))
