"""The connection pool and the sessions on it."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from typing import Any

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.pool import NullPool

from db.errors import DatabaseNotInitialised, DatabaseUnavailable, first_line
from db.settings import DatabaseSettings
from db.tuning import READ_ONLY, engine_options, tune
from db.turns import turns_of
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
        "pool_use_lifo": True,  # those of a rush that is over go unused, and no server counts them as busy
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
        single: dict[str, Any] = {"isolation_level": "AUTOCOMMIT"} if self.engine.dialect.name == "postgresql" else {}
        self._turns = turns_of(str(self.engine.url.database)) if self.writers_take_turns else None
        self._single_engine = self.engine.execution_options(**single)
        self._reading_engine = self.engine.execution_options(**{**single, READ_ONLY: True})
        self._sessions = async_sessionmaker(self.engine, expire_on_commit=False)
        self._single_sessions = async_sessionmaker(self._single_engine, expire_on_commit=False)
        self._reading_sessions = async_sessionmaker(self._reading_engine, expire_on_commit=False)

    @property
    def writers_take_turns(self) -> bool:
        """Whether the database has one writer (SQLite): who writes for long holds up everybody."""
        return self.engine.dialect.name == "sqlite"

    @asynccontextmanager
    async def session(self, *, read_only: bool = False, single: bool = False) -> AsyncIterator[AsyncSession]:
        """Open a session: commits on a clean exit, rolls back on any error, always closes.

        Args:
            read_only: nothing will be written; on SQLite the write lock is not taken then. Each statement sees what was
                committed before it, with or without a transaction around them: PostgreSQL is spared it.
            single: one statement will be executed, for which PostgreSQL is spared a transaction around it.

        Raises:
            NestedWriteSession: SQLite has one writer, and this task is it already.
            DatabaseBusy: others of this process wrote for half a minute (SQLite).
        """
        maker = self._reading_sessions if read_only else self._single_sessions if single else self._sessions
        turn = nullcontext() if read_only or self._turns is None else self._turns.turn()
        async with turn, maker() as session:
            try:
                yield session
                await session.commit()
            except BaseException:
                await session.rollback()
                raise

    @asynccontextmanager
    async def reader(self) -> AsyncIterator[AsyncConnection]:
        """Open a connection for reading: as ``session(read_only=True)``, at half its cost, for what is done often."""
        async with self._reading_engine.connect() as connection:
            yield connection

    @property
    def statements_stand_alone(self) -> bool:
        """Whether ``single`` can be had (PostgreSQL)."""
        return self.engine.dialect.name == "postgresql"

    @asynccontextmanager
    async def single(self) -> AsyncIterator[AsyncConnection]:
        """Open a connection on which each statement is a transaction of its own, committed when it has answered.

        Raises:
            NotImplementedError: not on this engine, which ``statements_stand_alone`` tells.
        """
        if not self.statements_stand_alone:
            raise NotImplementedError(f"{self.engine.dialect.name}: no transactions of one statement; open a session")
        async with self._single_engine.connect() as connection:
            yield connection

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
                async with self.reader() as connection:
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


def writers_take_turns() -> bool:
    """Whether this process's database has one writer, as ``DatabaseManager.writers_take_turns``.

    Raises:
        DatabaseNotInitialised: ``initialize_database`` was not awaited in this process.
    """
    return _open_manager().writers_take_turns


async def close_database() -> None:
    """Close the process's connection pool, if it is open."""
    global _manager
    manager, _manager = _manager, None
    if manager is not None:
        await manager.close()


@asynccontextmanager
async def get_async_session(*, read_only: bool = False, single: bool = False) -> AsyncIterator[AsyncSession]:
    """Open a session on the process's pool: commits on a clean exit, rolls back on any error, always closes.

    Args: as ``DatabaseManager.session``.

    Raises:
        DatabaseNotInitialised: ``initialize_database`` was not awaited in this process.
    """
    async with _open_manager().session(read_only=read_only, single=single) as session:
        yield session


@asynccontextmanager
async def get_reader() -> AsyncIterator[AsyncConnection]:
    """Open a connection for reading on the process's pool, as ``DatabaseManager.reader``.

    Raises:
        DatabaseNotInitialised: ``initialize_database`` was not awaited in this process.
    """
    async with _open_manager().reader() as connection:
        yield connection


def statements_stand_alone() -> bool:
    """Whether ``get_single`` can be had, as ``DatabaseManager.statements_stand_alone``.

    Raises:
        DatabaseNotInitialised: ``initialize_database`` was not awaited in this process.
    """
    return _open_manager().statements_stand_alone


@asynccontextmanager
async def get_single() -> AsyncIterator[AsyncConnection]:
    """Open a connection for single statements on the process's pool, as ``DatabaseManager.single``.

    Raises:
        DatabaseNotInitialised: ``initialize_database`` was not awaited in this process.
        NotImplementedError: not on this engine.
    """
    async with _open_manager().single() as connection:
        yield connection


def _open_manager() -> DatabaseManager:
    if _manager is None:
        raise DatabaseNotInitialised("no connection pool: await initialize_database() first")
    return _manager
