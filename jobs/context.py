"""The handle that a job gets of its run: batches, the cursor, progress, and whether to stop."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, cast
from uuid import UUID

from sqlalchemy import Table, bindparam, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from db.connection import get_async_session, get_reading_session
from db.errors import NestedWriteSession
from db.in_time import in_time
from db.models import JobRunRange
from db.past_orm import execute_past_orm
from db.repositories.job_run import LocalSettings, RunRow, get_run, holds_fence, lock_by_fence
from holdfast.outbox import job_runs
from holdfast.progress import Progress
from jobs.outcomes import FenceLost, JobCancelled, RunInterrupted
from jobs.settings import JobSettings

# Each batch executes two of them: they are made once.
_NEW: dict[str, Any] = {"cursor": bindparam("new_cursor"), "counters": bindparam("new_counters")}
_WRITE = update(job_runs).where(job_runs.c.id == bindparam("run_id")).values(_NEW | {"crashes": 0})
_RANGES = cast("Table", JobRunRange.__table__)
_MINE = (_RANGES.c.run_id == bindparam("of_run")) & (_RANGES.c.number == bindparam("of_number"))
_LOCK_RANGE = select(_RANGES.c.cursor, _RANGES.c.counters).where(_MINE).with_for_update()
_WRITE_RANGE = update(_RANGES).where(_MINE).values(_NEW)


@dataclass(slots=True)
class Batch:
    """One transaction of a run. What the job sets here is committed with the rows that it changes."""

    session: AsyncSession
    cursor: dict[str, Any]
    """Where the run stands; JSON values. Set a new one to move on."""
    counters: dict[str, int]
    """What the run has done so far."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The cursor and the counters of the last committed batch."""

    cursor: dict[str, Any]
    counters: dict[str, int]


@dataclass(slots=True)
class RunContext:
    """One attempt of a run, as its job sees it."""

    run_id: UUID
    kind: str
    attempt: int
    fence: int
    settings: JobSettings
    should_stop: Callable[[], bool] = field(default=lambda: False)
    """Whether the worker is about to stop and the job should end after this batch."""
    publish: Callable[[Progress], Awaitable[None]] | None = None
    _open: set[tuple[asyncio.Task[Any] | None, int | None]] = field(default_factory=set, init=False, repr=False)
    """The batches that are open: each one's task, and its range if it is the batch of one."""

    def __str__(self) -> str:
        return f"{self.kind}[{self.run_id}]"

    @asynccontextmanager
    async def batch(
        self, *, discard: bool = False, although_cancelled: bool = False, settings: LocalSettings = ()
    ) -> AsyncIterator[Batch]:
        """Open one transaction that has the run's row locked and its fence checked.

        The cursor and the counters are written at the end, in the same transaction as the job's own changes: a crash
        repeats nothing and loses nothing.

        Args:
            discard: roll everything back at the end, for a dry run.
            although_cancelled: do not mind that somebody cancelled the run: it only tidies up.
            settings: PostgreSQL's for this transaction, names and values; they take no statement of their own.

        Raises:
            FenceLost: another worker was admitted to the run; nothing is changed.
            JobCancelled: somebody cancelled the run; nothing is changed.
            DatabaseSilent: the row could not be locked in time; nothing is changed.
            NestedWriteSession: this task has a batch of the run open, and would wait for itself.
        """
        async with self._session(None) as session:
            # Locked first and changed in the same transaction: the last statement of a dead worker may still be
            # running on the server, and must end before the fence is looked at (FAULTS: the dead client's statement).
            async with in_time():
                run = self._still_ours(await self._lock(session, None, settings), although_cancelled)
            before = Checkpoint(run.cursor or {}, run.counters or {})
            batch = Batch(session, deepcopy(before.cursor), dict(before.counters))
            yield batch
            if discard:
                await session.rollback()
                return
            if (batch.cursor, batch.counters) == (before.cursor, before.counters):
                return
            # A run that gets on is no suspect, however often its workers die: crashes count from the last batch on.
            written = {"run_id": self.run_id, "new_cursor": batch.cursor, "new_counters": batch.counters}
            await execute_past_orm(session, _WRITE, written)

    @asynccontextmanager
    async def batch_of_range(self, number: int, *, settings: LocalSettings = ()) -> AsyncIterator[Batch]:
        """Open one transaction of one of several connections that work on this run side by side.

        The range's row is locked, and the run's row shared with the other connections: whoever takes the run over waits
        for all of them. Its cursor and counters are the range's, as ``batch``'s are the run's; let all ranges pause now
        and then, for whoever waits for the run's row.

        Args:
            number: of the range, which has a row in ``job_run_ranges``.
            settings: as ``batch``; they hold when the range's row is locked.

        Raises:
            FenceLost: another worker was admitted to the run; nothing is changed.
            JobCancelled: somebody cancelled the run; nothing is changed.
            DatabaseSilent: the row could not be locked in time; nothing is changed.
            NestedWriteSession: this task has a batch of the run or of this range open, and would wait for itself.
        """
        async with self._session(number) as session:
            async with in_time():
                self._still_ours(await self._lock(session, number, settings))
            mine = {"of_run": self.run_id, "of_number": number}
            row = (await execute_past_orm(session, _LOCK_RANGE, mine)).one()
            batch = Batch(session, deepcopy(row.cursor), dict(row.counters))
            yield batch
            written = {"new_cursor": batch.cursor, "new_counters": batch.counters}
            await execute_past_orm(session, _WRITE_RANGE, mine | written)

    @asynccontextmanager
    async def _session(self, share: int | None) -> AsyncIterator[AsyncSession]:
        mine = (asyncio.current_task(), share)
        if any(task is mine[0] and (share is None or number in {None, share}) for task, number in self._open):
            raise NestedWriteSession(
                f"this task has a batch of run {self.run_id} open already, and a second one would wait for its end: "
                "use the batch that is open"
            )
        self._open.add(mine)
        try:
            async with get_async_session() as session:
                yield session
        finally:
            self._open.discard(mine)

    async def _lock(self, session: AsyncSession, share: int | None, settings: LocalSettings) -> RunRow | None:
        return await lock_by_fence(session, self.run_id, self.fence, share=share, settings=settings)

    def _still_ours(self, run: RunRow | None, although_cancelled: bool = False) -> RunRow:
        if run is None or not holds_fence(run, self.fence):
            raise FenceLost(f"run {self.run_id} was taken over by another worker at fence {run and run.fence}")
        if run.cancel_requested_at is not None and not although_cancelled:
            raise JobCancelled("cancelled while it was running")
        return run

    async def checkpoint(self) -> Checkpoint:
        """Return what the last committed batch left, of this attempt or an earlier one; empty at the start."""
        async with in_time(), get_reading_session() as session:
            run = await get_run(session, self.run_id)
        return Checkpoint({}, {}) if run is None else Checkpoint(dict(run.cursor or {}), dict(run.counters or {}))

    def stop_if_asked(self) -> None:
        """Call it between batches.

        Raises:
            RunInterrupted: the worker is about to stop.
        """
        if self.should_stop():
            raise RunInterrupted

    async def report_progress(self, progress: Progress) -> None:
        """Tell whoever watches how far the run has come; never fails the run."""
        if self.publish is not None:
            await self.publish(progress)
