"""Long jobs give way: they pause between two batches while others need the database more.

Looked at are replicas that lag, sessions that wait for locks, and this process's own pool. Every long job can share it:
``await throttle.hold()`` before each batch, ``throttle.committed(n)`` behind it.
"""

import asyncio
import logging
import time
from collections import deque
from dataclasses import dataclass

from sqlalchemy import select, text
from sqlalchemy.exc import SQLAlchemyError

from db.connection import get_async_session, get_manager, get_reading_session
from db.errors import is_transient
from holdfast.outbox import job_runs
from jobs.context import RunContext

LOOK_S = 0.5
"""So often the database is asked at most; each look is one small query, and one more where there is a replica."""
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 2.0
MOST_MARKS = 10_000

_LOOKS = {
    "postgresql": (
        "SELECT (SELECT count(*) FROM pg_locks WHERE NOT granted), "
        "coalesce((SELECT extract(epoch FROM max(replay_lag)) FROM pg_stat_replication), 0)"
    ),
    "mysql": "SHOW GLOBAL STATUS LIKE 'Innodb_row_lock_current_waits'",
}
"""How many wait for a lock, and on PostgreSQL the seconds by which replicas lag. No privilege is needed; but the lag is
shown to members of ``pg_monitor`` only, and counts as none to others."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pressure:
    """What others need of the database at the moment."""

    lock_waits: int = 0
    """Sessions that wait for a lock."""
    replica_lag_s: float = 0.0
    free_connections: int | None = None
    """Of this process's pool, its overflow included; None: not known."""


class Throttle:
    """One run's.

    Args:
        context: the run; its settings hold the limits.
        counter: the run's counter that each batch makes greater; how far the replica of ``DATABASE_REPLICA_URL`` is
            behind is seen by it, on every engine and without a privilege.
        look_s: seconds between two looks.
    """

    def __init__(self, context: RunContext, *, counter: str = "batches", look_s: float = LOOK_S) -> None:
        self._context = context
        self._counter = counter
        self._look_s = look_s
        self._next_look = 0.0
        self._marks: deque[tuple[int, float]] = deque(maxlen=MOST_MARKS)
        self.paused_s = 0.0
        """Seconds for which the run was held up, so far."""
        self.pauses: dict[str, int] = {}
        """How often, by reason: ``locks``, ``replica_lag``, ``pool``."""

    def committed(self, count: int) -> None:
        """Note the counter of a batch that is committed; a replica that does not know it after a while lags."""
        self._marks.append((count, time.monotonic()))

    async def hold(self) -> None:
        """Return at once, or when the database has room again.

        Raises:
            RunInterrupted: the worker is about to stop.
            FenceLost: another worker took the run over meanwhile.
            JobCancelled: somebody cancelled it meanwhile.
        """
        began = time.monotonic()
        if began < self._next_look:
            return
        pause_s = FIRST_PAUSE_S
        while (reason := self._reason(await self.look())) is not None:
            if pause_s == FIRST_PAUSE_S:
                self.pauses[reason] = self.pauses.get(reason, 0) + 1
                logger.info("paused for %s", reason, extra={"run_id": str(self._context.run_id)})
            self._context.stop_if_asked()
            await asyncio.sleep(pause_s)
            async with self._context.batch():
                pass  # it says whether the run is still this worker's, and wanted
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        if pause_s > FIRST_PAUSE_S:
            self.paused_s += time.monotonic() - began
        self._next_look = time.monotonic() + self._look_s

    async def look(self) -> Pressure:
        """Return what others need at the moment; a look that fails sees nothing, for the batch will fail by itself."""
        try:
            waits, lag_s = await _waits_and_lag()
            if self._context.settings.replica_url is not None:
                lag_s = max(lag_s, await self._lag_of_our_replica())
        except SQLAlchemyError as error:
            if not is_transient(error):
                raise
            return Pressure()
        pool = get_manager().pool_figures()
        return Pressure(waits, lag_s, pool.size + pool.max_overflow - pool.checked_out)

    async def _lag_of_our_replica(self) -> float:
        async with get_async_session(read_only=True) as session:
            query = select(job_runs.c.counters).where(job_runs.c.id == self._context.run_id)
            counters = (await session.execute(query)).scalar_one_or_none() or {}
        known = int(counters.get(self._counter, 0))
        while self._marks and self._marks[0][0] <= known:
            self._marks.popleft()
        return time.monotonic() - self._marks[0][1] if self._marks else 0.0

    def _reason(self, pressure: Pressure) -> str | None:
        settings = self._context.settings
        if pressure.replica_lag_s > settings.throttle_replica_lag_s:
            return "replica_lag"
        if pressure.lock_waits >= settings.throttle_lock_waits:
            return "locks"
        free = pressure.free_connections
        if free is not None and free < settings.throttle_free_connections:
            return "pool"
        return None


async def _waits_and_lag() -> tuple[int, float]:
    async with get_reading_session() as session:
        dialect = session.get_bind().dialect.name
        if dialect == "sqlite":  # its writers stand in a line, and the batches with them
            return 0, 0.0
        found = (await session.execute(text(_LOOKS.get(dialect, _LOOKS["mysql"])))).one()
    return (int(found[0]), float(found[1])) if dialect == "postgresql" else (int(found[1]), 0.0)
