"""How fast queued runs are worked off."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from bench.queue.arena import (
    OURS,
    OURS_LEDGERED,
    OURS_SESSION,
    QUEUE,
    STOCK,
    STOCK_TUNED,
    Arena,
    Contestant,
    cpu_seconds,
)
from bench.queue.scale import Scale
from bench.queue.table import Row, at_least, at_least_times, at_most
from tests.processes import WorkerProcess

DRAIN_TIMEOUT_S = 300.0
HELD_BACK = "bench:held-back"
"""Where a queue stands until all its workers are there."""
QUIET_S = 0.5
QUIET_SHARE = 0.1
"""Of a core, of each worker that has started and has nothing to do, at the most."""
STARTED_CPU_S = 0.2
"""No worker has started that took less than this."""


@dataclass(frozen=True, slots=True)
class Drain:
    """One drain."""

    rate: float
    """Starts per second, from the first to the last: the worker's own start is left out."""
    commands: float
    """Redis commands per run, the scripts' included."""
    round_trips: float
    """Reads of Redis per run."""
    cpu_us: float
    """CPU time of the workers per run, their start included, in microseconds."""


def drain(
    arena: Arena, contestant: Contestant, count: int, *, job: str = "noop", workers: int = 1, together: bool = False
) -> Drain:
    """Queue runs, start workers, and measure until the last run has started.

    Args:
        arena: where.
        contestant: whose workers.
        count: of runs.
        job: what they do.
        workers: how many there are.
        together: the first run waits until all of them are idle; otherwise the first workers work while the last ones
            take the cores for their start.

    Raises:
        TimeoutError: the runs did not all start.
        RuntimeError: a worker has ended.
    """
    arena.clean(contestant)
    arena.fill(contestant, job, count)
    if together:
        arena.redis.rename(QUEUE, HELD_BACK)
    before = arena.traffic()
    with arena.worker(contestant, count=workers) as processes:
        if together:
            _wait_until_idle(processes)
            before = arena.traffic()
            arena.redis.rename(HELD_BACK, QUEUE)
        arena.marks.wait_for(count, DRAIN_TIMEOUT_S)
        arena.wait_until_empty()
        cpu_s = cpu_seconds(processes)
        traffic = arena.traffic().since(before)
    starts = arena.marks.starts()
    return Drain(
        rate=(count - 1) / (starts[-1] - starts[0]),
        commands=traffic.commands / count,
        round_trips=traffic.reads / count,
        cpu_us=1e6 * cpu_s / count,
    )


def _wait_until_idle(processes: list[WorkerProcess]) -> None:
    deadline, is_idle = time.monotonic() + DRAIN_TIMEOUT_S, False
    while not is_idle:
        before = [cpu_seconds([process]) for process in processes]
        time.sleep(QUIET_S)
        spent = [cpu_seconds([process]) - cpu_s for process, cpu_s in zip(processes, before, strict=True)]
        is_idle = max(spent) <= QUIET_S * QUIET_SHARE and all(cpu_s > STARTED_CPU_S for cpu_s in before)
        if not all(process.alive for process in processes):
            raise RuntimeError("a worker has ended before its first run")
        if time.monotonic() > deadline:
            raise TimeoutError(f"workers are still busy after {DRAIN_TIMEOUT_S:g} s, with nothing to do")


def drains(arena: Arena, scale: Scale, entries: Sequence[tuple[Contestant, int]]) -> list[list[Drain]]:
    """Drain with each contestant in turn, again and again; returns each one's drains."""
    found: list[list[Drain]] = [[] for _ in entries]
    for _ in scale.rounds():
        for place, (contestant, count) in enumerate(entries):
            found[place].append(drain(arena, contestant, scale.of(count)))
    return found


def rates(found: Sequence[Drain]) -> list[float]:
    """Return their rates."""
    return [one.rate for one in found]


def light(arena: Arena, scale: Scale) -> list[Row]:
    """Drain the light kind beside stock and tuned arq."""
    ours, stock, tuned = drains(arena, scale, [(OURS, 30_000), (STOCK, 5_000), (STOCK_TUNED, 5_000)])
    commands, trips = [one.commands for one in ours], [one.round_trips for one in ours]
    return [
        Row("drain, light kind", "runs/s", rates(ours), rates(stock), target=at_least_times(10)),
        Row("drain, light kind", "runs/s", rates(ours), rates(tuned), "tuned arq", at_least_times(6.5)),
        Row("Redis commands per run", "", commands, [one.commands for one in stock], target=at_most(4)),
        Row("round trips per run", "", trips, [one.round_trips for one in stock], target=at_most(0.05)),
        Row("CPU of the worker per run", "us", [one.cpu_us for one in ours], [one.cpu_us for one in stock]),
    ]


def light_persistent(arena: Arena, scale: Scale) -> list[Row]:
    """Drain the light kind with a Redis that flushes its log each second."""
    del arena
    with Arena(persistent=True) as persistent:
        ours, stock = drains(persistent, scale, [(OURS, 30_000), (STOCK, 5_000)])
    return [Row("drain, light kind, AOF everysec", "runs/s", rates(ours), rates(stock))]


def ledgered(arena: Arena, scale: Scale) -> list[Row]:
    """Drain the ledgered kinds, on PostgreSQL with fsync."""
    entries = [(OURS_LEDGERED, 10_000), (OURS_SESSION, 3_000), (STOCK_TUNED, 5_000)]
    plain, session, tuned = drains(arena, scale, entries)
    return [
        Row("drain, ledgered, no session", "runs/s", rates(plain), rates(tuned), "tuned arq", at_least_times(3)),
        Row("drain, ledgered, one session each", "runs/s", rates(session), rates(tuned), "tuned arq"),
    ]


def workers(arena: Arena, scale: Scale) -> list[Row]:
    """Drain with more workers at one queue."""
    found: dict[int, list[float]] = {1: [], 2: [], 4: [], 8: []}
    stock: list[float] = []
    for _ in scale.rounds():
        for count, figures in found.items():
            figures.append(drain(arena, OURS, scale.of(40_000), workers=count, together=True).rate)
        stock.append(drain(arena, STOCK, scale.of(2_000), workers=8, together=True).rate)
    one = found[1]
    return [
        Row("2 workers", "runs/s", found[2], one, "one of ours", at_least_times(1.2)),
        Row("4 workers", "runs/s", found[4], one, "one of ours"),
        Row("8 workers", "runs/s", found[8], one, "one of ours", at_least_times(0.85)),
        Row("8 workers", "runs/s", found[8], stock, "8 of stock arq", at_least_times(20)),
    ]


def naps(arena: Arena, scale: Scale) -> list[Row]:
    """Run jobs of 50 ms on 10 slots; 200 a second is the ideal."""
    ours, stock = [], []
    for _ in scale.rounds():
        ours.append(drain(arena, replace(OURS, slots=10), scale.of(1_000), job="nap").rate)
        stock.append(drain(arena, replace(STOCK, slots=10), scale.of(200), job="nap").rate)
    return [Row("50 ms jobs on 10 slots", "runs/s", ours, stock, target=at_least(190))]


def depth(arena: Arena, scale: Scale) -> list[Row]:
    """Work with a million runs queued, beside a thousand."""
    deep, shallow, sizes = [], [], []
    for _ in scale.rounds():
        shallow.append(drain(arena, OURS, 1_000).rate)
        rate, size = _deep_drain(arena, scale.of(1_000_000), scale.of(20_000))
        deep.append(rate)
        sizes.append(size)
    return [
        Row("drain with 1,000,000 queued", "runs/s", deep, shallow, "1,000 queued", at_least_times(0.8)),
        Row("memory of Redis per queued run", "bytes", sizes, target=at_most(600)),
    ]


def _deep_drain(arena: Arena, queued: int, drained: int) -> tuple[float, float]:
    arena.clean()
    empty = arena.traffic()
    arena.fill(OURS, "noop", queued)
    size = arena.traffic().since(empty).memory_bytes / queued
    with arena.worker(OURS):
        arena.marks.wait_for(drained, DRAIN_TIMEOUT_S)
    starts = arena.marks.starts()[:drained]
    return (drained - 1) / (starts[-1] - starts[0]), size
