"""The connection pool and the sessions on it."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.pool import NullPool

from db.errors import DatabaseNotInitialised, DatabaseUnavailable, first_line
from db.settings import DatabaseSettings
from db.tuning import READ_ONLY, engine_options, tune
from db.urls import masked

FIRST_BACKOFF_S = 0.1
SLOWEST_BACKOFF_S = 2.0


def create_engine(settings: DatabaseSettings, *, pooled: bool = True) -> AsyncEngine:
    """Make an engine; nothing is connected yet.

    Args:
        settings: the URL and the pool's sizes.
        pooled: False for one connection at a time, as migrations want it.
    """
    sizes = {
        "pool_size": settings.database_pool_size,
        "max_overflow": settings.database_max_overflow,
        "pool_timeout": settings.database_pool_timeout,
        "pool_recycle": settings.database_pool_recycle,
    }
    options = {**(sizes if pooled else {"poolclass": NullPool}), **engine_options(settings.url)}
    if settings.sql_echo:
        _echo_to_stderr()
    engine = create_async_engine(settings.url, echo=settings.sql_echo, **options)
    tune(engine.sync_engine)
    return engine


def _echo_to_stderr() -> None:
    # SQLAlchemy's own handler would write between the documents on stdout.
    logger = logging.getLogger("sqlalchemy.engine.Engine")
    if not logger.handlers:
        logger.addHandler(logging.NullHandler() if logging.getLogger().handlers else logging.StreamHandler())


class DatabaseManager:
    """One engine and its session makers."""

    def __init__(self, settings: DatabaseSettings) -> None:
        self.settings = settings
        self.engine = create_engine(settings)
        self._sessions = async_sessionmaker(self.engine, expire_on_commit=False)
        self._reading_sessions = async_sessionmaker(
            self.engine.execution_options(**{READ_ONLY: True}), expire_on_commit=False
        )

    @asynccontextmanager
    async def session(self, *, read_only: bool = False) -> AsyncIterator[AsyncSession]:
        """Open a session: commits on a clean exit, rolls back on any error, always closes.

        Args:
            read_only: nothing will be written; on SQLite the write lock is not taken then.
        """
        maker = self._reading_sessions if read_only else self._sessions
        async with maker() as session:
            try:
                yield session
                await session.commit()
            except BaseException:
                await session.rollback()
                raise

    async def connect(self, *, patience_s: float = 0.0) -> None:
        """Open a first connection.

        Args:
            patience_s: for how many seconds to go on trying, with backoff.

        Raises:
            DatabaseUnavailable: it did not work; the message names the URL (masked), the cause and the way out.
        """
        loop = asyncio.get_running_loop()
        deadline, pause_s = loop.time() + patience_s, FIRST_BACKOFF_S
        while True:
            try:
                async with self.engine.connect() as connection:
                    await connection.execute(text("SELECT 1"))
            except (SQLAlchemyError, OSError, TimeoutError) as error:
                failure = error
            except (TypeError, ValueError) as error:  # an option of the URL has a value that the driver cannot use
                raise self._unavailable(error) from error
            else:
                return
            if loop.time() + pause_s > deadline:
                raise self._unavailable(failure) from failure
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, SLOWEST_BACKOFF_S)

    async def close(self) -> None:
        """Close every connection."""
        await self.engine.dispose()

    def _unavailable(self, failure: Exception) -> DatabaseUnavailable:
        return DatabaseUnavailable(
            f"DATABASE_URL {masked(self.settings.url)}: no connection ({first_line(failure)}); "
            "start the server or correct the URL"
        )


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


async def close_database() -> None:
    """Close the process's connection pool, if it is open."""
    global _manager
    manager, _manager = _manager, None
    if manager is not None:
        await manager.close()


@asynccontextmanager
async def get_async_session(*, read_only: bool = False) -> AsyncIterator[AsyncSession]:
    """Open a session on the process's pool: commits on a clean exit, rolls back on any error, always closes.

    Raises:
        DatabaseNotInitialised: ``initialize_database`` was not awaited in this process.
    """
    if _manager is None:
        raise DatabaseNotInitialised("no connection pool: await initialize_database() first")
    async with _manager.session(read_only=read_only) as session:
        yield session
