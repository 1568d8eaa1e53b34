"""Hands on the wire for the tests of the client: requests, a worker's part done by hand, and bad ways to Redis."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, ClassVar
from urllib.parse import urlsplit

import redis

from holdfast import JobReport, JobRequest, wire

PATIENCE_S = 30.0
"""Seconds for which a test waits for what must come; it fails after them."""


class EchoReport(JobReport):
    """What `Echo` reports."""

    text: str = ""


class Echo(JobRequest[EchoReport]):
    """A request of the tests."""

    kind: ClassVar[str] = "echo"
    report_type: ClassVar[type[JobReport]] = EchoReport

    text: str = ""
    number: float = 0.0


class LightEcho(Echo):
    """The same without a ledger."""

    kind: ClassVar[str] = "light_echo"
    ledger: ClassVar[bool] = False


async def until(condition: Callable[[], Any]) -> None:
    """Returns when a condition has come true."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            if condition():
                return
            await asyncio.sleep(0.005)


class Hands:
    """A worker's part, done by hand.

    Args:
        url: the Redis of the test.
    """

    def __init__(self, url: str) -> None:
        # Untyped: redis-py types each answer as perhaps an awaitable.
        self.redis: Any = redis.Redis.from_url(url, socket_timeout=PATIENCE_S)

    def finish(self, run_id: str, report: dict[str, Any] | None = None) -> None:
        """Ends a run with a report, as a worker does: in one step."""
        self._end(run_id, {"s": True, "r": report or {"text": run_id}})

    def fail(self, run_id: str, **error: str) -> None:
        """Ends a run with an error."""
        self._end(run_id, {"s": False, "r": {"error": error}})

    def _end(self, run_id: str, result: dict[str, Any]) -> None:
        with self.redis.pipeline(transaction=True) as pipe:
            pipe.set(wire.RESULT_KEY + run_id, json.dumps(result), px=3_600_000)
            pipe.zrem(wire.DEFAULT_QUEUE, run_id)
            pipe.delete(wire.JOB_KEY + run_id, wire.IN_PROGRESS_KEY + run_id)
            pipe.execute()

    def waiting(self, queue: str = wire.DEFAULT_QUEUE) -> list[str]:
        """Returns the ids in the queue, the first one first."""
        return [raw.decode() for raw in self.redis.zrange(queue, 0, -1)]

    def intake(self, queue: str = wire.DEFAULT_QUEUE) -> list[str]:
        """Returns the ids on the intake list, the oldest first."""
        return [raw.decode() for raw in self.redis.lrange(queue + wire.INTAKE_SUFFIX, 0, -1)]

    def payload(self, run_id: str) -> dict[str, Any]:
        """Returns what a worker would read."""
        return wire.read_job(self.redis.get(wire.JOB_KEY + run_id))

    def calls(self, *commands: str) -> int:
        """Returns how often these commands were called since the counters were reset."""
        stats = self.redis.info("commandstats")
        return sum(stats.get(f"cmdstat_{command}", {"calls": 0})["calls"] for command in commands)

    def connections(self, name: str) -> Sequence[dict[str, str]]:
        """Returns the connections whose last command was this one."""
        return [client for client in self.redis.client_list() if client["cmd"].startswith(name)]

    def close(self) -> None:
        """Closes the connection."""
        self.redis.close()


class Way:
    """A TCP way to a Redis that can be spoilt.

    `is_cut`: packets vanish in both directions and connections stay open. `let_through`: how many answers to an enqueue
    arrive before one is thrown away and its connection is closed; None: all.
    """

    def __init__(self, url: str) -> None:
        address = urlsplit(url)
        self._to = (address.hostname, address.port)
        self.url = ""
        self.is_cut = False
        self._muted = 0
        self.let_through: int | None = None
        self.opened = 0

    def mute_subscribers(self) -> None:
        """Lets those who have subscribed hear nothing any more."""
        self._muted = self.opened

    @asynccontextmanager
    async def listening(self) -> AsyncIterator["Way"]:
        """Opens the way."""
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
        try:
            yield self
        finally:
            server.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.opened += 1
        number = self.opened
        from_redis, to_redis = await asyncio.open_connection(*self._to)
        subscribed = asyncio.Event()

        def is_heard() -> bool:
            return not self.is_cut and not (number <= self._muted and subscribed.is_set())

        back = asyncio.create_task(self._pass(from_redis, writer, is_heard))
        try:
            while request := await reader.read(1 << 20):
                if b"SUBSCRIBE" in request:
                    subscribed.set()
                if self.is_cut:
                    continue
                if b"EVAL" in request and self.let_through is not None:
                    self.let_through -= 1
                    if self.let_through < 0:
                        back.cancel()
                        await self._carry_out(reader, request, from_redis, to_redis)
                        return
                to_redis.write(request)
                await to_redis.drain()
        except OSError:
            pass
        finally:
            back.cancel()
            to_redis.close()
            writer.close()

    async def _carry_out(
        self,
        reader: asyncio.StreamReader,
        request: bytes,
        from_redis: asyncio.StreamReader,
        to_redis: asyncio.StreamWriter,
    ) -> None:
        """Hands the rest of a request on, and waits for an answer that nobody gets."""
        to_redis.write(request)
        answer = asyncio.ensure_future(from_redis.read(1))
        while not answer.done():
            more = asyncio.ensure_future(reader.read(1 << 20))
            await asyncio.wait({answer, more}, return_when=asyncio.FIRST_COMPLETED)
            if more.done():
                to_redis.write(more.result())
            else:
                more.cancel()
                await asyncio.gather(more, return_exceptions=True)

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, is_heard: Callable[[], bool]
    ) -> None:
        try:
            while data := await reader.read(1 << 16):
                if is_heard():
                    writer.write(data)
        except OSError:
            pass
        finally:
            writer.close()
