"""`kill -9` of the worker in the middle of an import, again and again. `make faults` is the long form."""

import random
import secrets
from pathlib import Path

from tests.faults.kills import KillTrial, draw_moments, kill_and_restart
from tests.faults.place import Place
from tests.faults.task_files import write_task_file

ROWS = 20_000
BATCH_ROWS = 500
KILLS = 6
MOST_MISSED = 2
KILLS_WITH_REDIS = 3
HEARTBEAT_TIMEOUT_S = 1.0


async def test_killed_workers_lose_and_double_nothing(database_url: str, tmp_path: Path) -> None:
    # `make faults` runs both kinds on every engine.
    keyed = not database_url.startswith("mariadb")

    trial = await _kill(Place(database_url, tmp_path), KILLS, keyed=keyed)

    assert trial.verdict.problems == []
    assert trial.landed >= KILLS - MOST_MISSED


async def test_killed_workers_at_a_redis_lose_and_double_nothing(
    postgres_url: str, redis_url: str, tmp_path: Path
) -> None:
    place = Place(postgres_url, tmp_path, redis_url, heartbeat_timeout_s=HEARTBEAT_TIMEOUT_S)

    trial = await _kill(place, KILLS_WITH_REDIS, keyed=False)

    assert trial.verdict.problems == []
    assert trial.landed >= 1


async def _kill(place: Place, kills: int, *, keyed: bool) -> KillTrial:
    seed = secrets.randbits(32)
    print(f"seed {seed}")  # pytest shows it when the test fails
    file = write_task_file(place.folder / "tasks.csv", ROWS, seed=seed, keyed=keyed)
    moments = draw_moments(random.Random(seed), kills, ROWS)  # noqa: S311 - no secret
    return await kill_and_restart(place, file, moments, batch_rows=BATCH_ROWS)
