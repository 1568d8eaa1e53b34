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
KILLS = 2


@pytest.mark.parametrize("destination", ["tables", "files"])
async def test_killed_workers_lose_and_double_nothing(
    destination: Destination, database_url: str, tmp_path: Path
) -> None:
    seed = secrets.randbits(32)
    print(f"seed {seed}")  # pytest shows it when the test fails
    moments = draw_moments(random.Random(seed), KILLS, ROWS * 3 // 4, margin_rows=600)  # noqa: S311 - no secret

    trial = await kill_archives(
        Place(database_url, tmp_path), ROWS, moments, destination=destination, batch_rows=BATCH_ROWS
    )

    assert trial.problems == []
    assert trial.landed >= 1
