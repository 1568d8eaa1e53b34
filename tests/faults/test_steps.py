"""Workers that die exactly between two steps of a run, where a kill by the clock hardly ever lands."""

import asyncio
import signal
from pathlib import Path

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
STEPS = {
    "claimed in Redis, not admitted": ("worker.ledger", "admit"),
    "admitted, nothing done": ("worker.run", "perform"),
    "all rows loaded": ("jobs.import_tasks.job", "write_rejects"),
    "rejects written, the end not committed": ("worker.ledger", "finish"),
    "the end committed, Redis not told": ("worker.run", "report_outcome"),
}
CRASHES = 3
"""The first and the last of them died without having the run; the second of the three had committed a batch."""
NO_RUNS = {wire.DEFAULT_QUEUE.encode() + suffix for suffix in (b"", b":compared", wire.INTAKE_SUFFIX.encode())}
"""Keys that tell nothing of a run; an announcement that nobody has read before the end means nothing any more."""


async def test_next_worker_goes_on_from_every_step(sqlite_url: str, redis_url: str, tmp_path: Path) -> None:
    place = Place(sqlite_url, tmp_path, redis_url, heartbeat_timeout_s=HEARTBEAT_TIMEOUT_S)
    file = write_task_file(tmp_path / "tasks.csv", ROWS, seed=3, keyed=False)
    with file.path.open("rb") as content:
        spooled = spool(content, place.settings.spool_dir)
    async with place.watched() as watch:
        run_id = await place.enqueue(watch, file.request(spooled, batch_rows=BATCH_ROWS))
        for step in STEPS:
            await asyncio.to_thread(_die_at, place, step)
            await watch.look(run_id)
            assert wire.IN_PROGRESS_KEY + str(run_id) in _keys(redis_url), f"{step}: no claim was left in the way"
            assert spooled.exists(), step
        with place.worker("last") as last:
            async with Client(redis_url) as client:
                report = await client.run(str(run_id), ImportReport).result(timeout_s=60)
            assert last.terminate() == 0
        verdict = await judge(watch, run_id, file, crashes=CRASHES)

    assert verdict.problems == []
    assert report.rows_read == ROWS
    assert not spooled.exists()
    assert _keys(redis_url) == {wire.RESULT_KEY + str(run_id)}


def _die_at(place: Place, step: str) -> None:
    module, function = STEPS[step]
    program = ("-c", DYING_WORKER.format(module=module, function=function))
    with place.worker(step, program=program) as worker:
        assert worker.wait() == -signal.SIGKILL, f"{step}: {worker.text}"


def _keys(redis_url: str) -> set[str]:
    with redis.Redis.from_url(redis_url) as queue:
        return {key.decode() for key in queue.scan_iter("arq:*") if key not in NO_RUNS}
