"""A run that has its worker for itself: the others end first, unless they go on for long."""

import asyncio
import time
from pathlib import Path

import pytest

from holdfast.ids import uuid7
from worker import runtime as runtime_module
from worker.runtime import Runtime
from worker.settings import Settings

PATIENCE_S = 60.0


@pytest.fixture
def runtime(tmp_path: Path) -> Runtime:
    return Runtime(Settings(_env_file=None, holdfast_data_dir=tmp_path), owns_queue=False)


def obstacle(runtime: Runtime) -> str | None:
    return runtime.obstacle(queue="arq:queue", kind="any")


async def test_it_waits_for_those_that_have_begun_and_none_begins_meanwhile(runtime: Runtime) -> None:
    ended, is_alone = asyncio.Event(), asyncio.Event()

    async def other() -> None:
        with runtime.beginning():
            await ended.wait()
            assert not is_alone.is_set()

    async def suspect() -> None:
        async with runtime.alone(uuid7()) as alone:
            assert alone
            assert obstacle(runtime) == "suspect"
            is_alone.set()

    async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as tasks:
        tasks.create_task(other())
        tasks.create_task(suspect())
        while obstacle(runtime) is None:  # noqa: ASYNC110 - one turn of the loop
            await asyncio.sleep(0)
        ended.set()
    assert obstacle(runtime) is None


async def test_it_gives_up_after_a_while(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime_module, "ALONE_PATIENCE_S", 0.1)
    with runtime.beginning():
        async with runtime.alone(uuid7()) as alone:
            assert not alone
    async with runtime.alone(uuid7()) as alone:
        assert alone


async def test_it_holds_nobody_up_beside_one_that_goes_on_for_long(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime_module, "LONG_RUN_S", 0.05)
    with runtime.beginning():
        await asyncio.sleep(0.1)
        began = time.monotonic()
        async with runtime.alone(uuid7()) as alone:
            assert not alone
            assert obstacle(runtime) is None
        assert time.monotonic() - began < runtime_module.ALONE_PATIENCE_S / 2
