"""What dead workers left: their runs go back, their database sessions end."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Self
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from db.connection import get_async_session, get_reader, get_reading_session
from db.in_time import in_time
from db.repositories import due_runs, job_run
from db.repositories.job_run import RunRow
from db.run_sessions import end_sessions, run_names, worker_name
from db.types import utc_now
from holdfast.states import RunState
from worker.ledger import Vitals, charge_crash


async def put_back_orphans(vitals: Vitals, queue: str, *, active_here: Collection[UUID]) -> list[UUID]:
    """Put running rows whose worker is dead back to waiting; no attempt is charged.

    Returns:
        The ids of those that go on. They are not in Redis yet: dispatch takes them there.
    """
    async with in_time(), get_reader() as reader:
        running = await due_runs.running_runs(reader, queue)
    if not running:
        return []
    async with in_time(), get_reading_session() as session:
        present = await _Present.look(session, vitals, active_here)
    put_back = []
    for orphan in filter(present.has_left, running):
        await end_former_sessions(orphan)
        if await _put_back(orphan, vitals, active_here):
            put_back.append(orphan.id)
    return put_back


@dataclass(frozen=True, slots=True)
class _Present:
    """Who is there at one moment."""

    vitals: Vitals
    active_here: Collection[UUID]
    living: Collection[str]
    now: datetime

    @classmethod
    async def look(cls, session: AsyncSession, vitals: Vitals, active_here: Collection[UUID]) -> Self:
        return cls(vitals, active_here, await vitals.living(session), await job_run.database_now(session))

    def has_left(self, run: RunRow) -> bool:
        """Whether nobody performs a running run."""
        if run.worker_id != self.vitals.worker_id:
            return run.worker_id not in self.living
        # This process: its admission was committed but not heard of. For a moment that is so for every run.
        unheard = self.now - timedelta(seconds=self.vitals.heartbeat_timeout_s)
        return run.id not in self.active_here and bool(run.started_at < unheard)


async def end_former_sessions(run: RunRow) -> None:
    """End the database sessions in which a dead worker may hold this run: one that is frozen keeps its locks."""
    names = run_names(run.id, run.fence) + [worker_name(run.worker_id, purpose) for purpose in ("admits", "ends")]
    async with in_time(), get_async_session() as session:
        await end_sessions(session, names)


async def _put_back(orphan: RunRow, vitals: Vitals, active_here: Collection[UUID]) -> bool:
    async with in_time(), get_async_session() as session:
        # One whose row is locked is looked at again at the next beat: the others are not to wait for it.
        run = await job_run.get_run(session, orphan.id, lock=True, skip_locked=True)
        if run is None or run.state != RunState.RUNNING.value or run.fence != orphan.fence:
            return False
        if not (await _Present.look(session, vitals, active_here)).has_left(run):
            return False
        reason = "crashed"
        if run.worker_id == vitals.worker_id:  # its admission was not heard of: nobody has crashed
            reason = "interrupted"
            await job_run.add_attempt(session, run, reason)
        elif await charge_crash(session, run) is not None:
            return False
        values = {"reason": reason, "due_at": utc_now(), "dispatched_at": None}
        await job_run.leave_running(session, run.id, run.fence, RunState.WAITING, **values)
        return True
