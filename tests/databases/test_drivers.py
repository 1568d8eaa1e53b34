"""Every way of writing a URL that is promised reaches its server."""

import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url

from db import migrate
from db.connection import close_database, get_async_session, initialize_database
from db.errors import is_unique_violation
from db.models import User
from db.settings import DatabaseSettings


async def use(settings: DatabaseSettings) -> str:
    """Migrate the database twice, write and read; return the name of the driver."""
    await migrate.upgrade(settings)
    await migrate.upgrade(settings)
    manager = await initialize_database(settings)
    try:
        await migrate.require_current(manager)
        await write("ada \U0001f600")
        with pytest.raises(Exception, match=r".") as caught:
            await write("ada \U0001f600")
        assert is_unique_violation(caught.value)
        async with get_async_session(read_only=True) as session:
            name = (await session.execute(text("SELECT username FROM users"))).scalar_one()
        assert name == "ada \U0001f600"
        return manager.engine.dialect.driver
    finally:
        await close_database()


async def write(name: str) -> None:
    async with get_async_session() as session:
        session.add(User(username=name))


@pytest.mark.parametrize(
    ("scheme", "driver"),
    [
        ("mysql", "asyncmy"),
        ("mariadb", "asyncmy"),
        ("mysql+asyncmy", "asyncmy"),
        ("mysql+aiomysql", "aiomysql"),
        ("mariadb+aiomysql", "aiomysql"),
    ],
)
async def test_mariadb(mariadb_url: str, scheme: str, driver: str, capfd: pytest.CaptureFixture[str]) -> None:
    url = mariadb_url.replace("mariadb://", f"{scheme}://")
    assert await use(DatabaseSettings(database_url=url, _env_file=None)) == driver
    assert capfd.readouterr() == ("", "")  # the server's notes about each primary key are not shown


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+asyncpg"])
async def test_postgresql(postgres_url: str, scheme: str) -> None:
    url = postgres_url.replace("postgresql://", f"{scheme}://")
    assert await use(DatabaseSettings(database_url=url, _env_file=None)) == "asyncpg"


async def test_postgresql_in_parts(postgres_url: str) -> None:
    url = make_url(postgres_url)
    parts = {"postgres_host": url.host, "postgres_port": url.port, "postgres_db": url.database}
    settings = DatabaseSettings.model_validate({**parts, "postgres_password": "p@ss/w:rd%"})
    assert await use(settings) == "asyncpg"


@pytest.mark.parametrize("scheme", ["sqlite", "sqlite+aiosqlite"])
async def test_sqlite(sqlite_url: str, scheme: str) -> None:
    url = sqlite_url.replace("sqlite://", f"{scheme}://")
    assert await use(DatabaseSettings(database_url=url, _env_file=None)) == "aiosqlite"


async def test_the_embedded_database_needs_only_its_folder(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("data with blanks % and \u00e4")
    settings = DatabaseSettings(holdfast_data_dir=folder, _env_file=None)
    assert await use(settings) == "aiosqlite"
    assert (folder / "holdfast.db").is_file()
