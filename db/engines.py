"""The engines: one for the pool, one for what must not wait for it, one for a replica."""

import logging
from typing import Any

from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from db.lost_connections import replace_lost_connections
from db.pool import CountingPool
from db.query_log import log_slow_queries
from db.read_only import begin_as_told
from db.settings import DatabaseSettings
from db.tuning import engine_options, tune


def create_engine(settings: DatabaseSettings, *, pooled: bool = True, url: URL | None = None) -> AsyncEngine:
    """Make an engine; nothing is connected yet.

    Args:
        settings: the URL and the pool's sizes.
        pooled: False for one connection at a time, past a pooler and without a limit on a statement's time, as
            migrations want it.
        url: another database of the same kind, as the replica.
    """
    sizes = {
        "poolclass": CountingPool,
        "pool_size": settings.database_pool_size,
        "max_overflow": settings.database_max_overflow,
        "pool_timeout": settings.database_pool_timeout,
        "pool_recycle": settings.database_pool_recycle,
        "pool_use_lifo": True,  # those of a rush that is over go unused, and no server counts them as busy
    }
    pool: dict[str, Any] = sizes if pooled else {"poolclass": NullPool}
    where = url or (settings.url if pooled else settings.direct_url)
    if settings.sql_echo:
        _echo_to_stderr()
    told = engine_options(settings, where, pooled=pooled)
    engine = create_async_engine(where, echo=settings.sql_echo, **{**pool, **told})
    tune(engine.sync_engine, settings, pooled=pooled)
    begin_as_told(engine.sync_engine)
    if engine.dialect.name != "sqlite":
        replace_lost_connections(engine.sync_engine)
    if pooled:
        log_slow_queries(engine.sync_engine, settings.database_slow_query_s)
    return engine


def _echo_to_stderr() -> None:
    # SQLAlchemy's own handler would write between the documents on stdout.
    logger = logging.getLogger("sqlalchemy.engine.Engine")
    if not logger.handlers:
        logger.addHandler(logging.NullHandler() if logging.getLogger().handlers else logging.StreamHandler())
