"""What is measured, each beside what a user would do instead, in one run."""

import asyncio
import shutil
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import Any

import asyncpg

from bench.archive.arena import Arena
from bench.queue.scale import Scale
from bench.queue.table import Row, at_least_times, at_most, at_most_times

ROWS = 1_000_000
DENSE, SPARSE = 438, 10
"""Due rows in each thousand."""
ALONE_S = 5.0
GIANT = "one transaction"


def postgresql(arena: Arena, scale: Scale) -> list[Row]:
    """Dense: tables, two connections, files, and under an old snapshot, each beside the giant transaction."""
    rows = scale.of(ROWS, least=20_000)
    giants, tables, twos, files, olds = [], [], [], [], []
    for number in scale.rounds():
        with arena.tasks(rows, DENSE) as url:
            giants.append(arena.run("giant", url))
        with arena.tasks(rows, DENSE) as url:
            tables.append(arena.run("archive", url))
        with arena.tasks(rows, DENSE) as url:
            twos.append(arena.run("archive", url, connections=2))
        with arena.tasks(rows, DENSE) as url:
            folder = arena.folder / f"files-{number}"
            files.append(arena.run("archive", url, destination="files", folder=str(folder)))
            shutil.rmtree(folder)
        with arena.tasks(rows, DENSE) as url, old_snapshot(url):
            olds.append(arena.run("archive", url))
    giant = [rate(one) for one in giants]
    longest = [one["longest_s"] * 1000 for one in tables]
    giants_ms = [one["longest_s"] * 1000 for one in giants]
    measured = [rate(one) for one in tables]
    return [
        Row("archive to a table, 44 % due, with proof", "rows/s", measured, giant, GIANT, at_least_times(0.6)),
        Row("its longest transaction", "ms", longest, giants_ms, GIANT, at_most_times(1 / 40)),
        Row("two connections of one run", "rows/s", [rate(one) for one in twos], giant, GIANT, at_least_times(0.75)),
        Row("archive to zstd files", "rows/s", [rate(one) for one in files], giant, GIANT, at_least_times(0.6)),
        Row(
            "archive to a table under an old snapshot",
            "rows/s",
            [rate(one) for one in olds],
            measured,
            "without it",
            at_least_times(0.7),
        ),
    ]


def sparse(arena: Arena, scale: Scale) -> list[Row]:
    """One row in a hundred is due."""
    rows = scale.of(ROWS, least=20_000)
    giants, ours = [], []
    for _ in scale.rounds():
        with arena.tasks(rows, SPARSE) as url:
            giants.append(rate(arena.run("giant", url)))
        with arena.tasks(rows, SPARSE) as url:
            ours.append(rate(arena.run("archive", url)))
    return [Row("archive to a table, 1 % due, with proof", "rows/s", ours, giants, GIANT, at_least_times(0.45))]


def oltp(arena: Arena, scale: Scale) -> list[Row]:
    """What short transactions of others feel of it."""
    rows = scale.of(ROWS, least=20_000)
    alone, beside = [], []
    for _ in scale.rounds():
        with arena.tasks(rows, DENSE) as url:
            with arena.load(url) as taken:
                time.sleep(ALONE_S * min(1.0, scale.share * 10))
            alone.append(p99_ms(taken))
            with arena.load(url) as taken:
                arena.run("archive", url)
            beside.append(p99_ms(taken))
    return [Row("p99 of short transactions beside the archive", "ms", beside, alone, "alone", at_most_times(2))]


def mariadb(arena: Arena, scale: Scale) -> list[Row]:
    """By one and by two connections, beside pt-archiver, in bulk and as it is by default."""
    if shutil.which("pt-archiver") is None:
        print("mariadb: not measured: pt-archiver (percona-toolkit) is not installed", file=sys.stderr)
        return []
    rows = scale.of(ROWS, least=20_000)
    few = rows // 50
    ours, twos, bulk, default = [], [], [], []
    for _ in scale.rounds():
        with arena.mariadb_tasks(rows, DENSE) as url:
            ours.append(rate(arena.run("archive", url)))
        with arena.mariadb_tasks(rows, DENSE) as url:
            twos.append(rate(arena.run("archive", url, connections=2)))
        options = ("--bulk-insert", "--bulk-delete", "--limit", "1000", "--commit-each")
        bulk.append(_pt_archiver_rate(arena, rows, *options))
        default.append(_pt_archiver_rate(arena, few))
    name = "archive to a table on MariaDB, 44 % due, with proof"
    return [
        Row(name, "rows/s", ours, bulk, "pt-archiver, in bulk", at_least_times(1.4)),
        Row(
            "the same by two connections of one run", "rows/s", twos, bulk, "pt-archiver, in bulk", at_least_times(1.4)
        ),
        Row(name, "rows/s", ours, default, "pt-archiver, row by row", at_least_times(7)),
    ]


def _pt_archiver_rate(arena: Arena, rows: int, *options: str) -> float:
    with arena.mariadb_tasks(rows, DENSE) as url:
        arena.mariadb.execute("CREATE TABLE pt_archive (PRIMARY KEY (id)) AS SELECT * FROM tasks LIMIT 0", url)
        began = time.monotonic()
        arena.pt_archiver(url, *options)
        seconds = time.monotonic() - began
        moved = int(arena.mariadb.execute("SELECT count(*) FROM pt_archive", url))
    return moved / seconds


def growth(arena: Arena, scale: Scale) -> list[Row]:
    """A hundred times as many rows: rate and memory."""
    few, many = scale.of(100_000, least=10_000), scale.of(10_000_000, least=50_000)
    small, large, memory = [], [], []
    for _ in scale.rounds():
        with arena.tasks(few, DENSE) as url:
            small.append(rate(arena.run("archive", url)))
    with arena.tasks(many, DENSE) as url:
        found = arena.run("archive", url)
        large.append(rate(found))
        memory.append(found["mib"])
    return [
        Row(f"archive of {many:,} tasks", "rows/s", large, small, f"of {few:,}", at_least_times(0.8)),
        Row("memory of that process", "MiB", memory, target=at_most(150)),
    ]


@contextmanager
def old_snapshot(url: str) -> Iterator[None]:
    """Keep a transaction with a snapshot open during the block."""
    opened, ended = Event(), Event()

    async def keep() -> None:
        connection = await asyncpg.connect(url)
        async with connection.transaction(isolation="repeatable_read"):
            await connection.fetchval("SELECT count(*) FROM users")
            opened.set()
            await asyncio.to_thread(ended.wait)
        await connection.close()

    thread = Thread(target=lambda: asyncio.run(keep()))
    thread.start()
    opened.wait()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def rate(found: dict[str, Any]) -> float:
    """Return rows per second; a run that left rows behind measured something else.

    Raises:
        RuntimeError: it did.
    """
    if found.get("left"):
        raise RuntimeError(f"{found['left']} rows were left: the figures would compare different work")
    return float(found["rows"] / found["seconds"])


def p99_ms(seconds: list[float]) -> float:
    """Return the 99th percentile in milliseconds."""
    return statistics.quantiles(seconds, n=100)[98] * 1000
