"""Whose ledger it is: its own server is known whatever happens to it, and a copy is held until it is adopted."""

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select, update

from db import migrate
from db.connection import DatabaseManager, get_async_session
from db.models import Installation
from db.repositories import installation
from db.repositories.installation import configured_address
from db.settings import DatabaseSettings
from db.urls import normalise_url
from tests import skips
from tests.databases.engines import ON_SERVERS
from tests.servers import MariaDBServer, PostgresServer
from tests.servers.server import Server

COLUMNS = (Installation.installation_id, Installation.server, Installation.addresses)


async def is_held() -> bool:
    """As a worker finds out on the process's own database."""
    async with get_async_session() as session:
        return (await installation.settle(session)).is_held


async def is_held_in(url: str) -> bool:
    """As a worker with this DATABASE_URL finds out."""
    manager = DatabaseManager(DatabaseSettings(database_url=url, _env_file=None))
    try:
        async with manager.session() as session:
            return (await installation.settle(session)).is_held
    finally:
        await manager.close()


async def adopt_in(url: str) -> Installation:
    manager = DatabaseManager(DatabaseSettings(database_url=url, _env_file=None))
    try:
        async with manager.session() as session:
            return await installation.adopt(session)
    finally:
        await manager.close()


async def migrated(url: str) -> str:
    await migrate.upgrade(DatabaseSettings(database_url=url, _env_file=None))
    return url


async def restore(source: str, target: str) -> None:
    """The part of a dump that matters here."""
    rows: list[dict[str, Any]] = []
    for url in (source, target):
        manager = DatabaseManager(DatabaseSettings(database_url=url, _env_file=None))
        async with manager.session() as session:
            if url == source:
                found = await session.execute(select(*Installation.__table__.columns))
                rows = [dict(row) for row in found.mappings()]
            else:
                await session.execute(insert(Installation), rows)
        await manager.close()


async def test_the_first_worker_adopts_a_new_ledger_also_when_several_start_at_once(manager: DatabaseManager) -> None:
    async with get_async_session(read_only=True) as session:
        sight = await installation.look(session)
    assert (sight.owner, sight.is_held, sight.is_settled) == (None, False, False)
    assert await asyncio.gather(*(is_held() for _ in range(4))) == [False] * 4
    async with manager.reader() as reader:
        assert (await installation.look(reader)).is_settled


async def test_of_a_ledger_from_before_nothing_is_known(manager: DatabaseManager) -> None:
    """The migration leaves its row without a server."""
    assert not await is_held()
    async with get_async_session() as session:
        await session.execute(update(Installation).values(server="", addresses=None))
    assert not await is_held()
    async with manager.reader() as reader:
        assert (await installation.look(reader)).is_settled


async def test_a_ledger_of_another_server_is_held_until_it_is_adopted(manager: DatabaseManager) -> None:
    assert not await is_held()
    async with get_async_session() as session:
        first = (await session.execute(select(*COLUMNS))).one()
        await session.execute(update(Installation).values(server="another", addresses=["elsewhere:5432"]))
    assert await is_held()
    async with get_async_session() as session:
        await installation.adopt(session)
        assert (await session.execute(select(*COLUMNS))).one() == first
    assert not await is_held()


@ON_SERVERS  # an SQLite file has no server
async def test_a_clone_in_the_same_server_is_held(manager: DatabaseManager, request: pytest.FixtureRequest) -> None:
    engine = manager.engine.dialect.name
    server: PostgresServer | MariaDBServer = request.getfixturevalue(
        "postgres_server" if engine == "postgresql" else "mariadb_server"
    )
    assert not await is_held()
    await manager.engine.dispose()  # a template takes no connections
    clone = server.create_database(template=str(manager.settings.url.database))
    assert await is_held_in(clone)
    assert not await is_held()
    assert len((await adopt_in(clone)).addresses or ()) == 1
    assert not await is_held_in(clone)
    assert not await is_held()
    server.drop_database(clone)


@pytest.mark.parametrize("server_type", [PostgresServer, MariaDBServer])
async def test_a_restart_is_no_reason_and_a_dump_restored_elsewhere_is(
    server_type: Callable[[], PostgresServer | MariaDBServer],
    pytestconfig: pytest.Config,
    request: pytest.FixtureRequest,
) -> None:
    name = "postgres_server" if server_type is PostgresServer else "mariadb_server"
    with skips.made_or_skipped(server_type, pytestconfig) as own:
        url = await migrated(own.create_database())
        assert not await is_held_in(url)
        own.restart()
        assert not await is_held_in(url)
        other: PostgresServer | MariaDBServer = request.getfixturevalue(name)
        copy = await migrated(other.create_database())
        await restore(url, copy)
        assert await is_held_in(copy)
        await adopt_in(copy)
        assert not await is_held_in(copy)
        assert not await is_held_in(url)
        other.drop_database(copy)


class Copied(PostgresServer):
    """A physical copy of a server that stands still, as a volume's snapshot is."""

    def __init__(self, original: PostgresServer) -> None:
        super().__init__()
        shutil.copytree(original._data, self._data, copy_function=shutil.copy2)
        for path in (self._data, *self._data.rglob("*")):
            shutil.chown(path, *self._owner(original))
        self._data.chmod(0o700)
        self._prepared = True

    @staticmethod
    def _owner(original: Server) -> tuple[int, int]:
        status = original.folder.stat()
        return status.st_uid, status.st_gid


async def test_a_physical_copy_beside_the_original_is_held(pytestconfig: pytest.Config) -> None:
    """It says the same of itself; only the address under which workers are told to find it is another."""
    with skips.made_or_skipped(PostgresServer, pytestconfig) as original:
        url = await migrated(original.create_database())
        assert not await is_held_in(url)
        original.stop()
        with Copied(original) as copy:
            original.start()
            copied_url = url.replace(f":{original.port}/", f":{copy.port}/")
            assert await is_held_in(copied_url)
            assert not await is_held_in(url)
            row = await adopt_in(copied_url)
            assert row.addresses == [f"localhost:{original.port}", f"localhost:{copy.port}"]
            for _ in range(2):  # whoever looks in turn changes nothing
                assert not await is_held_in(copied_url)
                assert not await is_held_in(url)


async def test_an_sqlite_file_may_move_and_be_replaced_but_a_copy_is_held(
    migrated_sqlite: Path, tmp_path: Path
) -> None:
    original = tmp_path / "holdfast.db"
    shutil.copy(migrated_sqlite, original)
    assert not await is_held_in(f"sqlite:///{original}")
    copy = Path(shutil.copy(original, tmp_path / "copy.db"))
    assert await is_held_in(f"sqlite:///{copy}")
    moved = tmp_path / "elsewhere" / "tasks.db"
    moved.parent.mkdir()
    original.rename(moved)
    assert not await is_held_in(f"sqlite:///{moved}")
    restored = Path(shutil.copy(moved, tmp_path / "restored.db"))
    shutil.move(restored, moved)
    assert not await is_held_in(f"sqlite:///{moved}")
    assert await is_held_in(f"sqlite:///{copy}")
    await adopt_in(f"sqlite:///{copy}")
    assert not await is_held_in(f"sqlite:///{copy}")


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("postgresql://u:p@DB.internal./app", "db.internal:5432"),
        ("postgresql://u:p@db.internal:5432/other", "db.internal:5432"),
        ("postgresql://u:p@10.0.0.7:6432/app", "10.0.0.7:6432"),
        ("postgresql://127.0.0.1/app", "localhost:5432"),
        ("postgresql://[::1]:5433/app", "localhost:5433"),
        ("postgresql:///app", "localhost:5432"),
        ("postgresql:///app?host=/var/run/postgresql", "localhost:5432"),
        ("postgresql:///app?host=one:5432&host=two:5433", "one:5432,two:5433"),
        ("mariadb://u@db/app", "db:3306"),
        ("mysql+aiomysql://u@localhost/app", "localhost:3306"),
    ],
)
def test_an_address_is_what_was_configured(url: str, address: str) -> None:
    assert configured_address(normalise_url(url)) == address
