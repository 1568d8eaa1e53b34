"""Moving tasks into their archive table, and purging them."""

from datetime import UTC, datetime, timedelta
from itertools import product
from typing import cast

import pytest
from sqlalchemy import Table, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from db.archive_tables import ARCHIVED_AT, OWN_COLUMNS
from db.archives.catalog import Catalog
from db.archives.drift import find_shape
from db.archives.hashing import prepare, row_hash
from db.connection import get_async_session
from db.models import TASKS_ARCHIVE, Task
from jobs.outcomes import JobFailed
from jobs.settings import JobSettings
from tests.archive.runs import LONG_AGO, archive, checksum_of_archive, count, make_tasks, rows_of

TASKS = cast("Table", Task.__table__)
SHARES = pytest.mark.parametrize("deleted", [range(0, 700, 2), range(5, 700, 300)], ids=["dense", "sparse"])
pytestmark = pytest.mark.usefixtures("manager")


@SHARES
async def test_due_rows_move_as_they_are(deleted: range, job_settings: JobSettings) -> None:
    ids = await make_tasks(700, deleted=deleted)
    before = await rows_of(TASKS)
    report = await archive(job_settings)
    after, archived = await rows_of(TASKS), await rows_of(TASKS_ARCHIVE)
    gone = {ids[number] for number in deleted}
    assert set(archived) == gone
    assert after == {key: row for key, row in before.items() if key not in gone}
    for key, row in archived.items():
        assert {name: value for name, value in row.items() if name not in OWN_COLUMNS} == before[key]
    assert report.moved == report.due == {"tasks": len(deleted)}
    assert (report.left, report.kept, report.ended_by) == ({}, {}, "done")
    assert report.longest_batch_ms > 0


@SHARES
async def test_a_purge_keeps_nothing(deleted: range, job_settings: JobSettings) -> None:
    await make_tasks(700, deleted=deleted)
    report = await archive(job_settings, destination="purge")
    assert (await count(TASKS), await count(TASKS_ARCHIVE)) == (700 - len(deleted), 0)
    assert (report.moved, report.checksums) == ({"tasks": len(deleted)}, {})


async def test_the_checksum_can_be_computed_again_over_the_archive(job_settings: JobSettings) -> None:
    await make_tasks(300, deleted=range(300))
    report = await archive(job_settings)
    assert report.checksums == {"tasks": await checksum_of_archive()}


async def test_no_two_rows_have_the_same_hash_by_their_form(job_settings: JobSettings) -> None:
    """Texts that a separator, a quote or a NULL could shift from one column into the next."""
    del job_settings
    await make_tasks(1)
    texts = [None, "", ",", "a", "a,b", "1,a", "'a'", "NULL", "-1", "'a','b'"]
    hashes = set()
    async with get_async_session() as session:
        await prepare(session)
        types = await _types(session)
        for first, second in product(texts, texts):
            await session.execute(update(TASKS).values(created_by=first, updated_by=second))
            hashes.add((await session.execute(select(row_hash(session, TASKS.columns, types)))).scalar_one())
    assert len(hashes) == len(texts) ** 2


async def _types(session: AsyncSession) -> dict[str, str]:
    found = await find_shape(session, Catalog.of(), TASKS, archived=True)
    assert found.problems == ()
    return found.shape.types


async def test_only_what_was_deleted_before_the_limit_is_due(job_settings: JobSettings) -> None:
    now = datetime.now(UTC)
    old = await make_tasks(10, deleted=range(10), at=now - timedelta(days=91))
    await make_tasks(10, deleted=range(10), at=now - timedelta(days=89))
    assert (await archive(job_settings)).moved == {"tasks": 10}
    assert set(await rows_of(TASKS_ARCHIVE)) == set(old)
    assert (await archive(job_settings, older_than_days=88.0)).moved == {"tasks": 10}


async def test_days_of_one_table(job_settings: JobSettings) -> None:
    await make_tasks(10, deleted=range(10), at=datetime.now(UTC) - timedelta(days=10))
    settings = job_settings.model_copy(update={"archive_retention_days_by_table": {"tasks": 11.0}})
    assert (await archive(settings)).moved == {"tasks": 0}
    settings = job_settings.model_copy(update={"archive_retention_days_by_table": {"tasks": 9.0}})
    assert (await archive(settings)).moved == {"tasks": 10}


async def test_days_of_a_table_that_there_is_not_are_named_before_rows_leave_too_early(
    job_settings: JobSettings,
) -> None:
    await make_tasks(3, deleted=range(3))
    settings = job_settings.model_copy(update={"archive_retention_days_by_table": {"taskss": 100_000.0}})
    with pytest.raises(JobFailed, match=r"^ARCHIVE_RETENTION_DAYS_BY_TABLE=taskss: .* did you mean tasks\?; no row"):
        await archive(settings)
    assert await count(TASKS) == 3
    assert (await archive(settings, older_than_days=1)).moved == {"tasks": 3}


async def test_deleted_before_an_instant(job_settings: JobSettings) -> None:
    await make_tasks(70, deleted=range(70))  # seven in each second
    assert (await archive(job_settings, deleted_before=LONG_AGO + timedelta(seconds=3))).moved == {"tasks": 21}


async def test_a_run_ends_after_so_many_rows(job_settings: JobSettings) -> None:
    await make_tasks(500, deleted=range(500))
    report = await archive(job_settings, max_rows=123)
    assert (report.moved, report.left, report.ended_by) == ({"tasks": 123}, {"tasks": 377}, "max_rows")
    assert await count(TASKS_ARCHIVE) == 123


async def test_a_run_ends_at_an_instant(job_settings: JobSettings) -> None:
    await make_tasks(50, deleted=range(50))
    report = await archive(job_settings, until=datetime.now(UTC))
    assert (report.moved, report.left, report.ended_by) == ({"tasks": 0}, {"tasks": 50}, "until")


@pytest.mark.parametrize("destination", ["tables", "files", "purge"])
async def test_a_dry_run_counts_and_estimates(destination: str, job_settings: JobSettings) -> None:
    await make_tasks(300, deleted=range(0, 300, 2))
    before = await rows_of(TASKS)
    report = await archive(job_settings, dry_run=True, destination=destination)
    assert (report.moved, report.due, report.dry_run) == ({"tasks": 0}, {"tasks": 150}, True)
    assert report.estimated_s is not None
    assert await rows_of(TASKS) == before
    assert await count(TASKS_ARCHIVE) == 0
    assert not [path for path in job_settings.archives_dir.rglob("*") if path.is_file()]


async def test_a_dry_run_tries_no_more_than_the_run_may_do(job_settings: JobSettings) -> None:
    await make_tasks(1200, deleted=range(1200))
    for allowed, tried in ((None, 1000), (7, 7)):
        report = await archive(job_settings, dry_run=True, max_rows=allowed)
        assert (report.due, report.tried) == ({"tasks": 1200}, {"tasks": tried})


@pytest.mark.parametrize("dry_run", [False, True])
async def test_a_row_that_is_in_the_archive_already_is_told(dry_run: bool, job_settings: JobSettings) -> None:
    ids = await make_tasks(20, deleted=range(20))
    async with get_async_session() as session:
        marks = {ARCHIVED_AT: LONG_AGO, "archive_run_id": ids[0]}
        await session.execute(insert(TASKS_ARCHIVE).values(id=ids[7], title="of another life", **marks))
    with pytest.raises(JobFailed, match="is in its archive already; nothing of its batch was moved") as caught:
        await archive(job_settings, dry_run=dry_run)
    assert caught.value.code == "already_archived"
    assert await count(TASKS) == 20


async def test_nothing_to_do(job_settings: JobSettings) -> None:
    await make_tasks(5)
    report = await archive(job_settings)
    assert (report.moved, report.due, report.batches) == ({"tasks": 0}, {"tasks": 0}, 0)
