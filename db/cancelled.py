"""What a cancelled statement still does at the database is ended.

asyncpg asks its server to by itself. MySQL and MariaDB would go on until they want to send the result: the session is
killed from another connection. SQLite works in a thread of this process: it is interrupted.
"""

import asyncio
import sqlite3
import threading
import weakref
from contextlib import suppress
from typing import Any, Final

import aiosqlite
from sqlalchemy import event, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

KILL_TIMEOUT_S: Final = 10.0
INTERRUPT_INTERVAL_S: Final = 0.01


class CancelledStatements:
    """Ends them for one engine.

    Args:
        engine: whose statements are watched.
        spare: opens a connection of its own for each use, because the pool may be exhausted.
    """

    def __init__(self, engine: AsyncEngine, spare: AsyncEngine) -> None:
        self._spare = spare
        self._dialect = engine.dialect.name
        self._endings: set[asyncio.Task[None]] = set()
        if self._dialect != "postgresql":
            event.listen(engine.sync_engine, "invalidate", self._on_invalidation)

    async def close(self) -> None:
        """Wait for what is being ended."""
        await asyncio.gather(*self._endings, return_exceptions=True)
        await self._spare.dispose()

    def _on_invalidation(self, dbapi_connection: Any, record: object, error: BaseException | None) -> None:
        del record
        if not isinstance(error, asyncio.CancelledError):
            return
        driver = dbapi_connection.driver_connection
        ending = interrupt(driver) if isinstance(driver, aiosqlite.Connection) else self._kill(driver.thread_id())
        task = asyncio.get_running_loop().create_task(ending)
        self._endings.add(task)
        task.add_done_callback(self._endings.discard)

    async def _kill(self, thread_id: int) -> None:
        # The client has gone: KILL QUERY alone would leave the session, and its locks, to the server's next read.
        with suppress(SQLAlchemyError, OSError, TimeoutError):  # it has ended by itself, or the server has
            async with asyncio.timeout(KILL_TIMEOUT_S), self._spare.connect() as connection:
                await connection.execute(text(f"KILL {int(thread_id)}"))


class InterruptibleConnection(sqlite3.Connection):
    """Rolls back when it is closed, and is not interrupted in that.

    SQLAlchemy closes a connection whose statement was cancelled. SQLite defers that, and keeps the write lock, for as
    long as a statement of the connection lives: here until the traceback of the cancellation is forgotten. And until
    the last one has ended, an interruption hits what comes after it as well: the rollback.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._mutex = threading.Lock()
        self._is_closing = False
        self._cursors: weakref.WeakSet[sqlite3.Cursor] = weakref.WeakSet()

    def cursor(self, *args: Any, **kwargs: Any) -> Any:
        """As sqlite3's; closed with the connection at the latest."""
        cursor = super().cursor(*args, **kwargs)
        self._cursors.add(cursor)
        return cursor

    def execute(self, *args: Any) -> Any:
        """As sqlite3's, which does not ask ``cursor`` for one."""
        return self.cursor().execute(*args)

    def close(self) -> None:
        """End what was not read to its end, roll back, and close for good."""
        with self._mutex:
            self._is_closing = True
        try:
            for cursor in list(self._cursors):
                cursor.close()
            if self.in_transaction:
                self.rollback()
        finally:
            super().close()

    def interrupt_unless_closing(self) -> bool:
        """End the statement that runs now, if one does; returns whether to look again."""
        with self._mutex:
            if not self._is_closing:
                self.interrupt()
            return not self._is_closing


async def interrupt(connection: aiosqlite.Connection) -> None:
    """End a connection's statements until it is closed: one may be waiting for the thread and start only now."""
    driver = connection._connection  # noqa: SLF001 - its own interrupt() is for a connection that nobody closes
    while isinstance(driver, InterruptibleConnection) and driver.interrupt_unless_closing():  # noqa: ASYNC110
        await asyncio.sleep(INTERRUPT_INTERVAL_S)
