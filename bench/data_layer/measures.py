"""The measures: each takes the three sides in turn, many times, so that whatever else the machine does meets all."""

import gc
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from uuid import UUID

import asyncpg
from sqlalchemy import insert, text

from bench.data_layer.sides import ByCore, ByDriver, ByRepository, Side
from bench.queue.table import Row, Target, at_most_times
from db.connection import DatabaseManager
from db.models import Task, User
from holdfast.ids import uuid7

SINGLE_ROW_TARGET = at_most_times(1.15)
BULK_TARGET = at_most_times(1.1)
PAGE_ROWS = 100
OURS, CORE, DRIVER = "ours", "Core", "asyncpg"


@dataclass
class Bench:
    """A migrated database with tasks in it.

    Args:
        manager: its pool.
        url: for the driver.
        rows: of ``bulk_create``.
        calls: of a single row, in each block.
        blocks: how often the sides take turns.
    """

    manager: DatabaseManager
    url: str
    rows: int = 100_000
    calls: int = 200
    blocks: int = 15
    owner: UUID = field(default_factory=uuid7)
    keys: list[UUID] = field(default_factory=list)

    async def fill(self) -> None:
        """Insert one user and 20 pages of tasks."""
        self.keys = [uuid7() for _ in range(20 * PAGE_ROWS)]
        async with self.manager.session() as session:
            await session.execute(insert(User).values(id=self.owner, username="ada"))
            await session.execute(insert(Task), self.new_rows(self.keys))
        async with self.manager.engine.connect() as connection:
            await (await connection.execution_options(isolation_level="AUTOCOMMIT")).execute(
                text("VACUUM ANALYZE tasks")
            )

    def new_rows(self, keys: list[UUID]) -> list[dict[str, object]]:
        """Return rows with these keys."""
        return [{"id": key, "title": f"task {number}", "user_id": self.owner} for number, key in enumerate(keys)]

    async def in_turn(self, work: Callable[[Side], Awaitable[int]], *, blocks: int) -> dict[str, list[float]]:
        """Return the microseconds a unit of each side's blocks; every block is a transaction that is rolled back.

        Args:
            work: does a block and returns of how many units.
            blocks: of each side.
        """
        taken: dict[str, list[float]] = {OURS: [], CORE: [], DRIVER: []}
        for block in range(blocks + 1):
            for name in (OURS, CORE, DRIVER):
                async with AsyncExitStack() as stack:
                    side = await self._side(name, stack)
                    with _no_collection():
                        began = time.perf_counter()
                        units = await work(side)
                        used_s = time.perf_counter() - began
                    if block > 0:  # the first one fills the caches
                        taken[name].append(used_s * 1e6 / units)
        return taken

    async def _side(self, name: str, stack: AsyncExitStack) -> Side:
        if name == DRIVER:
            connection = await asyncpg.connect(self.url)
            stack.push_async_callback(connection.close)
            await connection.execute("BEGIN")
            return ByDriver(connection)
        if name == CORE:
            return ByCore(await stack.enter_async_context(self.manager.engine.connect()))
        session = await stack.enter_async_context(self.manager.session())
        stack.push_async_callback(session.rollback)
        return ByRepository(session)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Keep the garbage collector from running in somebody's block and not in the others'."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


async def single_rows(bench: Bench) -> list[Row]:
    """Read and change rows one by one, in one transaction."""

    async def get(side: Side) -> int:
        for key in bench.keys[: bench.calls]:
            await side.get(key)
        return bench.calls

    async def update(side: Side) -> int:
        for key in bench.keys[: bench.calls]:
            await side.update(key, "changed")
        return bench.calls

    taken = await bench.in_turn(get, blocks=bench.blocks)
    changed = await bench.in_turn(update, blocks=bench.blocks)
    return [*_rows("get", taken, SINGLE_ROW_TARGET), *_rows("update, the row returned", changed, SINGLE_ROW_TARGET)]


async def bulk(bench: Bench) -> list[Row]:
    """Insert many rows with the same fields, in one transaction."""

    async def create(side: Side) -> int:
        await side.create(bench.new_rows([uuid7() for _ in range(bench.rows)]))
        return bench.rows

    taken = await bench.in_turn(create, blocks=max(3, bench.blocks // 3))
    return _rows(f"bulk_create of {bench.rows:,} rows", taken, BULK_TARGET, unit="us a row")


async def copies(bench: Bench) -> list[Row]:
    """Load many rows the fastest way: ours and asyncpg's by COPY, Core by INSERT."""

    async def load(side: Side) -> int:
        await side.load(bench.new_rows([uuid7() for _ in range(bench.rows)]))
        return bench.rows

    taken = await bench.in_turn(load, blocks=max(3, bench.blocks // 3))
    return _rows(f"copy_rows of {bench.rows:,} rows", taken, None, unit="us a row")


async def pages(bench: Bench) -> list[Row]:
    """Read everything in pages by the primary key."""

    async def walk(side: Side) -> int:
        count, after = 1, await side.page(None, PAGE_ROWS)
        while after is not None:
            count, after = count + 1, await side.page(after, PAGE_ROWS)
        return count

    taken = await bench.in_turn(walk, blocks=bench.blocks)
    return _rows(f"keyset page of {PAGE_ROWS} rows", taken, None, unit="us a page")


def _rows(measure: str, taken: dict[str, list[float]], target: Target | None, *, unit: str = "us a call") -> list[Row]:
    return [
        Row(measure, unit, taken[OURS], taken[CORE], CORE, target),
        Row(measure, unit, taken[OURS], taken[DRIVER], DRIVER),
    ]


MEASURES = {"single": single_rows, "bulk": bulk, "copies": copies, "pages": pages}
