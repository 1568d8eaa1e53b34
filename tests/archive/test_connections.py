"""Several connections of one run share a table's pages on PostgreSQL; elsewhere there is one."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import cast

import pytest
from sqlalchemy import Table, update

from db.connection import get_async_session
from db.models import TASKS_ARCHIVE, JobRunRange, Task
from holdfast.outbox import job_runs, utc_now
from holdfast.requests import ArchiveDeleted
from jobs.archive_deleted import archive_deleted, side_by_side
from jobs.outcomes import FenceLost, JobCancelled, RunInterrupted
from jobs.settings import JobSettings
from tests.archive.runs import archive, context_of, count, make_tasks
from tests.databases.engines import ON_POSTGRESQL
from tests.databases.runs import admitted, run_of

TASKS = cast("Table", Task.__table__)
RANGES = cast("Table", JobRunRange.__table__)
pytestmark = pytest.mark.usefixtures("manager")


@pytest.mark.parametrize("destination", ["tables", "files", "purge"])
async def test_the_sum_is_what_one_connection_would_do(destination: str, job_settings: JobSettings) -> None:
    await make_tasks(3000, deleted=range(0, 3000, 2))
    report = await archive(job_settings, connections=3, destination=destination, batch_target_ms=2.0)
    assert (report.moved, report.left) == ({"tasks": 1500}, {})
    assert await count(TASKS) == 1500
    assert await count(TASKS_ARCHIVE) == (1500 if destination == "tables" else 0)
    assert await count_ranges() == 0


async def count_ranges() -> int:
    async with get_async_session() as session:
        return len((await session.execute(RANGES.select())).all())


@ON_POSTGRESQL
async def test_a_stopped_run_goes_on_in_each_share(job_settings: JobSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(side_by_side, "ROUND_S", 0.01)
    await make_tasks(5000, deleted=range(5000))
    given = await admitted("ada")
    request, stopping = ArchiveDeleted(connections=2, batch_target_ms=1.0), asyncio.Event()
    context = context_of(given, job_settings, should_stop=stopping.is_set)
    working = asyncio.create_task(archive_deleted(context, request))
    while not await count(TASKS_ARCHIVE):  # noqa: ASYNC110 - another connection makes it
        await asyncio.sleep(0.001)
    stopping.set()
    with pytest.raises(RunInterrupted):
        await working
    assert 0 < await count(TASKS_ARCHIVE) < 5000
    assert await count_ranges() == 2
    report = await archive_deleted(context_of(given, job_settings), request)
    assert (report.moved, report.left) == ({"tasks": 5000}, {})
    assert (await count(TASKS), await count(TASKS_ARCHIVE), await count_ranges()) == (0, 5000, 0)
    assert report.checksums.keys() == {"tasks"}


@ON_POSTGRESQL
@pytest.mark.parametrize(
    ("values", "error"),
    [({"cancel_requested_at": utc_now()}, JobCancelled), ({"fence": 7}, FenceLost)],
    ids=["cancelled", "overtaken"],
)
async def test_whoever_wants_the_run_gets_it_between_two_rounds(
    values: dict[str, object],
    error: type[Exception],
    job_settings: JobSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(side_by_side, "ROUND_S", 0.05)
    await make_tasks(4000, deleted=range(4000))
    given = await admitted("ada")
    request = ArchiveDeleted(connections=2, batch_target_ms=1.0)
    working = asyncio.create_task(archive_deleted(context_of(given, job_settings), request))
    while not (await run_of(given.run_id)).counters:  # noqa: ASYNC110 - another connection makes it
        await asyncio.sleep(0.005)
    async with get_async_session() as session:
        await session.execute(update(job_runs).where(job_runs.c.id == given.run_id).values(**values))
    with pytest.raises(error):
        await working
    assert await count(TASKS) + await count(TASKS_ARCHIVE) == 4000
    assert await count(TASKS) > 0


@ON_POSTGRESQL
async def test_a_run_that_ends_early_leaves_no_shares(
    job_settings: JobSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(side_by_side, "ROUND_S", 0.001)
    await make_tasks(3000, deleted=range(3000))
    until = datetime.now(UTC) + timedelta(seconds=0.3)
    report = await archive(job_settings, connections=2, batch_target_ms=1.0, until=until)
    assert report.moved["tasks"] + report.left.get("tasks", 0) == 3000
    assert await count(TASKS_ARCHIVE) == report.moved["tasks"]
    assert await count_ranges() == 0
