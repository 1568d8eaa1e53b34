"""The measured producers, and stock arq's worker, as processes: ``python -m bench.queue.child PRODUCER COMMAND``.

A producer's command prints one JSON object with its figures.
"""

import argparse
import asyncio
import json
import random
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Protocol

from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine

from bench.queue import ours, stock
from bench.queue.kinds import request_of
from db.urls import normalise_url
from holdfast import Client, outbox

FIRST_DUE_S, LAST_DUE_S = 1.0, 4.0

Figures = dict[str, float]


class Producer(Protocol):
    """What can be measured."""

    async def open(self) -> None:
        """Connect."""

    async def close(self) -> None:
        """Disconnect."""

    async def enqueue(self, job: str, value: float, due: datetime | None = None) -> None:
        """Enqueue one run."""

    async def enqueue_many(self, job: str, count: int) -> None:
        """Enqueue many runs."""


class OurProducer:
    """The library's client."""

    def __init__(self, redis_url: str) -> None:
        self._client = Client(redis_url)

    async def open(self) -> None:
        """Do nothing: the client connects when it is first used."""

    async def close(self) -> None:
        """Disconnect."""
        await self._client.close()

    async def enqueue(self, job: str, value: float, due: datetime | None = None) -> None:
        """Enqueue one run."""
        await self._client.enqueue(request_of(job, value), at=due)

    async def enqueue_many(self, job: str, count: int) -> None:
        """Enqueue many runs."""
        await ours.enqueue_many(self._client, job, count)


class OutboxProducer:
    """One transaction for each run, through the outbox, with a ring after it."""

    def __init__(self, database_url: str, redis_url: str) -> None:
        self._engine: AsyncEngine = create_async_engine(normalise_url(database_url))
        self._client = Client(redis_url)
        self._sessions = async_sessionmaker(self._engine)
        outbox.ring_after_commit(self._sessions, self._client)

    async def open(self) -> None:
        """Connect."""
        async with self._engine.connect():
            pass

    async def close(self) -> None:
        """Disconnect."""
        await self._client.close()
        await self._engine.dispose()

    async def enqueue(self, job: str, value: float, due: datetime | None = None) -> None:
        """Commit one run."""
        async with self._sessions.begin() as session:
            await outbox.enqueue(session, request_of(job, value), at=due)

    async def enqueue_many(self, job: str, count: int) -> None:
        """Commit many runs, one after the other."""
        for _ in range(count):
            await self.enqueue(job, ours.value_of(job))


async def enqueue(producer: Producer, job: str, count: int) -> Figures:
    """Enqueue one by one."""
    began = time.perf_counter()
    for _ in range(count):
        await producer.enqueue(job, ours.value_of(job))
    return {"count": count, "seconds": time.perf_counter() - began}


async def enqueue_many(producer: Producer, job: str, count: int) -> Figures:
    """Enqueue as many at a time as the producer can."""
    began = time.perf_counter()
    await producer.enqueue_many(job, count)
    return {"count": count, "seconds": time.perf_counter() - began}


async def pickup(producer: Producer, job: str, count: int) -> Figures:
    """Enqueue stamps at random moments, for a worker that is idle in between."""
    moments = random.Random(7)  # noqa: S311 - the same in each run
    for _ in range(count):
        await asyncio.sleep(moments.uniform(0.02, 0.6))
        await producer.enqueue(job, time.time())
    return {"count": count}


async def deferred(producer: Producer, job: str, count: int) -> Figures:
    """Enqueue stamps that are due at random moments later on."""
    moments = random.Random(7)  # noqa: S311 - the same in each run
    for _ in range(count):
        due = time.time() + moments.uniform(FIRST_DUE_S, LAST_DUE_S)
        due = int(due * 1000) / 1000  # the wire carries milliseconds
        await producer.enqueue(job, due, datetime.fromtimestamp(0, UTC) + timedelta(seconds=due))
    return {"count": count}


COMMANDS: dict[str, Callable[[Producer, str, int], Awaitable[Figures]]] = {
    "enqueue": enqueue,
    "enqueue-many": enqueue_many,
    "pickup": pickup,
    "deferred": deferred,
}
PRODUCERS: dict[str, Callable[[str, str], Producer]] = {
    "ours": lambda url, _: OurProducer(url),
    "outbox": OutboxProducer,
    "stock": lambda url, _: stock.StockProducer(url, as_json=False),
    "stock-json": lambda url, _: stock.StockProducer(url, as_json=True),
}


async def _produce(producer: Producer, command: str, job: str, count: int) -> Figures:
    await producer.open()
    try:
        return await COMMANDS[command](producer, job, count)
    finally:
        await producer.close()


def main() -> None:
    """Run one command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("producer", choices=sorted(PRODUCERS))
    parser.add_argument("command", choices=["worker", "tuned-worker", *COMMANDS])
    parser.add_argument("--url", required=True, help="of Redis; of the database for the outbox")
    parser.add_argument("--bell", default="", help="the URL of the Redis that the outbox rings")
    parser.add_argument("--job", default="noop")
    parser.add_argument("--count", type=int, default=100, help="runs, or a worker's slots")
    chosen = parser.parse_args()
    if "worker" in chosen.command:
        stock.run_worker(chosen.url, slots=chosen.count, tuned=chosen.command == "tuned-worker")
        return
    producer = PRODUCERS[chosen.producer](chosen.url, chosen.bell)
    print(json.dumps(asyncio.run(_produce(producer, chosen.command, chosen.job, chosen.count))))


if __name__ == "__main__":
    main()
