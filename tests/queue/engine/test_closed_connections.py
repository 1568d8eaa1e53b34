"""A connection that is closed at the moment in which it is to be used, on both event loops."""

import asyncio
from collections.abc import Callable

import pytest
import uvloop

from worker.queue.outage import Outage


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_a_write_to_a_closed_connection_is_an_outage(
    new_loop: Callable[[], asyncio.AbstractEventLoop], redis_url: str
) -> None:
    port = int(redis_url.rsplit(":", 1)[1].split("/", maxsplit=1)[0])

    async def write() -> None:
        outage = Outage(5.0, on_distrust=_nothing)
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.transport.abort()
        await asyncio.sleep(0)
        with pytest.raises(Outage.errors):
            await _ping(outage, writer)
        assert outage.is_on

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(write())


async def _ping(outage: Outage, writer: asyncio.StreamWriter) -> None:
    async with outage.guarded("claim"):
        writer.writelines([b"PING"])
        await writer.drain()


async def _nothing() -> None:
    pass
