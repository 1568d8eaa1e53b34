"""The ledger's transactions: admission, the end of an attempt, putting back what dead workers left.

I1 no ledgered run starts before its admission is committed; I2 Redis is told that a run is over only after its final
state is committed here; I3 admission drops a run that is over and hands out its stored end. Whatever Redis forgets,
repeats or delays, these three hold.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from db.connection import get_async_session
from db.repositories import job_run, worker_heartbeat
from db.repositories.job_run import BornRun, RunRow
from db.run_sessions import end_session, named_session
from db.types import utc_now
from holdfast.states import RunState
from worker.retries import Outcome


@dataclass(frozen=True, slots=True)
class Admitted:
    """This worker may start the run."""

    run_id: UUID
    fence: int
    attempt: int
    """The number of the charged attempt, from 1; an interrupted or crashed one is repeated under its number."""


@dataclass(frozen=True, slots=True)
class AlreadyOver:
    """The run is over: its stored end is to be sent again."""

    run_id: UUID
    state: RunState
    report: dict[str, Any] | None
    error: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class HeldElsewhere:
    """A living worker has the run."""

    run_id: UUID
    worker_id: str


Admission = Admitted | AlreadyOver | HeldElsewhere


@dataclass(frozen=True, slots=True)
class Vitals:
    """Who this worker is and how it tells the living from the dead."""

    worker_id: str
    queue_home: str
    queue_is_exclusive: bool
    """Whether this worker holds its queue alone (embedded), so that every other one there is dead at once."""
    heartbeat_timeout_s: float

    async def living(self, session: AsyncSession) -> set[str]:
        """Return the ids of the living workers, this one included."""
        alive = await worker_heartbeat.live_workers(session, timeout_s=self.heartbeat_timeout_s)
        if self.queue_is_exclusive:
            alive -= await worker_heartbeat.workers_at(session, self.queue_home)
        return alive | {self.worker_id}


async def admit(born: BornRun, vitals: Vitals, *, active_here: Collection[UUID]) -> Admission:
    """Enter the run into the ledger if it is new, and admit this worker to it (I1, I3).

    Args:
        born: the run as Redis tells it.
        vitals: this worker.
        active_here: the runs that this process is performing right now.
    """
    try:
        return await _admit(born, vitals, active_here)
    except IntegrityError:  # another worker entered it at the same moment
        return await _admit(born, vitals, active_here)


async def _admit(born: BornRun, vitals: Vitals, active_here: Collection[UUID]) -> Admission:
    async with get_async_session() as session:
        run = await job_run.find_born_run(session, born)
        if run is None:
            run_id = await job_run.insert_born_run(session, born)
            run = await job_run.get_run(session, run_id, lock=True)
            assert run is not None  # noqa: S101 - inserted one statement before
        state = RunState(run.state)
        if state.is_over:
            return AlreadyOver(run.id, state, run.report, run.error)
        if state is RunState.RUNNING:
            if run.id in active_here or (
                run.worker_id != vitals.worker_id and run.worker_id in await vitals.living(session)
            ):
                return HeldElsewhere(run.id, run.worker_id)
            await _charge_crash(session, run)
        fence = await job_run.set_running(session, run, vitals.worker_id)
        return Admitted(run.id, fence, run.attempts + 1)


async def refuse(born: BornRun, error: dict[str, Any]) -> AlreadyOver | HeldElsewhere:
    """End a run whose request this worker cannot read; it is entered first if it is new.

    Returns:
        Its end: this one, or the stored one of a run that was over already (I3). A run that another worker, with
        another version of the request, is performing goes on.
    """
    try:
        return await _refuse(born, error)
    except IntegrityError:  # another worker entered it at the same moment
        return await _refuse(born, error)


async def _refuse(born: BornRun, error: dict[str, Any]) -> AlreadyOver | HeldElsewhere:
    async with get_async_session() as session:
        run = await job_run.find_born_run(session, born)
        run_id = run.id if run is not None else await job_run.insert_born_run(session, born)
        if run is not None and RunState(run.state).is_over:
            return AlreadyOver(run_id, RunState(run.state), run.report, run.error)
        if run is not None and run.state == RunState.RUNNING.value:
            return HeldElsewhere(run_id, run.worker_id)
        await job_run.fail_waiting(session, run_id, error)
    return AlreadyOver(run_id, RunState.FAILED, None, error)


async def finish(admitted: Admitted, outcome: Outcome) -> Outcome:
    """Commit how an attempt ended (before Redis hears of it: I2).

    Returns:
        The outcome, or ``lost`` when the fence was overtaken; nothing is changed then.
    """
    async with get_async_session() as session, named_session(session, admitted.run_id, admitted.fence):
        run = await job_run.get_run(session, admitted.run_id, lock=True)
        if run is None or run.fence != admitted.fence or run.state != RunState.RUNNING.value:
            return Outcome("lost")
        await job_run.add_attempt(session, run, outcome.name, outcome.error)
        state, values = _next_state(run, outcome)
        if outcome.name == "retry":
            now = await job_run.database_now(session)
            values["due_at"] = now + timedelta(seconds=outcome.delay_s)
        await job_run.leave_running(session, run.id, run.fence, state, **values)
    return outcome


def _next_state(run: RunRow, outcome: Outcome) -> tuple[RunState, dict[str, Any]]:
    if outcome.name == "succeeded":
        return RunState.SUCCEEDED, {"report": outcome.report, "finished_at": utc_now()}
    if outcome.name == "failed":
        return RunState.FAILED, {"error": outcome.error, "attempts": run.attempts + 1, "finished_at": utc_now()}
    if outcome.name == "retry":
        return RunState.WAITING, {"reason": "retry", "error": outcome.error, "attempts": run.attempts + 1}
    return RunState.WAITING, {"reason": "interrupted", "due_at": utc_now()}


async def find_end(run_id: UUID) -> AlreadyOver | None:
    """Return a run's stored end (I3); None when it is not over."""
    async with get_async_session(read_only=True) as session:
        run = await job_run.get_run(session, run_id)
    if run is None or not RunState(run.state).is_over:
        return None
    return AlreadyOver(run.id, RunState(run.state), run.report, run.error)


async def put_back_orphans(vitals: Vitals, queue: str, *, active_here: Collection[UUID]) -> list[UUID]:
    """Put running rows whose worker is dead back to waiting; no attempt is charged.

    Returns:
        Their ids. They are not in Redis yet: dispatch takes them there.
    """
    put_back = []
    async with get_async_session(read_only=True) as session:
        living = await vitals.living(session)
        # A run of this very process that nobody performs: its admission was committed but not heard of. For a moment
        # that is so for every run, hence the wait.
        unheard = await job_run.database_now(session) - timedelta(seconds=vitals.heartbeat_timeout_s)
        candidates = [
            run
            for run in await job_run.running_runs(session, queue)
            if run.worker_id not in living
            or (run.worker_id == vitals.worker_id and run.id not in active_here and run.started_at < unheard)
        ]
    for candidate in candidates:
        async with get_async_session() as session:  # a worker that is frozen, not dead, would keep its row locked
            await end_session(session, candidate.id, candidate.fence)
        async with get_async_session() as session:
            run = await job_run.get_run(session, candidate.id, lock=True)
            if run is None or run.state != RunState.RUNNING.value or run.id in active_here:
                continue
            if run.worker_id in await vitals.living(session) - {vitals.worker_id}:
                continue
            await _charge_crash(session, run)
            values = {"reason": "crashed", "due_at": utc_now(), "dispatched_at": None}
            await job_run.leave_running(session, run.id, run.fence, RunState.WAITING, **values)
            put_back.append(run.id)
    return put_back


async def _charge_crash(session: AsyncSession, run: RunRow) -> None:
    error = {"type": "WorkerDied", "message": f"worker {run.worker_id} ended without a word"}
    await job_run.add_attempt(session, run, "crashed", error)
    await job_run.count_crash(session, run)
