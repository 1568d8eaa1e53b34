"""The process's connection pool and the sessions on it: for jobs, services, commands and web applications."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from db.engines import create_engine
from db.errors import DatabaseNotInitialised
from db.health import HEALTH_TIMEOUT_S, DatabaseHealth, not_open
from db.manager import DatabaseManager
from db.settings import DatabaseSettings

__all__ = [
    "DatabaseManager",
    "check_database_health",
    "close_database",
    "create_engine",
    "database_is_open",
    "database_lifespan",
    "get_async_session",
    "get_manager",
    "get_reader",
    "get_reading_session",
    "get_single",
    "initialize_database",
    "session_dependency",
    "statements_stand_alone",
    "writers_take_turns",
]

STARTUP_PATIENCE_S = 10.0

_manager: DatabaseManager | None = None


async def initialize_database(settings: DatabaseSettings | None = None, *, patience_s: float = 0.0) -> DatabaseManager:
    """Open the process's connection pool; a second call gives back the first one's.

    Args:
        settings: read from the environment if not given.
        patience_s: for how many seconds to wait for the database to come up.

    Raises:
        DatabaseUnavailable: no connection could be opened.
    """
    global _manager  # noqa: PLW0603 - one pool a process is the point
    if _manager is None:
        manager = DatabaseManager(settings or DatabaseSettings())
        try:
            await manager.connect(patience_s=patience_s)
        except BaseException:
            await manager.close()
            raise
        _manager = manager
    return _manager


def database_is_open() -> bool:
    """Whether this process has its connection pool open."""
    return _manager is not None


def get_manager() -> DatabaseManager:
    """Return the process's open pool.

    Raises:
        DatabaseNotInitialised: ``initialize_database`` was not awaited in this process.
    """
    if _manager is None:
        raise DatabaseNotInitialised("no connection pool: await initialize_database() first")
    return _manager


async def close_database() -> None:
    """Close the process's connection pool, if it is open."""
    global _manager
    manager, _manager = _manager, None
    if manager is not None:
        await manager.close()


async def check_database_health(*, timeout_s: float = HEALTH_TIMEOUT_S) -> DatabaseHealth:
    """Ask the process's database for one round trip, as ``DatabaseManager.health_check``; never raises."""
    return not_open() if _manager is None else await _manager.health_check(timeout_s=timeout_s)


@asynccontextmanager
async def database_lifespan(
    app: object = None, *, settings: DatabaseSettings | None = None, patience_s: float = STARTUP_PATIENCE_S
) -> AsyncIterator[None]:
    """Keep the process's connection pool open in the block: ``FastAPI(lifespan=database_lifespan)``, or inside another.

    Args:
        app: is not looked at; ASGI applications hand themselves over.
        settings: read from the environment if not given.
        patience_s: for how many seconds to wait for the database to come up.

    Raises:
        DatabaseUnavailable: no connection could be opened.
    """
    del app
    await initialize_database(settings, patience_s=patience_s)
    try:
        yield
    finally:
        await close_database()


def get_async_session(*, read_only: bool = False, single: bool = False) -> AbstractAsyncContextManager[AsyncSession]:
    """Open a session on the process's pool: commits on a clean exit, rolls back on any error, always closes.

    Args: as ``DatabaseManager.session``.

    Raises:
        DatabaseNotInitialised: ``initialize_database`` was not awaited in this process.
    """
    return get_manager().session(read_only=read_only, single=single)


async def session_dependency() -> AsyncIterator[AsyncSession]:
    """Give a request its session; FastAPI: ``Depends(session_dependency, scope="function")``.

    Commits when the request was handled, rolls back on an error or when it is cancelled. Without that scope FastAPI
    sends the response before it commits.

    Raises:
        DatabaseNotInitialised: ``initialize_database`` was not awaited in this process.
    """
    async with get_async_session() as session:
        yield session


@asynccontextmanager
async def get_reading_session() -> AsyncIterator[AsyncSession]:
    """Open a session for reading what is newest on the process's pool, as ``DatabaseManager.reading_session``.

    Raises:
        DatabaseNotInitialised: ``initialize_database`` was not awaited in this process.
    """
    async with get_manager().reading_session() as session:
        yield session


def get_reader() -> AbstractAsyncContextManager[AsyncConnection]:
    """Open a connection for reading on the process's pool, as ``DatabaseManager.reader``.

    Raises:
        DatabaseNotInitialised: ``initialize_database`` was not awaited in this process.
    """
    return get_manager().reader()


def statements_stand_alone() -> bool:
    """Whether ``get_single`` can be had, as ``DatabaseManager.statements_stand_alone``.

    Raises:
        DatabaseNotInitialised: ``initialize_database`` was not awaited in this process.
    """
    return get_manager().statements_stand_alone


def get_single() -> AbstractAsyncContextManager[AsyncConnection]:
    """Open a connection for single statements on the process's pool, as ``DatabaseManager.single``.

    Raises:
        DatabaseNotInitialised: ``initialize_database`` was not awaited in this process.
        NotImplementedError: not on this engine, or behind a pooler.
    """
    return get_manager().single()


def writers_take_turns() -> bool:
    """Whether this process's database has one writer, as ``DatabaseManager.writers_take_turns``.

    Raises:
        DatabaseNotInitialised: ``initialize_database`` was not awaited in this process.
    """
    return get_manager().writers_take_turns
