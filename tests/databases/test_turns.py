"""SQLite's writers wait in line: in their order, over all threads, and none is starved by a long import."""

import asyncio
import shutil
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from sqlalchemy import insert, select

import db.turns
from db.connection import DatabaseManager, close_database, get_async_session, initialize_database
from db.errors import DatabaseBusy, NestedWriteSession, is_transient
from db.models import User
from db.settings import DatabaseSettings

WRITERS = 20


@pytest.fixture
async def manager(migrated_sqlite: Path, tmp_path: Path) -> AsyncIterator[DatabaseManager]:
    """The process's pool on an SQLite file."""
    url = f"sqlite:///{shutil.copy(migrated_sqlite, tmp_path / 'holdfast.db')}"
    yield await initialize_database(DatabaseSettings(database_url=url, _env_file=None))
    await close_database()


async def write(name: str) -> None:
    async with get_async_session() as session:
        await session.execute(insert(User).values(username=name))


async def names() -> list[str]:
    async with get_async_session(read_only=True) as session:
        return list((await session.execute(select(User.username).order_by(User.id))).scalars())


async def in_line(act: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
    """Let a task do it that waits in line now."""

    async def run() -> None:
        await act()

    task = asyncio.create_task(run())
    await asyncio.sleep(0)
    return task


async def test_twenty_writers_come_in_their_order(manager: DatabaseManager) -> None:
    expected = [f"writer {number:02}" for number in range(WRITERS)]
    async with get_async_session():
        tasks = [await in_line(lambda name=name: write(name)) for name in expected]  # type: ignore[misc]
        assert await names() == []
    await asyncio.gather(*tasks)
    assert await names() == expected


async def test_who_leaves_the_line_holds_up_nobody(manager: DatabaseManager) -> None:
    async with get_async_session():
        leaving, staying = await in_line(lambda: write("leaving")), await in_line(lambda: write("staying"))
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        late = await in_line(lambda: write("late"))
    staying.cancel()  # at the moment at which its turn has come
    await asyncio.gather(staying, late, return_exceptions=True)
    await write("last")
    assert await names() == ["late", "last"]


async def test_a_second_writing_session_inside_the_first_is_named(manager: DatabaseManager) -> None:
    async def nest() -> None:
        async with get_async_session() as session:
            await session.execute(insert(User).values(username="ada"))
            assert await names() == []  # reading is no writing
            await write("bob")

    with pytest.raises(NestedWriteSession, match="use the session that is open"):
        await nest()
    assert await names() == []
    await write("eve")
    assert await names() == ["eve"]


async def test_a_turn_that_does_not_come_is_a_passing_trouble(
    manager: DatabaseManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(db.turns, "PATIENCE_S", 0.01)
    async with get_async_session():
        waiting = await in_line(lambda: write("ada"))
        with pytest.raises(DatabaseBusy, match="the database is locked") as caught:
            await waiting
    assert is_transient(caught.value)
    await write("bob")
    assert await names() == ["bob"]


async def test_a_thread_of_its_own_is_not_starved(manager: DatabaseManager) -> None:
    """As the heartbeat beside an import, which asks again as soon as a batch is committed."""
    batches, overtaken = 0, list[int]()

    async def beat() -> None:
        own = DatabaseManager(manager.settings)
        for number in range(10):
            asked_at = batches
            async with own.session() as session:
                overtaken.append(batches - asked_at)
                await session.execute(insert(User).values(username=f"beat {number}"))
        await own.close()

    thread = threading.Thread(target=lambda: asyncio.run(beat()))
    thread.start()
    while thread.is_alive():
        async with get_async_session() as session:
            batches += 1
            await session.execute(insert(User).values(username=f"batch {batches}"))
            await asyncio.sleep(0.01)
    thread.join()
    assert len(overtaken) == 10
    assert max(overtaken) <= 1, "more than the one that had its turn came first"


async def test_a_thread_that_ended_in_line_holds_up_nobody(manager: DatabaseManager) -> None:
    turns = db.turns.turns_of(str(manager.engine.url.database))

    def wait_and_end() -> None:
        loop = asyncio.new_event_loop()
        task = loop.create_task(turns._take())
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
        left.append(task)

    left = list[asyncio.Task[None]]()
    async with get_async_session():
        await asyncio.to_thread(wait_and_end)
    await write("ada")
    assert await names() == ["ada"]
    left[0]._log_destroy_pending = False  # type: ignore[attr-defined]
