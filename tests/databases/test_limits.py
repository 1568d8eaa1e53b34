"""Limits hold however many runs begin at the same moment, in however many workers."""

import asyncio

import pytest

from db.connection import get_async_session
from db.repositories import control, job_run
from db.repositories.control import Limit
from tests.databases.runs import born, vitals, waiting_run
from worker import ledger
from worker.grouped_ledger import GroupedLedger
from worker.ledger import Admission, Admitted, Limited
from worker.retries import Outcome

pytestmark = pytest.mark.usefixtures("manager")

LIMIT: Limit = ("kind", "import_tasks", 3)


async def begin(count: int, *worker_ids: str) -> list[Admission]:
    workers = [GroupedLedger(vitals(name), set(), lambda _: (LIMIT,)) for name in worker_ids]
    runs = [await waiting_run() if number % 2 else born() for number in range(count)]
    return await asyncio.gather(*(workers[at % len(workers)].admit(run) for at, run in enumerate(runs)))


async def test_as_many_begin_as_may_and_the_others_wait() -> None:
    async with get_async_session() as session:
        await control.set_limit(session, *LIMIT[:2], LIMIT[2])
    answers = await begin(8, "ada", "bob")
    begun = [answer for answer in answers if isinstance(answer, Admitted)]
    kept_back = [answer for answer in answers if isinstance(answer, Limited)]
    assert (len(begun), len(kept_back)) == (3, 5)
    async with get_async_session(read_only=True) as session:
        runs = [await job_run.get_run(session, one.run_id) for one in kept_back]
    assert {(run.state, run.reason) for run in runs if run is not None} == {("waiting", "limited")}

    await ledger.finish(begun[0], Outcome("succeeded", report={}))
    assert sum(isinstance(answer, Admitted) for answer in await begin(4, "ada", "bob")) == 1
