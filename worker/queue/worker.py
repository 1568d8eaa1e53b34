"""arq's worker with another engine: claims, leases and ends many runs in one call each, and outlives its Redis."""

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from signal import Signals
from types import MappingProxyType
from typing import Any

from arq.connections import create_pool, log_redis_info
from arq.constants import abort_jobs_ss
from arq.utils import to_ms
from arq.worker import Worker as ArqWorker

from worker.queue.claims import Claimed, Claimer
from worker.queue.ends import Refused
from worker.queue.engine import STAND_BACK_S, Engine
from worker.queue.outage import Outage
from worker.queue.packing import with_hiredis

logger = logging.getLogger("arq.worker")

OUTAGE_PAUSE_S = 0.25
STOP_PATIENCE_S = 1.0
"""So long cancelled jobs have to come to their end; who takes longer is left to the end of the process."""
FEW_ABORTS = 200


class Worker(ArqWorker):
    """A worker of arq 0.28, with arq's constructor: functions, hooks, retries, deferral, abort and ``ctx`` are arq's.

    Class attributes are this engine's own settings; set them on the instance before it runs.
    """

    lease_s: float = 10.0
    """Seconds for which a claim holds without renewal: so long a dead worker's runs wait."""
    call_deadline_s: float = 5.0
    """Seconds that one call to Redis may take."""
    max_payload_bytes: int = 1024 * 1024
    """Larger payloads are parked in quarantine and never read."""
    longest_idle_s: float = 5.0
    """Seconds after which an idle worker that is woken by Redis looks by itself."""
    further_queues: Sequence[str] = ()
    """Queues that are served after ``queue_name``, in this order, as far as slots are free."""
    queue_slots: Mapping[str, int] = MappingProxyType({})
    """The most runs of a queue at the same time, for those queues that may not take all of ``max_jobs``: what is kept
    from an urgent queue is left for the others."""
    functions_see_aborts: bool = False
    """Whether functions are called for entries that were aborted before their start, with ``ctx["aborted"]``. Then an
    abort stays in arq's set until its job is over."""
    functions_keep_time: bool = False
    """Whether functions end in time by themselves: then none of arq's timeouts is set around them."""
    functions_take_slots: bool = False
    """Whether functions call ``ctx["slot"].take()`` before they begin what the slots are for."""
    plain_serializer: Callable[[dict[str, Any]], bytes] | None = None
    """Writes the results of runs that succeeded, where functions return JSON values only; None: as all others."""
    paused_queues: frozenset[str] = frozenset()
    """Queues from which nothing is claimed for now."""
    on_refused: Callable[[Claimed, Refused, int], Awaitable[None]] | None = None
    """Called before Redis is told that an entry cannot be run: with the claim, the reason, and when it was enqueued
    (Unix ms, 0 where its payload does not tell). It may raise ``Retry``: the entry goes back, or ``Withdrawn``."""
    on_drain: Callable[[], None] = staticmethod(lambda: None)
    on_bell: Callable[[], None] = staticmethod(lambda: None)
    """Called when a producer has rung: runs were committed that are not in the queue yet."""

    is_stopping: bool = False
    """Whether what still runs has been cancelled."""
    _engine: Engine | None = None

    @property
    def engine(self) -> Engine:
        """The engine, made when it is first needed: arq's constructor knows nothing of it."""
        if self._engine is None:
            self._engine = Engine(self)
        return self._engine

    @property
    def job_counter(self) -> int:
        """How many runs have a slot."""
        return 0 if self._engine is None else self._engine.slots.held

    @job_counter.setter
    def job_counter(self, count: int) -> None:
        del count  # arq's constructor sets it

    @property
    def is_busy(self) -> bool:
        """Whether each slot is taken or awaited."""
        return self._engine is not None and self._engine.slots.free <= 0

    async def main(self) -> None:
        """Serve the queue until cancelled; a burst ends when the queue is empty."""
        if self._pool is None:
            self._pool = await create_pool(
                self.redis_settings,
                job_deserializer=self.job_deserializer,
                job_serializer=self.job_serializer,
                default_queue_name=self.queue_name,
                expires_extra_ms=self.expires_extra_ms,
            )
            await _forget_connections(self._pool.connection_pool)
        connections = self._pool.connection_pool
        connections.connection_class = with_hiredis(connections.connection_class)
        logger.info("Starting worker for %d functions: %s", len(self.functions), ", ".join(self.functions))
        await log_redis_info(self.pool, logger.info)
        self.ctx["redis"] = self.pool
        if self.on_startup:
            await self.on_startup(self.ctx)
        engine = self.engine
        try:
            while not await self._one_round(engine):
                pass
        finally:
            await engine.waker.close()

    async def _one_round(self, engine: Engine) -> bool:
        """Claim, start, and wait for the next reason to do so; True when a burst has ended."""
        try:
            await self._poll_iteration()
            if self.burst and await self._burst_is_over():
                await asyncio.gather(*self.tasks.values())
                await engine.finisher.drain()
                return True
            await engine.wait()
        except engine.outage.errors as error:
            engine.order.stumbled(error)
            await asyncio.sleep(OUTAGE_PAUSE_S)
        return False

    async def _burst_is_over(self) -> bool:
        if 0 <= self.max_burst_jobs <= self._jobs_started():
            return True
        if self.tasks:
            return False
        await self.engine.finisher.drain()
        async with self.engine.outage.guarded("count"), self.pool.pipeline(transaction=False) as pipe:
            for keys in self.engine.queues:
                pipe.zcard(keys.queue)
            return not any(await pipe.execute())

    async def _poll_iteration(self) -> None:
        """Claim as many entries as there are free slots, and start them.

        Raises:
            redis.exceptions.RedisError, OSError, TimeoutError: Redis did not do it.
        """
        engine = self.engine
        engine.claimed_last = 0
        await engine.order.keep()
        if engine.stands_back:
            await asyncio.sleep(STAND_BACK_S)
        if self.allow_pick_jobs:
            await self._claim_in_order(engine)
        if self.allow_abort_jobs and engine.abort_look_is_due():
            async with engine.outage.guarded("abort"):
                await self._cancel_aborted_jobs()
        try:
            async with engine.outage.guarded("heart beat"):
                await self.heart_beat()
        except engine.outage.errors:
            self._last_health_check = 0  # it was not written
            raise

    async def _claim_in_order(self, engine: Engine) -> None:
        for claimer in engine.claimers:
            if claimer.queue in self.paused_queues:
                engine.slots.refuse()
                continue
            free = engine.slots.free_of(claimer.queue, self.free_slots())
            if free > 0:
                claims = await self._claim(engine, claimer, free)
                engine.start(claims)
                free -= len(claims)
            if free <= 0 and engine.may_start_ahead():
                engine.start(await self._claim(engine, claimer, self.max_jobs), ahead=True)

    async def _claim(self, engine: Engine, claimer: Claimer, count: int) -> list[Claimed]:
        async with engine.outage.guarded("claim"):
            claims = engine.accept(await claimer.claim(count))
        if self.allow_pick_jobs and not claimer.is_late:
            return claims
        engine.give_back(claims)  # it was told to stop while Redis answered, or the whole process stood still
        return []

    async def _cancel_aborted_jobs(self) -> None:
        """Cancel those of the jobs here that somebody has aborted; the set may hold anything, and much of it."""
        if not self.job_tasks:
            return
        aborted: list[bytes] = await self.pool.zrange(abort_jobs_ss, 0, FEW_ABORTS)
        if len(aborted) > FEW_ABORTS:
            here = list(self.job_tasks)
            scores = await self.pool.zmscore(abort_jobs_ss, here)
            aborted = [job_id.encode() for job_id, score in zip(here, scores, strict=True) if score is not None]
        # Those whose function was called knowing that they are aborted are not disturbed, nor is one twice.
        told = self.engine.told_of_their_abort() if aborted and self.functions_see_aborts else set[str]()
        told |= self.aborting_tasks
        known = {job_id.encode(): job_id for job_id in self.job_tasks if job_id not in told} if aborted else {}
        heard = [job_id for job_id in aborted if job_id in known]
        for job_id in heard:
            self.aborting_tasks.add(known[job_id])
            self.job_tasks[known[job_id]].cancel()
        if heard and not self.functions_see_aborts:  # else it stays until the job is over, in case this worker dies
            await self.pool.zrem(abort_jobs_ss, *heard)

    def pause_queues(self, queues: frozenset[str]) -> None:
        """Claim nothing from these queues from now on; one that goes on is looked into at once."""
        going_on = self.paused_queues - queues
        self.paused_queues = queues
        if going_on and self._engine is not None:
            self._engine.waker.changed.set()

    def free_slots(self) -> int:
        """Return how many entries may be claimed now; of those that only wait for their end as many again are held."""
        free = min(self.engine.slots.free, 2 * self.max_jobs - len(self.tasks), self.queue_read_limit)
        if self.engine.stands_back:
            free = min(free, 1)
        if self.burst and self.max_burst_jobs >= 0:
            free = min(free, self.max_burst_jobs - self._jobs_started())
        return free

    async def start_jobs(self, job_ids: list[bytes]) -> None:
        """Claim and start these entries, as far as they are due, free, and slots are left."""
        free = self.engine.slots.free_of(self.queue_name, self.engine.slots.free)
        if free > 0 and job_ids:
            self.engine.start(self.engine.accept(await self.engine.claimers[0].claim(free, job_ids[:free])))

    def default_result_ms(self) -> int | None:
        """Return how long a result is kept where no function says otherwise; None: for ever, 0: not at all."""
        return None if self.keep_result_forever else to_ms(self.keep_result_s)

    def _jobs_started(self) -> int:
        return self.jobs_complete + self.jobs_retried + self.jobs_failed + self.job_counter

    def handle_sig_wait_for_completion(self, signum: Signals) -> None:
        """Begin to drain; a second signal cancels at once."""
        if not self.allow_pick_jobs:
            self.handle_sig(signum)
            return
        self.claim_no_more()
        super().handle_sig_wait_for_completion(signum)

    def handle_sig(self, signum: Signals) -> None:
        """Cancel at once: a second signal, the end of the time of grace, or the first signal where there is none."""
        self.claim_no_more()
        if not self.is_stopping:  # cancelled once more, a job would be torn away from what it does about its end
            self.is_stopping = True
            super().handle_sig(signum)

    def claim_no_more(self) -> None:
        """Begin to drain; what is claimed ahead goes back to the other workers."""
        self.allow_pick_jobs = False
        if self._engine is not None:
            self._engine.slots.refuse()
        self.on_drain()

    def name_of(self, task: "asyncio.Task[Any]") -> str:
        """Return a name for the log: the job that a task runs, or the task's own."""
        return task.get_name() if self._engine is None else self._engine.name_of(task)

    async def close(self) -> None:
        """Cancel what still runs, call the shutdown hook, and close the connections to Redis."""
        if not self._handle_signals:
            self.handle_sig(signal.SIGUSR1)
        if not self._pool:
            return
        if self.tasks:
            ended, _ = await asyncio.wait(self.tasks.values(), timeout=STOP_PATIENCE_S)
            await asyncio.gather(*ended, return_exceptions=True)
        if self._engine is not None:
            await self._engine.close()
            self._engine = None
        with suppress(*Outage.errors):
            async with asyncio.timeout(STOP_PATIENCE_S):
                await self.pool.delete(self.health_check_key)
        if self.on_shutdown:
            await self.on_shutdown(self.ctx)
        await self.pool.aclose(close_connection_pool=True)
        self._pool = None


async def _forget_connections(pool: Any) -> None:
    """Drop the one that arq has made to try the pool: it is of redis-py's own class."""
    with suppress(*Outage.errors):
        await pool.disconnect()
    pool._available_connections.clear()  # noqa: SLF001 - reset() changes more than that
