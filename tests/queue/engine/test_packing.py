"""Commands that hiredis writes reach Redis as those that redis-py writes."""

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
