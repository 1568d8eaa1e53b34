"""What lives as long as the worker: the pool, the heartbeat, and the state that its jobs and its upkeep share."""

import asyncio
import os
import secrets
import socket
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any
from uuid import UUID

from redis.asyncio import ConnectionPool, Redis

from db import migrate
from db.connection import close_database, database_is_open, get_async_session, get_reader, initialize_database
from db.in_time import in_time
from db.models import WorkerState
from db.repositories import installation, run_groups
from db.repositories.control import Controls, Limit
from db.repositories.job_run import BornRun
from worker.grouped_ledger import GroupedLedger
from worker.heartbeat import Heartbeat
from worker.ledger import Vitals
from worker.logs import get_logger
from worker.queue.deadlines import Deadlines
from worker.settings import Settings
from worker.upkeep import Upkeep

if TYPE_CHECKING:
    from worker.queue import Worker

ALONE_LOOK_S = 0.05
ALONE_PATIENCE_S = 30.0
LONG_RUN_S = 120.0
"""A run that has been on for so long is not waited for by one that wants to be alone: it may well go on."""
LEDGER_PATIENCE_S = 2.0
WARM_CONNECTIONS = 2
"""One group of runs is admitted while another one is ended."""
REDIS_DEADLINE_S = 5.0
"""Seconds for each answer of Redis to the upkeep: where packets vanish nothing else would end the wait."""


class Beginning:
    """A run's time on this worker: it is in ``begun``, with the moment of its beginning, while its block is open."""

    __slots__ = ("_begun",)

    def __init__(self, begun: "dict[Beginning, float]") -> None:
        self._begun = begun

    def __enter__(self) -> None:
        self._begun[self] = time.monotonic()

    def __exit__(self, *_: object) -> None:
        del self._begun[self]


class Runtime:
    """The worker's startup and shutdown; jobs find the settings and the state of the process here.

    Args:
        settings: whose queue and database.
        owns_queue: whether no other worker can be alive at this queue (embedded).
    """

    def __init__(self, settings: Settings, *, owns_queue: bool) -> None:
        self.settings = settings
        self.queues = tuple(queue.name for queue in settings.served_queues)
        """The keys of the queues that this worker serves, the most urgent one first."""
        self.worker_id = f"{socket.gethostname()[:60]}:{os.getpid()}:{secrets.token_hex(4)}"
        self.vitals = Vitals(self.worker_id, settings.queue_home, owns_queue, settings.heartbeat_timeout_s)
        self.active: set[UUID] = set()
        """The runs that this process is performing."""
        self.ledger = GroupedLedger(self.vitals, self.active, self._limits_of)
        self.is_draining = False
        """Whether the worker was told to stop."""
        self.started = asyncio.Event()
        """Set when the startup hook is through."""
        self.on_started: Callable[[], None] = lambda: None
        """Called just before."""
        self.is_held = False
        """Whether the ledger was made on another server, so that nothing of it may run here."""
        self.controls = Controls()
        self.deadlines = Deadlines()
        self.unwanted: set[UUID] = set()
        """Runs of this process whose cancellation the ledger asks for."""
        self.unknown_kinds: set[str] = set()
        """Those of which it was said that this worker does not know them."""
        self.redis: Any = None
        self.worker: Worker | None = None
        """Our own engine, which can be told to stop claiming; None under stock arq."""
        self._alone: UUID | None = None
        self._one_alone = asyncio.Lock()
        self._begun: dict[Beginning, float] = {}
        self._grace_ends = 0.0
        self._owns_pool = False
        self.heartbeat = Heartbeat(settings, self.worker_id, lambda: self.state)
        self.upkeep = Upkeep(self)

    def begin_draining(self) -> None:
        """Note that the worker was told to stop: running jobs are asked to, and their time of grace begins."""
        if not self.is_draining:
            self._grace_ends = time.monotonic() + self.settings.shutdown_grace_s
            self.is_draining = True
            self.heartbeat.beat_now()

    @property
    def grace_left_s(self) -> float:
        """Seconds of grace that a draining worker's jobs have left."""
        return max(0.0, self._grace_ends - time.monotonic())

    @property
    def state(self) -> WorkerState:
        """What this worker does at the moment, as ``workers list`` shows it."""
        if self.is_draining:
            return WorkerState.DRAINING
        if not self.started.is_set():
            return WorkerState.STARTING
        return WorkerState.HELD if self.is_held else WorkerState.READY

    @property
    def is_ready(self) -> bool:
        """Whether this worker takes up runs: it has started, is not draining and not held."""
        return self.state is WorkerState.READY

    def should_stop(self) -> bool:
        """Whether jobs shall end after their batch, because the worker was told to stop."""
        return self.is_draining

    async def start(self, ctx: dict[str, Any]) -> None:
        """Open the pool, say hello in the ledger and put back what was left; arq's startup hook.

        Raises:
            DatabaseUnavailable: the database does not take connections.
            SchemaOutdated: its tables are not of this version.
        """
        ctx["runtime"] = self
        self.redis = _with_deadline(ctx["redis"].connection_pool)
        settings = self.settings
        if settings.database_is_embedded:
            settings.holdfast_data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._owns_pool = not database_is_open()  # a command that runs a worker inside itself goes on using its own
        manager = await initialize_database(settings, patience_s=settings.startup_patience_s)
        if settings.database_migrates_itself:
            await migrate.upgrade(settings)
        async with in_time():
            await migrate.require_current(manager)
        await run_groups.warm_up(min(WARM_CONNECTIONS, settings.database_pool_size - 1))
        await self.look_whether_held()
        await self.heartbeat.start()
        await self.upkeep.start()
        self.on_started()
        self.started.set()
        self.heartbeat.beat_now()
        loop = type(asyncio.get_running_loop()).__module__.partition(".")[0]
        get_logger().info("worker started", worker_id=self.worker_id, queues=list(self.queues), event_loop=loop)

    async def stop(self, ctx: dict[str, Any]) -> None:
        """Say goodbye and close the pool; arq's shutdown hook."""
        del ctx
        await self.upkeep.stop()
        with suppress(TimeoutError):
            async with asyncio.timeout(LEDGER_PATIENCE_S):
                await self.ledger.drain()
        await self.heartbeat.stop()
        if self.redis is not None:
            await self.redis.aclose()
        if self._owns_pool:
            with suppress(TimeoutError):
                async with asyncio.timeout(LEDGER_PATIENCE_S):
                    await close_database()
        if self.started.is_set():
            get_logger().info("worker stopped", worker_id=self.worker_id)

    def dispatch_soon(self) -> None:
        """Look at once for runs that were enqueued in the database."""
        self.upkeep.dispatch_soon.set()

    async def look_whether_held(self) -> None:
        """Find out whether this ledger belongs to this server, and stop or go on accordingly."""
        async with in_time(), get_reader() as reader:
            sight = await installation.look(reader)
        if not sight.is_held and not sight.is_settled:
            async with in_time(), get_async_session() as session:
                sight = await installation.settle(session)
        held = sight.is_held
        if held and not self.is_held:
            get_logger().error(
                "held: this database is a copy that was started elsewhere, or is reached under a new address; nothing "
                "is dispatched or run until `python -m worker adopt`, run with this worker's settings, says that it is "
                "the right one",
                found=f"{sight.server} at {sight.address}",
                known=f"{sight.owner} at {', '.join(sight.addresses)}",
            )
        elif self.is_held and not held:
            get_logger().warning("adopted: runs are taken up again")
            self.upkeep.sweep_soon.set()
        if held != self.is_held:
            self.is_held = held
            self.heartbeat.beat_now()
        self.claim_or_not()

    def claim_or_not(self) -> None:
        """Tell the engine from which queues it may claim."""
        if self.worker is None:
            return
        queues = frozenset(self.queues)
        paused = {name for scope, name in self.controls.paused if scope == "queue"}
        everything = self.is_held or self._alone is not None
        self.worker.pause_queues(queues if everything else queues & paused)

    def obstacle(self, *, queue: str, kind: str) -> str | None:
        """Return why a run may not start now: ``held``, ``paused``, ``limited``, ``suspect``, or None."""
        if self.is_held:
            return "held"
        if self._alone is not None:
            return "suspect"
        return self.controls.obstacle(queue=queue, kind=kind)

    def _limits_of(self, born: BornRun) -> Sequence[Limit]:
        return self.controls.limits_of(queue=born.queue, kind=born.kind)

    def is_unwanted(self, run_id: UUID, job_id: str) -> bool:
        """Whether a running run was cancelled by somebody, and not by the end of this worker."""
        aborted = self.worker is not None and job_id in self.worker.aborting_tasks
        return aborted or run_id in self.unwanted

    def cancel(self, run_id: UUID, job_id: str) -> None:
        """Cancel a run of this process; its statement in the database as well, where the driver can."""
        self.unwanted.add(run_id)
        task = None if self.worker is None else self.worker.job_tasks.get(job_id)
        if task is not None:
            task.cancel()

    def beginning(self) -> Beginning:
        """Count a run from before it looks for obstacles to its end, for those that want to be alone: ``with``."""
        return Beginning(self._begun)

    @asynccontextmanager
    async def alone(self, run_id: UUID) -> AsyncIterator[bool]:
        """Let one run have this worker for itself: the others end first, and none is begun meanwhile.

        Yields:
            Whether they have ended in time. Nothing else is claimed while this waits: it does not wait for long, and
            not at all beside a run that has been on for longer than ``LONG_RUN_S``.
        """
        async with self._one_alone:
            if self._begun and time.monotonic() - min(self._begun.values()) > LONG_RUN_S:
                yield False
                return
            self._alone = run_id
            self.claim_or_not()
            try:
                deadline = time.monotonic() + ALONE_PATIENCE_S
                while self._begun and time.monotonic() < deadline:  # noqa: ASYNC110 - suspects are rare
                    await asyncio.sleep(ALONE_LOOK_S)
                yield not self._begun
            finally:
                self._alone = None
                self.claim_or_not()


def _with_deadline(pool: ConnectionPool) -> Redis:
    """Return a client with connections of its own to the same Redis; each answer has to come in time."""
    arguments = {**pool.connection_kwargs, "socket_timeout": REDIS_DEADLINE_S}
    return Redis.from_pool(ConnectionPool(connection_class=pool.connection_class, **arguments))
