"""A connection that broke while it waited in the pool: the first statement goes to another one, later ones never."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
from sqlalchemy import insert, text
from sqlalchemy.exc import DBAPIError

from db import lost_connections
from db.connection import DatabaseManager
from db.errors import is_transient
from db.models import User
from db.past_orm import execute_past_orm
from db.repositories.job_run import lock_by_fence
from db.run_sessions import name_session, run_name
from db.settings import DatabaseSettings
from holdfast.ids import uuid7
from holdfast.outbox import job_runs
from tests.databases.conftest import empty_tables
from tests.databases.sessions import end, own_id, own_id_by_driver
from tests.databases.statements import statements
from tests.servers import MariaDBServer, PostgresServer

Server = PostgresServer | MariaDBServer
COUNT = text("SELECT count(*) FROM users")


@pytest.fixture(params=["postgresql", "mariadb"])
def engine_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def server(engine_name: str, request: pytest.FixtureRequest) -> Server:
    found = request.getfixturevalue("postgres_server" if engine_name == "postgresql" else "mariadb_server")
    assert isinstance(found, PostgresServer | MariaDBServer)
    return found


@pytest.fixture
def settings(engine_name: str, request: pytest.FixtureRequest) -> DatabaseSettings:
    return DatabaseSettings(database_url=request.getfixturevalue(f"migrated_{engine_name}"), _env_file=None)


@pytest.fixture
async def manager(settings: DatabaseSettings) -> AsyncIterator[DatabaseManager]:
    made = DatabaseManager(settings)
    await empty_tables(made)
    yield made
    await made.close()


async def leave_broken(manager: DatabaseManager, server: Server, count: int = 1) -> None:
    """Fills the pool with connections that the server has ended."""
    sessions = [manager.get_connection() for _ in range(count)]
    ids = [await own_id(await session.__aenter__()) for session in sessions]
    for session in sessions:
        await session.__aexit__(None, None, None)
    for one in ids:
        end(server, one)


async def count_users(manager: DatabaseManager) -> int:
    async with manager.session() as session:
        return int((await session.execute(COUNT)).scalar_one())


async def test_a_session_does_not_notice(manager: DatabaseManager, server: Server) -> None:
    await leave_broken(manager, server)
    async with manager.session() as session:
        session.add(User(username="ada"))
        await session.flush()
        await session.execute(insert(User).values(username="eve"))
    assert await count_users(manager) == 2


async def test_nor_does_whoever_reads_past_the_orm(manager: DatabaseManager, server: Server) -> None:
    await leave_broken(manager, server)
    async with manager.reader() as connection:
        assert (await execute_past_orm(connection, COUNT, {})).one() == (0,)
        assert (await execute_past_orm(connection, COUNT, {})).one() == (0,)


@pytest.mark.parametrize("engine_name", ["postgresql"])  # others have no single statements
async def test_a_single_statement_past_the_orm_is_not_repeated(manager: DatabaseManager, server: Server) -> None:
    await leave_broken(manager, server)
    sql = "INSERT INTO users (id, username, is_active, is_superuser) VALUES (gen_random_uuid(), 'ada', true, false)"
    statement = text(sql)
    with pytest.raises(DBAPIError) as caught:
        async with manager.single() as connection:
            await execute_past_orm(connection, statement, {})
    assert is_transient(caught.value)
    assert await count_users(manager) == 0
    async with manager.single() as connection:
        await execute_past_orm(connection, statement, {})  # and it is committed when it has answered
    assert await count_users(manager) == 1


@pytest.mark.parametrize("way", ["reader", "reading_session", "read_only", "connection"])
async def test_nor_does_whoever_reads(manager: DatabaseManager, server: Server, way: str) -> None:
    await leave_broken(manager, server)
    if way == "reader":
        async with manager.reader() as connection:
            assert (await connection.execute(COUNT)).scalar_one() == 0
    elif way == "connection":
        async with manager.get_connection() as connection:
            assert (await connection.execute(COUNT)).scalar_one() == 0
    else:
        opened = manager.reading_session() if way == "reading_session" else manager.session(read_only=True)
        async with opened as session:
            assert (await session.execute(COUNT)).scalar_one() == 0


async def test_a_streamed_result_comes_from_the_new_connection(manager: DatabaseManager, server: Server) -> None:
    await leave_broken(manager, server)
    async with manager.session() as session:
        rows = await session.stream(text("SELECT 7 UNION ALL SELECT 8"))
        assert sorted([number async for (number,) in rows]) == [7, 8]


async def test_all_of_the_pool_may_have_broken(manager: DatabaseManager, server: Server) -> None:
    await leave_broken(manager, server, count=4)
    for number in range(4):
        async with manager.session() as session:
            session.add(User(username=f"user {number}"))
    assert await count_users(manager) == 4


async def test_a_second_statement_is_not_repeated(manager: DatabaseManager, server: Server) -> None:
    async def write() -> None:
        async with manager.session() as session:
            await session.execute(insert(User).values(username="ada"))
            end(server, await own_id(session))
            await session.execute(insert(User).values(username="eve"))

    with pytest.raises(DBAPIError) as caught:
        await write()
    assert is_transient(caught.value)
    assert await count_users(manager) == 0


async def test_a_commit_is_not_repeated(manager: DatabaseManager, server: Server) -> None:
    async def write() -> None:
        async with manager.session() as session:
            await session.execute(insert(User).values(username="ada"))
            end(server, await own_id(session))

    with pytest.raises(DBAPIError):
        await write()
    assert await count_users(manager) == 0


async def test_a_single_statement_that_commits_by_itself_is_not_repeated(
    manager: DatabaseManager, server: Server, engine_name: str
) -> None:
    """On MySQL and MariaDB it has a transaction around it, like any other."""
    await leave_broken(manager, server)
    statement = insert(User).values(username="ada")
    if engine_name == "postgresql":
        with pytest.raises(DBAPIError):
            async with manager.session(single=True) as session:
                await session.execute(statement)
    async with manager.session(single=True) as session:
        await session.execute(statement)
    assert await count_users(manager) == 1


async def test_what_may_commit_by_itself_is_not_repeated(manager: DatabaseManager, server: Server) -> None:
    await leave_broken(manager, server)
    with pytest.raises(DBAPIError):
        async with manager.session() as session:
            await session.execute(text("CREATE TABLE never_made (id INTEGER)"))


async def test_one_that_was_long_unused_is_asked_first(
    manager: DatabaseManager, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lost_connections, "TRUSTED_S", -1.0)
    await leave_broken(manager, server)
    with statements(manager) as sent:
        async with manager.session(single=True) as session:
            await session.execute(insert(User).values(username="ada"))
    assert len(sent) == 1
    assert await count_users(manager) == 1


async def test_many_rows_that_give_something_back_fail_as_a_lost_connection_does(
    manager: DatabaseManager, server: Server
) -> None:
    """Their answers would be read from the lost connection, and look like a fault of the program."""
    await leave_broken(manager, server)
    with pytest.raises(DBAPIError) as caught:  # noqa: PT012 - it must not commit either
        async with manager.session() as session:
            many = insert(User).returning(User.id, sort_by_parameter_order=True)
            await session.execute(many, [{"username": "ada"}, {"username": "bob"}])
    assert is_transient(caught.value)
    assert await count_users(manager) == 0


async def test_a_statement_behind_many_rows_does_not_go_to_another_connection(
    manager: DatabaseManager, server: Server
) -> None:
    """What many executions at once have written would be missing there."""
    with pytest.raises(DBAPIError):  # noqa: PT012 - it must not commit either
        async with manager.session() as session:
            await session.execute(insert(User), [{"username": "ada"}, {"username": "bob"}])
            end(server, await own_id_by_driver(session))
            await session.execute(insert(User).values(username="eve"))
    assert await count_users(manager) == 0


@pytest.mark.parametrize("engine_name", ["mariadb"])  # on PostgreSQL a name ends with its transaction
@pytest.mark.parametrize("way", ["on the way to its lock", "by a statement of its own"])
async def test_the_new_connection_lets_its_name_go_as_the_lost_one_would(
    manager: DatabaseManager, server: Server, way: str
) -> None:
    run_id, now = uuid7(), datetime.now(UTC)
    row = {"id": run_id, "kind": "k", "queue": "q", "job_id": "j", "request": {}, "state": "running", "fence": 1}
    async with manager.session() as session:
        await session.execute(insert(job_runs).values(**row, enqueued_at=now, due_at=now))
    await leave_broken(manager, server)
    async with manager.session() as session:
        if way == "by a statement of its own":
            await name_session(session, run_name(run_id, 1))
        else:
            assert await lock_by_fence(session, run_id, 1) is not None
        assert await holder_of(manager, run_name(run_id, 1)) == await own_id(session)
    assert await holder_of(manager, run_name(run_id, 1)) is None


async def holder_of(manager: DatabaseManager, name: str) -> int | None:
    async with manager.reader() as connection:
        found: int | None = (await connection.execute(text("SELECT IS_USED_LOCK(:name)"), {"name": name})).scalar_one()
        return found
