"""Behind a real PgBouncer in transaction mode, every transaction may reach another connection to the server."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.exc import DBAPIError

from db import migrate
from db.connection import DatabaseManager
from db.errors import DatabaseUnavailable
from db.models import Task, User
from db.run_sessions import end_sessions, name_columns, run_name
from db.settings import DatabaseSettings
from holdfast.outbox import uuid7
from tests import skips
from tests.databases.conftest import empty_tables
from tests.databases.sessions import running
from tests.processes import CHECKOUT, clean_environment
from tests.servers import PgBouncerServer, PostgresServer, wait_until

PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def pgbouncer(postgres_server: PostgresServer, pytestconfig: pytest.Config) -> Iterator[PgBouncerServer]:
    with skips.made_or_skipped(lambda: PgBouncerServer(postgres_server), pytestconfig) as bouncer:
        yield bouncer


@pytest.fixture
def settings(pgbouncer: PgBouncerServer, migrated_postgresql: str) -> DatabaseSettings:
    url = pgbouncer.url_of(migrated_postgresql)
    return DatabaseSettings(database_url=url, database_pooler="transaction", _env_file=None)


@pytest.fixture
async def manager(settings: DatabaseSettings) -> AsyncIterator[DatabaseManager]:
    made = DatabaseManager(settings)
    await made.connect()
    await empty_tables(made)
    yield made
    await made.close()


async def test_without_the_setting_it_is_named(settings: DatabaseSettings) -> None:
    manager = DatabaseManager(settings.model_copy(update={"database_pooler": "none"}))
    with pytest.raises(DatabaseUnavailable, match="this is PgBouncer: set DATABASE_POOLER=transaction"):
        await manager.connect()
    await manager.close()


async def test_sessions_share_its_few_connections(manager: DatabaseManager, pgbouncer: PgBouncerServer) -> None:
    """Twelve of ours on two of the server's: a statement that was prepared by name would be missed, or met twice."""

    async def work(number: int) -> None:
        for round_number in range(10):
            async with manager.session() as session:
                user = User(username=f"user {number} {round_number}")
                session.add(user)
                await session.flush()
                session.add(Task(title="a task", user_id=user.id, metadata_json={"round": round_number}, tags=["a"]))
            async with manager.session(read_only=True) as session:
                found = (await session.execute(select(User).where(User.id == user.id))).scalar_one()
                assert found.username == user.username
            async with manager.reader() as connection:
                assert (await connection.execute(text("SELECT 1 WHERE :a = 'x'"), {"a": "x"})).scalar_one() == 1
            async with manager.reading_session() as session:
                query = select(Task.metadata_json).where(Task.user_id == user.id)
                assert (await session.execute(query)).scalar_one() == {"round": round_number}

    async with asyncio.timeout(PATIENCE_S):
        await asyncio.gather(*(work(number) for number in range(12)))
    async with manager.reading_session() as session:
        assert (await session.execute(select(func.count()).select_from(Task))).scalar_one() == 120


async def test_it_is_told_in_each_transaction_what_it_refuses_at_the_start(
    manager: DatabaseManager, pgbouncer: PgBouncerServer, postgres_server: PostgresServer, migrated_postgresql: str
) -> None:
    names = ("statement_timeout", "idle_in_transaction_session_timeout", "TimeZone", "application_name")
    query = text("SELECT " + ", ".join(f"current_setting('{name}')" for name in names))
    async with manager.session() as session:
        assert tuple((await session.execute(query)).one()) == ("15min", "1min", "UTC", "holdfast")
    # ... and nothing of it is left for others of the pool
    through = pgbouncer.url_of(migrated_postgresql)
    assert postgres_server.execute("SELECT current_setting('statement_timeout')", through) == "0"


async def test_no_statement_stands_alone(manager: DatabaseManager) -> None:
    """What was prepared and what is executed could reach different connections."""
    assert not manager.statements_stand_alone
    with pytest.raises(NotImplementedError, match="only PostgreSQL without a pooler"):
        async with manager.single():
            pass


async def test_reading_cannot_write(manager: DatabaseManager) -> None:
    with pytest.raises(DBAPIError, match="read-only"):
        async with manager.session(read_only=True) as session:
            session.add(User(username="ada"))


async def test_a_run_s_session_is_found_by_its_name_and_ended(manager: DatabaseManager) -> None:
    name = run_name(uuid7(), 1)

    async def hold() -> None:
        async with manager.session() as session:
            await session.execute(select(*name_columns("postgresql", name)))
            async with manager.session() as other:
                assert await end_sessions(other, [run_name(uuid7(), 1), name])
            await session.execute(text("SELECT 1"))

    with pytest.raises(DBAPIError):
        await hold()
    async with manager.session() as session:
        assert not await end_sessions(session, [name])


async def test_a_cancelled_statement_ends_at_the_server(
    manager: DatabaseManager, postgres_server: PostgresServer
) -> None:
    async def sleep() -> None:
        async with manager.session() as session:
            await session.execute(text("SELECT pg_sleep(300) /* through-the-pooler */"))

    task = asyncio.create_task(sleep())
    active = "through-the-pooler"
    assert await asyncio.to_thread(wait_until, lambda: running(postgres_server, active) > 0, PATIENCE_S)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(wait_until, lambda: not running(postgres_server, active), PATIENCE_S)


@pytest.mark.parametrize("directly", [True, False])
async def test_migrations_go_to_the_server_itself_where_that_is_known(
    pgbouncer: PgBouncerServer, postgres_url: str, directly: bool
) -> None:
    through = pgbouncer.url_of(postgres_url)
    settings = DatabaseSettings(
        database_url=through.replace(str(pgbouncer.port), "1") if directly else through,  # nobody listens there
        database_direct_url=postgres_url if directly else None,
        database_pooler="transaction",
        _env_file=None,
    )
    await migrate.upgrade(settings)
    manager = DatabaseManager(DatabaseSettings(database_url=through, database_pooler="transaction", _env_file=None))
    try:
        await migrate.require_current(manager)
    finally:
        await manager.close()


def test_a_worker_imports_behind_it(
    manager: DatabaseManager,
    settings: DatabaseSettings,
    tmp_path: Path,
    postgres_server: PostgresServer,
    migrated_postgresql: str,
) -> None:
    assert settings.database_url is not None
    environment = clean_environment(
        DATABASE_URL=settings.database_url.get_secret_value(),
        DATABASE_POOLER="transaction",
        HOLDFAST_DATA_DIR=str(tmp_path / "data"),
    )
    mapping = ["external_key=key", "title=summary", "status=state", "completed_at=done_at"]
    words = [
        "import",
        str(CHECKOUT / "samples" / "tasks.csv"),
        *(word for field in mapping for word in ("--map", field)),
    ]
    for arguments in ([*words, "--detach"], ["run", "--burst"]):
        done = subprocess.run(
            [sys.executable, "-m", "worker", *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    assert int(postgres_server.execute("SELECT count(*) FROM tasks", migrated_postgresql)) > 900
