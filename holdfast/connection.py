"""A connection to the Redis that holds the queue, with typed errors."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from redis import asyncio as redis_asyncio
from redis import exceptions as redis_errors
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from holdfast.errors import QueueUnavailable

REFUSALS = (
    redis_errors.ResponseError,
    redis_errors.AuthenticationError,
    redis_errors.AuthorizationError,
    redis_errors.BusyLoadingError,
)
"""Error replies: Redis has read the command and has not run it."""


class QueueConnection:
    """One queue in one Redis.

    Args:
        redis_url: ``redis://``, ``rediss://`` or ``unix://``.
        queue: the queue's key.
        timeout_s: the deadline of each call, in seconds.
    """

    def __init__(self, redis_url: str, *, queue: str, timeout_s: float) -> None:
        self.queue = queue
        self._timeout_s = timeout_s
        self._redis: Any = redis_asyncio.Redis.from_url(  # type: ignore[no-untyped-call,unused-ignore]
            redis_url,
            socket_timeout=timeout_s,
            # Shorter than the whole call's, so that a connection that never came to be is known for what it is.
            socket_connect_timeout=timeout_s * 0.9,
            # redis-py's own repetitions differ by version. None are wanted: an enqueue that was done but not answered
            # would find its own id taken.
            retry=Retry(NoBackoff(), 0),
        )

    async def call(self, *command: str | int | bytes) -> Any:
        """Send one command and return Redis's answer.

        Raises:
            QueueUnavailable: Redis refused or did not answer.
        """
        async with translated_errors(), asyncio.timeout(self._timeout_s):
            return await self._redis.execute_command(*command)

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()


@asynccontextmanager
async def translated_errors() -> AsyncIterator[None]:
    """Turn redis-py's errors into ``QueueUnavailable``, saying whether the request may have had an effect."""
    try:
        yield
    except REFUSALS as error:
        raise QueueUnavailable(f"Redis refused: {error}", outcome="refused") from error
    except (redis_errors.RedisError, OSError, TimeoutError) as error:
        # redis-py 5 to 8 say "connecting to" in each error of a connection that never came to be.
        never_sent = "connecting to" in str(error)
        message = f"Redis is out of reach: {str(error) or 'no answer in time'}"
        raise QueueUnavailable(message, outcome="refused" if never_sent else "unknown") from error
