"""Packets to the database vanish under a whole worker: nothing of its own waits for ever, and it goes on."""

from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url

from tests.faults.history import Expected
from tests.faults.kinds import TrialWrite
from tests.faults.trial import QUICK, open_trial
from tests.queue.engine.proxy import Proxy

SOON_S = 30.0
"""Some of it waits for two deadlines, one after the other, and for the driver's goodbyes."""
DEADLINE_S = 1.0


@pytest.mark.parametrize("engine", ["postgres_url", "mariadb_url"])
async def test_a_worker_outlives_its_connections(
    engine: str, redis_url: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = make_url(request.getfixturevalue(engine))
    with Proxy(url.port or 0) as proxy:
        proxied = url.set(host="127.0.0.1", port=proxy.port).render_as_string(hide_password=False)
        settings = QUICK | {"DATABASE_DEADLINE_S": str(DEADLINE_S)}
        async with open_trial(url.render_as_string(hide_password=False), redis_url, tmp_path, **settings) as trial:
            (worker,) = await trial.started(DATABASE_URL=proxied)
            begun = await trial.enqueue(
                (TrialWrite(steps=3, gate=trial.gate()) for _ in range(5)), expected=Expected(steps=3, most_charged=1)
            )
            await trial.until_running(begun, worker)
            assert proxy.swallow() >= 2
            trial.open_gate()
            # One of the silent connections may be in the pool still.
            later = await trial.enqueue((TrialWrite() for _ in range(5)), expected=Expected(most_charged=1))
            await trial.until_over([*begun, *later], within_s=SOON_S)
            findings = await trial.findings()
            is_alive, said = worker.alive, worker.text
            worker.kill()  # before the proxy

    assert findings.problems == []
    assert is_alive
    assert "DATABASE_DEADLINE_S" in said


async def test_a_worker_starts_while_another_one_does_not_get_on_with_the_partitions(
    postgres_url: str, redis_url: str, tmp_path: Path
) -> None:
    settings = QUICK | {"DATABASE_DEADLINE_S": str(DEADLINE_S)}
    async with open_trial(postgres_url, redis_url, tmp_path, **settings) as trial:
        async with trial.manager.session() as stuck:
            await stuck.execute(text("SELECT pg_advisory_xact_lock(hashtext('holdfast history partitions'))"))
            await trial.started()
            await trial.until_over(await trial.enqueue([TrialWrite()]), within_s=SOON_S)
        findings = await trial.findings()

    assert findings.problems == []
