"""Asking again: send what is unknown once more under its keys, where the provider documents that a key pays once.

A repetition may move money, if the first call was never heard; so it obeys everything that a dispatch obeys, and
`Resender` is a `Dispatcher` of other chunks: same pace, same limits, same brakes, the same one line where money
leaves, and above it a durable entry in the journal. What it may not do is release or fail a payout by the refusal of a
call: that says nothing of the first call. Only an answer about the payout itself counts, as a look-up result.

`payment.py` has one for each such account and lets it have a round after a look-up that did not show everything.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from payout_engine.domain.errors import IllegalMoveError, RefusedError
from payout_engine.domain.limits import READY_CHUNKS_AHEAD
from payout_engine.domain.model import Dispatch, Lane, LookUpResult, Outcome, Receipt
from payout_engine.domain.states import State
from payout_engine.payment.dispatch import Dispatcher, Publish, parts
from payout_engine.payment.rate_limiter import Pace
from payout_engine.ports import observer
from payout_engine.ports.journal import Journal, ReadyChunk
from payout_engine.ports.provider import KeyPromise, Provider, Traits

VERDICTS = frozenset({State.ACCEPTED, State.PAID, State.FAILED, State.REVERSED})
"""What the answer to a repetition may say of a payout. `ready` (refused before processing) is about the repetition."""


def key_allows_resend(traits: Traits) -> bool:
    """Tell whether sending again under the same key is a way of asking."""
    return traits.key_promise is KeyPromise.IDEMPOTENT


class Resender(Dispatcher):
    """Sends unknown payouts of one account again, round by round, until a brake stops it.

    Attributes:
        account: the account's name.
        asked: payouts that were sent again in the last round.
        changed: payouts that moved by the answers of the last round.
    """

    def __init__(
        self,
        journal: Journal,
        provider: Provider,
        run_id: str,
        account: str,
        lanes: Sequence[Lane],
        pace: Pace,
        publish: Publish,
        notify: observer.Observer,
    ) -> None:
        super().__init__(journal, provider, run_id, account, lanes, pace, publish, notify)
        self.account = account
        self.asked = self.changed = 0
        self._before = 0.0
        self._refused_why = ""
        self._told: set[str] = set()

    async def round(self, before: float) -> None:
        """Ask once about everything that has been unknown since `before` (seconds since 1970) or longer.

        Raises:
            JournalError: as for `run`.
        """
        self._before, self._refused_why, self.asked, self.changed = before, "", 0, 0
        await self.run()
        if self.asked:
            words = f"{self.asked} payouts without an answer were sent again under the same keys, to ask about them"
            self._notify(observer.Waiting(self.account, f"{words}; {self.changed} were answered."))

    def end(self) -> None:
        """Ask nothing more, without a word: the time to follow is over."""
        self._halt()

    async def _chunks(self) -> AsyncIterator[ReadyChunk]:
        """Yield what may be asked about, each once: what stays unknown waits for another round."""
        for lane in list(self.lanes):
            after, found = 0, True
            while found and self._may_send(lane):
                page = await self._journal.resendable_chunks(
                    self._run_id, lane, self._provider.traits, self._before, after, READY_CHUNKS_AHEAD
                )
                found = bool(page)
                for chunk in page:
                    after = chunk.chunk_id
                    for part in parts(chunk, self._provider.traits.batch_limit):
                        await self._breathe()
                        yield part

    async def _pay(self, chunk: ReadyChunk) -> None:
        """Send one chunk again and record what the answer says of its payouts."""
        async with self._pace.turn(self._halted) as turn:
            if self._refused_why or not self._may_send(chunk.lane):
                return
            try:
                dispatch = await self._journal.intend_resend(chunk, self._provider.traits)
            except IllegalMoveError as error:
                self._give_up(str(error))
                return
            turn.begin()
            receipts = await self._speak(dispatch)
        self.asked += len(dispatch.payouts)
        outcomes = await self._record(dispatch, receipts)
        self.changed += len(outcomes)
        await self._publish(outcomes)

    def _give_up(self, why: str) -> None:
        """End the round: the journal refuses, and knows why. The next round may find it willing."""
        self._refused_why = why
        if why not in self._told:
            self._told.add(why)
            self._notify(observer.Waiting(self.account, why))

    async def _write(self, dispatch: Dispatch, receipts: Sequence[Receipt]) -> Sequence[Outcome]:
        results = results_of_resend(dispatch, receipts)
        if not results:
            return ()
        applied = await self._journal.reconcile(results)
        for conflict in applied.conflicts:
            self._notify(observer.Waiting(self.account, conflict))
        return applied.outcomes

    def _says_nothing(self, receipts: Sequence[Receipt]) -> bool:
        """“Already known” is an answer here, and leaves nothing in doubt that was not before."""
        return False

    def _refused(self, dispatch: Dispatch, error: RefusedError) -> Receipt:
        """Slow down or brake as for any call; but a refusal, however final, is about this call and not the first."""
        super()._refused(dispatch, error)
        return Receipt(State.UNKNOWN, error.reason, str(error))

    async def _interrupted(self, dispatch: Dispatch) -> None:
        """Nothing has to be recorded: the payouts are unknown already."""


def results_of_resend(dispatch: Dispatch, receipts: Sequence[Receipt]) -> Sequence[LookUpResult]:
    """Return what the answer to a repetition says of its payouts; what became of the call alone says nothing.

    A payout that `failed` in such an answer has failed: by the promise of the key the provider repeats what it knows
    of the payout. A word that we do not know counts only for the transfer it names.
    """
    if len(receipts) != len(dispatch.keys):
        return ()
    return [
        LookUpResult(key, receipt)
        for key, receipt in zip(dispatch.keys, receipts, strict=True)
        if receipt.state in VERDICTS or (receipt.state is State.UNKNOWN and receipt.provider_reference)
    ]
