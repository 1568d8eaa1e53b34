"""The database server is killed in the middle of an archive: what it had not flushed has not happened."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from holdfast.requests import ArchiveDeleted
from tests import skips
from tests.faults.archives import Destination, judge_archive, make_archivable
from tests.faults.place import Place
from tests.servers import MariaDBServer, PostgresServer

ROWS = 6_000
BATCH_ROWS = 20
HEARTBEAT_TIMEOUT_S = 1.0


@pytest.mark.parametrize("destination", ["tables", "files"])
@pytest.mark.parametrize("server_type", [PostgresServer, MariaDBServer])
async def test_an_archive_survives_a_killed_database(
    server_type: type[PostgresServer | MariaDBServer],
    destination: Destination,
    tmp_path: Path,
    pytestconfig: pytest.Config,
) -> None:
    make: Callable[[], PostgresServer | MariaDBServer] = server_type
    with skips.made_or_skipped(make, pytestconfig) as server:
        place = Place(server.create_database(), tmp_path, heartbeat_timeout_s=HEARTBEAT_TIMEOUT_S)
        async with place.watched() as watch:
            before = await make_archivable(watch.manager, ROWS)
            run_id = await place.enqueue(watch, ArchiveDeleted(destination=destination, batch_rows=BATCH_ROWS))
            with place.worker() as worker:
                await watch.until(run_id, lambda now: now.counters.get("rows", 0) >= ROWS // 5, worker=worker)
                server.kill()
                await asyncio.to_thread(server.start)
                await watch.until_over(run_id)
                assert worker.terminate() == 0
            trial = await judge_archive(watch, run_id, before, destination)

    assert trial.problems == []
