"""`kill -9` of the worker in the middle of a restore and of an erasure. `make faults` is the long form."""

import secrets
from pathlib import Path

import pytest

from tests.faults.place import Place
from tests.faults.return_kills import Action, Case, Destination, kill_and_restart

KILLS = 2
MOST_MISSED = 1
ROWS: dict[Destination, int] = {"tables": 300, "files": 100}


@pytest.mark.parametrize("action", ["restore", "erase"])
async def test_killed_workers_lose_and_double_nothing(database_url: str, tmp_path: Path, action: Action) -> None:
    seed = secrets.randbits(32)
    print(f"seed {seed}")  # pytest shows it when the test fails
    # `make faults` runs all four on every engine.
    destination: Destination = "files" if (action == "restore") is database_url.startswith("sqlite") else "tables"

    trial = await kill_and_restart(
        Place(database_url, tmp_path), Case(action, destination, ROWS[destination]), KILLS, seed
    )

    assert trial.findings == []
    assert trial.landed >= KILLS - MOST_MISSED
