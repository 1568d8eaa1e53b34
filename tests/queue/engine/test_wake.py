"""Connections that are told of changes, and must not be trusted for ever."""

from collections.abc import Sequence
from typing import Any

import pytest
from redis.asyncio import Redis

from worker.queue.wake import Waker


@pytest.mark.parametrize("opens", [True, False], ids=["while it opens them", "while it looks"])
async def test_connections_that_are_distrusted_in_the_middle_are_not_kept(
    opens: bool, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another call of the worker has met a master that was demoted."""
    async with Redis.from_url(redis_url) as redis:
        waker = Waker(redis, ["queue"])
        read = waker._read

        async def distrusted(commands: Sequence[tuple[Any, ...]]) -> list[Any]:
            if opens == (commands[0][0] == "CLIENT"):
                waker.distrust()
            return await read(commands)

        try:
            if not opens:
                await waker.arm()
            monkeypatch.setattr(waker, "_read", distrusted)
            await waker.arm()
            before = await trackers(redis)
            assert waker.changed.is_set()
            monkeypatch.undo()
            await waker.arm()
            assert not waker.changed.is_set()
            assert len(before) == 1
            assert not before & await trackers(redis)
        finally:
            await waker.close()


async def test_connections_are_made_anew_after_a_while(redis_url: str) -> None:
    """A name may lead to another server meanwhile, where the worker's other connections went at once."""
    async with Redis.from_url(redis_url) as redis:
        for renewal_s, is_kept in ((60.0, True), (0.0, False)):
            waker = Waker(redis, ["queue"], renewal_s=renewal_s)
            try:
                await waker.arm()
                before = await trackers(redis)
                await waker.arm()
                assert (before == await trackers(redis)) is is_kept
                assert not waker.changed.is_set()
            finally:
                await waker.close()


async def trackers(redis: Any) -> set[str]:
    """The connections that ask to be told."""
    return {client["id"] for client in await redis.client_list() if "t" in client["flags"]}
