"""The worker's upkeep: what keeps the ledger, Redis and the controls together while jobs run."""

import asyncio
import math
import random
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from db.archives.catalog import Catalog
from db.connection import get_reader, get_reading_session
from db.errors import DatabaseSilent, first_line
from db.in_time import in_time
from db.repositories import control, due_runs, job_run, run_list
from db.repositories.control import ControlRow
from db.repositories.due_runs import Dispatchable
from db.repositories.glance import Glancer
from holdfast.requests import ImportTasks
from jobs.archive_leftovers import close_ended_runs
from jobs.import_tasks.spool import sweep
from jobs.registry import load_jobs
from worker import cancellations, dispatch, intake, reconcile, recovery, stock_claims
from worker.clock import DatabaseClock
from worker.history_upkeep import HistoryUpkeep
from worker.logs import get_logger
from worker.paces import Interval, Pace, moment_of, set_event, step_of

if TYPE_CHECKING:
    from worker.runtime import Runtime

SWEEP_INTERVAL_S = 60.0
COMPARED_A_SWEEP = 10_000
"""How many waiting runs a sweep compares with Redis; the next one goes on behind them."""
REDIS_LOOK_S = 1.0
CONTROLS_LOOK_S = 1.0
HELD_LOOK_S = 5.0
HISTORY_INTERVAL_S = 30.0
PARTITIONS_INTERVAL_S = 3600.0
"""They are made two months ahead."""
PRUNE_INTERVAL_S = 3600.0
ARCHIVES_INTERVAL_S = 3600.0
STOP_PATIENCE_S = 1.0
SAID_AGAIN_S = 60.0
"""Seconds after which another failure is another matter."""
BUSY_LOOKS = 5
"""So many looks at Redis come to one of the intake where each slot is taken."""


class Upkeep:
    """The tasks beside the jobs, each at its own pace; one that fails says so once and goes on trying."""

    def __init__(self, runtime: "Runtime") -> None:
        self._runtime = runtime
        self._settings = runtime.settings
        self._queues = runtime.queues
        jobs = load_jobs(runtime.settings)
        self.kinds = tuple(kind for kind, job in jobs.items() if job.ledger)
        """Those that this worker knows and that keep a ledger."""
        self._light_kinds = jobs.keys() - set(self.kinds)
        self._watch = reconcile.RedisWatch(self._queues, self.kinds)
        self._intake = partial(
            intake.take_in,
            kinds=self.kinds,
            light=self._light_kinds,
            is_busy=self._is_busy,
            max_payload_bytes=self._settings.max_payload_bytes,
        )
        self._has_looked = False
        self._clock = DatabaseClock()
        self._history = HistoryUpkeep(self._settings, self._clock)
        self._glancer = Glancer(self._queues, self.kinds)
        settings = self._settings
        self._look_s = step_of(CONTROLS_LOOK_S, settings.dispatch_interval_s, settings.heartbeat_interval_s)
        self._dispatching = Interval(settings.dispatch_interval_s, self._look_s)
        self._putting_back = Interval(settings.heartbeat_interval_s, self._look_s)
        self._controlling = Interval(CONTROLS_LOOK_S, self._look_s)
        self._compared_to = dict.fromkeys(self._queues, due_runs.FIRST_ID)
        self.is_taking_in = False
        """Whether runs may have been taken off the intake list that are not in the ledger yet."""
        self.left_announced: dict[str, int] = {}
        """By queue, how many announcements on its list are of kinds that are unknown here."""
        self._busy_looks = 0
        self._tasks: list[asyncio.Task[None]] = []
        self._is_stopping = False
        self._phase_s = random.uniform(0, SWEEP_INTERVAL_S)  # noqa: S311 - so that workers do not look all at once
        self.dispatch_soon = asyncio.Event()
        """Set when a producer has rung: do not wait for the next look."""
        self._put_back_soon = asyncio.Event()
        self.sweep_soon = asyncio.Event()
        """Set when older runs may be dispatched from now on."""

    async def start(self) -> None:
        """Do everything once, then go on in the background."""
        await self._look_at_ledger()
        partitions_soon = asyncio.Event()
        try:
            # Before there are jobs: one that blocks the loop in between would keep all others from the history.
            await self._history.make_partitions()
        except (SQLAlchemyError, DatabaseSilent):  # said and tried again below
            partitions_soon.set()
        await self._put_back()
        await self._free_dead_claims()
        await self._sweep_spool()
        self.sweep_soon.set()
        paces = [
            Pace(self._look_s, self._look_at_ledger),
            Pace(None, self._dispatch, self.dispatch_soon),
            Pace(None, self._put_back, self._put_back_soon),
            Pace(REDIS_LOOK_S, self._look_at_redis, set_event()),
            Pace(SWEEP_INTERVAL_S, self._sweep, self.sweep_soon),
            Pace(SWEEP_INTERVAL_S, self._free_dead_claims),
            Pace(HELD_LOOK_S, self._runtime.look_whether_held),
            Pace(HISTORY_INTERVAL_S, self._history.move_to_history),
            Pace(PARTITIONS_INTERVAL_S, self._history.make_partitions, partitions_soon),
            Pace(PRUNE_INTERVAL_S, self._history.prune_history),
            Pace(ARCHIVES_INTERVAL_S, self._close_archives),
        ]
        self._tasks = [asyncio.create_task(self._keep(pace), name=pace.name) for pace in paces]

    async def stop(self) -> None:
        """End the tasks; one that a driver or a database does not let go is left to the end of the process."""
        self._is_stopping = True
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            _, left = await asyncio.wait(self._tasks, timeout=STOP_PATIENCE_S)
            for task in left:
                get_logger().warning(f"{task.get_name()} does not end: it is left to the end of the process")

    async def _dispatch(self) -> None:
        if self._runtime.is_held:
            return
        for queue in self._queues:
            after = due_runs.watermark(await self._clock.now(), dispatch.LOOK_BACK)
            await dispatch.dispatch(self._runtime.redis, await self._wanted(queue), after=after)

    async def _wanted(self, queue: str) -> Dispatchable:
        return Dispatchable(queue, self.kinds, await self._clock.now() + dispatch.HORIZON)

    async def _put_back(self) -> None:
        if self._runtime.is_held or not self._runtime.heartbeat.is_steady:
            return
        runtime = self._runtime
        for queue in self._queues:
            run_ids = await recovery.put_back_orphans(runtime.vitals, queue, active_here=runtime.active)
            for run_id in run_ids:
                get_logger().warning("a dead worker's run was put back", run_id=run_id)
            if run_ids:
                await dispatch.dispatch_runs(runtime.redis, self.kinds, run_ids)

    async def _sweep(self) -> None:
        """Find what the usual look does not: ids that are older than its watermark, and what Redis forgot unseen."""
        if self._runtime.is_held:
            return
        for queue in self._queues:
            wanted = await self._wanted(queue)
            await dispatch.dispatch(self._runtime.redis, wanted)
            missing, self._compared_to[queue] = await reconcile.reconcile(
                self._runtime.redis, wanted, after=self._compared_to[queue], most=COMPARED_A_SWEEP
            )
            self._say_missing(missing)

    async def _reconcile(self, queue: str, identity: str) -> None:
        missing, _ = await reconcile.reconcile(self._runtime.redis, await self._wanted(queue))
        self._say_missing(missing)
        await self._watch.note(self._runtime.redis, queue, identity)

    @staticmethod
    def _say_missing(missing: int) -> None:
        if missing:
            get_logger().info("waiting runs were put into Redis again", runs=missing)

    async def _free_dead_claims(self) -> None:
        if self._runtime.is_held:
            return
        for queue in self._queues:
            async with in_time(), get_reader() as reader:
                running = {run.job_id for run in await due_runs.running_runs(reader, queue)}
            await stock_claims.free_dead(self._runtime.redis, queue, self.kinds, running_job_ids=running)

    async def _look_at_redis(self) -> None:
        if self._runtime.is_held:
            return
        self.is_taking_in = True
        try:
            sight = await self._watch.look(self._runtime.redis)
            if sight.lost and self._has_looked:
                get_logger().warning("Redis is empty or another one: reconciling")
            await self._take_in(sight)
            for queue in self._queues if sight.aborted else ():
                await cancellations.carry(self._runtime.redis, queue, sight.aborted)
        finally:
            self.is_taking_in = False
        self._has_looked = True

    async def _take_in(self, sight: reconcile.Sight) -> None:
        redis, announced = self._runtime.redis, dict(sight.announced)
        self.left_announced.clear()
        try:
            for queue, identity in sight.lost.items():
                await self._reconcile(queue, identity)
            self._busy_looks = self._busy_looks + 1 if self._is_busy() else 0
            # What a busy worker admits within a few seconds would only be entered twice.
            while announced and self._busy_looks % BUSY_LOOKS == 0:
                queue, ids = announced.popitem()
                taken = await self._intake(redis, queue, ids)
                self.left_announced[queue] = taken.left
        finally:
            for queue, ids in announced.items():
                await intake.give_back(redis, queue, ids)

    def _is_busy(self) -> bool:
        worker = self._runtime.worker
        return worker is not None and worker.is_busy

    async def _look_at_ledger(self) -> None:
        """Find out whether there is something to be dispatched or put back, and what operators say."""
        now, moment = await self._clock.now(), moment_of(self._phase_s)
        undispatched, running = (
            not self._runtime.is_held and interval.is_over(moment)
            for interval in (self._dispatching, self._putting_back)
        )
        after = due_runs.watermark(now, dispatch.LOOK_BACK)
        async with in_time(), get_reader() as reader:
            seen = await self._glancer.look(
                reader, due_before=now + dispatch.HORIZON, after=after, undispatched=undispatched, running=running
            )
            # At once: what follows may take its time, or fail.
            if undispatched:
                self._dispatching.begin(moment)
            if running:
                self._putting_back.begin(moment)
            if seen.undispatched:
                self.dispatch_soon.set()
            if seen.running:
                self._put_back_soon.set()
            if self._controlling.is_over(moment):
                await self._obey(reader, seen.controls)
                self._controlling.begin(moment)

    async def _obey(self, reader: AsyncConnection, controls: Sequence[ControlRow]) -> None:
        runtime = self._runtime
        runtime.controls = await control.controls_of(reader, controls)
        runtime.claim_or_not()
        runtime.unwanted &= runtime.active
        for run in await job_run.cancel_requested(reader, runtime.active) if runtime.active else ():
            if not runtime.is_unwanted(run.id, run.job_id):
                runtime.cancel(run.id, run.job_id)

    async def _sweep_spool(self) -> None:
        async with in_time(), get_reading_session() as session:
            needed = await run_list.live_sources(session, ImportTasks.kind)
        sweep(self._settings.spool_dir, needed)

    async def _close_archives(self) -> None:
        if self._runtime.is_held:
            return
        if folders := await close_ended_runs(self._settings, Catalog.of()):
            get_logger().info("folders of archive runs that were over have been closed", folders=folders)

    async def _keep(self, pace: Pace) -> None:
        failing, failed_at, action = False, -math.inf, pace.action
        while not self._is_stopping:  # a cancellation may be lost in what the action calls
            await pace.come(self._phase_s)
            try:
                await action()
                failing = False
            except Exception as error:  # noqa: BLE001 - whatever it was: without upkeep, runs would be forgotten
                now = asyncio.get_running_loop().time()
                # What is done only when there is need of it would not have told that it works again.
                if not failing or (pace.interval_s is None and now - failed_at > SAID_AGAIN_S):
                    expected = isinstance(error, SQLAlchemyError | RedisError | OSError)
                    log = get_logger().warning if expected else get_logger().exception
                    log(f"{pace.name} failed, trying on", error=first_line(error))
                failing, failed_at = True, now
