"""A copy of the database that is started beside the original is held until somebody says that it is the right one."""

import asyncio
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from holdfast import Client, wire
from holdfast.ids import uuid7_texts
from holdfast.states import RunState
from tests import skips
from tests.faults.history import Expected
from tests.faults.kinds import TrialWrite
from tests.faults.trial import QUICK, Trial, open_trial
from tests.servers import PostgresServer

WATCHED_S = 1.0


async def test_a_clone_beside_the_original_runs_nothing_until_it_is_adopted(
    redis_url: str, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    places = [tmp_path / "original", tmp_path / "clone"]
    for place in places:
        place.mkdir()
    with skips.made_or_skipped(PostgresServer, pytestconfig) as original:
        url = original.create_database()
        async with open_trial(url, redis_url, places[0], **QUICK) as trial:
            (worker,) = await trial.started()
            await trial.enqueue([TrialWrite()])
            await trial.until_over()
            assert worker.terminate() == 0
            await trial.enqueue(TrialWrite(steps=2) for _ in range(5))
            await trial.manager.engine.dispose()
            with _cloned(original) as clone:
                cloned_url = url.replace(str(original.port), str(clone.port))
                async with open_trial(cloned_url, redis_url.replace("/0", "/1"), places[1], **QUICK) as copy:
                    copy.asked.acknowledged |= trial.asked.acknowledged
                    await trial.started()
                    await copy.started()
                    await _is_held(copy)
                    assert (await trial.findings()).problems == []
                    assert "held" not in trial.workers[-1].text

                    adopted = await copy.command("adopt")
                    findings = await copy.findings()

    assert adopted["installation"]
    assert findings.problems == []


@contextmanager
def _cloned(original: PostgresServer) -> Iterator[PostgresServer]:
    """Starts a second server on a copy of the stopped first one's files; both run then."""
    clone = PostgresServer()
    original.stop()
    # With owners and modes: PostgreSQL does not run on files of somebody else.
    subprocess.run(["cp", "-a", str(original._data), str(clone._data)], check=True)
    clone._prepared = True
    original.start()
    with clone:
        yield clone


async def _is_held(copy: Trial) -> None:
    await asyncio.to_thread(copy.workers[-1].wait_for, "held: this database is a copy")
    await copy.enqueue([TrialWrite()])
    (direct,) = uuid7_texts(1)
    async with Client(copy.redis_url) as client:
        await client.enqueue(TrialWrite(), run_id=direct)
    copy.asked.acknowledged[direct].append(Expected())
    before = await copy.runs()
    await copy.pause(WATCHED_S)

    assert {run.state for run in before if run.fence == 0} == {RunState.WAITING}
    assert await copy.runs() == before
    assert copy.redis.zrange(wire.DEFAULT_QUEUE, 0, -1) == [direct.encode()]
    assert copy.redis.exists(wire.IN_PROGRESS_KEY + direct) == 0
