"""One batch of a job: fenced, and committed together with the cursor and the counters."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import Connection, delete, event, func, insert, select, text

from db.connection import DatabaseManager, get_async_session
from db.errors import NestedWriteSession
from db.models import JobRun, Task, User
from db.run_sessions import run_name
from holdfast.progress import Progress
from holdfast.requests import ImportTasks
from jobs.batch_size import FIRST_ROWS, BatchSize
from jobs.context import Batch, Checkpoint, RunContext
from jobs.import_tasks import import_tasks
from jobs.outcomes import FenceLost, RunInterrupted
from jobs.settings import JobSettings
from tests.databases.engines import ON_MARIADB
from tests.databases.runs import admitted, run_of
from worker import ledger
from worker.ledger import Admitted
from worker.retries import Outcome

pytestmark = pytest.mark.usefixtures("manager")


@pytest.fixture
def job_settings(tmp_path: Path) -> JobSettings:
    return JobSettings(holdfast_data_dir=tmp_path, _env_file=None)


def context_of(given: Admitted, settings: JobSettings) -> RunContext:
    return RunContext(given.run_id, "import_tasks", given.attempt, given.fence, settings)


async def count_users() -> int:
    async with get_async_session(read_only=True) as session:
        return (await session.execute(select(func.count()).select_from(User))).scalar_one()


async def write_batch(context: RunContext, name: str, *, discard: bool = False, fail: bool = False) -> None:
    async with context.batch(discard=discard) as batch:
        await batch.session.execute(insert(User).values(username=name))
        batch.cursor = {"line": batch.cursor.get("line", 1) + 1, "key": "\u00e4"}
        batch.counters = {"inserted": batch.counters.get("inserted", 0) + 1}
        if fail:
            raise ValueError("row 17")


async def test_rows_cursor_and_counters_are_committed_together(job_settings: JobSettings) -> None:
    context = context_of(await admitted("ada"), job_settings)
    assert await context.checkpoint() == Checkpoint({}, {})
    await write_batch(context, "one")
    await write_batch(context, "two")
    assert await count_users() == 2
    assert await context.checkpoint() == Checkpoint({"line": 3, "key": "\u00e4"}, {"inserted": 2})


async def test_an_error_takes_rows_cursor_and_counters_back(job_settings: JobSettings) -> None:
    context = context_of(await admitted("ada"), job_settings)
    await write_batch(context, "one")
    with pytest.raises(ValueError, match="row 17"):
        await write_batch(context, "two", fail=True)
    assert await count_users() == 1
    assert await context.checkpoint() == Checkpoint({"line": 2, "key": "\u00e4"}, {"inserted": 1})


async def test_a_discarded_batch_changes_nothing(job_settings: JobSettings) -> None:
    context = context_of(await admitted("ada"), job_settings)
    await write_batch(context, "one", discard=True)
    assert await count_users() == 0
    assert await context.checkpoint() == Checkpoint({}, {})
    await write_batch(context, "one")  # its locks are gone, too
    assert await count_users() == 1


async def test_a_batch_inside_a_batch_is_named_at_once(job_settings: JobSettings) -> None:
    context = context_of(await admitted("ada"), job_settings)

    async def nest(inner: AbstractAsyncContextManager[Batch]) -> None:
        async with context.batch() as batch:
            await batch.session.execute(insert(User).values(username="one"))
            async with inner:
                pass

    async with asyncio.timeout(10):
        for inner in (context.batch(), context.batch(discard=True), context.batch_of_range(0)):
            with pytest.raises(NestedWriteSession, match="use the batch that is open"):
                await nest(inner)
    assert await count_users() == 0
    await write_batch(context, "one")


async def test_a_batch_waits_for_that_of_another_task(job_settings: JobSettings) -> None:
    context = context_of(await admitted("ada"), job_settings)
    async with asyncio.TaskGroup() as tasks:
        for name in ("one", "two", "three"):
            tasks.create_task(write_batch(context, name))
    assert await context.checkpoint() == Checkpoint({"line": 4, "key": "\u00e4"}, {"inserted": 3})


async def test_the_next_attempt_goes_on_where_the_last_one_stood(job_settings: JobSettings) -> None:
    first = await admitted("ada")
    await write_batch(context_of(first, job_settings), "one")
    await ledger.finish(first, Outcome("interrupted"))
    second = context_of(await admitted("bob", run_id=first.run_id), job_settings)
    assert await second.checkpoint() == Checkpoint({"line": 2, "key": "\u00e4"}, {"inserted": 1})


async def test_an_overtaken_worker_changes_no_rows(job_settings: JobSettings) -> None:
    first = await admitted("dead")
    await write_batch(context_of(first, job_settings), "one")
    second = await admitted("bob", run_id=first.run_id)
    with pytest.raises(FenceLost, match=f"run {first.run_id} was taken over by another worker at fence 2"):
        await write_batch(context_of(first, job_settings), "two")
    assert await count_users() == 1
    await write_batch(context_of(second, job_settings), "three")
    assert await count_users() == 2


async def end(run_id: UUID, given: Admitted) -> None:
    await ledger.finish(given, Outcome("succeeded", report={}))
    assert (await run_of(run_id)).state == "succeeded"


async def prune(run_id: UUID, given: Admitted) -> None:
    assert run_id == given.run_id
    async with get_async_session() as session:
        await session.execute(delete(JobRun).where(JobRun.id == run_id))


@pytest.mark.parametrize("happen", [end, prune], ids=["over", "pruned"])
async def test_a_run_that_is_not_running_takes_no_batch(
    happen: Callable[[UUID, Admitted], Awaitable[None]], job_settings: JobSettings
) -> None:
    given = await admitted("ada")
    await happen(given.run_id, given)
    with pytest.raises(FenceLost):
        await write_batch(context_of(given, job_settings), "one")
    assert await count_users() == 0
    assert await context_of(Admitted(UUID(int=7), 1, 1), job_settings).checkpoint() == Checkpoint({}, {})


async def test_whoever_takes_over_waits_for_the_batch_that_is_open(job_settings: JobSettings) -> None:
    """The dead client's last statement: its commit comes before the new fence or not at all."""
    first = await admitted("dead")
    context = context_of(first, job_settings)
    async with context.batch() as batch:
        taking_over = asyncio.create_task(admitted("bob", run_id=first.run_id))
        await batch.session.execute(insert(User).values(username="one"))
        batch.counters = {"inserted": 1}
        done, _ = await asyncio.wait([taking_over], timeout=0.2)
        assert not done
    second = await taking_over
    assert (await context_of(second, job_settings).checkpoint()).counters == {"inserted": 1}
    with pytest.raises(FenceLost):
        await write_batch(context, "two")
    assert await count_users() == 1


async def test_stopping_and_progress(job_settings: JobSettings) -> None:
    given, told = await admitted("ada"), list[Progress]()
    quiet = context_of(given, job_settings)
    quiet.stop_if_asked()
    await quiet.report_progress(Progress(done=1))

    async def publish(progress: Progress) -> None:
        told.append(progress)

    loud = RunContext(given.run_id, "import_tasks", 1, 1, job_settings, should_stop=lambda: True, publish=publish)
    await loud.report_progress(Progress(done=1))
    assert told == [Progress(done=1)]
    with pytest.raises(RunInterrupted):
        loud.stop_if_asked()


async def test_an_atomic_import_begun_again_after_its_commit_loads_nothing_twice(tmp_path: Path) -> None:
    """Its worker died between the one commit and the end of the run, and its rows have no key."""
    file = tmp_path / "tasks.csv"
    file.write_text("title\n" + "a task\n" * 5, encoding="utf-8")
    settings = JobSettings(holdfast_data_dir=tmp_path, import_roots=(tmp_path,), _env_file=None)
    context = context_of(await admitted("ada"), settings)
    request = ImportTasks(source=str(file), atomic=True)
    first = await import_tasks(context, request)
    again = await import_tasks(context, request)
    assert (first.inserted, again.inserted, again.rows_read) == (5, 5, 5)
    async with get_async_session(read_only=True) as session:
        assert (await session.execute(select(func.count()).select_from(Task))).scalar_one() == 5


async def test_batches_on_sqlite_begin_small(
    manager: DatabaseManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There all writers of the process wait for the batch; elsewhere it is as large as was asked for."""
    file = tmp_path / "tasks.csv"
    file.write_text("title\n" + "a task\n" * 1500, encoding="utf-8")
    settings = JobSettings(holdfast_data_dir=tmp_path, import_roots=(tmp_path,), _env_file=None)
    sizes = list[int]()
    monkeypatch.setattr(BatchSize, "took", lambda self, rows, seconds: sizes.append(rows))
    report = await import_tasks(context_of(await admitted("ada"), settings), ImportTasks(source=str(file)))
    assert report.inserted == 1500
    assert sizes == ([FIRST_ROWS] * 7 + [100] if manager.writers_take_turns else [1000, 500])


@ON_MARIADB  # elsewhere the name is part of the transaction, or there is none
async def test_whoever_takes_a_run_over_finds_its_session_until_the_commit(
    manager: DatabaseManager, job_settings: JobSettings
) -> None:
    """On MySQL and MariaDB the name is a lock, which no transaction holds by itself."""
    given = await admitted("ada")
    query = f"SELECT IS_USED_LOCK('{run_name(given.run_id, given.fence)}')"
    seen: list[int | None] = []

    def note(committing: Connection) -> None:
        seen.append(committing.exec_driver_sql(query).scalar_one())

    event.listen(manager.engine.sync_engine, "commit", note)
    await write_batch(context_of(given, job_settings), "one")
    event.remove(manager.engine.sync_engine, "commit", note)
    assert len(seen) == 1
    assert seen[0] is not None
    async with get_async_session(read_only=True) as session:
        assert (await session.execute(text(query))).scalar_one() is None
