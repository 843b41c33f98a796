"""Whoever gives the usual commands in a simulated world: submit each file and pay it, again and again.

`simulation.py` has one for each process; a person who steers has one, too, for what they let be paid.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import anyio

from payout_engine.app.engine import Engine
from payout_engine.app.payment_stream import PaymentStream, unwrap_group
from payout_engine.app.submit import Submission
from payout_engine.domain.errors import ConfigError, JournalBusyError, UnansweredError
from payout_engine.domain.model import Run
from payout_engine.ports.provider import LookUpKind
from simulation.bank import Bank
from simulation.crashing import Fuse
from simulation.plans import Life
from simulation.processes import World
from simulation.random_file import RandomFile
from simulation.shelf import JournalFile


class Clerk:
    """Gives commands with one journal.

    Args:
        name: what to call their process in the trace.
        file: the journal that they name.
        life: how they go about it.
        fuse: their process.
        files: what is to be paid.
        origin: finds the file of a run, also of a retry.
        world: what they share with others.
        tell: told of what happens.
    """

    def __init__(
        self,
        name: str,
        file: JournalFile,
        life: Life,
        fuse: Fuse,
        files: Sequence[RandomFile],
        origin: Callable[[JournalFile, Run], RandomFile],
        world: World,
        notify: Callable[[str], None],
    ) -> None:
        self._name = name
        self._file = file
        self._life = life
        self._fuse = fuse
        self._files = files
        self._first_match = origin
        self._world = world
        self._witness = world.witness
        self._notify = notify

    async def work(self, engine: Engine) -> None:
        """Give the usual commands, and give them again while another process is in the way."""
        life = self._life
        alone_here = not (self._name or life.twin or life.visits)
        for left in reversed(range(life.tries)):
            try:
                await self._command(engine)
                return
            except JournalBusyError:
                if alone_here:
                    raise
                self._notify(f"{self._name}meets another process")
                self._witness.happened["two processes met"] += 1
            if left:
                await anyio.sleep(life.try_again_seconds)

    async def _command(self, engine: Engine) -> None:
        """Give the same command as ever: submit each file, and pay it."""
        life, submissions = self._life, {}
        for file in self._files if life.validates_all_first else ():
            submissions[file.name] = await engine.submit(file, wait=life.waits)
        paid = set()
        for file in reversed(self._files) if life.backwards else self._files:
            submission = submissions.get(file.name) or await engine.submit(file, wait=life.waits)
            await self._pay_or_follow(engine, submission)
            paid.add(submission.run_id)
        for run in reversed(await engine.runs()) if life.resumes_all else ():
            if run.run_id not in paid and run.approved_at is not None:
                await self._pay_or_follow(engine, run)

    async def _pay_or_follow(self, engine: Engine, run: Submission | Run) -> None:
        """Pay a run; if it is not let go on, see at least what became of it."""
        approved = (await engine.run(run.run_id)).approved_at is not None
        file = self._first_match(self._file, await engine.run(run.run_id))
        try:
            await self.pay(engine, run)
            self._file.refused.discard(file.digest)
        except ConfigError as error:
            if not self._world.shelf.may_be_refused(self._file, file.digest):
                raise
            self._file.refused.add(file.digest)
            self._notify(f"{self._name}is not let go on with {file.name}")
            self._witness.happened[_kind(error)] += 1
            if approved:
                await self._listen(engine, run, send=False)

    async def pay(self, engine: Engine, run: Submission | Run) -> None:
        """Pay a run as the commands do."""
        if self._life.lifts and (await engine.run(run.run_id)).approved_at is not None:
            await engine.unpause(run.run_id)
        lost = self._life.says_lost and await self._may_say_lost(engine)
        try:
            await self._listen(engine, run, lost=lost)
        except (JournalBusyError, UnansweredError, ConfigError) as error:
            if isinstance(run, Submission) and not run.known:
                # So do the commands: what cannot be paid now was not approved, and is not kept.
                await (await engine.journal()).discard(run.run_id)
            if not isinstance(error, UnansweredError):
                raise
            self._notify("the provider cannot say what it already has")
            self._witness.happened["not answered"] += 1

    async def _listen(self, engine: Engine, run: Submission | Run, *, send: bool = True, lost: bool = False) -> None:
        life = self._life
        stream = engine.pay(
            run,
            follow_for_seconds=life.follow_for_seconds,
            send=send,
            events=self._file.events(run.run_id),
            wait=life.waits,
            journal_lost=lost,
        )
        self._fuse.at_death[stream.cut_off] = None
        try:
            async with anyio.create_task_group() as person:
                person.start_soon(self._interrupt, stream)
                async for _ in stream:
                    await anyio.sleep(life.listener_seconds)
                person.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            raise unwrap_group(group) from None

    async def _interrupt(self, stream: PaymentStream) -> None:
        if self._life.stop_at is not None:
            await anyio.sleep(self._life.stop_at)
            self._notify("a person asks to stop")
            stream.stop()
        if self._life.cut_off_at is not None:
            await anyio.sleep(self._life.cut_off_at)
            self._notify("a person cuts it off")
            stream.cut_off()

    async def _may_say_lost(self, engine: Engine) -> bool:
        """Whether it is true that what this journal does not know is lost, and nobody would be paid twice.

        They have compared the provider's list with the journal: everything that was paid, or may be, was sent in runs
        that are in it, and will be seen by whoever looks under their keys.
        """
        if not self._world.shelf.is_alone(self._file):
            return False
        begun = {run.run_id for run in await engine.runs() if run.approved_at is not None}
        for key, meant in self._witness.meant.items():
            bank = self._world.banks[meant.account]
            travels = self._witness.travels(key)
            if not travels and not any(transfer.key == key and transfer.pays for transfer in bank.transfers):
                continue
            if travels or meant.run_id not in begun or not shows_all(bank):
                return False
        journal = await engine.journal()
        end = await journal.mark()
        last = self._witness.marks.get(end.identity) if end is not None else None
        if last is not None and await journal.mark(last.seq) != last:
            del self._witness.marks[last.identity]
            self._file.adopted = True
            self._witness.happened["a journal was given up"] += 1
        return True


def shows_all(bank: Bank) -> bool:
    """Whether a bank can be asked under our keys, and shows at once what it took in."""
    return bank.traits.look_up in (LookUpKind.SWEEP, LookUpKind.EACH) and not bank.hides


def _kind(error: ConfigError) -> str:
    """Name a refusal without what is random in it."""
    for words in ("is an older copy", "gone on apart", "Go on with it there", "nobody knows who was paid"):
        if words in str(error):
            return f"refused: {words}"
    return "refused otherwise"
