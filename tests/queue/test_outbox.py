"""`holdfast.outbox.enqueue`: the commit is the enqueue, a rollback leaves no run; a running worker picks it up."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit
from uuid import UUID

import pytest
from pydantic import SecretStr
from sqlalchemy import event, select
from sqlalchemy.exc import DBAPIError, IntegrityError, StatementError
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session, async_sessionmaker, create_async_engine

from db import migrate
from db.connection import DatabaseManager
from db.models import User
from db.settings import DatabaseSettings
from holdfast import Client, ImportReport, RunState, outbox, wire
from holdfast.ids import uuid7
from tests.faults.kinds import TrialWrite
from tests.queue.workplace import PATIENCE_S, SUCCESS, Ledger, Workplace
from tests.servers import PostgresServer, wait_until


@pytest.fixture
async def place(database_url: str, redis_url: str, tmp_path: Path) -> Workplace:
    await migrate.upgrade(DatabaseSettings(_env_file=None, database_url=SecretStr(database_url)))
    return Workplace(redis_url, tmp_path, database_url)


@pytest.fixture
async def ledger(place: Workplace) -> AsyncIterator[Ledger]:
    async with place.ledger() as ledger:
        yield ledger


async def test_commit_enqueues_and_rollback_does_not(place: Workplace, ledger: Ledger) -> None:
    request = place.import_request()
    with place.started_worker() as worker:
        async with ledger.manager.session() as session:
            session.add(User(username="ada"))
            committed = await outbox.enqueue(session, request)
            assert committed.version == 7
        with pytest.raises(ZeroDivisionError):
            await _enqueue_and_fail(ledger, place)
        async with Client(place.redis_url) as client:
            await ledger.until(committed, "succeeded")
            run = client.run(str(committed), ImportReport)
            assert (await run.result(timeout_s=PATIENCE_S)).rows_read == 50
            assert await run.status() is RunState.SUCCEEDED
        assert worker.terminate() == 0
    (row,) = await ledger.runs()
    assert (row.id, row.job_id, row.request, row.fence, row.attempts) == (
        committed,
        str(committed),
        request.payload(),
        1,
        0,
    )
    assert row.enqueued_at <= row.started_at <= row.finished_at
    assert row.enqueued_at <= row.dispatched_at  # noted while a worker may be admitted already
    assert await ledger.problems({str(committed): SUCCESS}) == []
    async with ledger.manager.session(read_only=True) as session:
        assert set((await session.execute(select(User.username))).scalars()) == {"ada", "importer"}


@pytest.mark.parametrize("way", ["scoped session", "session of two databases", "connection"])
async def test_any_session_on_the_database_will_do(place: Workplace, ledger: Ledger, way: str) -> None:
    engine, request, due = ledger.manager.engine, place.import_request(), datetime(2999, 1, 1, tzinfo=UTC)
    if way == "connection":
        async with engine.begin() as connection:
            run_id = await outbox.enqueue(connection, request, at=due, unique_key="k")
    elif way == "scoped session":
        scoped = async_scoped_session(async_sessionmaker(engine), scopefunc=asyncio.current_task)
        run_id = await outbox.enqueue(scoped, request, at=due, unique_key="k")
        await scoped.commit()
        await scoped.remove()
    else:
        other = create_async_engine("sqlite+aiosqlite://")
        async with AsyncSession(other, binds={outbox.job_runs: engine}) as session:
            run_id = await outbox.enqueue(session, request, at=due, unique_key="k")
            await session.commit()
        await other.dispose()
    (row,) = await ledger.runs()
    assert (row.id, row.due_at, row.unique_key, row.reason) == (run_id, due, "k", "scheduled")
    assert row.request == request.payload()


async def test_it_goes_where_the_schemas_are_mapped_to(place: Workplace, ledger: Ledger) -> None:
    mapped = ledger.manager.engine.execution_options(schema_translate_map={None: "elsewhere"})
    with pytest.raises(DBAPIError, match="elsewhere"):
        async with async_sessionmaker(mapped).begin() as session:
            await outbox.enqueue(session, place.import_request())
    assert await ledger.runs() == []


@pytest.mark.parametrize("at", [datetime(2030, 1, 1), datetime(900, 1, 1, tzinfo=UTC)])  # noqa: DTZ001 - naive
async def test_a_time_that_cannot_be_stored_is_refused(place: Workplace, ledger: Ledger, at: datetime) -> None:
    with pytest.raises(StatementError) as caught:
        async with ledger.manager.session() as session:
            await outbox.enqueue(session, place.import_request(), at=at)
    assert not isinstance(caught.value, DBAPIError)
    assert await ledger.runs() == []


async def test_who_listens_to_statements_hears_of_it(place: Workplace, ledger: Ledger) -> None:
    heard: list[str] = []
    engine = ledger.manager.engine.sync_engine

    def note(connection: object, element: object, *rest: object) -> None:
        del connection, rest
        heard.append(str(element))

    event.listen(engine, "before_execute", note)
    try:
        async with ledger.manager.session() as session:
            await outbox.enqueue(session, place.import_request())
    finally:
        event.remove(engine, "before_execute", note)
    assert [one for one in heard if one.startswith("INSERT INTO job_runs")]


async def _enqueue_and_fail(ledger: Ledger, place: Workplace) -> None:
    async with ledger.manager.session() as session:
        session.add(User(username="grace"))
        await outbox.enqueue(session, place.import_request())
        raise ZeroDivisionError


async def test_a_request_may_be_as_large_as_producer_and_worker_are_told(place: Workplace, ledger: Ledger) -> None:
    request, limit = TrialWrite(steps=0, note="x" * wire.MAX_PAYLOAD_BYTES), 2 * wire.MAX_PAYLOAD_BYTES
    kinds = {"HOLDFAST_PLUGINS": "tests.faults.kinds", "MAX_PAYLOAD_BYTES": str(limit)}
    async with ledger.manager.session() as session:
        run_id = await outbox.enqueue(session, request, max_payload_bytes=limit)
    async with Client(place.redis_url, max_payload_bytes=limit) as client:
        direct = await client.enqueue(request)
        with place.started_worker(**kinds):
            await ledger.until(run_id, "succeeded")
            assert (await direct.result(timeout_s=PATIENCE_S)).steps == 0


async def test_what_is_written_is_what_is_read_back(place: Workplace, ledger: Ledger) -> None:
    at = datetime(2031, 5, 6, 7, 8, 9, 123456, tzinfo=UTC)
    run_id, request = uuid7(), place.import_request()
    before = datetime.now(UTC) - timedelta(milliseconds=1)
    async with ledger.manager.engine.begin() as connection:
        assert await outbox.enqueue(connection, request, at=at, queue="other", run_id=run_id) == run_id
    (row,) = await ledger.runs()
    assert (row.id, row.kind, row.queue, row.job_id) == (run_id, "import_tasks", "other", str(run_id))
    assert (row.state, row.reason, row.due_at, row.dispatched_at) == ("waiting", "scheduled", at, None)
    assert before <= row.enqueued_at <= datetime.now(UTC)
    assert row.enqueued_at.microsecond % 1000 == 0
    assert (row.fence, row.attempts, row.crashes) == (0, 0, 0)
    with pytest.raises(IntegrityError):
        async with ledger.manager.session() as session:
            await outbox.enqueue(session, request, run_id=run_id)
    assert len(await ledger.runs()) == 1


async def test_a_run_that_is_due_later_is_given_to_redis_when_it_is_near(place: Workplace, ledger: Ledger) -> None:
    soon, far = datetime.now(UTC) + timedelta(seconds=60), datetime.now(UTC) + timedelta(days=1)
    async with ledger.manager.session() as session:
        run_ids = {at: await outbox.enqueue(session, place.import_request(), at=at) for at in (soon, far)}
    with place.started_worker(), place.redis() as redis:
        assert wait_until(lambda: bool(redis.zcard("arq:queue")), PATIENCE_S)
        due = dict(redis.zrange("arq:queue", 0, -1, withscores=True))
    assert due == {str(run_ids[soon]).encode(): round(soon.timestamp() * 1000)}
    rows = {row.id: row for row in await ledger.runs()}
    assert {rows[run_id].state for run_id in run_ids.values()} == {"waiting"}
    assert rows[run_ids[far]].dispatched_at is None


async def test_a_role_that_may_only_insert_is_enough(
    postgres_server: PostgresServer, postgres_url: str, redis_url: str, tmp_path: Path
) -> None:
    await migrate.upgrade(DatabaseSettings(_env_file=None, database_url=SecretStr(postgres_url)))
    place = Workplace(redis_url, tmp_path, postgres_url)
    role = f"producer_{uuid7().hex}"
    postgres_server.execute(f"CREATE ROLE {role} LOGIN", postgres_url)
    postgres_server.execute(f"GRANT INSERT ON job_runs TO {role}", postgres_url)
    address = urlsplit(postgres_url)
    own_url = f"postgresql://{role}@127.0.0.1:{address.port}{address.path}"
    producer = DatabaseManager(DatabaseSettings(_env_file=None, database_url=SecretStr(own_url)))
    try:
        async with producer.session() as session:
            run_id = await outbox.enqueue(session, place.import_request())
        with pytest.raises(DBAPIError, match="permission denied"):
            await _read_as(producer, run_id)
    finally:
        await producer.close()
    with place.worker("--burst") as worker:
        assert worker.wait(PATIENCE_S) == 0
    async with place.ledger() as ledger:
        assert await ledger.problems({str(run_id): SUCCESS}) == []
    postgres_server.execute(f"DROP OWNED BY {role}", postgres_url)
    postgres_server.execute(f"DROP ROLE {role}", postgres_url)


async def _read_as(producer: DatabaseManager, run_id: UUID) -> None:
    async with producer.session() as session:
        await session.execute(select(outbox.job_runs.c.state).where(outbox.job_runs.c.id == run_id))
