"""Living through a Redis that is away, full, read-only or slow: said once when it begins and once when it ends."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ReadOnlyError, RedisError, ResponseError

logger = logging.getLogger("holdfast.queue")


class Outage:
    """The worker's view of Redis; every call is made inside ``guarded``.

    It is over when each kind of call that failed works again: a full Redis answers reads, and a claim that finds
    nothing, while it refuses to hear of results.

    Args:
        deadline_s: of each call, in seconds.
        on_distrust: called when a call got no answer in time, or one that speaks against its connection.
    """

    errors = (RedisError, OSError, TimeoutError)

    def __init__(self, deadline_s: float, on_distrust: Callable[[], Awaitable[None]]) -> None:
        self._deadline_s = deadline_s
        self._on_distrust = on_distrust
        self._since: float | None = None
        self._failing: set[str] = set()
        self.failed_call_began = 0.0
        """When the call began that failed last, by ``time.monotonic``."""

    @property
    def is_on(self) -> bool:
        """Whether calls fail."""
        return self._since is not None

    @asynccontextmanager
    async def guarded(self, call: str) -> AsyncIterator[None]:
        """Give one call its deadline, and note whether it worked; the error goes on to the caller.

        Args:
            call: its kind.
        """
        started = time.monotonic()
        try:
            with _lost_connections_named():
                async with asyncio.timeout(self._deadline_s):
                    yield
        except self.errors as error:
            if self._since is None:
                self._since = started
                logger.warning("Redis cannot be used, trying on: %s: %s", type(error).__name__, error)
            self._failing.add(call)
            self.failed_call_began = started
            # A refusal comes from the right server, unless that is a master that was demoted meanwhile.
            if isinstance(error, ReadOnlyError) or not isinstance(error, ResponseError):
                await self._on_distrust()
            raise
        if self._since is not None:
            self._works_again(call)

    def _works_again(self, call: str) -> None:
        self._failing.discard(call)
        if self._failing or self._since is None:
            return
        logger.warning("Redis can be used again after %.1f s", time.monotonic() - self._since)
        self._since = None


@contextmanager
def _lost_connections_named() -> Iterator[None]:
    # uvloop answers a write to a connection that was closed a moment ago by a RuntimeError, asyncio by an OSError.
    try:
        yield
    except RuntimeError as error:
        if "handler is closed" not in str(error):
            raise
        raise RedisConnectionError(f"the connection was closed: {error}") from error
