"""The worker's upkeep: what keeps the ledger, Redis and the controls together while jobs run."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError

from db.connection import get_async_session
from db.errors import first_line
from db.repositories import control, due_runs, history, job_run, run_list
from db.repositories.due_runs import Dispatchable
from holdfast.requests import ImportTasks
from holdfast.states import RunState
from jobs.import_tasks.spool import sweep
from jobs.registry import load_jobs
from worker import dispatch, intake, reconcile, recovery, stock_claims
from worker.clock import DatabaseClock
from worker.logs import get_logger
from worker.newcomers import HISTORY_AFTER

if TYPE_CHECKING:
    from worker.runtime import Runtime

SWEEP_INTERVAL_S = 60.0
COMPARED_A_SWEEP = 10_000
"""How many waiting runs a sweep compares with Redis; the next one goes on behind them."""
REDIS_LOOK_S = 1.0
CONTROLS_LOOK_S = 1.0
HELD_LOOK_S = 5.0
HISTORY_INTERVAL_S = 30.0
PRUNE_INTERVAL_S = 3600.0
MOVED_AT_ONCE = 500


class Upkeep:
    """The tasks beside the jobs, each at its own pace; one that fails says so once and goes on trying."""

    def __init__(self, runtime: "Runtime") -> None:
        self._runtime = runtime
        self._settings = runtime.settings
        self._queues = runtime.queues
        self._kinds = tuple(kind for kind, job in load_jobs(runtime.settings).items() if job.ledger)
        self._watch = reconcile.RedisWatch(self._queues[0])
        self._clock = DatabaseClock()
        self._compared_to: dict[str, UUID | None] = {}
        self.is_dispatching = False
        self._tasks: list[asyncio.Task[None]] = []
        self.dispatch_soon = asyncio.Event()
        """Set when a producer has rung: do not wait for the next look."""
        self.sweep_soon = asyncio.Event()
        """Set when older runs may be dispatched from now on."""

    async def start(self) -> None:
        """Do everything once, then go on in the background."""
        settings = self._settings
        await self._read_controls()
        await self._put_back()
        await self._free_dead_claims()
        await self._sweep_spool()
        paces: list[tuple[float, Callable[[], Awaitable[None]], asyncio.Event]] = [
            (settings.dispatch_interval_s, self._dispatch, self.dispatch_soon),
            (settings.heartbeat_interval_s, self._put_back, asyncio.Event()),
            (CONTROLS_LOOK_S, self._read_controls, asyncio.Event()),
            (REDIS_LOOK_S, self._look_at_redis, asyncio.Event()),
            (SWEEP_INTERVAL_S, self._sweep, self.sweep_soon),
            (SWEEP_INTERVAL_S, self._free_dead_claims, asyncio.Event()),
            (HELD_LOOK_S, self._runtime.look_whether_held, asyncio.Event()),
            (HISTORY_INTERVAL_S, self._move_to_history, asyncio.Event()),
            (PRUNE_INTERVAL_S, self._prune_history, asyncio.Event()),
        ]
        self.sweep_soon.set()
        self._tasks = [asyncio.create_task(self._every(*pace)) for pace in paces]

    async def stop(self) -> None:
        """End the tasks."""
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with suppress(asyncio.CancelledError):
                await task

    async def _dispatch(self) -> None:
        if self._runtime.is_held:
            return
        self.is_dispatching = True
        try:
            for queue in self._queues:
                await intake.take_in(self._runtime.redis, queue, self._kinds)
                after = due_runs.watermark(await self._clock.now(), dispatch.LOOK_BACK)
                await dispatch.dispatch(self._runtime.redis, await self._wanted(queue), after=after)
        finally:
            self.is_dispatching = False

    async def _wanted(self, queue: str) -> Dispatchable:
        return Dispatchable(queue, self._kinds, await self._clock.now() + dispatch.HORIZON)

    async def _put_back(self) -> None:
        if self._runtime.is_held:
            return
        runtime = self._runtime
        for queue in self._queues:
            run_ids = await recovery.put_back_orphans(runtime.vitals, queue, active_here=runtime.active)
            for run_id in run_ids:
                get_logger().warning("a dead worker's run was put back", run_id=str(run_id))
            if run_ids:
                await dispatch.dispatch_runs(runtime.redis, self._kinds, run_ids)

    async def _sweep(self) -> None:
        """Find what the usual look does not: ids that are older than its watermark, and what Redis forgot unseen."""
        if self._runtime.is_held:
            return
        for queue in self._queues:
            wanted = await self._wanted(queue)
            await dispatch.dispatch(self._runtime.redis, wanted)
            missing, self._compared_to[queue] = await reconcile.reconcile(
                self._runtime.redis, wanted, after=self._compared_to.get(queue), most=COMPARED_A_SWEEP
            )
            self._say_missing(missing)

    async def _reconcile(self) -> None:
        if self._runtime.is_held:
            return
        for queue in self._queues:
            missing, _ = await reconcile.reconcile(self._runtime.redis, await self._wanted(queue))
            self._say_missing(missing)
        await self._watch.note(self._runtime.redis)

    @staticmethod
    def _say_missing(missing: int) -> None:
        if missing:
            get_logger().info("waiting runs were put into Redis again", runs=missing)

    async def _free_dead_claims(self) -> None:
        if self._runtime.is_held:
            return
        for queue in self._queues:
            async with get_async_session(read_only=True) as session:
                running = {run.job_id for run in await job_run.running_runs(session, queue)}
            await stock_claims.free_dead(self._runtime.redis, queue, self._kinds, running_job_ids=running)

    async def _look_at_redis(self) -> None:
        if await self._watch.has_lost(self._runtime.redis):
            get_logger().info("Redis is empty, or another one than the ledger was compared with: comparing them")
            await self._reconcile()

    async def _read_controls(self) -> None:
        runtime = self._runtime
        async with get_async_session(read_only=True) as session:
            runtime.controls = await control.load_controls(session)
            unwanted = await job_run.cancel_requested(session, runtime.active) if runtime.active else ()
        runtime.claim_or_not()
        runtime.unwanted &= runtime.active
        for run in unwanted:
            if run.id not in runtime.unwanted:
                runtime.cancel(run.id, run.job_id)

    async def _move_to_history(self) -> None:
        async with get_async_session() as session:
            now = await job_run.database_now(session)
            await history.make_partitions(session, now=now)
        while True:
            async with get_async_session() as session:
                moved = await history.move_finished(session, finished_before=now - HISTORY_AFTER, limit=MOVED_AT_ONCE)
            if moved < MOVED_AT_ONCE:
                return

    async def _prune_history(self) -> None:
        settings, now = self._settings, datetime.now(UTC)
        days = {
            RunState.SUCCEEDED: settings.history_keep_succeeded_days,
            RunState.CANCELLED: settings.history_keep_succeeded_days,
            RunState.FAILED: settings.history_keep_failed_days,
            RunState.QUARANTINED: settings.history_keep_failed_days,
        }
        async with get_async_session(read_only=True) as session:
            kinds = await history.kinds_in_history(session)
        for kind in kinds:
            for state, general in days.items():
                kept = settings.history_keep_days.get(f"{kind}.{state.value}", general)
                await self._prune(kind, state, now - timedelta(days=kept))
        async with get_async_session() as session:
            await history.drop_empty_partitions(session, before=now - timedelta(days=min(days.values())))

    async def _prune(self, kind: str, state: RunState, older_than: datetime) -> None:
        while True:
            async with get_async_session() as session:
                pruned = await history.prune(
                    session, kind=kind, state=state.value, older_than=older_than, limit=MOVED_AT_ONCE
                )
            if pruned < MOVED_AT_ONCE:
                return

    async def _sweep_spool(self) -> None:
        async with get_async_session(read_only=True) as session:
            needed = await run_list.live_sources(session, ImportTasks.kind)
        sweep(self._settings.spool_dir, needed)

    async def _every(self, interval_s: float, action: Callable[[], Awaitable[None]], sooner: asyncio.Event) -> None:
        failing = False
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(interval_s):
                    await sooner.wait()
            sooner.clear()
            try:
                await action()
                failing = False
            except Exception as error:  # noqa: BLE001 - whatever it was: without upkeep, runs would be forgotten
                if not failing:
                    expected = isinstance(error, SQLAlchemyError | RedisError | OSError)
                    log = get_logger().warning if expected else get_logger().exception
                    log(f"{action.__name__.strip('_')} failed, trying on", error=first_line(error))
                failing = True
