"""What operators say about queues and kinds, and about whose ledger it is."""

import asyncio
import shutil
from pathlib import Path

import pytest
from sqlalchemy import update

from db.connection import DatabaseManager, get_async_session
from db.models import Installation
from db.repositories import control, installation
from db.repositories.control import Controls
from db.settings import DatabaseSettings
from tests.databases.runs import QUEUE, admitted
from tests.servers import PostgresServer
from worker import ledger
from worker.retries import Outcome

pytestmark = pytest.mark.usefixtures("manager")

KIND = "import_tasks"


async def controls() -> Controls:
    async with get_async_session(read_only=True) as session:
        return await control.load_controls(session)


async def test_a_queue_or_kind_is_paused_and_goes_on() -> None:
    assert await controls() == Controls()
    for scope, name in (("queue", QUEUE), ("kind", KIND)):
        for _ in range(2):
            async with get_async_session() as session:
                await control.set_paused(session, scope, name, paused=True)
        found = await controls()
        assert found.paused == {(scope, name)}
        assert found.obstacle(queue=QUEUE, kind=KIND) == "paused"
        assert found.obstacle(queue="other", kind="other") is None
        async with get_async_session() as session:
            await control.set_paused(session, scope, name, paused=False)
        assert await controls() == Controls()


async def test_a_limit_counts_what_runs() -> None:
    for scope, name in (("queue", QUEUE), ("kind", KIND)):
        for _ in range(2):
            async with get_async_session() as session:
                await control.set_limit(session, scope, name, 1)
        assert (await controls()).limits == ((scope, name, 1),)
        assert (await controls()).obstacle(queue=QUEUE, kind=KIND) is None
        given = await admitted("ada")
        assert (await controls()).obstacle(queue=QUEUE, kind=KIND) == "limited"
        assert (await controls()).obstacle(queue="other", kind="other") is None
        await ledger.finish(given, Outcome("succeeded", report={}))
        assert (await controls()).full == frozenset()
        async with get_async_session() as session:
            await control.set_limit(session, scope, name, None)
        assert await controls() == Controls()


async def test_pause_and_limit_do_not_forget_each_other() -> None:
    async with get_async_session() as session:
        await control.set_limit(session, "kind", KIND, 0)
        await control.set_paused(session, "kind", KIND, paused=True)
    assert (await controls()).obstacle(queue=QUEUE, kind=KIND) == "paused"
    async with get_async_session() as session:
        await control.set_paused(session, "kind", KIND, paused=False)
    assert (await controls()).obstacle(queue=QUEUE, kind=KIND) == "limited"


async def is_held() -> bool:
    async with get_async_session() as session:
        return await installation.is_held(session)


async def test_the_first_worker_adopts_a_new_ledger_also_when_several_start_at_once() -> None:
    async with get_async_session(read_only=True) as session:
        assert await installation.get_installation(session) is None
    assert await asyncio.gather(*(is_held() for _ in range(4))) == [False] * 4
    assert await is_held() is False


async def test_a_ledger_of_another_server_is_held_until_it_is_adopted() -> None:
    assert await is_held() is False
    async with get_async_session() as session:
        first = await installation.get_installation(session)
        await session.execute(update(Installation).values(server="another"))
    assert await is_held() is True
    async with get_async_session() as session:
        adopted = await installation.adopt(session)
    assert first is not None
    assert adopted.installation_id == first.installation_id
    assert await is_held() is False


async def held_in(url: str) -> bool:
    manager = DatabaseManager(DatabaseSettings(database_url=url, _env_file=None))
    try:
        async with manager.session() as session:
            return await installation.is_held(session)
    finally:
        await manager.close()


async def test_a_clone_of_a_postgresql_database_is_held(
    manager: DatabaseManager, request: pytest.FixtureRequest
) -> None:
    if manager.engine.dialect.name != "postgresql":
        pytest.skip("cloning by template is PostgreSQL's")
    server: PostgresServer = request.getfixturevalue("postgres_server")
    assert await is_held() is False
    await manager.engine.dispose()  # a template takes no connections
    clone = server.create_database(template=str(manager.settings.url.database))
    assert await held_in(clone) is True
    assert await is_held() is False
    server.drop_database(clone)


async def test_a_copy_of_an_sqlite_file_is_held(manager: DatabaseManager, tmp_path: Path) -> None:
    if manager.engine.dialect.name != "sqlite":
        pytest.skip("a database in one file is SQLite's")
    assert await is_held() is False
    await manager.engine.dispose()
    original = Path(str(manager.settings.url.database))
    copy = shutil.copy(original, tmp_path / "copy.db")
    assert await held_in(f"sqlite:///{copy}") is True
    assert await is_held() is False
