"""The end of a session or a connection: one that has fallen silent is given up, and nobody waits for it for ever."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession


async def close_in_time(opened: AsyncConnection | AsyncSession, deadline_s: float | None) -> None:
    """Close it; what was not committed is rolled back.

    SQLAlchemy's own ``async with`` waits until the rollback is answered, and goes on waiting when it is cancelled (2.1,
    ``_run_to_completion``): on a connection whose packets vanish it waits for ever, and a deadline around the block
    does nothing. This one has a deadline of its own, as that of the block may be what ended it.

    Args:
        opened: a session or a connection.
        deadline_s: seconds; then the connection is closed and not used again. None: none.
    """
    with suppress(TimeoutError):  # the driver's call was cancelled, and SQLAlchemy has thrown the connection away
        async with asyncio.timeout(deadline_s):
            await opened.close()


@asynccontextmanager
async def connected(engine: AsyncEngine, deadline_s: float | None) -> AsyncIterator[AsyncConnection]:
    """Open a connection that is closed in time, as ``engine.connect()`` does without.

    Args:
        engine: with or without a pool.
        deadline_s: seconds for its end, as in ``close_in_time``.
    """
    connection = await engine.connect()
    try:
        yield connection
    finally:
        await close_in_time(connection, deadline_s)
