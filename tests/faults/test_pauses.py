"""A worker that is frozen for longer than its heartbeat may be silent, and then wakes, changes nothing any more."""

import asyncio
from pathlib import Path
from typing import Literal
from uuid import UUID

import pytest

from holdfast.client import Client
from holdfast.requests import ImportReport
from holdfast.states import RunState
from tests.faults.checker import judge
from tests.faults.place import Place
from tests.faults.task_files import write_task_file
from tests.faults.watch import Sample, Watch
from tests.processes import WorkerProcess

ROWS = 20_000
BATCH_ROWS = 500
HEARTBEAT_TIMEOUT_S = 1.0


@pytest.mark.parametrize("wakes", ["while the other works", "when all is over"])
@pytest.mark.parametrize("engine", ["postgres_url", "mariadb_url"])
async def test_frozen_worker_is_replaced_and_fenced(
    engine: str,
    wakes: Literal["while the other works", "when all is over"],
    redis_url: str,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    place = Place(request.getfixturevalue(engine), tmp_path, redis_url, heartbeat_timeout_s=HEARTBEAT_TIMEOUT_S)
    file = write_task_file(tmp_path / "tasks.csv", ROWS, seed=5, keyed=False)
    async with place.watched() as watch:
        with place.worker("sleeper") as sleeper:
            sleeper.wait_for("worker started")
            run_id = await place.enqueue(watch, file.request(batch_rows=BATCH_ROWS))
            frozen = await _freeze(watch, run_id, sleeper)
            with place.worker("taker") as taker:
                await watch.until(run_id, lambda now: now.fence > frozen.fence, alive=lambda: taker.alive)
                if wakes == "when all is over":
                    await watch.until_over(run_id)
                sleeper.resume()
                await watch.until_over(run_id)
                await asyncio.to_thread(sleeper.wait_for, "run lost")
                verdict = await judge(watch, run_id, file, crashes=1)
                async with Client(redis_url) as client:
                    report = await client.run(str(run_id), ImportReport).result(timeout_s=10)
                assert [taker.terminate(), sleeper.terminate()] == [0, 0]

    assert verdict.problems == []
    assert report.rows_read == ROWS


async def _freeze(watch: Watch, run_id: UUID, worker: WorkerProcess) -> Sample:
    seen = await watch.until(run_id, lambda now: now.rows_read >= ROWS // 4, alive=lambda: worker.alive)
    worker.pause()
    assert seen.state is RunState.RUNNING
    return seen
