"""The same rules, with the real ledger, the real scripts and the parts of real workers."""

import asyncio
from functools import partial

import pytest
from hypothesis.stateful import run_state_machine_as_test

from db import migrate
from db.settings import DatabaseSettings
from tests.model.model_ledger import Flaw
from tests.model.real_flaws import REAL_FLAWS
from tests.model.real_stage import stage
from tests.model.real_world import RealWorld
from tests.model.rules import machine, profile
from tests.model.scenes import SCENES, play

EXAMPLES = 15
STEPS = 30


def migrated(url: str) -> str:
    asyncio.run(migrate.upgrade(DatabaseSettings(database_url=url, _env_file=None)))
    return url


@pytest.mark.parametrize("engine", ["sqlite_url", "postgres_url"])
def test_the_rules_hold(engine: str, redis_url: str, request: pytest.FixtureRequest) -> None:
    with stage(migrated(request.getfixturevalue(engine)), redis_url) as on:
        run_state_machine_as_test(machine(partial(RealWorld, on)), settings=profile(EXAMPLES, STEPS, shrink=False))


def test_the_scenes_do_no_harm(database_url: str, redis_url: str) -> None:
    with stage(migrated(database_url), redis_url) as on:
        for plays in SCENES.values():
            play(plays, partial(RealWorld, on))


@pytest.mark.parametrize("flaw", REAL_FLAWS)
def test_each_flaw_is_found(flaw: Flaw, sqlite_url: str, redis_url: str) -> None:
    url = migrated(sqlite_url)
    with REAL_FLAWS[flaw](), stage(url, redis_url) as on, pytest.raises(AssertionError):
        play(SCENES[flaw], partial(RealWorld, on))
