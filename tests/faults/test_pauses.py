"""A worker that is frozen for longer than its heartbeat may be silent, and then wakes, changes nothing any more."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from uuid import UUID

import pytest

from holdfast.client import Client
from holdfast.requests import ArchiveDeleted, ImportReport
from holdfast.states import RunState
from tests.faults.archives import judge_archive, make_archivable
from tests.faults.checker import judge
from tests.faults.locks import is_locked
from tests.faults.place import Place
from tests.faults.task_files import write_task_file
from tests.faults.watch import Sample, Watch
from tests.processes import WorkerProcess

ROWS = 20_000
BATCH_ROWS = 500
ARCHIVED_ROWS = 3_000
ARCHIVED_BATCH_ROWS = 10
HEARTBEAT_TIMEOUT_S = 2.0


@pytest.mark.parametrize(
    ("engine", "in_transaction", "wakes_at_the_end"),
    [
        # The sleeper keeps the run's row locked: whoever takes the run over has to end its database session first.
        pytest.param("postgres_url", True, True, id="postgresql"),
        pytest.param("mariadb_url", True, False, id="mariadb"),
        # Nobody can end the transaction of another process, and while it is open nobody else writes.
        pytest.param("sqlite_url", False, True, id="sqlite"),
    ],
)
async def test_frozen_worker_is_replaced_and_fenced(
    engine: str,
    in_transaction: bool,
    wakes_at_the_end: bool,
    redis_url: str,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    place = Place(request.getfixturevalue(engine), tmp_path, redis_url, heartbeat_timeout_s=HEARTBEAT_TIMEOUT_S)
    file = write_task_file(tmp_path / "tasks.csv", ROWS, seed=5, keyed=False)
    async with place.watched() as watch:
        with place.worker("first") as first, place.worker("second") as second:
            for worker in (first, second):
                await asyncio.to_thread(worker.wait_for, "worker started")
            run_id = await place.enqueue(watch, file.request(batch_rows=BATCH_ROWS))
            sleeper, frozen = await _freeze_owner(watch, run_id, (first, second), in_transaction=in_transaction)
            await watch.until(run_id, lambda now: now.fence > frozen.fence)
            if wakes_at_the_end:
                await watch.until_over(run_id)
            sleeper.resume()
            await watch.until_over(run_id)
            await asyncio.to_thread(sleeper.wait_for, "run lost")
            async with Client(redis_url) as client:
                report = await client.run(str(run_id), ImportReport).result(timeout_s=10)
            assert [first.terminate(), second.terminate()] == [0, 0]
        verdict = await judge(watch, run_id, file, crashes=1)

    assert verdict.problems == []
    assert report.rows_read == ROWS


@pytest.mark.parametrize("engine", ["postgres_url", "mariadb_url"])
async def test_a_frozen_archive_is_taken_over_from_each_of_its_connections(
    engine: str, redis_url: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    place = Place(request.getfixturevalue(engine), tmp_path, redis_url, heartbeat_timeout_s=HEARTBEAT_TIMEOUT_S)
    async with place.watched() as watch:
        before = await make_archivable(watch.manager, ARCHIVED_ROWS)
        with place.worker("first") as first, place.worker("second") as second:
            for worker in (first, second):
                await asyncio.to_thread(worker.wait_for, "worker started")
            run_id = await place.enqueue(watch, ArchiveDeleted(connections=2, batch_rows=ARCHIVED_BATCH_ROWS))
            workers = (first, second)
            sleeper, frozen = await _freeze_owner(watch, run_id, workers, in_transaction=True, counter="rows", least=1)
            end = await watch.until_over(run_id)
            assert end.fence == frozen.fence + 1
            sleeper.resume()
            await asyncio.to_thread(sleeper.wait_for, "run lost")
            assert [first.terminate(), second.terminate()] == [0, 0]
        trial = await judge_archive(watch, run_id, before, "tables")

    assert trial.problems == []


async def _freeze_owner(
    watch: Watch,
    run_id: UUID,
    workers: Sequence[WorkerProcess],
    *,
    in_transaction: bool,
    counter: str = "rows_read",
    least: int = ROWS // 4,
) -> tuple[WorkerProcess, Sample]:
    """Freezes the worker that has the run, inside or outside of a transaction as it is asked for."""
    while True:
        seen = await watch.until(run_id, lambda now: now.counters.get(counter, 0) >= least)
        assert seen.state is RunState.RUNNING, "the run was over before the worker could be frozen"
        owner = next(worker for worker in workers if f":{worker.pid}:" in str(seen.worker_id))
        owner.pause()
        if await is_locked(watch.manager, run_id) is in_transaction:
            return owner, seen
        owner.resume()
