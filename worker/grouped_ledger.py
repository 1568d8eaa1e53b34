"""Admission and endings of many runs in one transaction: what makes the ledger quick.

Whatever is out of the ordinary (a row that somebody has locked, a suspect, a unique key, a run that was there before)
goes the way of one run, in ``worker.ledger``, so that it holds up none of the others.
"""

import asyncio
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from sqlalchemy.exc import StatementError
from sqlalchemy.ext.asyncio import AsyncSession

from db.connection import get_async_session
from db.errors import is_transient
from db.repositories import job_run
from db.repositories.job_run import BornRun, RunRow
from db.run_sessions import named_session, worker_name
from holdfast.states import RunState
from worker import ledger
from worker.groups import Group
from worker.ledger import SUSPECT_AFTER, Admission, Admitted, Vitals
from worker.newcomers import free_id, may_be_in_history
from worker.retries import Outcome

Ending = tuple[Admitted, Outcome]


class GroupedLedger:
    """One worker's admissions and endings.

    Args:
        vitals: this worker.
        active_here: the runs that this process is performing, kept by the caller.
    """

    def __init__(self, vitals: Vitals, active_here: Collection[UUID]) -> None:
        self._vitals = vitals
        self._active = active_here
        self._admissions: Group[BornRun, Admission] = Group(self._admit_many)
        self._endings: Group[Ending, Outcome] = Group(self._finish_many)

    async def admit(self, born: BornRun) -> Admission:
        """As ``worker.ledger.admit``."""
        return await self._admissions.submit(born)

    async def finish(self, admitted: Admitted, outcome: Outcome) -> Outcome:
        """As ``worker.ledger.finish``."""
        if outcome.name != "succeeded":
            return await ledger.finish(admitted, outcome)
        return await self._endings.submit((admitted, outcome))

    async def _admit_many(self, borns: Sequence[BornRun]) -> Sequence[Admission | asyncio.Future[Admission]]:
        done: dict[int, Admission] = {}
        if len(borns) > 1:
            with _each_for_itself():
                done = await self._admit_ordinary(borns)
        return [done[at] if at in done else self._admit_one(born) for at, born in enumerate(borns)]

    def _admit_one(self, born: BornRun) -> asyncio.Future[Admission]:
        return asyncio.create_task(ledger.admit(born, self._vitals, active_here=self._active))

    async def _admit_ordinary(self, borns: Sequence[BornRun]) -> dict[int, Admission]:
        name = worker_name(self._vitals.worker_id, "admits")
        async with get_async_session() as session, named_session(session, name):
            known = await job_run.find_known(session, borns)
            waiting = {at: run for at, born in enumerate(borns) if (run := known.get(born.identity)) is not None}
            admitted = await self._admit_waiting(session, waiting)
            fresh = {at: born for at, born in enumerate(borns) if at not in waiting and _is_surely_new(born, borns)}
            return {**admitted, **await self._admit_fresh(session, fresh, known)}

    async def _admit_waiting(self, session: AsyncSession, runs: dict[int, RunRow]) -> dict[int, Admission]:
        positions = {run.id: at for at, run in runs.items() if _is_ordinary(run)}
        if not positions:
            return {}
        locked = [run for run in await job_run.lock_free(session, list(positions)) if _is_ordinary(run)]
        await job_run.set_many_running(session, [run.id for run in locked], self._vitals.worker_id)
        return {positions[run.id]: Admitted(run.id, run.fence + 1, run.attempts + 1) for run in locked}

    async def _admit_fresh(
        self, session: AsyncSession, borns: dict[int, BornRun], known: Mapping[Any, RunRow]
    ) -> dict[int, Admission]:
        taken = {run.id for run in known.values()}
        # In the order of their ids: two workers that enter the same runs wait for each other, but never both.
        in_order = sorted(borns, key=lambda at: borns[at].job_id)
        ids = {at: free_id(borns[at], taken) for at in in_order}
        if ids:
            rows = {run_id: borns[at] for at, run_id in ids.items()}
            await job_run.insert_running(session, rows, self._vitals.worker_id)
        return {at: Admitted(run_id, 1, 1) for at, run_id in ids.items()}

    async def _finish_many(self, endings: Sequence[Ending]) -> Sequence[Outcome | asyncio.Future[Outcome]]:
        done: dict[Admitted, Outcome] = {}
        if len(endings) > 1:
            with _each_for_itself():
                done = await self._finish_ordinary(dict(endings))
        return [done[ending[0]] if ending[0] in done else _finish_one(ending) for ending in endings]

    async def _finish_ordinary(self, outcomes: Mapping[Admitted, Outcome]) -> dict[Admitted, Outcome]:
        name = worker_name(self._vitals.worker_id, "ends")
        async with get_async_session() as session, named_session(session, name):
            locked = await job_run.lock_free(session, [admitted.run_id for admitted in outcomes])
            rows = {run.id: run for run in locked}
            there = [admitted for admitted in outcomes if admitted.run_id in rows]
            ours = [admitted for admitted in there if ledger.holds_fence(rows[admitted.run_id], admitted)]
            if ours:
                reports = {admitted.run_id: outcomes[admitted].report for admitted in ours}
                await job_run.set_many_succeeded(session, reports)
                await job_run.add_attempts(session, [rows[admitted.run_id] for admitted in ours], "succeeded")
        return dict.fromkeys(there, Outcome("lost")) | {admitted: outcomes[admitted] for admitted in ours}


def _finish_one(ending: Ending) -> asyncio.Future[Outcome]:
    return asyncio.create_task(ledger.finish(*ending))


@contextmanager
def _each_for_itself() -> Iterator[None]:
    """Let one that the database refuses (its key is taken, its request cannot be stored) not hinder the others."""
    try:
        yield
    except StatementError as error:
        if is_transient(error):
            raise


def _is_ordinary(run: RunRow) -> bool:
    is_waiting = run.state == RunState.WAITING.value
    is_marked = run.unique_key is not None or run.cancel_requested_at is not None or run.crashes >= SUSPECT_AFTER
    return is_waiting and not is_marked


def _is_surely_new(born: BornRun, group: Sequence[BornRun]) -> bool:
    if born.unique_key is not None or may_be_in_history(born):
        return False
    return sum(other.identity == born.identity for other in group) == 1
