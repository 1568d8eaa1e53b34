"""The outbox: what it costs a producer, how fast its runs reach Redis, and how soon they start."""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from uuid import UUID

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

Transaction = Callable[[AsyncSession], Awaitable[UUID | None]]


def outboxes(arena: Arena, scale: Scale) -> list[Row]:
    """Measure the producer's side and the dispatcher's."""
    return [*_producer_rows(arena, scale), *_dispatch_rows(arena, scale), *_pickup_rows(arena, scale)]


def _producer_rows(arena: Arena, scale: Scale) -> list[Row]:
    through, separate, rung, plain = [], [], [], []
    count = scale.of(2_000)
    for _ in scale.rounds():
        through.append(1e6 / _commit_rate(arena, _with_outbox, clients=1, count=count))
        separate.append(1e6 / _commit_rate(arena, _order_only, clients=1, count=count, enqueues=True))
        rung.append(_commit_rate(arena, _with_outbox, clients=CLIENTS, count=4 * count))
        plain.append(_commit_rate(arena, _with_two_inserts, clients=CLIENTS, count=4 * count))
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


def _commit_rate(arena: Arena, transaction: Transaction, *, clients: int, count: int, enqueues: bool = False) -> float:
    arena.clean(OURS_LEDGERED)
    return asyncio.run(_commits(arena, transaction, clients=clients, count=count, enqueues=enqueues))


async def _commits(arena: Arena, transaction: Transaction, *, clients: int, count: int, enqueues: bool) -> float:
    engine = create_async_engine(normalise_url(arena.database_url), pool_size=clients, max_overflow=0)
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE IF NOT EXISTS orders (id bigserial PRIMARY KEY, note text)"))
    sessions = async_sessionmaker(engine)
    async with Client(arena.redis_server.url) as client:
        outbox.ring_after_commit(sessions, client)
        await asyncio.gather(*(_commit(sessions, transaction, None, 5) for _ in range(clients)))
        each = count // clients
        began = time.perf_counter()
        await asyncio.gather(
            *(_commit(sessions, transaction, client if enqueues else None, each) for _ in range(clients))
        )
        seconds = time.perf_counter() - began
    await engine.dispose()
    return each * clients / seconds


async def _commit(
    sessions: async_sessionmaker[AsyncSession], transaction: Transaction, client: Client | None, count: int
) -> None:
    for _ in range(count):
        async with sessions.begin() as session:
            await transaction(session)
        if client is not None:
            await client.enqueue(request_of("noop_ledgered", 0.0))


async def _order_only(session: AsyncSession) -> None:
    await session.execute(text("INSERT INTO orders (note) VALUES ('an order')"))


async def _with_outbox(session: AsyncSession) -> UUID:
    await _order_only(session)
    return await outbox.enqueue(session, request_of("noop_ledgered", 0.0))


async def _with_two_inserts(session: AsyncSession) -> None:
    await _order_only(session)
    await session.execute(
        text(
            "INSERT INTO job_runs (id, kind, queue, job_id, request, state, enqueued_at, due_at)"
            " SELECT id, 'noop_ledgered', 'other', id::text, '{\"x\": 0.0}', 'waiting', now(), now()"
            " FROM (SELECT gen_random_uuid() AS id) AS one"
        )
    )


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
