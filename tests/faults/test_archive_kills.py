"""`kill -9` of the worker in the middle of an archive, again and again. `make faults` is the long form."""

import random
import secrets
from pathlib import Path

import pytest

from tests.faults.archives import Destination, kill_archives
from tests.faults.kills import draw_moments
from tests.faults.place import Place

ROWS = 2_000
BATCH_ROWS = 20
MARGIN_ROWS = 600
KILLS = 2
BY_TWO = {"rows": 2_500, "batch_rows": 8, "margin_rows": 1_500}
"""Two connections tell twice a second only how far they are."""


@pytest.mark.parametrize("destination", ["tables", "files"])
async def test_killed_workers_lose_and_double_nothing(
    destination: Destination, database_url: str, tmp_path: Path
) -> None:
    await kill_some(Place(database_url, tmp_path), destination)


@pytest.mark.parametrize("destination", ["tables", "files"])
@pytest.mark.parametrize("engine", ["postgres", "mariadb"])
async def test_killed_workers_with_two_connections_lose_and_double_nothing(
    destination: Destination, engine: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    place = Place(request.getfixturevalue(f"{engine}_url"), tmp_path)
    await kill_some(place, destination, connections=2, **BY_TWO)


async def kill_some(
    place: Place,
    destination: Destination,
    *,
    connections: int = 1,
    rows: int = ROWS,
    batch_rows: int = BATCH_ROWS,
    margin_rows: int = MARGIN_ROWS,
) -> None:
    seed = secrets.randbits(32)
    print(f"seed {seed}")  # pytest shows it when the test fails
    moments = draw_moments(random.Random(seed), KILLS, rows * 3 // 4, margin_rows=margin_rows)  # noqa: S311 - no secret
    trial = await kill_archives(
        place, rows, moments, destination=destination, batch_rows=batch_rows, connections=connections
    )
    assert trial.problems == []
    assert trial.landed >= 1
