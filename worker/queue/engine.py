"""What a worker holds while it runs: its token, its leases, and how its runs end and it wakes."""

import asyncio
import logging
import os
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from arq.constants import abort_jobs_ss

from worker.queue.claims import Claimed, Claimer, LeaseTerms
from worker.queue.deadlines import Deadlines
from worker.queue.ends import PROCESS_ENDS
from worker.queue.execution import Execution
from worker.queue.finish import Finish, Finisher
from worker.queue.leases import LeaseKeeper
from worker.queue.master_watch import MasterWatch
from worker.queue.order import Order
from worker.queue.outage import Outage
from worker.queue.scripts import QueueKeys
from worker.queue.slots import Slot, Slots
from worker.queue.sync_client import sync_client
from worker.queue.wake import Poller, TrackingRefused, Waker

if TYPE_CHECKING:
    from worker.queue.worker import Worker

logger = logging.getLogger("arq.worker")

BURST_LOOK_S = 0.05
ABORT_LOOK_S = 0.05
FULL_LOOK_S = 1.0
MOST_TASKS = 6
"""So many times as many entries as there are slots are at hand when as many again are started ahead, at most: those
that are admitted, performed, or being ended."""
DISCONNECT_PATIENCE_S = 0.5
STAND_BACK_S, STANDS_BACK_FOR_S = 0.05, 1.0
"""Who has claimed what only others can run lets them claim first for a while, and takes one entry at a time."""
LOOKS_A_RENEWAL = 12
"""After so many of the longest pauses the connections that it is woken by are made anew."""


class Engine:
    """One worker's engine, from its first claim to ``close``."""

    def __init__(self, worker: "Worker") -> None:
        self._worker = worker
        redis: Any = worker.pool
        self.queues = [QueueKeys(name) for name in (worker.queue_name, *worker.further_queues)]
        self.outage = Outage(worker.call_deadline_s, self._distrust_connections)
        self.terms = LeaseTerms(
            token=os.urandom(16).hex().encode(),
            lease_ms=int(worker.lease_s * 1000),
            in_progress_ms=int(worker.in_progress_timeout_s * 1000),
            max_payload_bytes=worker.max_payload_bytes,
            see_aborts=worker.allow_abort_jobs,
        )
        self.claimers = [Claimer(redis, keys, self.terms) for keys in self.queues]
        self.finisher = Finisher(redis, self.terms.token, self.outage, self._heard)
        self.deadlines = Deadlines()
        watched = (abort_jobs_ss,) if worker.allow_abort_jobs else ()
        bells = [keys.bell for keys in self.queues]
        self.waker = Waker(
            redis,
            [keys.queue for keys in self.queues],
            watched,
            bells,
            on_bell=worker.on_bell,
            renewal_s=LOOKS_A_RENEWAL * worker.longest_idle_s,
        )
        self.keeper = LeaseKeeper(
            partial(sync_client, redis.connection_pool),
            self.terms,
            on_lost=self._lost,
            on_reclaimed=self._reclaimed,
            name_of=self.name_of,
        )
        self.order = Order(worker, self.queues, terms=self.terms, keeper=self.keeper, outage=self.outage)
        early = worker.max_burst_jobs < 0  # else a run would be counted neither as running nor as ended
        self.slots = Slots(
            worker.max_jobs, worker.queue_slots, may_be_released_early=early, longest_wait_s=worker.lease_s / 3
        )
        self.slots.on_limited_freed = self.waker.changed.set  # it may have had due entries and no slot for them
        self.claimed_last = 0
        self._redis = redis
        self._master_watch = MasterWatch(redis.connection_pool, self._distrust_connections)
        self._abort_at = 0.0
        self._stands_back_until = 0.0
        self._running: dict[Claimed, asyncio.Task[None]] = {}
        self._poller: Poller | None = None

    def accept(self, claims: list[Claimed]) -> list[Claimed]:
        """Renew the leases of what was claimed from now on; returns what does not run here already."""
        claims = [claimed for claimed in claims if not self._runs_here(claimed)]
        if claims:
            self.claimed_last += len(claims)
            self.keeper.hold(claims)
        return claims

    def start(self, claims: list[Claimed], *, ahead: bool = False) -> None:
        """Start what was accepted; ``ahead``: before there are slots for it."""
        worker, loop = self._worker, asyncio.get_running_loop()
        for claimed in claims:
            slot = self.slots.begin(claimed.keys.queue, ahead=ahead)
            task = loop.create_task(self._run(claimed, slot))
            self._running[claimed] = task
            worker.tasks[claimed.job_id] = worker.job_tasks[claimed.job_id] = task

    def _runs_here(self, claimed: Claimed) -> bool:
        """Whether it is a run of this worker whose lease ran out: then it is leased anew, and that is all."""
        before = self.keeper.held(claimed.raw_id)
        if before is None:
            return False
        # One that is ending may have gone back for another try; any other is the same unless its id is used again.
        if not (claimed.ran_out if before.ending else before.payload == claimed.payload):
            return False
        before.number = claimed.number
        return True

    async def _run(self, claimed: Claimed, slot: Slot) -> None:
        worker, task = self._worker, self._running[claimed]
        execution = Execution(worker, claimed, slot)
        try:
            try:
                finish = await execution.run()
            except asyncio.CancelledError:  # in a hook, by a shutdown
                finish = Finish(claimed, "back")
            finally:
                worker.aborting_tasks.discard(claimed.job_id)
                _drop_task(worker.job_tasks, claimed, task)
                self.slots.end(slot)
            await self._submit(finish, execution)
        except (asyncio.CancelledError, SystemExit, *PROCESS_ENDS):
            raise
        except BaseException:
            logger.exception("job %s: a hook failed", claimed.job_id)
        finally:
            if not claimed.ending:  # Redis hears nothing: the lease runs out, and the entry is taken up again
                claimed.went_back = True
                self._forget(claimed)
            _drop_task(worker.tasks, claimed, task)
            self.slots.freed.set()

    async def _submit(self, finish: Finish, execution: Execution) -> None:
        worker, claimed = self._worker, finish.claimed
        if claimed.poison and finish.how == "over":
            await self.order.quarantine(claimed)
        claimed.ending, claimed.went_back = True, finish.how == "back"
        if worker.after_job_end and execution.ctx:
            finish.then = partial(worker.after_job_end, execution.ctx)
        if finish.then is not None:
            finish.heard = asyncio.get_running_loop().create_future()
        self.finisher.submit(finish)
        if finish.then is not None and finish.heard is not None and await asyncio.shield(finish.heard):
            await finish.then()

    def told_of_their_abort(self) -> set[str]:
        """Return the ids of those jobs here that were aborted before their start."""
        return {claimed.job_id for claimed in self._running if claimed.aborted}

    def may_start_ahead(self) -> bool:
        """Whether to claim entries for which there are no slots yet."""
        worker = self._worker
        if self.stands_back:
            return False
        # Of several queues the less urgent one would get the slots of the other.
        served_alone = len(self.claimers) == 1 and not worker.burst and worker.allow_pick_jobs
        return served_alone and self.slots.is_ahead_worthwhile and len(worker.tasks) <= MOST_TASKS * worker.max_jobs

    def give_back(self, claims: list[Claimed]) -> None:
        """Put what was claimed a moment too late back to its place."""
        for claimed in claims:
            claimed.ending = claimed.went_back = True
            self.finisher.submit(Finish(claimed, "back"))

    def _heard(self, finish: Finish, mine: bool) -> None:
        claimed = finish.claimed
        self._forget(claimed)
        if not mine:
            logger.warning("the end of job %s here does not count: it ended elsewhere, or runs there", claimed.ref)
        if finish.heard is not None and not finish.heard.done():
            finish.heard.set_result(mine)

    def _forget(self, claimed: Claimed) -> None:
        self.keeper.release(claimed)
        self._running.pop(claimed, None)

    def let_others_first(self) -> None:
        """Claim less for a while: this worker has claimed what only others can run."""
        self._stands_back_until = asyncio.get_running_loop().time() + STANDS_BACK_FOR_S

    @property
    def stands_back(self) -> bool:
        """Whether others are to claim first."""
        return asyncio.get_running_loop().time() < self._stands_back_until

    def abort_look_is_due(self) -> bool:
        """Whether to look at the abort set again: a worker that is busy with short jobs need not do so each round.

        A claim tells whether the set is empty, and another follows at once. Who was woken by an abort must look.
        """
        now = asyncio.get_running_loop().time()
        if self.claimed_last and (now < self._abort_at or not any(claimer.saw_aborts for claimer in self.claimers)):
            return False
        self._abort_at = now + ABORT_LOOK_S
        return True

    async def wait(self) -> None:
        """Wait until there may be something to do: a free slot, a change of the queue, a due entry, or the time."""
        worker = self._worker
        if worker.burst:
            await self._wait_for_slot(worker.poll_delay_s or BURST_LOOK_S)
        elif self.claimed_last and self.may_start_ahead():
            return  # what was claimed last is performed while the next claim is on its way
        elif worker.free_slots() <= 0 or not worker.allow_pick_jobs:
            await self._wait_for_slot(worker.poll_delay_s if worker.cron_jobs else FULL_LOOK_S)
        elif self.claimed_last:
            await asyncio.sleep(0)
        elif self._poller is None:
            await self._wait_for_change()
        else:
            await asyncio.sleep(self._poller.pause_s(idle=not worker.tasks))

    async def _wait_for_slot(self, longest_s: float) -> None:
        self.slots.freed.clear()
        try:
            async with asyncio.timeout(longest_s):
                await self.slots.freed.wait()
        except TimeoutError:
            return
        await asyncio.sleep(0)  # runs that end together are followed by one claim and not by many

    async def _wait_for_change(self) -> None:
        worker = self._worker
        try:
            async with self.outage.guarded("wake"):
                due = await self.waker.arm()
        except TrackingRefused as refusal:
            logger.info("the queue is polled, its Redis does not tell of changes: %s", refusal)
            self._poller = Poller()
            return
        longest_s = worker.poll_delay_s if worker.cron_jobs else worker.longest_idle_s
        due_in_s = [seconds for queue, seconds in due.items() if self._may_claim_from(queue)]
        with suppress(TimeoutError):
            async with asyncio.timeout(min([longest_s, *due_in_s])):
                await self.waker.changed.wait()

    def _may_claim_from(self, queue: str) -> bool:
        return queue not in self._worker.paused_queues and self.slots.free_of(queue, 1) > 0

    async def _distrust_connections(self) -> None:
        # When packets vanish on one connection they do on all of them, and each would cost a deadline of its own.
        self.waker.distrust()
        self.keeper.distrust()
        with suppress(*self.outage.errors):
            async with asyncio.timeout(DISCONNECT_PATIENCE_S):
                await self._redis.connection_pool.disconnect(inuse_connections=False)

    async def close(self) -> None:
        """Let Redis hear what has ended, give back what never began, and stop renewing; takes one deadline at most."""
        self.slots.refuse()
        try:
            async with asyncio.timeout(self._worker.call_deadline_s):
                await self.finisher.drain()
                await self.order.recover(0)
        except self.outage.errors as error:
            unheard = sum(claimed.ending for claimed in self._running)
            logger.error("closed without Redis, which has not heard the end of %d runs: %s", unheard, error)  # noqa: TRY400
            self.finisher.abandon()
        await self._master_watch.close()
        await self.waker.close()
        await asyncio.to_thread(self.keeper.stop)

    def _lost(self, claimed: Claimed) -> None:
        # Behind the first step of its task: one that is cancelled before that would keep its slot for ever.
        self.deadlines.loop.call_soon(self._cancel_lost, claimed)

    def _cancel_lost(self, claimed: Claimed) -> None:
        task = self._running.get(claimed)
        # A second time would tear it away from recording how it ended.
        if task is not None and not task.done() and not task.cancelling() and not claimed.ending:
            logger.warning("job %s was taken over by another worker, it is cancelled here", claimed.ref)
            task.cancel()

    def _reclaimed(self, claimed: Claimed) -> None:
        if claimed not in self._running:  # it ended while the thread was on its way
            self.finisher.submit(Finish(claimed, "back" if claimed.went_back else "over"))
        elif not claimed.ending:
            logger.warning("Redis had lost the claim of job %s, it was made again", claimed.ref)

    def name_of(self, task: asyncio.Task[Any]) -> str:
        """Return a name for the log: the job that a task runs, or the task's own."""
        refs = (claimed.ref for claimed, its_task in list(self._running.items()) if its_task is task)
        return next((f"job {ref}" for ref in refs), task.get_name())


def _drop_task(tasks: dict[str, asyncio.Task[Any]], claimed: Claimed, task: asyncio.Task[None]) -> None:
    if tasks.get(claimed.job_id) is task:  # else a retry of it runs already
        del tasks[claimed.job_id]
