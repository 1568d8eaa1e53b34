"""How soon: enqueueing, the start of a run on an idle worker, lateness of deferred runs, and what idling costs."""

import statistics
import time

from bench.queue.arena import OURS, OURS_LEDGERED, STOCK, Arena, Contestant, cpu_seconds
from bench.queue.scale import Scale
from bench.queue.table import Row, at_least_times, at_most, at_most_times

PICKUP_TIMEOUT_S = 30.0
SETTLE_S = 2.0
IDLE_S = 10.0


def enqueueing(arena: Arena, scale: Scale) -> list[Row]:
    """Enqueue one by one, and many."""
    single: dict[str, list[float]] = {"ours": [], "stock": []}
    many: dict[str, list[float]] = {"ours": [], "stock": []}
    for _ in scale.rounds():
        for producer in ("ours", "stock"):
            single[producer].append(_enqueue_rate(arena, producer, "enqueue", scale.of(5_000)))
        many["ours"].append(_enqueue_rate(arena, "ours", "enqueue-many", scale.of(100_000)))
        many["stock"].append(_enqueue_rate(arena, "stock", "enqueue-many", scale.of(5_000)))
    return [
        Row("enqueue one by one", "runs/s", single["ours"], single["stock"], target=at_least_times(1.8)),
        Row("enqueue many", "runs/s", many["ours"], many["stock"], target=at_least_times(10)),
    ]


def _enqueue_rate(arena: Arena, producer: str, command: str, count: int) -> float:
    arena.clean()
    figures = arena.produce(producer, command, count=count)
    return figures["count"] / figures["seconds"]


def pickup(arena: Arena, scale: Scale) -> list[Row]:
    """Start runs on an idle worker, enqueued by our client and by arq's producer."""
    count = scale.of(100)
    all_found: dict[str, list[list[float]]] = {"ours": [], "stock-json": [], "stock": []}
    for _ in scale.rounds():
        for producer, found in all_found.items():
            contestant = STOCK if producer == "stock" else OURS
            found.append(lateness(arena, contestant, producer, count=count))
    (our_p50, our_p99), (their_p50, their_p99), (p50, p99) = (_percentiles(found) for found in all_found.values())
    return [
        Row("pickup by an idle worker, p50", "ms", our_p50, p50),
        Row("pickup by an idle worker, p99", "ms", our_p99, p99, target=at_most_times(1 / 50)),
        Row("the same, arq's producer, p50", "ms", their_p50, p50),
        Row("the same, arq's producer, p99", "ms", their_p99, p99, target=at_most_times(1 / 50)),
    ]


def deferred(arena: Arena, scale: Scale) -> list[Row]:
    """Start deferred runs when they are due."""
    ours, stock = [], []
    for _ in scale.rounds():
        ours.append(lateness(arena, OURS, "ours", command="deferred", count=scale.of(50))[-1])
        stock.append(lateness(arena, STOCK, "stock", command="deferred", count=scale.of(50))[-1])
    return [Row("lateness of a deferred run, max", "ms", ours, stock, target=at_most_times(1 / 20))]


def lateness(
    arena: Arena, contestant: Contestant, producer: str, *, command: str = "pickup", count: int
) -> list[float]:
    """Return by how much the stamps of a producer started late, in ms, in order."""
    arena.clean(contestant)
    with arena.worker(contestant):
        arena.wait_until_ready(contestant)
        arena.produce(producer, command, job=contestant.kind("stamp"), count=count)
        arena.marks.wait_for(count, PICKUP_TIMEOUT_S)
    return arena.marks.lateness_ms()


def _percentiles(found: list[list[float]]) -> tuple[list[float], list[float]]:
    p99 = [one[max(0, int(len(one) * 0.99) - 1)] for one in found]
    return [statistics.median(one) for one in found], p99


def idle(arena: Arena, scale: Scale) -> list[Row]:
    """Let a worker wait for work: what it asks Redis and PostgreSQL, and its CPU time."""
    figures, stock = [], []
    for _ in scale.rounds():
        figures.append(_idle(arena, OURS_LEDGERED))
        stock.append(_idle(arena, STOCK))
    commands, reads, cpu, statements = zip(*figures, strict=True)
    stock_commands, stock_reads, stock_cpu, _ = zip(*stock, strict=True)
    return [
        Row("idle worker: Redis commands", "1/s", commands, stock_commands),
        Row("idle worker: reads of Redis", "1/s", reads, stock_reads, target=at_most(2)),
        Row("idle worker: CPU", "% of a core", cpu, stock_cpu, target=at_most(0.5)),
        Row("idle worker: SQL statements", "1/s", statements, target=at_most(5)),
    ]


def _idle(arena: Arena, contestant: Contestant) -> tuple[float, float, float, float]:
    arena.clean(contestant)
    has_ledger = bool(contestant.twin)
    if has_ledger:
        arena.postgres.execute("ALTER SYSTEM SET log_statement = 'all'")
        arena.postgres.execute("SELECT pg_reload_conf()")
    with arena.worker(contestant) as workers:
        arena.wait_until_ready(contestant)
        time.sleep(SETTLE_S)
        before, cpu_before, statements_before = arena.traffic(), cpu_seconds(workers), _statements(arena, has_ledger)
        began = time.monotonic()
        time.sleep(IDLE_S)
        seconds = time.monotonic() - began
        cpu_s, statements = cpu_seconds(workers) - cpu_before, _statements(arena, has_ledger) - statements_before
        traffic = arena.traffic().since(before)
    if has_ledger:
        arena.postgres.execute("ALTER SYSTEM RESET log_statement")
        arena.postgres.execute("SELECT pg_reload_conf()")
    own = 1  # the INFO of this process
    return (
        (traffic.commands - own) / seconds,
        (traffic.reads - own) / seconds,
        100 * cpu_s / seconds,
        statements / seconds,
    )


def _statements(arena: Arena, has_ledger: bool) -> int:
    if not has_ledger:
        return 0
    lines = arena.postgres.log.read_text(errors="replace").splitlines()
    return sum(" LOG:  statement: " in line or " LOG:  execute " in line for line in lines)
