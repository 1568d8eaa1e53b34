"""Looking at runs: the live ones and those in the history."""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Table, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from db.models import JobAttempt
from db.repositories.job_run import RunRow
from holdfast.outbox import job_runs, job_runs_history
from holdfast.states import RunState

TABLES = (job_runs, job_runs_history)
COUNTED_AT_MOST = 100_000
"""Counting goes no further: a page of a list is there at once, however long the list."""


@dataclass(frozen=True, slots=True)
class RunFilter:
    """Which runs to list; None is no condition."""

    state: str | None = None
    kind: str | None = None
    queue: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    @property
    def tables(self) -> Sequence[Table]:
        """Where such runs are: live ones have not left the ledger."""
        return TABLES if self.state is None or RunState(self.state).is_over else (job_runs,)

    def conditions(self, table: Table) -> list[Any]:
        """Return the filter as conditions on a table."""
        equal = {"state": self.state, "kind": self.kind, "queue": self.queue}
        found = [table.c[name] == value for name, value in equal.items() if value is not None]
        if self.since is not None:
            found.append(table.c.enqueued_at >= self.since)
        if self.until is not None:
            found.append(table.c.enqueued_at < self.until)
        return found


async def find_run(session: AsyncSession, run_id: UUID) -> RunRow | None:
    """Return a run wherever it is."""
    for table in TABLES:
        row: RunRow | None = (await session.execute(select(table).where(table.c.id == run_id))).one_or_none()
        if row is not None:
            return row
    return None


async def list_runs(
    session: AsyncSession, run_filter: RunFilter, *, before: UUID | None = None, limit: int = 50
) -> Sequence[RunRow]:
    """Return runs, the newest first, from below the id ``before``."""
    pages = []
    for table in run_filter.tables:
        query = select(table).where(*run_filter.conditions(table))
        if before is not None:
            query = query.where(table.c.id < before)
        pages.append((await session.execute(query.order_by(table.c.id.desc()).limit(limit))).all())
    merged = heapq.merge(*pages, key=lambda run: run.id, reverse=True)
    once = {run.id: run for run in merged}  # a run that moves between the two queries is found by both
    return list(once.values())[:limit]


async def count_runs(session: AsyncSession, run_filter: RunFilter) -> int:
    """Return how many runs the filter finds, ``COUNTED_AT_MOST`` + 1 where there are more."""
    total, most = 0, COUNTED_AT_MOST + 1
    for table in run_filter.tables:
        found = select(table.c.id).where(*run_filter.conditions(table)).limit(most - total).subquery()
        total += (await session.execute(select(func.count()).select_from(found))).scalar_one()
        if total == most:
            break
    return total


async def list_attempts(session: AsyncSession, run_id: UUID) -> Sequence[JobAttempt]:
    """Return the ended attempts of a run, the first one first."""
    query = select(JobAttempt).where(JobAttempt.run_id == run_id).order_by(JobAttempt.fence)
    return (await session.execute(query)).scalars().all()


async def live_sources(session: AsyncSession, kind: str) -> set[str]:
    """Return the ``source`` of every run of a kind that may go on, to know which spooled files are needed.

    Failed and quarantined runs may be replayed for as long as the history keeps them.
    """
    sources: set[str] = set()
    for table in TABLES:
        query = select(table.c.request).where(table.c.kind == kind, table.c.state.notin_(["succeeded", "cancelled"]))
        sources |= {str(request.get("source")) for request in (await session.execute(query)).scalars()}
    return sources
