"""Finished runs: from the ledger into the history, and out of it when their time is over."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import cast
from uuid import UUID

from sqlalchemy import Table, bindparam, delete, insert, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from db.models import ImportReject, JobAttempt, JobRunRange
from db.run_sessions import MYSQL_DIALECTS
from holdfast.outbox import job_runs, job_runs_history
from holdfast.states import RunState

OVER = [state.value for state in RunState if state.is_over]
ONE_AT_A_TIME = "PERFORM pg_advisory_xact_lock(hashtext('holdfast history partitions'));"
"""Of two workers that make or drop a partition at once, one would fail in the catalogue."""
_PARTITIONS = (
    "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid "
    "WHERE i.inhparent = 'job_runs_history'::regclass AND c.relname ~ '^job_runs_history_y[0-9]{4}m[0-9]{2}$'"
)
# By the same query as before the lock: to_regclass() may not see yet what another session has made meanwhile.
_IS_THERE = f"EXISTS (SELECT 1 FROM ({_PARTITIONS}) AS there WHERE there.relname = '%s')"  # noqa: S608
_MAKE = """
IF NOT {is_there} THEN
  CREATE TABLE {name} (LIKE job_runs_history INCLUDING ALL);
  WITH moved AS (DELETE FROM job_runs_history_default WHERE id >= '{first}' AND id < '{beyond}' RETURNING *)
  INSERT INTO {name} SELECT * FROM moved;
  ALTER TABLE job_runs_history ATTACH PARTITION {name} FOR VALUES FROM ('{first}') TO ('{beyond}');
END IF;
"""
"""Runs of this month that came before its partition move there: a producer's clock was ahead."""
_DROP = """
IF {is_there} THEN
  IF NOT EXISTS (SELECT 1 FROM {name}) THEN
    LOCK TABLE job_runs_history IN ACCESS EXCLUSIVE MODE;
    IF NOT EXISTS (SELECT 1 FROM {name}) THEN
      DROP TABLE {name};
    END IF;
  END IF;
END IF;
"""
"""It is looked at once more under the lock: a late run may have come in between."""
COLUMNS = [column.name for column in job_runs_history.columns]


async def move_finished(session: AsyncSession, *, finished_before: datetime, limit: int) -> int:
    """Move finished runs into the history.

    Args:
        session: one short transaction.
        finished_before: those that ended later stay, so that late deliveries find them where they look first.
        limit: the most that are moved.

    Returns:
        How many were moved.
    """
    due = (
        select(job_runs.c.id)
        .where(job_runs.c.state.in_(OVER), job_runs.c.finished_at < finished_before)
        .order_by(job_runs.c.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    run_ids = list((await session.execute(due)).scalars())
    if not run_ids:
        return 0
    moved = select(*(job_runs.c[name] for name in COLUMNS)).where(job_runs.c.id.in_(run_ids))
    await session.execute(insert(job_runs_history).from_select(COLUMNS, moved))
    await _delete(session, job_runs, "id", run_ids)
    return len(run_ids)


async def _delete(session: AsyncSession, table: Table, column: str, run_ids: Sequence[UUID]) -> None:
    if not run_ids:
        return
    if session.get_bind().dialect.name not in MYSQL_DIALECTS:
        await session.execute(delete(table).where(table.c[column].in_(run_ids)))
        return
    # One by one: for many ids of a small table it reads all rows, and waits for each that somebody else has locked.
    statement = delete(table).where(table.c[column] == bindparam("of_run"))
    await session.execute(statement, [{"of_run": run_id} for run_id in run_ids])


async def prunable(
    session: AsyncSession, *, kind: str | None, state: str, older_than: datetime, limit: int
) -> Sequence[UUID]:
    """Return runs of the history that were enqueued before ``older_than``, the oldest first.

    Args:
        session: reads.
        kind: of this kind only; None: of every kind.
        state: in this state.
        older_than: by the time in the run's id.
        limit: the most that are returned.
    """
    query = select(job_runs_history.c.id).where(
        job_runs_history.c.state == state, job_runs_history.c.id < first_id_of(older_than)
    )
    if kind is not None:
        query = query.where(job_runs_history.c.kind == kind)
    return (await session.execute(query.order_by(job_runs_history.c.id).limit(limit))).scalars().all()


async def delete_rejects(session: AsyncSession, run_ids: Sequence[UUID], *, limit: int) -> int:
    """Delete rejected rows of these runs; a run may have millions of them.

    Args:
        session: one short transaction.
        run_ids: whose rows.
        limit: the most that are deleted.

    Returns:
        How many were deleted; fewer than ``limit``: there are no more.
    """
    columns = (ImportReject.run_id, ImportReject.line)
    query = select(*columns).where(ImportReject.run_id.in_(run_ids)).order_by(*columns).limit(limit)
    page = (await session.execute(query)).all()
    if page:
        last = page[-1]
        whole = {row.run_id for row in page} - {last.run_id}
        begun = (ImportReject.run_id == last.run_id) & (ImportReject.line <= last.line)
        await session.execute(delete(ImportReject).where(ImportReject.run_id.in_(whole) | begun))
    return len(page)


async def delete_runs(session: AsyncSession, run_ids: Sequence[UUID]) -> None:
    """Delete runs from the history, their attempts, and the shares of those that ended in the middle of their work."""
    for table in (JobAttempt.__table__, JobRunRange.__table__):
        await _delete(session, cast("Table", table), "run_id", run_ids)
    await _delete(session, job_runs_history, "id", run_ids)


async def kinds_in_history(session: AsyncSession) -> Sequence[str]:
    """Return every kind that the history holds."""
    return list((await session.execute(select(job_runs_history.c.kind).distinct())).scalars())


async def make_partitions(session: AsyncSession, *, now: datetime, months_ahead: int = 2) -> None:
    """Make the history's partitions of this month and the next ones (PostgreSQL; nothing elsewhere).

    Args:
        session: for single statements. All that locks the whole history is one of them: a worker that is frozen
            between two would keep everybody from it, and no timeout of the server would end that. Behind a pooler it
            still can be, between that statement and its commit.
        now: about the time.
        months_ahead: how many months after this one.
    """
    if session.get_bind().dialect.name != "postgresql":
        return
    months = [datetime(now.year, now.month, 1, tzinfo=UTC)]
    for _ in range(months_ahead):
        months.append(_following(months[-1]))
    there = await _partitions(session)
    await _in_one_statement(session, [_making(month) for month in months if month not in there])


def _making(month: datetime) -> str:
    name, first, beyond = f"job_runs_history_y{month:%Ym%m}", first_id_of(month), first_id_of(_following(month))
    return _MAKE.format(is_there=_IS_THERE % name, name=name, first=first, beyond=beyond)


async def drop_empty_partitions(session: AsyncSession, *, before: datetime) -> None:
    """Drop the monthly partitions that end before an instant and hold nothing any more.

    Args:
        session: as in ``make_partitions``.
        before: the instant.
    """
    if session.get_bind().dialect.name != "postgresql":
        return
    over = [name for month, name in (await _partitions(session)).items() if _following(month) <= before]
    await _in_one_statement(session, [_DROP.format(is_there=_IS_THERE % name, name=name) for name in over])


async def _in_one_statement(session: AsyncSession, steps: Sequence[str]) -> None:
    if steps:
        await session.execute(text(f"DO $$ BEGIN {ONE_AT_A_TIME} {' '.join(steps)} END $$"))


async def _partitions(session: AsyncSession) -> dict[datetime, str]:
    """Return the monthly partitions by the month's first instant."""
    names = (await session.execute(text(_PARTITIONS))).scalars()
    return {datetime(int(name[-7:-3]), int(name[-2:]), 1, tzinfo=UTC): name for name in names}


def _following(month: datetime) -> datetime:
    return (month + timedelta(days=32)).replace(day=1)


def first_id_of(instant: datetime) -> UUID:
    """Return the smallest UUIDv7-shaped value of an instant: every id made before it is smaller."""
    return UUID(int=int(instant.timestamp() * 1000) << 80)
