"""What the real worlds of a test share, one after the other; on it the real functions stop at their gates."""

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from typing import Any, TypeVar
from unittest.mock import patch

import redis as blocking
import structlog
from arq.connections import ArqRedis, create_pool
from sqlalchemy import delete, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from db import connection
from db.base import Base
from db.connection import DatabaseManager
from holdfast import Client, wire
from tests.faults.effects import effects, make_tables
from tests.model import gates
from tests.model.real_clocks import TICK_S
from tests.model.world import DEAD_AFTER, LEASE, SLOTS
from worker import dispatch, intake, reconcile, recovery, runtime
from worker.queue import upkeep
from worker.redis_url import arq_connection
from worker.settings import Settings

T = TypeVar("T")


class ForgetfulManager(DatabaseManager):
    """A pool whose answer to a commit is lost where the strand asks for it, as when the connection breaks."""

    @asynccontextmanager
    async def session(self, *, read_only: bool = False, single: bool = False) -> AsyncIterator[AsyncSession]:
        async with super().session(read_only=read_only, single=single) as session:
            yield session
        strand = gates.current.get()
        if not read_only and strand is not None and strand.loses_answer:
            strand.loses_answer = False
            raise DBAPIError("COMMIT", {}, ConnectionResetError("no answer"), connection_invalidated=True)


def _forget_at_a_power_cut(dbapi_connection: Any, record: object) -> None:
    del record
    dbapi_connection.cursor().execute("PRAGMA synchronous = OFF")  # there is none here, and it takes half of the time


class Stage:
    """What the worlds of a test share, one after the other: event loop, database, Redis.

    Args:
        database_url: a database that has the ledger's tables.
        redis_url: an empty Redis.
    """

    def __init__(self, database_url: str, redis_url: str) -> None:
        self.settings = Settings(
            _env_file=None,
            database_url=database_url,
            redis_url=redis_url,
            holdfast_plugins=("tests.model.real_kinds",),
            lease_s=LEASE * TICK_S,
            heartbeat_timeout_s=DEAD_AFTER * TICK_S,
            max_jobs=SLOTS,
        )
        self.loop = asyncio.new_event_loop()
        self.manager = ForgetfulManager(self.settings)
        if self.manager.writers_take_turns:
            event.listen(self.manager.engine.sync_engine, "connect", _forget_at_a_power_cut)
        self.blocking: Any = blocking.Redis.from_url(redis_url)
        self.scripts = (self.blocking.register_script(upkeep.RENEW), self.blocking.register_script(upkeep.RECLAIM))
        self.redis: ArqRedis = self.run(self._connect(redis_url))
        self.client = Client(redis_url)
        self.run(make_tables(self.manager.engine))

    def run(self, step: Coroutine[Any, Any, T]) -> T:
        """Runs one step to its end."""
        return self.loop.run_until_complete(step)

    async def empty(self) -> None:
        """Takes away what the world before has left."""
        self.blocking.flushall()
        async with self.manager.session() as session:
            for table in (effects, *reversed(Base.metadata.sorted_tables)):
                await session.execute(delete(table))

    def close(self) -> None:
        """Ends the connections."""
        self.run(self._close())
        self.loop.close()
        self.blocking.close()

    @staticmethod
    async def _connect(redis_url: str) -> ArqRedis:
        connection = arq_connection(redis_url, wire.DEFAULT_QUEUE)
        return await create_pool(connection["redis_settings"], job_serializer=wire.dumps)

    async def _close(self) -> None:
        await self.client.close()
        await self.redis.aclose(close_connection_pool=True)
        await self.manager.close()


@contextmanager
def stage(database_url: str, redis_url: str) -> Iterator[Stage]:
    """Opens a stage, on which the real functions stop at their gates."""
    made = Stage(database_url, redis_url)
    places = ((dispatch, "_put"), (dispatch, "_mark"), (recovery, "_put_back"), (reconcile, "dispatch_runs"))
    patches = [patch.object(module, name, new=gates.gated(name, getattr(module, name))) for module, name in places]
    patches += [patch.object(intake, "take_in", new=gates.gated("take_in", intake.take_in))]
    patches += [
        patch.object(connection, "_manager", new=made.manager),
        patch.object(runtime, "ALONE_PATIENCE_S", new=0.0),
    ]
    with ExitStack() as stack:
        stack.callback(made.close)
        stack.enter_context(_silent())
        for each in patches:
            stack.enter_context(each)
        yield made


@contextmanager
def _silent() -> Iterator[None]:
    """Lets the workers log nothing: they are killed hundreds of times."""
    was_configured, before = structlog.is_configured(), structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    arq_logger = logging.getLogger("arq.worker")
    arq_logger.disabled = True
    try:
        yield
    finally:
        arq_logger.disabled = False
        if was_configured:
            structlog.configure(**before)
        else:  # else the next test would find it configured, and log where an earlier one has
            structlog.reset_defaults()
