"""The ledger's transactions on one run: admission, the end of an attempt, cancellation.

I1 no ledgered run starts before its admission is committed; I2 Redis is told that a run is over only after its final
state is committed here; I3 admission drops a run that is over and hands out its stored end. Whatever Redis forgets,
repeats or delays, these three hold. ``worker.grouped_ledger`` does the same for many runs in one transaction.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from db.connection import get_async_session, get_reading_session
from db.in_time import in_time
from db.races import again_after_race
from db.repositories import control, job_run, live_keys, worker_heartbeat
from db.repositories.control import Limit
from db.repositories.job_run import BornRun, RunRow
from db.types import utc_now
from holdfast.states import RunState
from worker.newcomers import is_old
from worker.retries import Outcome

SUSPECT_AFTER = 2
"""After so many crashes a run is a suspect: it runs alone, and only one more crash quarantines it."""


@dataclass(slots=True)
class Admitted:
    """This worker may start the run."""

    run_id: UUID
    fence: int
    attempt: int
    """The number of the charged attempt, from 1; an interrupted or crashed one is repeated under its number."""


@dataclass(frozen=True, slots=True)
class Suspect:
    """The run has lost several workers: it is admitted only where it runs alone."""

    run_id: UUID


@dataclass(slots=True)
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


@dataclass(frozen=True, slots=True)
class Limited:
    """As many runs of its queue or kind are running as may."""

    run_id: UUID


Admission = Admitted | AlreadyOver | HeldElsewhere | Suspect | Limited


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


async def admit(
    born: BornRun,
    vitals: Vitals,
    *,
    active_here: Collection[UUID],
    is_alone: bool = False,
    limits: Sequence[Limit] = (),
) -> Admission:
    """Enter the run into the ledger if it is new, and admit this worker to it (I1, I3).

    Args:
        born: the run as Redis tells it.
        vitals: this worker.
        active_here: the runs that this process is performing right now.
        is_alone: whether the run would have the process for itself; suspects are not admitted otherwise.
        limits: those of its queue and kind.
    """

    async def transaction() -> Admission:
        async with in_time(), get_async_session() as session:
            return await _admit(session, born, vitals, active_here=active_here, is_alone=is_alone, limits=limits)

    return await again_after_race(transaction)


async def _admit(  # noqa: PLR0911 - each way out
    session: AsyncSession,
    born: BornRun,
    vitals: Vitals,
    *,
    active_here: Collection[UUID],
    is_alone: bool,
    limits: Sequence[Limit],
) -> Admission:
    run = await find_or_enter(session, born)
    if RunState(run.state).is_over:
        return over(run)
    crashes: int = run.crashes
    if run.state == RunState.RUNNING.value:
        if (hindrance := await _take_over(session, run, vitals, active_here)) is not None:
            return hindrance
        crashes += run.worker_id != vitals.worker_id
        await job_run.set_waiting(session, run.id, "interrupted")
    if run.cancel_requested_at is not None:
        return await end_cancelled(session, run)
    if run.unique_key is not None and (holder := await live_keys.take_live_key(session, run)) is not None:
        return await end_duplicate(session, run, holder)
    if crashes >= SUSPECT_AFTER and not is_alone:
        await job_run.set_waiting(session, run.id, "suspect")
        return Suspect(run.id)
    if await control.is_full(session, limits):
        await job_run.set_waiting(session, run.id, "limited")
        return Limited(run.id)
    fence = await job_run.set_running(session, run, vitals.worker_id)
    return Admitted(run.id, fence, run.attempts + 1)


async def _take_over(
    session: AsyncSession, run: RunRow, vitals: Vitals, active_here: Collection[UUID]
) -> HeldElsewhere | AlreadyOver | None:
    """Take a locked running run from its worker if nobody performs it; return what stands in the way."""
    if run.id in active_here:
        return HeldElsewhere(run.id, run.worker_id)
    if run.worker_id == vitals.worker_id:
        # This worker was admitted and did not hear of it, or gave up recording the end: nobody has crashed.
        await job_run.add_attempt(session, run, "interrupted")
        return None
    if run.worker_id in await vitals.living(session):
        return HeldElsewhere(run.id, run.worker_id)
    return await charge_crash(session, run)


async def find_or_enter(session: AsyncSession, born: BornRun) -> RunRow:
    """Return the locked row of a run that Redis tells of, made now if it is new, or its row in the history."""
    run = await job_run.find_born_run(session, born)
    if run is None and is_old(born.enqueued_at, await job_run.database_now(session)):
        run = await job_run.find_in_history(session, born)
    if run is None:
        run_id = await job_run.insert_born_run(session, born)
        run = await job_run.get_run(session, run_id, lock=True)
        assert run is not None  # noqa: S101 - inserted one statement before
    return run


async def enter(born: BornRun, reason: str) -> None:
    """Make sure that the ledger has a run that may not start yet, with the reason."""

    async def transaction() -> None:
        async with in_time(), get_async_session() as session:
            run = await find_or_enter(session, born)
            await job_run.set_reason(session, run.id, reason)

    await again_after_race(transaction)


async def refuse(born: BornRun, error: dict[str, Any]) -> AlreadyOver | HeldElsewhere:
    """End a run whose request this worker cannot read; it is entered first if it is new.

    Returns:
        Its end: this one, or the stored one of a run that was over already (I3). A run that another worker, with
        another version of the request, is performing goes on.
    """
    return await again_after_race(lambda: _end_unstarted(born, RunState.FAILED, error))


async def cancel(born: BornRun) -> AlreadyOver | HeldElsewhere:
    """End a run as cancelled before it starts; a running one only learns that it is wanted no more."""
    return await again_after_race(lambda: _end_unstarted(born, RunState.CANCELLED, CANCELLED))


CANCELLED = {"type": "cancelled", "message": "cancelled before it started", "state": RunState.CANCELLED.value}


async def _end_unstarted(born: BornRun, state: RunState, error: dict[str, Any]) -> AlreadyOver | HeldElsewhere:
    async with in_time(), get_async_session() as session:
        run = await find_or_enter(session, born)
        if RunState(run.state).is_over:
            return over(run)
        if run.state == RunState.RUNNING.value:
            if state is RunState.CANCELLED:
                await job_run.request_cancel(session, [run.id])
            return HeldElsewhere(run.id, run.worker_id)
        await job_run.end_waiting(session, run.id, state, error=error)
    return AlreadyOver(run.id, state, None, error)


async def end_cancelled(session: AsyncSession, run: RunRow) -> AlreadyOver:
    """End a locked waiting run whose cancellation was asked for."""
    await job_run.end_waiting(session, run.id, RunState.CANCELLED, error=CANCELLED)
    return AlreadyOver(run.id, RunState.CANCELLED, None, CANCELLED)


async def end_duplicate(session: AsyncSession, run: RunRow, holder: UUID) -> AlreadyOver:
    """End a locked waiting run for which another one stands."""
    error = {
        "type": "duplicate",
        "message": f"run {holder} with the same unique key is live and stands for it",
        "state": RunState.CANCELLED.value,
        "duplicate_of": str(holder),
    }
    await job_run.end_waiting(session, run.id, RunState.CANCELLED, reason="duplicate", duplicate_of=holder, error=error)
    return AlreadyOver(run.id, RunState.CANCELLED, None, error)


async def finish(admitted: Admitted, outcome: Outcome) -> Outcome:
    """Commit how an attempt ended (before Redis hears of it: I2).

    Returns:
        The outcome, or ``lost`` when the fence was overtaken; nothing is changed then.
    """
    async with in_time(), get_async_session() as session:
        run = await job_run.lock_by_fence(session, admitted.run_id, admitted.fence)
        if run is None or not job_run.holds_fence(run, admitted.fence):
            return Outcome("lost")
        await job_run.add_attempt(session, run, outcome.name, outcome.error)
        state, values = _next_state(run, outcome)
        if state is RunState.WAITING:
            values["due_at"] = await job_run.database_now(session) + timedelta(seconds=outcome.delay_s)
        else:
            values |= {"finished_at": utc_now(), "live_key": None}
        await job_run.leave_running(session, run.id, run.fence, state, **values)
    return outcome


def _next_state(run: RunRow, outcome: Outcome) -> tuple[RunState, dict[str, Any]]:
    if outcome.name == "succeeded":
        return RunState.SUCCEEDED, {"report": outcome.report}
    if outcome.name == "failed":
        return RunState.FAILED, {"error": outcome.error, "attempts": run.attempts + 1}
    if outcome.name == "cancelled":
        return RunState.CANCELLED, {"error": outcome.error}
    if outcome.name == "retry":
        return RunState.WAITING, {"reason": "retry", "error": outcome.error, "attempts": run.attempts + 1}
    return RunState.WAITING, {"reason": outcome.name}


async def find_end(run_id: UUID) -> AlreadyOver | None:
    """Return a run's stored end (I3); None when it is not over."""
    async with in_time(), get_reading_session() as session:
        run = await job_run.get_run(session, run_id)
    return None if run is None or not RunState(run.state).is_over else over(run)


def over(run: RunRow) -> AlreadyOver:
    """Return the stored end of a run that is over."""
    return AlreadyOver(run.id, RunState(run.state), run.report, run.error)


async def charge_crash(session: AsyncSession, run: RunRow) -> AlreadyOver | None:
    """Note that a locked running run lost its worker, which costs no attempt.

    Returns:
        Its end, if it ran alone as a suspect and so is the one to blame: it is quarantined.
    """
    died = {"type": "WorkerDied", "message": f"worker {run.worker_id} ended without a word"}
    await job_run.add_attempt(session, run, "crashed", died)
    await job_run.count_crash(session, run)
    if run.crashes < SUSPECT_AFTER:
        return None
    message = f"it ran alone and worker {run.worker_id} died, as {run.crashes} did before; look before replaying"
    verdict = {"type": "quarantined", "message": message}
    await job_run.leave_running(
        session, run.id, run.fence, RunState.QUARANTINED, error=verdict, finished_at=utc_now(), live_key=None
    )
    return AlreadyOver(run.id, RunState.QUARANTINED, None, verdict)
