"""Several connections of one run share a table on PostgreSQL and on MariaDB; on SQLite there is one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, cast
from uuid import UUID

import annotated_types
import pytest
from sqlalchemy import Table, insert, select, update
from sqlalchemy.exc import DBAPIError

from db.archive_tables import ARCHIVE_RUN_ID, ARCHIVED_AT
from db.archives.walks import Stretch, Walk, choose_rows, split_keys
from db.connection import DatabaseManager, get_async_session
from db.models import TASKS_ARCHIVE, ArchivePart, JobRunRange, Task
from db.run_sessions import MOST_SHARES, run_name, run_names
from holdfast.outbox import job_runs, utc_now
from holdfast.requests import ArchiveDeleted
from jobs.archive_deleted import archive_deleted, side_by_side
from jobs.archive_deleted.job import Archive
from jobs.context import Batch, RunContext
from jobs.outcomes import FenceLost, JobCancelled, JobFailed, RunInterrupted
from jobs.settings import JobSettings
from tests.archive.runs import archive, checksum_of_archive, context_of, count, make_tasks, rows_of
from tests.databases.engines import ON_SERVERS
from tests.databases.runs import QUEUE, admitted, heartbeat, run_of, vitals
from worker import recovery

TASKS = cast("Table", Task.__table__)
RANGES = cast("Table", JobRunRange.__table__)
LATER = datetime(2026, 1, 1, tzinfo=UTC)
pytestmark = pytest.mark.usefixtures("manager")


@pytest.fixture
def shares_at_work(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of each share whose batch was committed."""
    numbers, real = list[int](), RunContext.batch_of_range

    @asynccontextmanager
    async def noted(self: RunContext, number: int, **how: Any) -> AsyncIterator[Batch]:
        async with real(self, number, **how) as batch:
            yield batch
        numbers.append(number)

    monkeypatch.setattr(RunContext, "batch_of_range", noted)
    return numbers


@pytest.mark.parametrize("destination", ["tables", "files", "purge"])
async def test_the_sum_is_what_one_connection_would_do(
    destination: str, job_settings: JobSettings, manager: DatabaseManager, shares_at_work: list[int]
) -> None:
    await make_tasks(3000, deleted=range(0, 3000, 2))
    report = await archive(job_settings, connections=3, destination=destination, batch_target_ms=2.0)
    assert (report.moved, report.left) == ({"tasks": 1500}, {})
    assert await count(TASKS) == 1500
    assert await count(TASKS_ARCHIVE) == (1500 if destination == "tables" else 0)
    if destination == "tables":
        assert report.checksums == {"tasks": await checksum_of_archive()}
    assert await count_ranges() == 0
    assert set(shares_at_work) == (set() if manager.writers_take_turns else {0, 1, 2})


@ON_SERVERS
async def test_batches_of_a_fixed_size(job_settings: JobSettings, shares_at_work: list[int]) -> None:
    """They go by the key on PostgreSQL as well."""
    await make_tasks(2000, deleted=range(2000))
    report = await archive(job_settings, connections=4, batch_rows=60)
    assert (report.moved, report.left) == ({"tasks": 2000}, {})
    assert sorted(shares_at_work) == [0] * 9 + [1] * 9 + [2] * 9 + [3] * 9
    assert report.checksums == {"tasks": await checksum_of_archive()}


@ON_SERVERS
@pytest.mark.parametrize("fields", [{"max_rows": 70}, {"connections": 1}], ids=["limited", "one"])
async def test_what_one_connection_does(
    fields: dict[str, Any], job_settings: JobSettings, shares_at_work: list[int]
) -> None:
    await make_tasks(200, deleted=range(100))
    report = await archive(job_settings, **{"connections": 2, **fields})
    assert report.moved == {"tasks": fields.get("max_rows", 100)}
    assert shares_at_work == []


@ON_SERVERS
async def test_there_are_fewer_rows_than_connections(job_settings: JobSettings) -> None:
    await make_tasks(4, deleted=range(3))
    report = await archive(job_settings, connections=8)
    assert (report.moved, report.left, await count(TASKS)) == ({"tasks": 3}, {}, 1)


@pytest.mark.parametrize("begun", [False, True], ids=["at its begin", "in the middle"])
async def test_each_range_of_a_key_has_as_many_due_rows(begun: bool) -> None:
    """Wherever they lie: the older half of the table, say."""
    ids = await make_tasks(900, deleted=range(0, 450, 2))
    walk = Walk("keys", (str(ids[149]),) if begun else ())
    due = [key for number, key in enumerate(ids[:450]) if number % 2 == 0 and not (begun and number < 150)]
    async with get_async_session() as session:
        pieces = await split_keys(session, Stretch(TASKS, walk, LATER, len(due)), 3)
        found = []
        for piece in pieces:
            keys, behind = await choose_rows(session, Stretch(TASKS, Walk.from_json(piece.as_json()), LATER, 1000))
            assert (behind.is_over, behind.end) == (True, piece.end)
            found.append([key[0] for key in keys])
    assert [key for keys in found for key in keys] == due
    assert [len(keys) for keys in found] == [len(due) // 3] * 3


def test_the_cursor_of_a_version_that_knew_no_ranges_is_read() -> None:
    walk = Walk("keys", ("7",))
    assert Walk.from_json({name: value for name, value in walk.as_json().items() if name != "end"}) == walk


@ON_SERVERS
@pytest.mark.parametrize("destination", ["tables", "files"])
async def test_rows_that_others_have_locked_are_left_on_both_sides_of_a_bound(
    destination: str, manager: DatabaseManager, job_settings: JobSettings
) -> None:
    ids = await make_tasks(400, deleted=range(400))
    mine = [ids[number] for number in (0, 199, 200, 399)]
    async with manager.session() as session:
        await session.execute(update(Task).where(Task.id.in_(mine)).values(title="mine"))
        report = await archive(job_settings, connections=2, destination=destination)
    assert (report.moved, report.left) == ({"tasks": 396}, {"tasks": 4})
    assert set(await rows_of(TASKS)) == set(mine)
    assert (await archive(job_settings, connections=2)).moved == {"tasks": 4}


@ON_SERVERS
async def test_a_row_that_is_archived_already_ends_the_run(job_settings: JobSettings) -> None:
    ids = await make_tasks(200, deleted=range(200))
    copy = (await rows_of(TASKS))[ids[150]] | {ARCHIVED_AT: LATER, ARCHIVE_RUN_ID: UUID(int=7)}
    async with get_async_session() as session:
        await session.execute(insert(TASKS_ARCHIVE).values(copy))
    given = await admitted("ada")
    with pytest.raises(JobFailed, match="is in its archive already"):
        await archive_deleted(context_of(given, job_settings), ArchiveDeleted(connections=2, batch_rows=50))
    archived = await count(TASKS_ARCHIVE) - 1
    assert await count(TASKS) + archived == 200
    assert archived == (await run_of(given.run_id)).counters["rows"] > 0
    assert await count_ranges() == 0


@ON_SERVERS
async def test_a_run_goes_on_whose_shares_were_over_but_not_added_up(
    job_settings: JobSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its worker died in between."""
    await make_tasks(300, deleted=range(300))
    given, real = await admitted("ada"), side_by_side._add_up

    async def die(*_: object, **__: object) -> bool:
        raise RunInterrupted

    monkeypatch.setattr(side_by_side, "_add_up", die)
    with pytest.raises(RunInterrupted):
        await archive_deleted(context_of(given, job_settings), ArchiveDeleted(connections=2))
    assert (await count(TASKS), await count_ranges()) == (0, 2)
    monkeypatch.setattr(side_by_side, "_add_up", real)
    report = await archive_deleted(context_of(given, job_settings), ArchiveDeleted(connections=2))
    assert (report.moved, report.left) == ({"tasks": 300}, {})
    assert report.checksums == {"tasks": await checksum_of_archive()}
    assert await count_ranges() == 0


@ON_SERVERS
async def test_whoever_takes_a_run_over_ends_the_session_of_each_share(job_settings: JobSettings) -> None:
    """A worker that is frozen in the middle of a batch keeps the run locked by each of them."""
    given = await admitted("dead")
    await heartbeat("living")
    rows = [{"run_id": given.run_id, "number": number, "cursor": {}, "counters": {}} for number in range(MOST_SHARES)]
    async with get_async_session() as session:
        await session.execute(insert(JobRunRange), rows)
    context = context_of(given, job_settings)
    async with AsyncExitStack() as frozen:
        open_batches = [context.batch_of_range(number) for number in range(MOST_SHARES)]
        for one in open_batches:
            batch = await one.__aenter__()
            batch.counters = {"rows": 1}
            frozen.push_async_callback(_ended, one)
        async with asyncio.timeout(10):
            while await _put_back() != [given.run_id]:
                pass
    async with get_async_session() as session:
        assert [dict(row.counters) for row in await session.execute(select(RANGES))] == [{}] * MOST_SHARES
    assert (await run_of(given.run_id)).state == "waiting"


async def _put_back() -> list[UUID]:
    return await recovery.put_back_orphans(vitals("living"), QUEUE, active_here=())


async def _ended(batch: Any) -> None:
    with pytest.raises(DBAPIError):
        await batch.__aexit__(None, None, None)


def test_all_shares_have_names_that_fit() -> None:
    (most,) = [
        one.le for one in ArchiveDeleted.model_fields["connections"].metadata if isinstance(one, annotated_types.Le)
    ]
    assert most == MOST_SHARES
    names = run_names(UUID(int=7), 2**31 - 1)
    assert len(set(names)) == MOST_SHARES + 1
    assert max(map(len, names)) <= 63
    assert run_name(UUID(int=7), 1) in run_names(UUID(int=7), 1)


async def count_ranges() -> int:
    async with get_async_session() as session:
        return len((await session.execute(RANGES.select())).all())


@ON_SERVERS
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
    assert report.checksums == {"tasks": await checksum_of_archive()}


@ON_SERVERS
async def test_the_files_of_a_run_that_went_on_are_each_its_own(
    manager: DatabaseManager, job_settings: JobSettings, monkeypatch: pytest.MonkeyPatch, shares_at_work: list[int]
) -> None:
    """Also that of the second walk, for a row that was in use during the first."""
    ids = await make_tasks(400, deleted=range(400))
    given, real = await admitted("ada"), Archive._look_at_the_rest
    request = ArchiveDeleted(connections=2, destination="files", batch_rows=20)
    async with AsyncExitStack() as somebody:
        session = await somebody.enter_async_context(manager.session())
        await session.execute(update(Task).where(Task.id == ids[0]).values(title="in use"))
        stopped = context_of(given, job_settings, should_stop=lambda: len(shares_at_work) > 5)
        with pytest.raises(RunInterrupted):
            await archive_deleted(stopped, request)

        async def let_go_before(archive: Archive, table: Table) -> None:
            await somebody.aclose()
            await real(archive, table)

        monkeypatch.setattr(Archive, "_look_at_the_rest", let_go_before)
        report = await archive_deleted(context_of(given, job_settings), request)
    assert (report.moved, report.left, await count(TASKS)) == ({"tasks": 400}, {}, 0)
    async with get_async_session() as session:
        parts = (await session.execute(select(ArchivePart))).scalars().all()
    folder = job_settings.archives_dir / str(given.run_id)
    assert sum(part.rows for part in parts) == 400
    for part in parts:
        assert sha256((folder / part.file).read_bytes()).hexdigest() == part.sha256


@ON_SERVERS
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


@ON_SERVERS
async def test_a_run_that_ends_early_leaves_no_shares(
    job_settings: JobSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(side_by_side, "ROUND_S", 0.001)
    await make_tasks(3000, deleted=range(3000))
    rounds = iter([None, None])
    monkeypatch.setattr(Archive, "limit_reached", lambda self: next(rounds, "until"))
    report = await archive(job_settings, connections=2, batch_rows=50)
    assert report.ended_by == "until"
    assert 100 <= report.moved["tasks"] == 3000 - report.left["tasks"] < 3000
    assert await count(TASKS_ARCHIVE) == report.moved["tasks"]
    assert await count_ranges() == 0
