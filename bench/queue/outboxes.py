"""The outbox: what it costs a producer, how fast its runs reach Redis, and how soon they start."""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from bench.queue.arena import OURS_LEDGERED, QUEUE, STOCK, Arena
from bench.queue.kinds import request_of
from bench.queue.ledger_rows import fill_ledger
from bench.queue.moments import lateness
from bench.queue.scale import Scale
from bench.queue.table import Row, at_least_times, at_most_times
from db.urls import normalise_url
from holdfast import Client, outbox

CLIENTS = 16
DISPATCH_TIMEOUT_S = 120.0
DUE_IN_S = 100.0
"""So that what is dispatched does not start, yet is near enough to be dispatched."""

SLICES = 4
"""Of each count of commits; between them its neighbour has its turn, first and last as often as it."""
WARM_UP = 5
"""Transactions of each client before a slice: its connection is open, its statements are prepared."""

Sessions = async_sessionmaker[AsyncSession]
Producer = Callable[[Sessions, Client], Awaitable[None]]

_RUN_WRITTEN_PLAINLY = """
INSERT INTO job_runs (id, kind, queue, job_id, request, state, enqueued_at, due_at)
SELECT id, 'noop_ledgered', 'other', id::text, '{"x": 0.0}', 'waiting', now(), now()
FROM (SELECT gen_random_uuid() AS id) AS one
"""


def outboxes(arena: Arena, scale: Scale) -> list[Row]:
    """Measure the producer's side and the dispatcher's."""
    return [*_producer_rows(arena, scale), *_dispatch_rows(arena, scale), *_pickup_rows(arena, scale)]


def _producer_rows(arena: Arena, scale: Scale) -> list[Row]:
    count = scale.of(2_000)
    by_one, by_many = [], []
    for _ in scale.rounds():
        by_one.append(_commit_rates(arena, (_with_outbox, _order_and_enqueue), clients=1, count=count))
        by_many.append(_commit_rates(arena, (_with_outbox, _with_two_inserts), clients=CLIENTS, count=4 * count))
    through, separate = ([1e6 / rate for rate in rates] for rates in zip(*by_one, strict=True))
    rung, plain = (list(rates) for rates in zip(*by_many, strict=True))
    name = f"{CLIENTS} clients: commits with the outbox"
    return [
        Row("one order and its run, by the outbox", "us", through, separate, "commit, then enqueue"),
        Row(name, "1/s", rung, plain, "two plain INSERTs", at_least_times(0.9)),
    ]


def _dispatch_rows(arena: Arena, scale: Scale) -> list[Row]:
    dispatched, stock = [], []
    for _ in scale.rounds():
        dispatched.append(_dispatch_rate(arena, scale.of(20_000, least=2_000)))
        arena.clean()
        figures = arena.produce("stock", "enqueue", count=scale.of(3_000))
        stock.append(figures["count"] / figures["seconds"])
    return [Row("runs of the outbox put into Redis", "runs/s", dispatched, stock, target=at_least_times(15))]


def _pickup_rows(arena: Arena, scale: Scale) -> list[Row]:
    ours, stock = [], []
    for _ in scale.rounds():
        found = lateness(arena, OURS_LEDGERED, "outbox", count=scale.of(100))
        ours.append(found[max(0, int(len(found) * 0.95) - 1)])
        stock.append(statistics.median(lateness(arena, STOCK, "stock", count=scale.of(100))))
    return [Row("outbox: commit to start, p95", "ms", ours, stock, "p50 of stock arq", at_most_times(1 / 5))]


def _commit_rates(arena: Arena, producers: Sequence[Producer], *, clients: int, count: int) -> list[float]:
    """Return how many times a second each does its work, in slices: a machine's speed may change, and tables grow."""
    seconds = [0.0 for _ in producers]
    each = max(1, count // (SLICES * clients))
    for turn in range(SLICES):
        for at, producer in (*enumerate(producers),)[:: -1 if turn % 2 else 1]:
            arena.clean(OURS_LEDGERED)
            seconds[at] += asyncio.run(_seconds_of(arena, producer, clients=clients, each=each))
    return [each * SLICES * clients / taken for taken in seconds]


async def _seconds_of(arena: Arena, producer: Producer, *, clients: int, each: int) -> float:
    engine = create_async_engine(normalise_url(arena.database_url), pool_size=clients, max_overflow=0)
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE IF NOT EXISTS orders (id bigserial PRIMARY KEY, note text)"))
    sessions = async_sessionmaker(engine)
    async with Client(arena.redis_server.url) as client:
        outbox.ring_after_commit(sessions, client)
        await asyncio.gather(*(_repeat(producer, sessions, client, WARM_UP) for _ in range(clients)))
        began = time.perf_counter()
        await asyncio.gather(*(_repeat(producer, sessions, client, each) for _ in range(clients)))
        seconds = time.perf_counter() - began
    await engine.dispose()
    return seconds


async def _repeat(producer: Producer, sessions: Sessions, client: Client, count: int) -> None:
    for _ in range(count):
        await producer(sessions, client)


async def _order_and_enqueue(sessions: Sessions, client: Client) -> None:
    async with sessions.begin() as session:
        await _order(session)
    await client.enqueue(request_of("noop_ledgered", 0.0))


async def _with_outbox(sessions: Sessions, _: Client) -> None:
    async with sessions.begin() as session:
        await _order(session)
        await outbox.enqueue(session, request_of("noop_ledgered", 0.0))


async def _with_two_inserts(sessions: Sessions, _: Client) -> None:
    async with sessions.begin() as session:
        await _order(session)
        await session.execute(text(_RUN_WRITTEN_PLAINLY))


async def _order(session: AsyncSession) -> None:
    await session.execute(text("INSERT INTO orders (note) VALUES ('an order')"))


def _dispatch_rate(arena: Arena, count: int) -> float:
    arena.clean(OURS_LEDGERED)
    with arena.worker(OURS_LEDGERED):
        arena.wait_until_ready(OURS_LEDGERED)
        asyncio.run(fill_ledger(arena.database_url, count, due_in_s=DUE_IN_S, dispatched=False))
        return _rate_of_growth(arena, count)


def _rate_of_growth(arena: Arena, count: int) -> float:
    deadline, first_at, first = time.monotonic() + DISPATCH_TIMEOUT_S, 0.0, 0
    while (queued := arena.redis.zcard(QUEUE)) < count:
        now = time.monotonic()
        if now > deadline:
            raise TimeoutError(f"{queued} of {count} runs were dispatched after {DISPATCH_TIMEOUT_S:g} s")
        if queued and not first:
            first_at, first = now, queued
        time.sleep(0.001)
    return (count - first) / (time.monotonic() - first_at)
