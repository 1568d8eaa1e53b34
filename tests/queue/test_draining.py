"""A worker that is told to stop (FAULTS, row 4): what it says, what becomes of its runs, and that it ends in time."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select

from db.models import WorkerHeartbeat
from holdfast import Client, JobReport, Run, outbox, wire
from tests.processes import CHECKOUT, WorkerProcess
from tests.queue.lasting_kinds import Blocking, BlockingUntilAsked, Lasting, Stubborn
from tests.queue.workplace import PATIENCE_S, SUCCESS, Ledger, Workplace
from tests.servers import wait_until

GRACE_S = 1.0
ENDS_IN_S = GRACE_S + 2.0
ITS_END_S = 1.0
"""What Python takes to end, and this machine to tell."""
KINDS = {"HOLDFAST_PLUGINS": "tests.queue.lasting_kinds", "HEARTBEAT_TIMEOUT_S": "1", "LEASE_S": "1"}


@pytest.fixture
def place(redis_url: str, tmp_path: Path) -> Workplace:
    return Workplace(redis_url, tmp_path)


def start(place: Workplace, *, grace_s: float, name: str = "worker") -> WorkerProcess:
    return place.started_worker(name, SHUTDOWN_GRACE_S=str(grace_s), **KINDS)


def workers_list(place: Workplace) -> list[dict[str, Any]]:
    words = [sys.executable, "-m", "worker", "workers", "list", "--json"]
    environment = place.environment(**KINDS)
    shown = subprocess.run(words, cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=True)
    listed: list[dict[str, Any]] = json.loads(shown.stdout)["workers"]
    return listed


async def until_draining(ledger: Ledger) -> WorkerHeartbeat:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            async with ledger.manager.session(read_only=True) as session:
                (row,) = (await session.execute(select(WorkerHeartbeat))).scalars()
            if row.state == "draining":
                return row
            await asyncio.sleep(0.02)


def seconds_until_the_end_of(worker: WorkerProcess) -> float:
    began = time.monotonic()
    assert wait_until(lambda: not worker.alive, PATIENCE_S)
    return time.monotonic() - began


async def begin(place: Workplace, client: Client, ledger: Ledger, kind: type[Lasting] = Lasting) -> Run[JobReport]:
    """Enqueues a run that lasts, and returns when it runs."""
    run = await client.enqueue(kind(gate=str(place.folder / "gate")))
    await ledger.until(UUID(run.id), "running")
    return run


async def test_it_says_that_it_drains_and_takes_up_nothing_more(place: Workplace) -> None:
    async with Client(place.redis_url) as client, place.ledger() as ledger:
        with start(place, grace_s=60) as worker:
            run = await begin(place, client, ledger)
            (ready,) = workers_list(place)
            shown = [ready[key] for key in ("pid", "queues", "state", "running", "alive")]
            assert shown == [worker.pid, ["arq:queue"], "ready", 1, True]
            os.kill(worker.pid, signal.SIGTERM)
            row = await until_draining(ledger)
            assert row.state_since is not None
            assert row.state_since.isoformat() > ready["since"]
            straight = await client.enqueue(Lasting(gate=str(place.folder)))
            async with ledger.manager.session() as session:
                from_ledger = await outbox.enqueue(session, Lasting(gate=str(place.folder)))
            await until_dispatched(place, from_ledger)
            await ledger.until(UUID(straight.id), "waiting")
            assert (await ledger.run_of(run.id)).state == "running"
            (place.folder / "gate").touch()
            assert worker.wait() == 0
        states = {found.job_id: (found.state, found.fence) for found in await ledger.runs()}
        assert states.pop(run.id) == ("succeeded", 1)
        assert states == dict.fromkeys([straight.id, str(from_ledger)], ("waiting", 0))
        assert workers_list(place) == []


async def until_dispatched(place: Workplace, run_id: UUID) -> None:
    """Returns when the worker's upkeep, which goes on, has put a run into Redis."""
    with place.redis() as redis:
        assert wait_until(lambda: redis.zscore(wire.DEFAULT_QUEUE, str(run_id)) is not None, PATIENCE_S)


async def assert_goes_on_elsewhere(place: Workplace, ledger: Ledger, run: Run[JobReport], *, crashes: int) -> None:
    """Asserts that another worker takes it up, and that nothing was charged."""
    (place.folder / "gate").touch()
    with start(place, grace_s=0, name="second") as second:
        over = await ledger.until(UUID(run.id), "succeeded")
        assert second.terminate() == 0
    assert (over.attempts, over.fence, over.crashes) == (0, 2, crashes)
    outcomes = [(one.attempt, one.outcome) for one in await ledger.attempts(over.id)]
    assert outcomes == [(1, "crashed" if crashes else "interrupted"), (1, "succeeded")]
    assert await ledger.problems({run.id: SUCCESS}) == []


@pytest.mark.parametrize("signals", [1, 2])
async def test_what_lasts_longer_goes_back_uncharged(place: Workplace, signals: int) -> None:
    """One signal and the time of grace, or a second signal, which does not wait for it."""
    async with Client(place.redis_url) as client, place.ledger() as ledger:
        with start(place, grace_s=GRACE_S if signals == 1 else 600) as worker:
            run = await begin(place, client, ledger)
            os.kill(worker.pid, signal.SIGTERM)
            if signals == 2:
                await until_draining(ledger)
                os.kill(worker.pid, signal.SIGTERM)
            assert seconds_until_the_end_of(worker) < ENDS_IN_S + ITS_END_S
            assert worker.wait() == 0
        left = await ledger.run_of(run.id)
        assert (left.state, left.reason, left.attempts, left.crashes) == ("waiting", "interrupted", 0, 0)
        await assert_goes_on_elsewhere(place, ledger, run, crashes=0)


@pytest.mark.parametrize(
    ("kind", "held_up_by"),
    [(Stubborn, "not to be cancelled: {0}"), (Blocking, "job {0}:blocking blocks the event loop")],
    ids=["a stubborn job", "a blocked event loop"],
)
async def test_a_job_that_does_not_end_is_ended_by_force(
    place: Workplace, kind: type[Lasting], held_up_by: str
) -> None:
    async with Client(place.redis_url) as client, place.ledger() as ledger:
        with start(place, grace_s=GRACE_S) as worker:
            run = await begin(place, client, ledger, kind)
            os.kill(worker.pid, signal.SIGTERM)
            if kind is Blocking:  # its draining is heard by a thread
                await until_draining(ledger)
            assert seconds_until_the_end_of(worker) < ENDS_IN_S + ITS_END_S
            assert worker.wait() == 1
        last = json.loads(worker.text.splitlines()[-1])
        assert last["event"].startswith("told to stop and not at an end: ended by force")
        assert last["still_there"] == held_up_by.format(run.id)
        await assert_goes_on_elsewhere(place, ledger, run, crashes=1)


async def test_a_job_that_blocks_the_event_loop_hears_that_it_shall_stop(place: Workplace) -> None:
    async with Client(place.redis_url) as client, place.ledger() as ledger:
        with start(place, grace_s=600) as worker:
            run = await begin(place, client, ledger, BlockingUntilAsked)
            assert worker.terminate() == 0
        assert (await ledger.run_of(run.id)).reason == "interrupted"
        await assert_goes_on_elsewhere(place, ledger, run, crashes=0)


async def test_several_signals_do_not_hinder_the_end(place: Workplace) -> None:
    async with Client(place.redis_url) as client, place.ledger() as ledger:
        with start(place, grace_s=600) as worker:
            runs = [await begin(place, client, ledger) for _ in range(3)]
            while worker.alive:
                os.kill(worker.pid, signal.SIGTERM)
                await asyncio.sleep(0.01)
            assert worker.wait() == 0
        found = [await ledger.run_of(run.id) for run in runs]
        assert {(run.state, run.reason, run.crashes) for run in found} == {("waiting", "interrupted", 0)}
