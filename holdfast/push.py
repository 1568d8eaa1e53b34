"""Being told by Redis that results have been written: ``CLIENT TRACKING`` with two connections (Redis 6 and later).

One connection reads results, and Redis remembers what it has read; the other is told when one of them changes. Source:
https://redis.io/docs/latest/develop/reference/client-side-caching/ ("two connections mode").
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from redis.exceptions import RedisError, ResponseError

from holdfast import wire
from holdfast.connection import Link, QueueConnection, pack, unavailable

CHANNEL = "__redis__:invalidate"


class PushRefused(Exception):  # noqa: N818
    """This Redis has no client tracking, or this user may not use it."""


class ResultPush:
    """A pair of connections that reads results and hears of their changes.

    Args:
        connection: the client's.
        on_change: called with the ids of runs whose results may have changed; None: with any. It is called with None
            when the pair is lost, too.
    """

    def __init__(self, connection: QueueConnection, on_change: Callable[[Iterable[str] | None], None]) -> None:
        self._connection = connection
        self._on_change = on_change
        self._listener: Link | None = None
        self._reader: Link | None = None
        self._task: asyncio.Task[None] | None = None
        self._is_pinged = False

    @property
    def is_alive(self) -> bool:
        """Whether changes are heard, as far as is known."""
        return self._task is not None and not self._task.done()

    async def open(self) -> None:
        """Open the pair; where ``is_alive`` is not true afterwards it was lost at once.

        Raises:
            PushRefused: poll instead.
            QueueUnavailable: Redis did not answer in time.
        """
        try:
            async with asyncio.timeout(self._connection.timeout_s):
                await self._connect()
        except TimeoutError as error:
            raise unavailable(error, is_sent=False) from error
        except (RedisError, OSError):
            return
        finally:
            if not self.is_alive:
                await self.close()

    async def results(self, run_ids: Sequence[str]) -> list[bytes | None] | None:
        """Read results; the next change of each is told.

        Returns:
            The results, or None when the pair was lost meanwhile.

        Raises:
            QueueUnavailable: Redis did not answer in time.
        """
        if self._reader is None or self._reader.is_stale or not self._connection.leads_to_master(self._reader):
            await self.close()
            return None
        request = pack("MGET", *(wire.RESULT_KEY + run_id for run_id in run_ids))
        try:
            async with asyncio.timeout(self._connection.timeout_s):
                (answer,) = await self._reader.ask(request, 1)
        except TimeoutError as error:
            await self.close()
            raise unavailable(error, is_sent=True) from error
        except (RedisError, OSError):
            await self.close()
            return None
        if isinstance(answer, Exception):
            raise unavailable(answer, is_sent=True) from answer
        results: list[bytes | None] = answer
        return results

    async def check(self) -> None:
        """Close the pair if it tells nothing: it was cut off and has not answered since the last check, or leads to a
        server that is not the master any more."""
        await self._connection.follow_master()
        if self._listener is None or self._is_pinged or not self._connection.leads_to_master(self._listener):
            await self.close()
            return
        self._is_pinged = True
        try:
            async with asyncio.timeout(self._connection.timeout_s):
                await self._listener.send(pack("PING"))
        except (RedisError, OSError, TimeoutError):
            await self.close()

    async def close(self) -> None:
        """Close both connections."""
        task, links = self._task, (self._listener, self._reader)
        self._task = self._listener = self._reader = None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        for link in links:
            if link is not None:
                await link.close()

    async def _connect(self) -> None:
        self._is_pinged = False
        self._listener = await self._connection.open_link()
        client_id, _ = _granted(await self._listener.ask(pack("CLIENT", "ID") + pack("SUBSCRIBE", CHANNEL), 2))
        self._reader = await self._connection.open_link()
        if self._reader.place != self._listener.place:
            return  # the master has changed between the two
        tracking = await self._reader.ask(pack("CLIENT", "TRACKING", "on", "REDIRECT", client_id), 1)
        if self._listener.is_stale:
            return  # it died before Redis could be told of it
        _granted(tracking)
        self._task = asyncio.create_task(self._listen(self._listener))

    async def _listen(self, listener: Link) -> None:
        try:
            while True:
                message = await listener.reply()
                self._is_pinged = False
                if isinstance(message, list) and message[0] == b"message":
                    self._on_change(None if message[2] is None else _run_ids(message[2]))
        except (RedisError, OSError):
            pass
        finally:
            self._on_change(None)


def _granted(answers: list[Any]) -> list[Any]:
    for answer in answers:
        if isinstance(answer, ResponseError):
            raise PushRefused(str(answer))
        if isinstance(answer, RedisError):
            raise answer
    return answers


def _run_ids(keys: Iterable[bytes]) -> list[str]:
    prefix = len(wire.RESULT_KEY)
    return [key.decode(errors="replace")[prefix:] for key in keys]
