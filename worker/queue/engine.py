"""What a worker holds while it runs: its token, its leases, and how its runs end and it wakes."""

import asyncio
import logging
import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from arq.constants import abort_jobs_ss

from worker.queue import scripts, upkeep
from worker.queue.claims import Claimed, Claimer, LeaseTerms
from worker.queue.deadlines import Deadlines
from worker.queue.execution import Execution, quarantine_entry
from worker.queue.finish import Finish, Finisher
from worker.queue.leases import LeaseKeeper, sync_connection
from worker.queue.outage import Outage
from worker.queue.scripts import QueueKeys
from worker.queue.wake import Poller, TrackingRefused, Waker

if TYPE_CHECKING:
    from worker.queue.worker import Worker

logger = logging.getLogger("arq.worker")

BURST_LOOK_S = 0.05
ABORT_LOOK_S = 0.05
FULL_LOOK_S = 1.0
QUARANTINE_ENTRIES = 10_000
PARK_PAUSE_S = 0.25
DISCONNECT_PATIENCE_S = 0.5


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
        self.waker = Waker(redis, [keys.queue for keys in self.queues], watched)
        self.keeper = LeaseKeeper(
            sync_connection(redis.connection_pool),
            self.terms,
            on_lost=self._lost,
            on_reclaimed=self._reclaimed,
            name_of=self._name_of,
        )
        self.claimed_last = 0
        self._redis = redis
        self._reap = redis.register_script(upkeep.REAP)
        self._recover = redis.register_script(upkeep.RECOVER)
        self._park = redis.register_script(upkeep.PARK)
        self._reap_at = 0.0
        self._abort_at = 0.0
        self._blind_since: float | None = None
        self._running: dict[Claimed, asyncio.Task[None]] = {}
        self._slot_free = asyncio.Event()
        self._poller: Poller | None = None

    def start(self, claims: list[Claimed]) -> None:
        """Start what was claimed."""
        claims = [claimed for claimed in claims if not self._runs_here(claimed)]
        if not claims:
            return
        worker = self._worker
        self.claimed_last += len(claims)
        self.keeper.hold(claims)
        loop = asyncio.get_running_loop()
        for claimed in claims:
            worker.job_counter += 1
            task = loop.create_task(self._run(claimed))
            self._running[claimed] = task
            worker.tasks[claimed.job_id] = worker.job_tasks[claimed.job_id] = task

    def _runs_here(self, claimed: Claimed) -> bool:
        """Whether it is a run of this worker whose lease ran out: then it is leased anew, and that is all."""
        before = self.keeper.held(claimed.raw_id)
        if before is None:
            return False
        # One that is ending may have gone back for another try; any other is the same unless its id is used again.
        return claimed.ran_out if before.ending else before.payload == claimed.payload

    async def _run(self, claimed: Claimed) -> None:
        worker = self._worker
        execution = Execution(worker, claimed)
        finish: Finish | None = None
        try:
            finish = await execution.run()
        except Exception:
            # A hook failed. The lease runs out, and the entry is taken up again.
            logger.exception("job %s: a hook failed", claimed.job_id)
            self._forget(claimed)
        except asyncio.CancelledError:  # in a hook, by a shutdown
            finish = Finish(claimed, over=False)
        finally:
            worker.job_counter -= 1
            self._drop_task(worker.job_tasks, claimed)
            self._slot_free.set()
        try:
            if finish is not None:
                if claimed.poison:
                    await self._quarantine(claimed)
                claimed.ending, claimed.went_back = True, not finish.over
                if worker.after_job_end and execution.ctx:
                    finish.heard = asyncio.get_running_loop().create_future()
                self.finisher.submit(finish)
                if finish.heard is not None and worker.after_job_end and await asyncio.shield(finish.heard):
                    await worker.after_job_end(execution.ctx)
        finally:
            self._drop_task(worker.tasks, claimed)

    def _heard(self, finish: Finish, mine: bool) -> None:
        claimed = finish.claimed
        self._forget(claimed)
        if not mine:
            logger.warning("the end of job %s here does not count: it ended elsewhere, or runs there", claimed.ref)
        if finish.heard is not None and not finish.heard.done():
            finish.heard.set_result(mine)

    @staticmethod
    def _drop_task(tasks: dict[str, asyncio.Task[Any]], claimed: Claimed) -> None:
        if tasks.get(claimed.job_id) is asyncio.current_task():  # else a retry of it runs already
            del tasks[claimed.job_id]

    def _forget(self, claimed: Claimed) -> None:
        self.keeper.release(claimed)
        self._running.pop(claimed, None)

    def abort_look_is_due(self) -> bool:
        """Whether to look at the abort set again: a worker that is busy with short jobs need not do so each round."""
        now = asyncio.get_running_loop().time()
        if self.claimed_last and now < self._abort_at:
            return False  # there will be another round at once; one that was woken by an abort must look
        self._abort_at = now + ABORT_LOOK_S
        return True

    async def wait(self) -> None:
        """Wait until there may be something to do: a free slot, a change of the queue, a due entry, or the time."""
        worker = self._worker
        if worker.burst:
            await self._wait_for_slot(worker.poll_delay_s or BURST_LOOK_S)
        elif worker.job_counter >= worker.max_jobs or not worker.allow_pick_jobs:
            await self._wait_for_slot(worker.poll_delay_s if worker.cron_jobs else FULL_LOOK_S)
        elif self.claimed_last:
            await asyncio.sleep(0)
        elif self._poller is None:
            await self._wait_for_change()
        else:
            await asyncio.sleep(self._poller.pause_s(idle=not worker.tasks))

    async def _wait_for_slot(self, longest_s: float) -> None:
        self._slot_free.clear()
        try:
            async with asyncio.timeout(longest_s):
                await self._slot_free.wait()
        except TimeoutError:
            return
        await asyncio.sleep(0)  # runs that end together are followed by one claim and not by many

    async def _wait_for_change(self) -> None:
        worker = self._worker
        try:
            async with self.outage.guarded("wake"):
                due_in_s = await self.waker.arm(worker.paused_queues)
        except TrackingRefused as refusal:
            logger.info("the queue is polled, its Redis does not tell of changes: %s", refusal)
            self._poller = Poller()
            return
        longest_s = worker.poll_delay_s if worker.cron_jobs else worker.longest_idle_s
        with suppress(TimeoutError):
            async with asyncio.timeout(min(longest_s, longest_s if due_in_s is None else due_in_s)):
                await self.waker.changed.wait()

    async def _distrust_connections(self) -> None:
        # When packets vanish on one connection they do on all of them, and each would cost a deadline of its own.
        self.waker.distrust()
        with suppress(*self.outage.errors):
            async with asyncio.timeout(DISCONNECT_PATIENCE_S):
                await self._redis.connection_pool.disconnect(inuse_connections=False)

    def stumbled(self, error: BaseException) -> None:
        """Note that a call of the main loop failed."""
        if "WRONGTYPE" in str(error):
            self._reap_at = 0.0  # a key is not what it should be: the reaper puts it out of the way
        elif self._blind_since is None:
            self._blind_since = self.outage.failed_call_began

    async def keep_order(self) -> None:
        """Return entries of dead workers to their place, a few times a lease; after an outage first of all our own.

        Raises:
            redis.exceptions.RedisError, OSError, TimeoutError: Redis did not do it.
        """
        if self._blind_since is not None:
            # Who could not renew its leases may live: they are valid once more before anybody looks for dead workers.
            outage_s = time.monotonic() - self._blind_since
            await self._recover_queues(self.terms.lease_ms if outage_s > self._worker.lease_s / 3 else 0)
            self._blind_since = None
        now = asyncio.get_running_loop().time()
        if now < self._reap_at:
            return
        for keys in self.queues:
            async with self.outage.guarded("reap"):
                damaged, reaped = await self._reap(
                    keys=[*keys.all(), keys.quarantine, abort_jobs_ss, keys.intake],
                    args=[scripts.MAX_ENTRIES, self.terms.token],
                )
            for key in damaged:
                logger.warning("%s had a wrong type, it is now %s:damaged", key.decode(), key.decode())
            if reaped:
                logger.warning("%d runs of dead workers are back in %s", len(reaped), keys.queue)
        self._reap_at = now + min(self._worker.lease_s / 2, self._worker.longest_idle_s)

    async def _recover_queues(self, amnesty_ms: int) -> None:
        for keys in self.queues:
            async with self.outage.guarded("recover"):
                back, spared = await self._recover(
                    keys=keys.all(), args=[self.terms.token, amnesty_ms, *self.keeper.held_ids(keys)]
                )
            if back or spared:
                logger.info("%s: %d unheard claims went back, %d leases are valid again", keys.queue, back, spared)

    async def _quarantine(self, claimed: Claimed) -> None:
        """Write a poisoned entry into the quarantine, however long it takes: its lease is renewed meanwhile."""
        entry = quarantine_entry(claimed, claimed.poison)
        while True:
            try:
                async with self.outage.guarded("park"):
                    parked = await self._park(
                        keys=[claimed.keys.quarantine], args=[claimed.raw_id, entry, QUARANTINE_ENTRIES]
                    )
            except self.outage.errors as error:
                self.stumbled(error)
                await asyncio.sleep(PARK_PAUSE_S)
                continue
            if not parked:
                logger.error("%s is full, not parked: %s %s", claimed.keys.quarantine, claimed.job_id, entry)
            return

    async def close(self) -> None:
        """Let Redis hear what has ended, give back what never began, and stop renewing; takes one deadline at most."""
        try:
            async with asyncio.timeout(self._worker.call_deadline_s):
                await self.finisher.drain()
                await self._recover_queues(0)
        except self.outage.errors as error:
            unheard = sum(claimed.ending for claimed in self._running)
            logger.error("closed without Redis, which has not heard the end of %d runs: %s", unheard, error)  # noqa: TRY400
            self.finisher.abandon()
        await self.waker.close()
        await asyncio.to_thread(self.keeper.stop)

    def _lost(self, claimed: Claimed) -> None:
        task = self._running.get(claimed)
        if task is not None and not task.done() and not claimed.ending:
            logger.warning("job %s was taken over by another worker, it is cancelled here", claimed.ref)
            task.cancel()

    def _reclaimed(self, claimed: Claimed) -> None:
        if claimed not in self._running:  # it ended while the thread was on its way
            self.finisher.submit(Finish(claimed, over=not claimed.went_back))
        elif not claimed.ending:
            logger.warning("Redis had lost the claim of job %s, it was made again", claimed.ref)

    def _name_of(self, task: asyncio.Task[Any]) -> str:
        refs = (claimed.ref for claimed, its_task in list(self._running.items()) if its_task is task)
        return next((f"job {ref}" for ref in refs), task.get_name())
