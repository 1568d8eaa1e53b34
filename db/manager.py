"""One database as a process sees it: its pool, the sessions on it, its tables and its health."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Any

from sqlalchemy import RowMapping, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session

from db import schema
from db.cancelled import CancelledStatements
from db.closing import close_in_time, connected
from db.engines import create_engine
from db.errors import DatabaseUnavailable, first_line
from db.health import HEALTH_TIMEOUT_S, DatabaseHealth, check_engine, pool_figures
from db.pool import PoolFigures
from db.raw_sql import bound
from db.read_only import read_only_options, reading_options, single_options
from db.settings import DatabaseSettings
from db.tuning import CONNECT_TIMEOUT_S, is_behind_pooler
from db.turns import turns_of
from db.urls import masked

FIRST_BACKOFF_S = 0.1
SLOWEST_BACKOFF_S = 2.0
FIRST_ANSWER_S = CONNECT_TIMEOUT_S + 2.0
"""Seconds for a first connection and what it is asked."""


class DatabaseManager:
    """One engine and its session makers; a second engine where there is a replica."""

    def __init__(self, settings: DatabaseSettings) -> None:
        self.settings = settings
        self.engine = create_engine(settings)
        replica = settings.replica_url
        self._replica = None if replica is None else create_engine(settings, url=replica)
        self._cancelled = [
            CancelledStatements(engine, create_engine(settings, pooled=False, url=engine.url))
            for engine in (self.engine, self._replica)
            if engine is not None
        ]
        dialect, singly = self.engine.dialect.name, not is_behind_pooler(settings, pooled=True)
        self._turns = turns_of(str(self.engine.url.database)) if self.writers_take_turns else None
        reading = reading_options(dialect, single_statements=singly)
        self._reading_engine = self.engine.execution_options(**reading)
        self._read_only_engine = (self._replica or self.engine).execution_options(**read_only_options(dialect))
        self._single_engine = self.engine.execution_options(**single_options(dialect, single_statements=singly))
        self._statements_stand_alone = singly and dialect == "postgresql"
        self._sessions = async_sessionmaker(self.engine, expire_on_commit=False)
        self._single_sessions = async_sessionmaker(self._single_engine, expire_on_commit=False)
        self._reading_sessions = async_sessionmaker(self._reading_engine, expire_on_commit=False)
        self._read_only_sessions = async_sessionmaker(self._read_only_engine, expire_on_commit=False)

    @property
    def writers_take_turns(self) -> bool:
        """Whether the database has one writer (SQLite): who writes for long holds up everybody."""
        return self.engine.dialect.name == "sqlite"

    @asynccontextmanager
    async def session(self, *, read_only: bool = False, single: bool = False) -> AsyncIterator[AsyncSession]:
        """Open a session: commits on a clean exit, rolls back on any error, always closes.

        Args:
            read_only: reads what was committed, from the replica where there is one: that may lag. The database itself
                refuses to write. Each statement sees what was committed before it.
            single: each statement stands alone: PostgreSQL, unless it is behind a pooler, commits it by itself, and is
                spared a transaction around it.

        Raises:
            NestedWriteSession: SQLite has one writer, and this task is it already.
            DatabaseBusy: others of this process wrote for half a minute (SQLite).
        """
        maker = self._read_only_sessions if read_only else self._single_sessions if single else self._sessions
        async with nullcontext() if read_only else self._turn():
            session = maker()
            try:
                yield session
                await session.run_sync(_commit_and_close)
            except BaseException:
                await close_in_time(session, self._close_s)
                raise

    @asynccontextmanager
    async def reading_session(self) -> AsyncIterator[AsyncSession]:
        """Open a session for reading what is newest, often: never the replica's, and without a transaction around it.

        Each statement sees what was committed before it. Nothing but the caller keeps it from writing.
        """
        session = self._reading_sessions()
        try:
            yield session
        finally:
            await close_in_time(session, self._close_s)

    def reader(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """Open a connection for reading: as ``reading_session``, at half its cost."""
        return connected(self._reading_engine, self._close_s)

    @property
    def statements_stand_alone(self) -> bool:
        """Whether ``single`` can be had (PostgreSQL that is reached without a pooler)."""
        return self._statements_stand_alone

    def single(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """Open a connection on which each statement is a transaction of its own, committed when it has answered.

        Raises:
            NotImplementedError: not on this engine, or behind a pooler, which ``statements_stand_alone`` tells.
        """
        if not self.statements_stand_alone:
            where = f"{self.engine.dialect.name}, as it is reached here"
            raise NotImplementedError(
                f"{where}: only PostgreSQL without a pooler has single statements; open a session"
            )
        return self._single_engine.connect()

    @asynccontextmanager
    async def get_connection(self, *, read_only: bool = False) -> AsyncIterator[AsyncConnection]:
        """Open a connection in a transaction, as ``session`` does without the ORM.

        Args: as ``session``.
        """
        engine = self._read_only_engine if read_only else self.engine
        async with nullcontext() if read_only else self._turn(), connected(engine, self._close_s) as connection:
            await connection.begin()
            yield connection
            await connection.commit()

    async def execute_raw_sql(
        self, sql: str, params: Mapping[str, Any] | None = None, *, read_only: bool = False
    ) -> list[RowMapping]:
        """Execute one statement in a transaction of its own; returns its rows, none where it gives none.

        Args:
            sql: with ``:name`` for each value. Never put a value into the text.
            params: the values by name; a list that is not empty fills an ``IN :name``.
            read_only: as in ``session``.

        Raises:
            ValueError: a value has no place in the statement, a place has no value, or a list is empty.
        """
        given = dict(params or {})
        statement = bound(sql, given)
        async with self.get_connection(read_only=read_only) as connection:
            result = await connection.execute(statement, given)
            return list(result.mappings()) if result.returns_rows else []

    async def create_tables(self) -> None:
        """Make every table of the models that is missing, as ``db.schema.create_tables``."""
        await schema.create_tables(self.engine)

    async def drop_tables(self, *, force: bool = False) -> None:
        """Drop every table of the models.

        Args:
            force: also where the database is not on this machine or holds rows.

        Raises:
            ResetRefused: without ``force``.
        """
        await schema.drop_tables(self.engine, self.settings.url, force=force)

    async def reset(self, *, force: bool = False) -> None:
        """Drop every table of the models and make them anew; arguments and errors as ``drop_tables``."""
        await self.drop_tables(force=force)
        await self.create_tables()

    async def health_check(self, *, timeout_s: float = HEALTH_TIMEOUT_S) -> DatabaseHealth:
        """Ask the database for one round trip; what goes wrong is told and never raised.

        Args:
            timeout_s: seconds for each of database and replica.
        """
        found = await check_engine(self.engine, self.settings.url, timeout_s=timeout_s)
        if self._replica is not None:
            found["replica"] = await check_engine(self._replica, self._replica.url, timeout_s=timeout_s)
        return found

    def pool_figures(self) -> PoolFigures:
        """Return what the pool does now, and how often somebody waited for it."""
        return pool_figures(self.engine)

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
                async with asyncio.timeout(FIRST_ANSWER_S), self.reader() as connection:
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
        for cancelled in self._cancelled:
            await cancelled.close()
        await self.engine.dispose()
        if self._replica is not None:
            await self._replica.dispose()

    @property
    def _close_s(self) -> float | None:
        return None if self.writers_take_turns else self.settings.database_deadline_s

    def _turn(self) -> AbstractAsyncContextManager[None]:
        return nullcontext() if self._turns is None else self._turns.turn()

    def _unavailable(self, failure: Exception) -> DatabaseUnavailable:
        cause = first_line(failure)
        if (reason := _tls_reason(failure)) is not None and reason not in cause:
            cause = f"{cause}: {reason}"
        advice = "start the server or correct the URL"
        if self.engine.dialect.name == "sqlite":
            advice = "make its folder, where this user may write, or correct the URL"
        if "unsupported startup parameter" in cause:
            advice = "this is PgBouncer: set DATABASE_POOLER=transaction"
        return DatabaseUnavailable(f"DATABASE_URL {masked(self.settings.url)}: no connection ({cause}); {advice}")


def _commit_and_close(session: Session) -> None:
    # Together, as the close has nothing left to wait for: AsyncSession's own would start a task for it.
    session.commit()
    session.close()


def _tls_reason(failure: BaseException) -> str | None:
    # aiomysql says only that it cannot connect.
    cause: BaseException | None = failure
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return str(cause)
        cause = cause.__cause__ or cause.__context__
    return None
