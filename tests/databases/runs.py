"""Runs, workers and heartbeats that the tests of the ledger make up."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

from sqlalchemy import update

from db.connection import get_async_session
from db.models import JobAttempt, WorkerHeartbeat, WorkerState
from db.repositories import history, job_run, run_list, worker_heartbeat
from db.repositories.due_runs import Dispatchable
from db.repositories.job_run import BornRun, RunRow
from db.repositories.worker_heartbeat import WorkerIdentity
from holdfast.ids import uuid7
from worker import ledger
from worker.dispatch import HORIZON
from worker.ledger import Admitted, Vitals

QUEUE = "arq:queue"
HOME = "redis://127.0.0.1:6379/0"
TIMEOUT_S = 15.0


def born(job_id: str | None = None, *, at: datetime | None = None, unique_key: str | None = None) -> BornRun:
    """A run as Redis tells it; the wire carries milliseconds."""
    now = at or datetime.now(UTC)
    enqueued_at = now.replace(microsecond=now.microsecond // 1000 * 1000)
    request = {"source": "/imports/tasks.csv"}
    return BornRun("import_tasks", QUEUE, job_id or str(uuid7()), enqueued_at, request, unique_key)


def vitals(worker_id: str, *, queue_home: str = HOME, exclusive: bool = False, timeout_s: float = TIMEOUT_S) -> Vitals:
    """A worker."""
    return Vitals(worker_id, queue_home, exclusive, timeout_s)


def wanted(*, horizon: timedelta = HORIZON) -> Dispatchable:
    """What a worker of the usual kind dispatches."""
    return Dispatchable(QUEUE, ["import_tasks"], datetime.now(UTC) + horizon)


async def heartbeat(*worker_ids: str, queue_home: str = HOME) -> None:
    """Let these workers be alive."""
    async with get_async_session() as session:
        for worker_id in worker_ids:
            worker = WorkerIdentity(worker_id, "here", 1, queue_home, (QUEUE,))
            await worker_heartbeat.beat(session, worker, WorkerState.READY)


async def silence(worker_id: str) -> None:
    """Let a worker be dead: nothing has been heard of it for longer than the timeout."""
    async with get_async_session() as session:
        long_ago = await job_run.database_now(session) - timedelta(seconds=TIMEOUT_S + 1)
        beats = update(WorkerHeartbeat).where(WorkerHeartbeat.worker_id == worker_id)
        await session.execute(beats.values(heartbeat_at=long_ago))


async def admitted(worker_id: str, *, run_id: UUID | None = None, born_run: BornRun | None = None) -> Admitted:
    """Admit a worker to a run, a new one if none is given."""
    run = born_run or (born() if run_id is None else await born_again(run_id))
    given = await ledger.admit(run, vitals(worker_id), active_here=())
    assert isinstance(given, Admitted)
    return given


async def waiting_run(*, unique_key: str | None = None) -> BornRun:
    """Enter a run into the ledger that no worker has begun."""
    run = born(unique_key=unique_key)
    async with get_async_session() as session:
        await job_run.insert_born_run(session, run)
    return run


async def born_again(run_id: UUID) -> BornRun:
    """What Redis tells of a run that the ledger knows."""
    row = await run_of(run_id)
    return BornRun(row.kind, row.queue, row.job_id, row.enqueued_at, row.request, row.unique_key)


async def run_of(run_id: UUID) -> RunRow:
    """The ledger's row of a run."""
    async with get_async_session(read_only=True) as session:
        row = await job_run.get_run(session, run_id)
    assert row is not None
    return row


async def attempts_of(run_id: UUID) -> Sequence[JobAttempt]:
    """The ended attempts of a run."""
    async with get_async_session(read_only=True) as session:
        return await run_list.list_attempts(session, run_id)


async def move_everything() -> int:
    """Move every finished run into the history; returns how many."""
    async with get_async_session() as session:
        later = await job_run.database_now(session) + timedelta(seconds=1)
        return await history.move_finished(session, finished_before=later, limit=1000)
