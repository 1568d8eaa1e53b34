"""Whether the database answers, how fast, and how busy its pool is."""

import asyncio
import time
from dataclasses import asdict
from typing import Any, NotRequired, TypedDict

from sqlalchemy import text
from sqlalchemy.engine import URL
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from db.closing import connected
from db.errors import first_line
from db.pool import CountingPool, PoolFigures
from db.urls import masked

HEALTH_TIMEOUT_S = 5.0


class DatabaseHealth(TypedDict):
    """What a health check found; it can be sent as JSON."""

    status: str
    """``healthy`` or ``unhealthy``."""
    connected: bool
    database_url: str | None
    """Without its password; None where no pool is open."""
    round_trip_ms: float | None
    """Milliseconds of one empty query, on a connection that was open already."""
    pool: dict[str, Any]
    """``PoolFigures``; empty where no pool is open."""
    error: NotRequired[str]
    """Why it is unhealthy, in one line."""
    replica: NotRequired["DatabaseHealth"]
    """The same of ``DATABASE_REPLICA_URL``, where one is set; it does not change the status above it."""


async def check_engine(engine: AsyncEngine, url: URL, *, timeout_s: float = HEALTH_TIMEOUT_S) -> DatabaseHealth:
    """Ask a database for one round trip; what goes wrong is told and never raised.

    Args:
        engine: with a pool.
        url: is shown without its password.
        timeout_s: seconds for all of it, the wait for a free connection among them.
    """
    round_trip_ms, error = None, None
    try:
        async with asyncio.timeout(timeout_s), connected(engine, timeout_s) as connection:
            await connection.execute(text("SELECT 1"))  # begins the transaction, and may have had to connect
            began = time.perf_counter()
            await connection.execute(text("SELECT 1"))
            round_trip_ms = round((time.perf_counter() - began) * 1000, 3)
    except TimeoutError:
        error = f"no answer within {timeout_s:g} s"
    except (SQLAlchemyError, OSError) as failure:
        error = first_line(failure)
    found = DatabaseHealth(
        status="healthy" if error is None else "unhealthy",
        connected=error is None,
        database_url=masked(url),
        round_trip_ms=round_trip_ms,
        pool=asdict(pool_figures(engine)),
    )
    if error is not None:
        found["error"] = error
    return found


def not_open() -> DatabaseHealth:
    """Return what there is to say where no pool is open."""
    error = "no connection pool: await initialize_database() first"
    return DatabaseHealth(
        status="unhealthy", connected=False, database_url=None, round_trip_ms=None, pool={}, error=error
    )


def pool_figures(engine: AsyncEngine) -> PoolFigures:
    """Return the figures of an engine's pool."""
    pool = engine.pool
    assert isinstance(pool, CountingPool)  # noqa: S101 - create_engine has made it
    return pool.figures()
