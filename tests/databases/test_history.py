"""Finished runs: into the history, found there, and out of it; the months' partitions on PostgreSQL."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from sqlalchemy import func, insert, select, text

from db.connection import DatabaseManager, get_async_session
from db.models import ImportReject, JobAttempt, JobRunRange
from db.repositories import history, job_run, run_list
from db.repositories.run_list import RunFilter
from db.settings import DatabaseSettings
from holdfast.ids import uuid7
from holdfast.outbox import job_runs_history
from holdfast.states import RunState
from tests.databases.runs import admitted, attempts_of, born, move_everything, run_of, waiting_run
from tests.databases.statements import statements
from worker import history_upkeep, ledger
from worker.clock import DatabaseClock
from worker.retries import Outcome
from worker.settings import Settings

pytestmark = pytest.mark.usefixtures("manager")

NOW = datetime(2026, 3, 31, 23, 0, tzinfo=UTC)
DONE = Outcome("succeeded", report={"rows_read": 1})
FAILED = Outcome("failed", error={"type": "E", "message": "m"})


async def ended(outcome: Outcome = DONE) -> UUID:
    given = await admitted("ada")
    await ledger.finish(given, outcome)
    return given.run_id


def id_at(instant: datetime) -> UUID:
    """A UUIDv7 of an instant."""
    return UUID(int=history.first_id_of(instant).int | uuid7().int & (1 << 80) - 1)


async def past(instant: datetime, *, state: str = "succeeded", kind: str = "import_tasks") -> UUID:
    """A run of the history that was enqueued at an instant."""
    run_id = id_at(instant)
    values = {"id": run_id, "kind": kind, "queue": "q", "job_id": str(run_id), "state": state}
    times = {"enqueued_at": instant, "due_at": instant}
    request = {"request": {"source": f"/{state}.csv"}}
    async with get_async_session() as session:
        await session.execute(insert(job_runs_history).values(**values, **times, **request))
    return run_id


async def test_finished_runs_move_and_are_found_as_before() -> None:
    over = [await ended(), await ended(FAILED)]
    before = [await run_of(run_id) for run_id in over]
    waiting, running = UUID((await waiting_run()).job_id), (await admitted("ada")).run_id
    async with get_async_session() as session:
        early = await job_run.database_now(session) - timedelta(minutes=1)
        assert await history.move_finished(session, finished_before=early, limit=10) == 0
    assert await move_everything() == 2
    assert await move_everything() == 0
    async with get_async_session(read_only=True) as session:
        assert [await job_run.get_run(session, run_id) for run_id in over] == [None, None]
        for run in before:
            found = await run_list.find_run(session, run.id)
            assert found is not None
            assert all(getattr(found, name) == getattr(run, name) for name in history.COLUMNS)
        assert await run_list.find_run(session, uuid7()) is None
        listed = await run_list.list_runs(session, RunFilter())
        assert [run.id for run in listed] == sorted([*over, waiting, running], reverse=True)
        pages = [await run_list.list_runs(session, RunFilter(), limit=3)]
        pages.append(await run_list.list_runs(session, RunFilter(), before=pages[0][-1].id, limit=3))
        assert [run.id for page in pages for run in page] == [run.id for run in listed]
        for run_filter, count in (
            (RunFilter(), 4),
            (RunFilter(state="failed"), 1),
            (RunFilter(kind="import_tasks", queue="arq:queue"), 4),
            (RunFilter(queue="other"), 0),
            (RunFilter(since=datetime.now(UTC) + timedelta(hours=1)), 0),
            (RunFilter(until=datetime.now(UTC) + timedelta(hours=1)), 4),
        ):
            assert await run_list.count_runs(session, run_filter) == count
            assert len(await run_list.list_runs(session, run_filter)) == count
    assert len(await attempts_of(over[0])) == 1


async def test_workers_that_move_at_once_move_each_run_once() -> None:
    for _ in range(20):
        await ended()
    assert sum(await asyncio.gather(*(move_everything() for _ in range(3)))) == 20
    async with get_async_session(read_only=True) as session:
        assert await run_list.count_runs(session, RunFilter(state="succeeded")) == 20


async def test_pruning_by_kind_state_and_age() -> None:
    old, young = NOW - timedelta(days=40), NOW - timedelta(days=20)
    gone = [await past(old), await past(old)]
    kept = [await past(young), await past(old, state="failed"), await past(old, kind="other")]
    async with get_async_session() as session:
        assert sorted(await history.kinds_in_history(session)) == ["import_tasks", "other"]
    older_than = NOW - timedelta(days=30)
    assert await prune(kind="import_tasks", older_than=older_than, limit=1) == 1
    assert await prune(kind="import_tasks", older_than=older_than) == 1
    assert await prune(kind="import_tasks", older_than=older_than) == 0
    async with get_async_session(read_only=True) as session:
        found = [await run_list.find_run(session, run_id) for run_id in (*gone, *kept)]
        assert [run is None for run in found] == [True, True, False, False, False]
    assert await prune(older_than=NOW) == 2


async def prune(*, older_than: datetime, kind: str | None = None, state: str = "succeeded", limit: int = 9) -> int:
    """Delete from the history as a worker does; returns how many runs."""
    async with get_async_session() as session:
        run_ids = await history.prunable(session, kind=kind, state=state, older_than=older_than, limit=limit)
        await history.delete_runs(session, run_ids)
    return len(run_ids)


async def reject(run_id: UUID, lines: Sequence[int]) -> None:
    common = {"run_id": run_id, "column": None, "code": "wrong", "reason": "r", "raw": "x"}
    async with get_async_session() as session:
        await session.execute(insert(ImportReject), [{**common, "line": line} for line in lines])


async def count(model: type[ImportReject | JobAttempt | JobRunRange], run_id: UUID) -> int:
    query = select(func.count()).select_from(model).where(model.run_id == run_id)
    async with get_async_session(read_only=True) as session:
        return (await session.execute(query)).scalar_one()


async def test_rejected_rows_go_in_pages() -> None:
    one, other, kept = sorted([uuid7(), uuid7(), uuid7()])
    for run_id in (one, other, kept):
        await reject(run_id, range(1, 6))
    deleted, left = list[int](), list[tuple[int, int]]()
    while not deleted or deleted[-1] == 3:
        async with get_async_session() as session:
            deleted.append(await history.delete_rejects(session, [one, other], limit=3))
        left.append((await count(ImportReject, one), await count(ImportReject, other)))
    assert deleted == [3, 3, 3, 1]
    assert left == [(2, 5), (0, 4), (0, 1), (0, 0)]
    assert await count(ImportReject, kept) == 5


async def test_a_worker_prunes_runs_with_their_attempts_rejected_rows_and_shares(
    settings: DatabaseSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history_upkeep, "REJECTS_AT_ONCE", 2)
    monkeypatch.setattr(history_upkeep, "MOVED_AT_ONCE", 2)
    gone, kept = [await ended() for _ in range(3)], await ended(FAILED)
    await move_everything()
    for run_id in (*gone, kept):
        await reject(run_id, range(1, 6))
        async with get_async_session() as session:
            session.add(JobRunRange(run_id=run_id, number=0, cursor={}, counters={}))
    days = {"history_keep_succeeded_days": 1e-9, "history_keep_failed_days": 1.0}
    worker_settings = Settings.model_validate({**settings.model_dump(), **days})
    await asyncio.sleep(0.002)  # older than the millisecond in which the last one was enqueued
    await history_upkeep.HistoryUpkeep(worker_settings, DatabaseClock()).prune_history()
    for model, of_one in ((ImportReject, 5), (JobAttempt, 1), (JobRunRange, 1)):
        assert [await count(model, run_id) for run_id in (*gone, kept)] == [0, 0, 0, of_one]
    async with get_async_session(read_only=True) as session:
        assert [await run_list.find_run(session, run_id) for run_id in gone] == [None] * 3
        assert await run_list.find_run(session, kept) is not None


async def test_the_files_of_runs_that_may_be_replayed_are_needed() -> None:
    await past(NOW, state="failed")
    await past(NOW, state="quarantined")
    await past(NOW)
    await waiting_run()
    async with get_async_session(read_only=True) as session:
        needed = await run_list.live_sources(session, "import_tasks")
    assert needed == {"/failed.csv", "/quarantined.csv", "/imports/tasks.csv"}


async def test_a_moved_run_is_not_admitted_again() -> None:
    run = born(at=datetime.now(UTC) - timedelta(hours=1))
    given = await admitted("ada", born_run=run)
    await ledger.finish(given, DONE)
    await move_everything()
    end = ledger.AlreadyOver(given.run_id, RunState.SUCCEEDED, DONE.report, None)
    for answer in (ledger.admit(run, ledger.Vitals("bob", "q", False, 15.0), active_here=()), ledger.cancel(run)):
        assert await answer == end
    assert await ledger.refuse(run, {"type": "invalid_request", "message": "m"}) == end


async def partitions() -> set[str]:
    query = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'job_runs_history'::regclass"
    async with get_async_session(read_only=True) as session:
        return {name.removeprefix("job_runs_history_") for name in (await session.execute(text(query))).scalars()}


async def make_partitions(now: datetime = NOW) -> None:
    async with get_async_session(single=True) as session:
        await history.make_partitions(session, now=now)


async def drop_partitions(before: datetime) -> None:
    async with get_async_session(single=True) as session:
        await history.drop_empty_partitions(session, before=before)


async def test_partitions_come_and_go_by_the_month(manager: DatabaseManager) -> None:
    if manager.engine.dialect.name != "postgresql":
        await make_partitions()
        await drop_partitions(NOW)
        return
    early = await past(datetime(2026, 4, 1, tzinfo=UTC))  # its producer's clock is ahead: no partition yet
    assert await partitions() == {"default"}
    await asyncio.gather(*(make_partitions() for _ in range(3)))
    assert await partitions() == {"default", "y2026m03", "y2026m04", "y2026m05"}
    march = await past(NOW)
    async with get_async_session(read_only=True) as session:
        for run_id, name in ((early, "y2026m04"), (march, "y2026m03")):
            assert await run_list.find_run(session, run_id) is not None
            found = await session.execute(text(f"SELECT id FROM job_runs_history_{name}"))
            assert found.scalars().all() == [run_id]
    for _ in range(2):
        await drop_partitions(datetime(2026, 6, 30, tzinfo=UTC))
        assert await partitions() == {"default", "y2026m03", "y2026m04"}
    assert await prune(older_than=NOW + timedelta(2)) == 2
    await asyncio.gather(*(drop_partitions(datetime(2026, 4, 1, tzinfo=UTC)) for _ in range(2)))
    assert await partitions() == {"default", "y2026m04"}
    await make_partitions()
    assert await partitions() == {"default", "y2026m03", "y2026m04", "y2026m05"}
    await drop_partitions(datetime(2027, 1, 1, tzinfo=UTC))
    assert await partitions() == {"default"}


@pytest.mark.parametrize("settings", ["postgresql"], indirect=True)
async def test_what_locks_the_whole_history_is_one_statement(manager: DatabaseManager) -> None:
    """A worker that is frozen in a transaction of several would keep everybody from the history while it is frozen."""
    with statements(manager, all_of_them=True) as sent:
        await make_partitions()
        await drop_partitions(datetime(2027, 1, 1, tzinfo=UTC))
    changes = [statement for statement in sent if not statement.startswith("SELECT")]
    assert [statement.split()[0] for statement in changes] == ["DO", "DO"]
