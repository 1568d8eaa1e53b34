"""Being told that the queue has changed: ``CLIENT TRACKING`` on its key, for whatever producer writes to it.

One connection subscribes to the invalidations, another reads the first entry of each queue; that read both tells when
the next run is due and asks Redis to say once when the key changes. Redis 6 and later; source:
https://redis.io/docs/latest/develop/reference/client-side-caching/ ("two connections mode").
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

from redis.exceptions import RedisError, ResponseError

INVALIDATIONS = "__redis__:invalidate"
NO_SUCH_CLIENT = "redirect to does not exist"


class TrackingRefused(Exception):  # noqa: N818
    """This Redis has no client tracking, or this user may not use it."""


class Waker:
    """Waits for changes of some keys.

    Args:
        redis: the worker's connection.
        queues: sorted sets whose first entry tells when there is work.
        others: sorted sets of which any change wakes.
        bells: counters of which any change wakes.
        on_bell: called when one of them has changed since the last look, and at the first look.
        renewal_s: after so long it takes new connections. Where a name leads to another server meanwhile, reading on
            the old ones goes on, and nothing says that they are the wrong ones.
    """

    def __init__(
        self,
        redis: Any,
        queues: Sequence[str],
        others: Sequence[str] = (),
        bells: Sequence[str] = (),
        *,
        on_bell: Callable[[], None] = lambda: None,
        renewal_s: float = 60.0,
    ) -> None:
        self._redis = redis
        self._queues = tuple(queues)
        self._others = tuple(others)
        self._bells = tuple(bells)
        self._on_bell = on_bell
        self._renewal_s = renewal_s
        self._renew_at = 0.0
        self._rung: list[Any] | None = None
        self._reader: Any = None
        self._subscription: Any = None
        self._listener: asyncio.Task[None] | None = None
        self._broken = False
        self._distrusted = False
        self.changed = asyncio.Event()

    async def arm(self) -> dict[str, float]:
        """Ask to be told of the next change.

        Returns:
            For each queue that holds anything: seconds until its first entry is due (0: now).

        Raises:
            TrackingRefused: poll instead.
            RedisError, OSError: Redis is away.
        """
        if self._needs_connections():
            self._distrusted = False
            await self.close()
            await self._open()
            self._renew_at = time.monotonic() + self._renewal_s
        if not self._distrusted:  # meanwhile
            self.changed.clear()
        # Until it is read through: redis-py would connect anew by itself, and the tracking would be off.
        self._broken = True
        commands: list[tuple[str | int, ...]] = [("TIME",)]
        commands += [("ZRANGE", queue, 0, 0, "WITHSCORES") for queue in self._queues]
        commands += [("GET", key) for key in self._bells]
        commands += [("ZCARD", key) for key in self._others]
        (seconds, microseconds), *answers = await self._read(commands)
        self._broken = False
        self._hear_bells(answers[len(self._queues) : len(self._queues) + len(self._bells)])
        now_ms = int(seconds) * 1000 + int(microseconds) / 1000
        answers_of = zip(self._queues, answers, strict=False)
        return {queue: max(0.0, (float(answer[1]) - now_ms) / 1000) for queue, answer in answers_of if answer}

    def _needs_connections(self) -> bool:
        is_deaf = self._listener is None or self._listener.done() or self._broken
        return is_deaf or self._distrusted or time.monotonic() > self._renew_at

    def _hear_bells(self, rung: list[Any]) -> None:
        if self._bells and rung != self._rung:
            self._rung = rung
            self._on_bell()

    def distrust(self) -> None:
        """Take new connections, now that nothing may be told on the old ones any more."""
        self._distrusted = True
        self.changed.set()

    async def close(self) -> None:
        """Close both connections."""
        # Taken out first: it may be called again while it waits below.
        listener, subscription, reader = self._listener, self._subscription, self._reader
        self._listener = self._subscription = self._reader = None
        if listener is not None:
            listener.cancel()
            await asyncio.gather(listener, return_exceptions=True)
        if subscription is not None:
            await subscription.aclose()
        if reader is not None:
            await reader.disconnect()  # it must not go back into the pool with its tracking on
            await self._redis.connection_pool.release(reader)

    async def _open(self) -> None:
        self._subscription = self._redis.pubsub()
        await self._subscription.connect()
        connection = self._subscription.connection
        self._reader = await self._redis.connection_pool.get_connection()
        if _place(connection) != _place(self._reader):
            await self.close()
            raise ConnectionError("the master has changed between two connections")
        try:
            await connection.send_command("CLIENT", "ID")
            client_id = await connection.read_response()
            await self._read([("CLIENT", "TRACKING", "on", "REDIRECT", client_id)])
            await self._subscription.subscribe(INVALIDATIONS)
            await self._subscription.get_message(timeout=None)  # the confirmation, or the refusal
        except ResponseError as error:
            await self.close()
            if NO_SUCH_CLIENT in str(error):  # between the two connections the server was started anew, or replaced
                raise ConnectionError(str(error)) from error
            raise TrackingRefused(str(error)) from error
        self._broken = False
        self._listener = asyncio.create_task(self._listen())

    async def _read(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        # On the very connection that tracks: redis-py's pipelines take any of the pool's.
        await self._reader.send_packed_command(self._reader.pack_commands(commands))
        return [await self._reader.read_response() for _ in commands]

    async def _listen(self) -> None:
        try:
            async for message in self._subscription.listen():
                if message["type"] == "message":
                    self.changed.set()
        except (RedisError, OSError):
            pass
        finally:
            self.changed.set()  # a lost connection wakes as well: whoever waits arms again


def _place(connection: Any) -> tuple[Any, Any]:
    return getattr(connection, "host", None), getattr(connection, "port", None)


class Poller:
    """The pauses of a worker that is not told: short after work, longer when idle."""

    shortest_s = 0.05
    longest_s = 0.5

    def __init__(self) -> None:
        self._pause_s = self.shortest_s

    def pause_s(self, *, idle: bool) -> float:
        """Return how long to wait before the next look."""
        self._pause_s = min(self._pause_s * 2, self.longest_s) if idle else self.shortest_s
        return self._pause_s
