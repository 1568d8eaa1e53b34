"""The worker's upkeep: what keeps the ledger, Redis and the controls together while jobs run."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError

from db.connection import get_async_session
from db.errors import first_line
from db.repositories import control, history, job_run, run_list
from holdfast.requests import ImportTasks
from holdfast.states import RunState
from jobs.import_tasks.spool import sweep
from jobs.registry import load_jobs
from worker import dispatch, intake, recovery, stock_claims
from worker.logs import get_logger
from worker.newcomers import HISTORY_AFTER

if TYPE_CHECKING:
    from worker.runtime import Runtime

RECONCILE_INTERVAL_S = 60.0
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
        self._watch = dispatch.RedisWatch(self._queues[0])
        self.is_dispatching = False
        self._tasks: list[asyncio.Task[None]] = []
        self.dispatch_soon = asyncio.Event()
        """Set when a producer has rung: do not wait for the next look."""

    async def start(self) -> None:
        """Do everything once, then go on in the background."""
        settings = self._settings
        await self._read_controls()
        await self._put_back()
        if not self._runtime.is_held:
            await self._reconcile()
        await self._sweep_spool()
        paces: list[tuple[float, Callable[[], Awaitable[None]]]] = [
            (settings.heartbeat_interval_s, self._put_back),
            (CONTROLS_LOOK_S, self._read_controls),
            (REDIS_LOOK_S, self._look_at_redis),
            (RECONCILE_INTERVAL_S, self._reconcile),
            (HELD_LOOK_S, self._runtime.look_whether_held),
            (HISTORY_INTERVAL_S, self._move_to_history),
            (PRUNE_INTERVAL_S, self._prune_history),
        ]
        self._tasks = [asyncio.create_task(self._every(interval_s, action)) for interval_s, action in paces]
        dispatching = self._every(settings.dispatch_interval_s, self._dispatch, sooner=self.dispatch_soon)
        self._tasks.append(asyncio.create_task(dispatching))

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
                await intake.take_in(self._runtime.redis, queue)
                await dispatch.dispatch(self._runtime.redis, queue, self._kinds)
        finally:
            self.is_dispatching = False

    async def _put_back(self) -> None:
        if self._runtime.is_held:
            return
        runtime = self._runtime
        for queue in self._queues:
            run_ids = await recovery.put_back_orphans(runtime.vitals, queue, active_here=runtime.active)
            for run_id in run_ids:
                get_logger().warning("a dead worker's run was put back", run_id=str(run_id))
            if run_ids:
                await dispatch.dispatch(runtime.redis, queue, self._kinds)

    async def _reconcile(self) -> None:
        if self._runtime.is_held:
            return
        for queue in self._queues:
            async with get_async_session(read_only=True) as session:
                running = {run.job_id for run in await job_run.running_runs(session, queue)}
            await stock_claims.free_dead(self._runtime.redis, queue, self._kinds, running_job_ids=running)
            if missing := await dispatch.reconcile(self._runtime.redis, queue, self._kinds):
                get_logger().info("waiting runs were put into Redis again", runs=missing)
        await self._watch.note(self._runtime.redis)

    async def _look_at_redis(self) -> None:
        if await self._watch.has_lost(self._runtime.redis):
            get_logger().warning("Redis is empty or another one: reconciling")
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

    async def _every(
        self, interval_s: float, action: Callable[[], Awaitable[None]], *, sooner: asyncio.Event | None = None
    ) -> None:
        failing = False
        sooner = sooner or asyncio.Event()
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
