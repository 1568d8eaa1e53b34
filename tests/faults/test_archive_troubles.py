"""The database stands in the way of an archive in the middle of it: it is tried again, and each row is in one place."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from holdfast.requests import ArchiveDeleted
from holdfast.states import RunState
from tests import skips
from tests.faults.archives import Destination, judge_archive, make_archivable
from tests.faults.effects import make_tables
from tests.faults.kinds import TrialWrite
from tests.faults.place import Place
from tests.faults.troubles import (
    Scene,
    all_connections,
    archived_by_another,
    deadlock,
    due_key,
    end_sessions,
    fill,
    tiny_disk,
    until_somebody_waits,
)
from tests.faults.watch import Watch
from tests.servers import MariaDBServer, PostgresServer
from tests.skips import skip_missing

ROWS = 2_400
MORE_ROWS = 6_000
"""So many that the archive is not over before the trouble has come: a row further on is locked, a pool fills."""
BATCH_ROWS = 20
HEARTBEAT_TIMEOUT_S = 1.0
LONGER_THAN_A_LOCK_S = 2.5
FULL_S = 1.0
MOST_RETRIES = 4
DESTINATIONS = pytest.mark.parametrize("destination", ["tables", "files"])

Trouble = Callable[[Scene], Awaitable[None]]


@pytest.fixture
def root(pytestconfig: pytest.Config) -> None:
    """Whoever may mount a tiny disk."""
    if os.geteuid() != 0:
        skip_missing("only root may mount a tiny disk: run the tests as root", pytestconfig)


async def archive_through(
    place: Place,
    trouble: Trouble,
    *,
    rows: int = ROWS,
    destination: Destination = "tables",
    settings: dict[str, str] | None = None,
) -> int:
    """Archive while there is trouble; returns how many attempts were charged."""
    async with place.watched() as watch:
        before = await make_archivable(watch.manager, rows)
        run_id = await place.enqueue(watch, ArchiveDeleted(destination=destination, batch_rows=BATCH_ROWS))
        with place.worker(**(settings or {})) as worker:
            await watch.until(run_id, lambda now: now.counters.get("rows", 0) >= rows // 5, worker=worker)
            await trouble(Scene(place, watch, run_id, worker))
            end = await watch.until_over(run_id, worker=worker)
            assert worker.terminate() == 0
        assert end.state is RunState.SUCCEEDED, worker.text
        assert not _stood_still(watch), "it was over before the trouble"
        trial = await judge_archive(watch, run_id, before, destination)
        run = await watch.run(run_id)
    assert run is not None
    assert trial.problems == []
    assert run.attempts <= MOST_RETRIES
    return int(run.attempts)


def _stood_still(watch: Watch) -> bool:
    return len({sample.counters.get("rows", 0) for sample in watch.history}) < 3


@DESTINATIONS
@pytest.mark.parametrize("server_type", [PostgresServer, MariaDBServer])
async def test_a_killed_server(
    server_type: type[PostgresServer | MariaDBServer],
    destination: Destination,
    tmp_path: Path,
    pytestconfig: pytest.Config,
) -> None:
    """What it had not flushed has not happened."""
    make: Callable[[], PostgresServer | MariaDBServer] = server_type
    with skips.made_or_skipped(make, pytestconfig) as server:

        async def kill(scene: Scene) -> None:
            server.kill()
            await asyncio.to_thread(server.start)

        place = Place(server.create_database(), tmp_path, heartbeat_timeout_s=HEARTBEAT_TIMEOUT_S)
        await archive_through(place, kill, destination=destination)


@pytest.fixture(params=["postgres_url", "mariadb_url"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A database of a server, where an archive is soon seen to have stopped."""
    return Place(request.getfixturevalue(request.param), tmp_path, heartbeat_timeout_s=HEARTBEAT_TIMEOUT_S)


@DESTINATIONS
async def test_ended_sessions(place: Place, destination: Destination) -> None:
    async def end(scene: Scene) -> None:
        assert await end_sessions(scene.manager)
        for _ in range(4):
            await asyncio.sleep(0.05)
            await end_sessions(scene.manager)

    assert await archive_through(place, end, destination=destination) >= 1


async def test_a_row_that_is_locked_for_longer_than_the_archive_waits(place: Place) -> None:
    async def hold(scene: Scene) -> None:
        async with archived_by_another(scene.manager, await due_key(scene.manager, 0.3)):
            await until_somebody_waits(scene.manager)
            await asyncio.sleep(LONGER_THAN_A_LOCK_S)

    await archive_through(place, hold, rows=MORE_ROWS)


@pytest.mark.parametrize(
    ("server_type", "option", "query"),
    [
        (PostgresServer, ("-c", "deadlock_timeout=400ms"), "SELECT sum(deadlocks) FROM pg_stat_database"),
        (MariaDBServer, (), "SHOW GLOBAL STATUS LIKE 'Innodb_deadlocks'"),
    ],
)
async def test_deadlocks(
    server_type: Any, option: tuple[str, ...], query: str, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    with skips.made_or_skipped(lambda: server_type(extra_args=option), pytestconfig) as server:

        async def cross(scene: Scene) -> None:
            for share in (0.3, 0.4, 0.5):
                await deadlock(scene.manager, await due_key(scene.manager, share))

        place = Place(server.create_database(), tmp_path, heartbeat_timeout_s=HEARTBEAT_TIMEOUT_S)
        await archive_through(place, cross, rows=MORE_ROWS)
        assert int(server.execute(query).split()[-1]) >= 1


@DESTINATIONS
@pytest.mark.parametrize("engine", ["sqlite", "postgres", "mariadb"])
async def test_a_pool_that_others_have_exhausted(
    engine: str, destination: Destination, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    place = Place(request.getfixturevalue(f"{engine}_url"), tmp_path, heartbeat_timeout_s=HEARTBEAT_TIMEOUT_S)

    async def crowd(scene: Scene) -> None:
        await make_tables(scene.manager.engine)
        others = [await place.enqueue(scene.watch, TrialWrite(steps=2, hold_s=1.0, slow_starts=1)) for _ in range(4)]
        for run_id in others:
            await scene.watch.until_over(run_id, worker=scene.worker)

    settings = {"HOLDFAST_PLUGINS": "tests.faults.kinds"}
    settings |= {"DATABASE_POOL_SIZE": "2", "DATABASE_MAX_OVERFLOW": "0", "DATABASE_POOL_TIMEOUT": "0.5"}
    await archive_through(place, crowd, rows=MORE_ROWS, destination=destination, settings=settings)


@pytest.mark.parametrize(
    ("server_type", "option"),
    [(PostgresServer, ("-c", "max_connections=20")), (MariaDBServer, ("--max-connections=20",))],
)
async def test_a_server_that_takes_no_more_connections(
    server_type: Any, option: tuple[str, ...], tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    with skips.made_or_skipped(lambda: server_type(extra_args=option), pytestconfig) as server:

        async def take_all(scene: Scene) -> None:
            async with all_connections(scene.place):
                await asyncio.sleep(FULL_S)

        place = Place(server.create_database(), tmp_path, heartbeat_timeout_s=HEARTBEAT_TIMEOUT_S)
        await archive_through(place, take_all)


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize("engine", ["sqlite", "postgres", "mariadb"])
async def test_a_full_disk_under_the_files(engine: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    async def write_on(scene: Scene) -> None:
        ballast = fill(scene.place.settings.archives_dir)
        await asyncio.to_thread(scene.worker.wait_for, "No space left on device")
        ballast.unlink()

    place = Place(request.getfixturevalue(f"{engine}_url"), tmp_path)
    with tiny_disk(place.settings.archives_dir, "32m"):
        assert await archive_through(place, write_on, destination="files") >= 1
