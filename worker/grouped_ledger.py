"""Admission and endings of many runs in one statement or transaction: what makes the ledger quick.

Whatever is out of the ordinary (a row that somebody has locked, a suspect, a unique key, a run that was there before)
goes the way of one run, in ``worker.ledger``, so that it holds up none of the others.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from uuid import UUID

from sqlalchemy.exc import StatementError

from db.errors import is_transient
from db.repositories import run_groups
from db.repositories.control import Limit
from db.repositories.job_run import BornRun
from db.run_sessions import worker_name
from worker import ledger
from worker.clock import DatabaseClock
from worker.groups import Answer, Group
from worker.ledger import SUSPECT_AFTER, Admission, Admitted, Vitals
from worker.newcomers import free_id, may_be_in_history
from worker.retries import Outcome

Ending = tuple[Admitted, Outcome]


class GroupedLedger:
    """One worker's admissions and endings.

    Args:
        vitals: this worker.
        active_here: the runs that this process is performing. A run is added with its admission, so that no second
            delivery finds it unattended; the caller takes it out.
        limits_of: which limits a run has to keep.
    """

    def __init__(
        self,
        vitals: Vitals,
        active_here: set[UUID],
        limits_of: Callable[[BornRun], Sequence[Limit]] = lambda _: (),
    ) -> None:
        self._vitals = vitals
        self._limits_of = limits_of
        self._active = active_here
        self._clock = DatabaseClock()
        self._admissions: Group[BornRun, Admission] = Group(self._admit_many)
        self._endings: Group[Ending, Outcome] = Group(self._finish_many)

    def admit(self, born: BornRun) -> Answer[Admission]:
        """As ``worker.ledger.admit``."""
        if limits := self._limits_of(born):
            return Answer.of(self._admit_singly(born, limits))
        return self._admissions.submit(born)

    def admit_alone(self, born: BornRun) -> Answer[Admission]:
        """As ``worker.ledger.admit`` for a run that has the worker for itself."""
        return Answer.of(self._admit_singly(born, self._limits_of(born), is_alone=True))

    async def drain(self) -> None:
        """Wait until everything that was handed in is answered."""
        await self._admissions.drain()
        await self._endings.drain()

    def finish(self, admitted: Admitted, outcome: Outcome) -> Answer[Outcome]:
        """As ``worker.ledger.finish``; it goes on where nobody waits for it any more."""
        if outcome.name != "succeeded":
            return Answer.of(ledger.finish(admitted, outcome))
        return self._endings.submit((admitted, outcome))

    async def _admit_many(self, borns: Sequence[BornRun]) -> Sequence[Admission | asyncio.Future[Admission]]:
        done: dict[int, Admission] = {}
        if len(borns) > 1:
            with _each_for_itself():
                done = await self._admit_ordinary(borns)
        self._active.update(one.run_id for one in done.values())
        return [
            done[at] if at in done else asyncio.create_task(self._admit_singly(born)) for at, born in enumerate(borns)
        ]

    async def _admit_singly(self, born: BornRun, limits: Sequence[Limit] = (), *, is_alone: bool = False) -> Admission:
        admission = await ledger.admit(born, self._vitals, active_here=self._active, is_alone=is_alone, limits=limits)
        if isinstance(admission, Admitted):
            self._active.add(admission.run_id)
        return admission

    async def _admit_ordinary(self, borns: Sequence[BornRun]) -> dict[int, Admission]:
        worker_id, name = self._vitals.worker_id, worker_name(self._vitals.worker_id, "admits")
        new_ids = _new_ids(borns, await self._clock.now())
        rows = await run_groups.admit(borns, new_ids, worker_id, suspect_after=SUSPECT_AFTER, name=name)
        return {at: Admitted(run_id, fence, attempts + 1) for at, (run_id, fence, attempts) in rows.items()}

    async def _finish_many(self, endings: Sequence[Ending]) -> Sequence[Outcome | asyncio.Future[Outcome]]:
        done: Collection[int] = ()
        if len(endings) > 1:
            with _each_for_itself():
                done = await self._finish_ordinary(endings)
        return [ending[1] if at in done else _finish_one(ending) for at, ending in enumerate(endings)]

    async def _finish_ordinary(self, endings: Sequence[Ending]) -> Collection[int]:
        ends = [(admitted.run_id, admitted.fence, outcome.report) for admitted, outcome in endings]
        async with run_groups.group_session(worker_name(self._vitals.worker_id, "ends")) as session:
            return await run_groups.end_succeeded(session, ends)


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


def _new_ids(borns: Sequence[BornRun], now: datetime) -> dict[int, UUID]:
    """Return the id that each gets which is surely new unless the ledger has it, by its place.

    In the order of their ids: two workers that enter the same runs wait for each other, but never both.
    """
    job_ids = [born.job_id for born in borns]
    times = Counter(born.identity for born in borns) if len(set(job_ids)) < len(job_ids) else None
    taken: set[UUID] = set()
    may_be_known = may_be_in_history(now)
    return {
        at: free_id(born, taken)
        for at in sorted(range(len(borns)), key=job_ids.__getitem__)
        if (born := borns[at]).unique_key is None
        and (times is None or times[born.identity] == 1)
        and not may_be_known(born)
    }
