"""The upkeep's own tasks: each at its pace, and all of them end."""

import asyncio
from contextlib import suppress
from pathlib import Path

import pytest

from worker.paces import Pace
from worker.runtime import Runtime
from worker.settings import Settings
from worker.upkeep import Upkeep


@pytest.fixture
def upkeep(tmp_path: Path) -> Upkeep:
    return Runtime(Settings(_env_file=None, holdfast_data_dir=tmp_path), owns_queue=False).upkeep


async def test_a_cancellation_that_gets_lost_does_not_keep_the_worker_from_its_end(upkeep: Upkeep) -> None:
    begun = asyncio.Event()

    async def lose_it() -> None:
        begun.set()
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()

    task = asyncio.create_task(upkeep._keep(Pace(0.01, lose_it)))
    upkeep._tasks = [task]
    async with asyncio.timeout(60):
        await begun.wait()
        await upkeep.stop()
    assert task.done()


async def test_what_cannot_be_ended_is_named_and_left(upkeep: Upkeep, capsys: pytest.CaptureFixture[str]) -> None:
    freed, begun = asyncio.Event(), asyncio.Event()

    async def stubborn() -> None:
        begun.set()
        while not freed.is_set():
            with suppress(asyncio.CancelledError):
                await freed.wait()

    task = asyncio.create_task(upkeep._keep(Pace(0.01, stubborn)), name="stubborn")
    upkeep._tasks = [task]
    async with asyncio.timeout(60):
        await begun.wait()
        await upkeep.stop()
        assert not task.done()
        freed.set()
        await task
    assert "stubborn does not end" in "".join(capsys.readouterr())
