"""The database server is killed in the middle of an import and comes back."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from db.repositories import worker_heartbeat
from tests import skips
from tests.faults.checker import judge
from tests.faults.place import Place
from tests.faults.task_files import write_task_file
from tests.servers import MariaDBServer, PostgresServer

ROWS = 20_000
BATCH_ROWS = 500
# Short, so that the heartbeat meets the server in every state of its restart.
HEARTBEAT_TIMEOUT_S = 1.0
MOST_RETRIES = 3


@pytest.mark.parametrize("server_type", [PostgresServer, MariaDBServer])
async def test_import_survives_a_killed_database(
    server_type: type[PostgresServer | MariaDBServer], tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    file = write_task_file(tmp_path / "tasks.csv", ROWS, seed=4, keyed=False)
    make: Callable[[], PostgresServer | MariaDBServer] = server_type
    with skips.made_or_skipped(make, pytestconfig) as server:
        place = Place(server.create_database(), tmp_path, heartbeat_timeout_s=HEARTBEAT_TIMEOUT_S)
        async with place.watched() as watch:
            run_id = await place.enqueue(watch, file.request(batch_rows=BATCH_ROWS))
            with place.worker() as worker:
                await watch.until(run_id, lambda now: now.rows_read >= ROWS // 4, worker=worker)
                server.kill()
                await asyncio.to_thread(worker.wait_for, "cannot be recorded yet")
                await asyncio.to_thread(server.start)
                await watch.until_over(run_id)
                run = await watch.run(run_id)
                assert run is not None
                async with watch.manager.session(read_only=True) as session:
                    living = await worker_heartbeat.live_workers(session, timeout_s=HEARTBEAT_TIMEOUT_S)
                assert living == {run.worker_id}, f"the heartbeat has stopped:\n{worker.text}"
                assert worker.terminate() == 0
            verdict = await judge(watch, run_id, file, crashes=0, retries=run.attempts)

    assert verdict.problems == []
    assert 1 <= run.attempts <= MOST_RETRIES
