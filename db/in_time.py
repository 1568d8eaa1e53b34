"""A deadline for short transactions: a database that does not answer holds up nothing for ever."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from db.connection import get_manager
from db.errors import DatabaseSilent


@asynccontextmanager
async def in_time(deadline_s: float | None = None) -> AsyncIterator[None]:
    """End the block, with the session that is opened in it, after ``DATABASE_DEADLINE_S`` seconds.

    A connection on which packets vanish, a server that stands still, or a lock that is never let go would otherwise
    hold it for ever. SQLite has none of these, and a patience of its own (``db.turns``, ``busy_timeout``).

    Args:
        deadline_s: another number of seconds.

    Raises:
        DatabaseSilent: the time was over; the connection is closed and not used again.
    """
    manager = get_manager()
    if manager.writers_take_turns:
        yield
        return
    seconds = manager.settings.database_deadline_s if deadline_s is None else deadline_s
    try:
        async with asyncio.timeout(seconds) as limit:
            yield
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise DatabaseSilent(
            f"the database has not answered for {seconds:g} s (DATABASE_DEADLINE_S): it stands still or cannot be "
            "reached, or somebody holds a lock or all connections of the pool"
        ) from error
