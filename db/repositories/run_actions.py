"""What operators do to single runs."""

from collections.abc import Awaitable, Callable, Sequence
from uuid import UUID

from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from db.models import NEXT_STATES
from db.repositories import job_run
from db.repositories.history import COLUMNS
from db.repositories.job_run import RunRow
from db.types import utc_now
from holdfast.outbox import LIVE, job_runs, job_runs_history
from holdfast.states import RunState

Action = Callable[[AsyncSession, UUID], Awaitable[RunState | None]]


async def cancel(session: AsyncSession, run_id: UUID) -> RunState | None:
    """Cancel a run.

    Returns:
        Its state now: cancelled where it waited, running where its worker was asked; None where there is no live run.
    """
    run = await job_run.get_run(session, run_id, lock=True)
    if run is None or RunState(run.state).is_over:
        return None
    if run.state == RunState.RUNNING.value:
        await job_run.request_cancel(session, [run_id])
        return RunState.RUNNING
    error = {"type": "cancelled", "message": "cancelled before it started", "state": RunState.CANCELLED.value}
    await job_run.end_waiting(session, run_id, RunState.CANCELLED, error=error)
    return RunState.CANCELLED


async def uncancelled(reader: AsyncConnection, queue: str, job_ids: Sequence[str]) -> Sequence[RunRow]:
    """Return those live runs of these job ids that have neither ended nor been asked to."""
    unasked = (job_runs.c.state == RunState.WAITING.value) | job_runs.c.cancel_requested_at.is_(None)
    query = select(job_runs).where(LIVE, job_runs.c.queue == queue, job_runs.c.job_id.in_(job_ids), unasked)
    return (await reader.execute(query.order_by(job_runs.c.id))).all()


async def replay(session: AsyncSession, run_id: UUID) -> RunState | None:
    """Make a failed or quarantined run wait again, wherever it is; it goes on from its cursor.

    Returns:
        Its state now; None where there is no such run.
    """
    await _bring_back(session, run_id)
    run = await job_run.get_run(session, run_id, lock=True)
    if run is None or RunState.WAITING not in NEXT_STATES[RunState(run.state)] or not RunState(run.state).is_over:
        return None
    values = {
        "state": RunState.WAITING.value,
        "reason": "replayed",
        "attempts": 0,
        "crashes": 0,
        "error": None,
        "finished_at": None,
        "dispatched_at": None,
        "cancel_requested_at": None,
        "due_at": utc_now(),
    }
    await session.execute(update(job_runs).where(job_runs.c.id == run_id).values(values))
    return RunState.WAITING


async def _bring_back(session: AsyncSession, run_id: UUID) -> None:
    moved = select(*(job_runs_history.c[name] for name in COLUMNS)).where(job_runs_history.c.id == run_id)
    # Locked, so that of two replays at once the second finds the run where the first one has put it.
    if (await session.execute(moved.with_for_update())).first() is not None:
        await session.execute(insert(job_runs).from_select(COLUMNS, moved))
        await session.execute(delete(job_runs_history).where(job_runs_history.c.id == run_id))
