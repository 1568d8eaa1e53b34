"""Long jobs give way: they pause between two batches while others need the database more, and leave time to others.

Looked at are replicas that lag, sessions that wait for locks, this process's own pool, and how many transactions others
write. Every long job can share it: ``await throttle.hold()`` before each batch, ``throttle.committed(n)``
and ``await throttle.rest(seconds)`` behind it.
"""

import asyncio
import logging
import time
from collections import deque
from dataclasses import dataclass, replace
from datetime import UTC, datetime

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
SECOND_LOOK_S = 0.05
"""The first look has nothing to compare with: the second follows soon."""
OTHERS_LAST_S = 2.0
"""Who was at work at one look is taken to be so for this long."""
LEAST_SEEN = 3
"""Fewer transactions between two looks are nobody's."""

_LOOK_AT_POSTGRESQL = text(
    "SELECT count(*) AS waits, txid_snapshot_xmax(txid_current_snapshot()) AS written, "
    "coalesce((SELECT extract(epoch FROM max(replay_lag)) FROM pg_stat_replication), 0) AS lag_s "
    "FROM pg_locks WHERE NOT granted"
)
"""No privilege is needed; but the lag is shown to members of ``pg_monitor`` only, and counts as none to others."""
_LOOK_AT_MYSQL = text("SHOW GLOBAL STATUS WHERE variable_name IN ('Innodb_row_lock_current_waits', 'Com_commit')")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pressure:
    """What others need of the database at the moment."""

    lock_waits: int = 0
    """Sessions that wait for a lock."""
    others_per_s: float = 0.0
    """Transactions that others have written since the last look (MySQL and MariaDB: committed)."""
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
        paused_s: for which earlier attempts of the run were held up.
    """

    def __init__(
        self, context: RunContext, *, counter: str = "batches", look_s: float = LOOK_S, paused_s: float = 0.0
    ) -> None:
        self._context = context
        self._counter = counter
        self._look_s = look_s
        self._next_look = 0.0
        self._marks: deque[tuple[int, float]] = deque(maxlen=MOST_MARKS)
        self._others_until = 0.0
        self._count = 0
        self._last_look: tuple[float, int, int] | None = None
        self.paused_s = paused_s
        """Seconds for which the run was held up or has rested, so far."""
        self.pauses: dict[str, int] = {}
        """How often, by reason: ``locks``, ``replica_lag``, ``pool``."""

    def committed(self, count: int) -> None:
        """Note the counter of a batch that is committed; a replica that does not know it after a while lags."""
        self._marks.append((count, time.monotonic()))
        self._count = count

    async def hold(self, until: datetime | None = None) -> None:
        """Return at once, or when the database has room again.

        Args:
            until: the job ends at this instant: it is held up no longer.

        Raises:
            RunInterrupted: the worker is about to stop.
            FenceLost: another worker took the run over meanwhile.
            JobCancelled: somebody cancelled it meanwhile.
        """
        began = time.monotonic()
        if began < self._next_look:
            return
        is_first, pause_s = self._next_look == 0.0, FIRST_PAUSE_S
        while (reason := self._reason(pressure := await self.look())) is not None:
            if pause_s == FIRST_PAUSE_S:
                self.pauses[reason] = self.pauses.get(reason, 0) + 1
                logger.info("paused for %s", reason, extra={"run_id": str(self._context.run_id)})
            self._context.stop_if_asked()
            left_s = pause_s if until is None else (until - datetime.now(UTC)).total_seconds()
            if left_s <= 0:
                break
            await asyncio.sleep(min(pause_s, left_s))
            async with self._context.batch():
                pass  # it says whether the run is still this worker's, and wanted
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        if pause_s > FIRST_PAUSE_S:
            self.paused_s += time.monotonic() - began
        self._next_look = time.monotonic() + (min(self._look_s, SECOND_LOOK_S) if is_first else self._look_s)
        if 0 < self._context.settings.throttle_others_per_s <= pressure.others_per_s:
            self._others_until = time.monotonic() + OTHERS_LAST_S

    @property
    def share(self) -> float:
        """The part of the time that the run may take: all of it where nobody else is at work."""
        return self._context.settings.throttle_share if time.monotonic() < self._others_until else 1.0

    async def rest(self, worked_s: float) -> None:
        """Leave the others their share of the time, or what is left of it until the worker is about to stop.

        Args:
            worked_s: how long the batch took that is over.
        """
        if (share := self.share) < 1:
            began = time.monotonic()
            end = began + worked_s * (1 / share - 1)
            while (left_s := end - time.monotonic()) > 0 and not self._context.should_stop():  # noqa: ASYNC110 - no event
                await asyncio.sleep(min(left_s, LONGEST_PAUSE_S))
            self.paused_s += time.monotonic() - began

    async def look(self) -> Pressure:
        """Return what others need at the moment; a look that fails sees nothing, for the batch will fail by itself."""
        try:
            pressure = await self._look_at_the_server()
            if self._context.settings.replica_url is not None:
                lag_s = max(pressure.replica_lag_s, await self._lag_of_our_replica())
                pressure = replace(pressure, replica_lag_s=lag_s)
        except SQLAlchemyError as error:
            if not is_transient(error):
                raise
            return Pressure()
        pool = get_manager().pool_figures()
        return replace(pressure, free_connections=pool.size + pool.max_overflow - pool.checked_out)

    async def _look_at_the_server(self) -> Pressure:
        async with get_reading_session() as session:
            dialect = session.get_bind().dialect.name
            if dialect == "sqlite":  # its writers stand in a line, and the batches with them
                return Pressure()
            if dialect == "postgresql":
                found = (await session.execute(_LOOK_AT_POSTGRESQL)).one()
                return Pressure(found.waits, self._others_per_s(found.written), float(found.lag_s))
            figures = {str(name).lower(): int(value) for name, value in await session.execute(_LOOK_AT_MYSQL)}
        return Pressure(figures["innodb_row_lock_current_waits"], self._others_per_s(figures["com_commit"]))

    def _others_per_s(self, transactions: int) -> float:
        """Return how many transactions a second others have had since the last look.

        Args:
            transactions: of the whole server, ever; each batch of ours is one of them.
        """
        at, before = time.monotonic(), self._last_look
        self._last_look = (at, transactions, self._count)
        if before is None:
            return 0.0
        others = transactions - before[1] - (self._count - before[2])
        return others / max(at - before[0], 0.001) if others >= LEAST_SEEN else 0.0

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
