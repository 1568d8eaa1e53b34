"""A worker that dies exactly between two steps of a run, where a kill by the clock hardly ever lands."""

from pathlib import Path

import pytest
import redis

from holdfast import wire
from holdfast.client import Client
from holdfast.requests import ImportReport
from jobs.import_tasks.spool import spool
from tests.faults.checker import judge
from tests.faults.place import Place
from tests.faults.task_files import write_task_file

ROWS = 2_000
BATCH_ROWS = 500
HEARTBEAT_TIMEOUT_S = 1.0

# The worker, but the named function kills the process as it is called.
DYING_WORKER = """
import importlib, os, signal
from worker.cli import main
def die(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)
module = importlib.import_module({module!r})
assert callable(getattr(module, {function!r}))
setattr(module, {function!r}, die)
main()
"""


@pytest.mark.parametrize(
    ("module", "function", "crashes"),
    [
        pytest.param("worker.ledger", "admit", 0, id="claimed in Redis and not admitted"),
        pytest.param("worker.run", "perform", 1, id="admitted and nothing done"),
        pytest.param("jobs.import_tasks.job", "write_rejects", 1, id="all rows loaded"),
        pytest.param("worker.ledger", "finish", 1, id="rejects written and the end not committed"),
        pytest.param("worker.run", "report_outcome", 0, id="end committed and Redis not told"),
    ],
)
async def test_next_worker_goes_on_from_every_step(
    module: str, function: str, crashes: int, sqlite_url: str, redis_url: str, tmp_path: Path
) -> None:
    place = Place(sqlite_url, tmp_path, redis_url, heartbeat_timeout_s=HEARTBEAT_TIMEOUT_S)
    file = write_task_file(tmp_path / "tasks.csv", ROWS, seed=3, keyed=False)
    with file.path.open("rb") as content:
        spooled = spool(content, place.settings.spool_dir)
    async with place.watched() as watch:
        run_id = await place.enqueue(watch, file.request(spooled, batch_rows=BATCH_ROWS))
        program = ("-c", DYING_WORKER.format(module=module, function=function))
        with place.worker("dying", program=program) as dying:
            assert dying.wait() == -9, dying.text
        with redis.Redis.from_url(redis_url) as queue:
            assert queue.exists(wire.IN_PROGRESS_KEY + str(run_id)), "the dead worker's claim must be in the way"
        with place.worker("next") as following:
            async with Client(redis_url) as client:
                report = await client.run(str(run_id), ImportReport).result(timeout_s=60)
            assert following.terminate() == 0
        await watch.look(run_id)
        verdict = await judge(watch, run_id, file, crashes=crashes)

        with redis.Redis.from_url(redis_url) as queue:
            kept = set(queue.scan_iter("arq:*"))

    assert verdict.problems == []
    assert report.rows_read == ROWS
    assert list(place.settings.spool_dir.iterdir()) == []
    assert kept == {f"{wire.RESULT_KEY}{run_id}".encode()}
