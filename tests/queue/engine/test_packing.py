"""Commands that hiredis writes reach Redis as those that redis-py writes, and at once."""

import asyncio
from typing import Any

import pytest
from redis.asyncio import ConnectionPool, Redis
from redis.exceptions import DataError

from tests.queue.engine.room import Room
from worker.queue.packing import with_hiredis


class Seconds(int):
    """A whole number by another name."""


VALUES = ["text", "é\x00", b"\xff\x00", "", 7, -1, 2**70, 1.5, float("inf"), memoryview(b"view"), Seconds(7)]


def client(room: Room, *, quick: bool) -> Any:
    pool: Any = ConnectionPool.from_url(room.url)
    if quick:
        pool.connection_class = with_hiredis(pool.connection_class)
    return Redis.from_pool(pool)


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
async def test_a_value_is_written_alike(room: Room, value: Any) -> None:
    async with client(room, quick=True) as quick, client(room, quick=False) as plain:
        await plain.set("plain", value)
        await quick.set("quick", value)
        assert await quick.mget("plain", "quick") == [await plain.get("plain")] * 2
        async with quick.pipeline(transaction=True) as pipe:
            assert await pipe.set("piped", value).config_get("port").get("piped").execute() == [
                True,
                await plain.config_get("port"),
                await plain.get("plain"),
            ]


@pytest.mark.parametrize("value", [True, None, ("a",)], ids=repr)
async def test_a_value_that_redis_py_refuses_is_refused_in_its_words(room: Room, value: Any) -> None:
    async with client(room, quick=True) as quick:
        with pytest.raises(DataError, match="Invalid input of type"):
            await quick.set("key", value)
        assert await quick.ping()


async def test_a_command_is_written_before_what_is_ready_to_run(room: Room) -> None:
    async with client(room, quick=True) as quick:
        await quick.ping()
        asking = quick.get("key").__await__()
        asking.send(None)
        [connection] = quick.connection_pool._in_use_connections
        assert not connection._parser._reader.has_data()
        assert connection._reader._waiter is not None  # it waits for the answer
        await connection.disconnect()
        asking.close()


async def test_a_connection_that_the_server_has_closed_is_made_anew(room: Room) -> None:
    async with client(room, quick=True) as quick, client(room, quick=False) as other:
        number = await quick.client_id()
        await other.client_kill_filter(_id=number)
        await asyncio.sleep(0.05)
        assert await quick.ping()
        assert await quick.client_id() != number


async def test_a_connection_that_is_being_closed_is_made_anew(room: Room) -> None:
    async with client(room, quick=True) as quick:
        number = await quick.client_id()
        closing = asyncio.create_task(quick.connection_pool.disconnect(inuse_connections=False))
        for _ in range(2):  # until its connection is being closed
            await asyncio.sleep(0)
        assert await quick.client_id() != number
        await closing


async def test_what_a_cancelled_command_has_left_is_no_answer_to_the_next(room: Room) -> None:
    async with client(room, quick=True) as quick:
        await quick.mset({"first": 1, "second": 2})
        task = asyncio.create_task(quick.get("first"))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert await quick.get("second") == b"2"


def test_a_class_that_is_quick_already_stays_as_it_is() -> None:
    quick = with_hiredis(ConnectionPool().connection_class)
    assert with_hiredis(quick) is quick
