"""What is started ahead of a free slot: it goes back before anybody misses it, and nothing else becomes of it."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.queue.engine.room import Room, ids
from tests.queue.engine.serving import KEYS, Jobs, all_ended, serving, until
from worker import process
from worker.queue import slots
from worker.queue.claims import Claimed
from worker.queue.engine import Engine
from worker.runtime import Runtime
from worker.settings import Settings

SLOTS = 5
QUICK, LONG, BEHIND = ids("a-quick", 3 * SLOTS), ids("b-long", SLOTS), ids("c-behind", SLOTS)


@pytest.fixture
def early(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids of everything that workers of this process have started ahead."""
    seen: list[str] = []
    start = Engine.start

    def start_and_tell(self: Engine, claims: list[Claimed], *, ahead: bool = False) -> None:
        if ahead:
            seen.extend(claimed.job_id for claimed in claims)
        start(self, claims, ahead=ahead)

    monkeypatch.setattr(Engine, "start", start_and_tell)
    return seen


def fill(room: Room) -> None:
    """Short runs, then as many long ones as there are slots, then some that would have to wait."""
    room.enqueue_all("retrying", QUICK, 0)
    room.enqueue_all("gated", LONG)
    room.enqueue_all("retrying", BEHIND, 1)


async def test_what_would_have_to_wait_goes_back_and_another_worker_takes_it(
    room: Room, jobs: Jobs, early: list[str]
) -> None:
    fill(room)
    async with serving(room, jobs, max_jobs=SLOTS):
        await until(lambda: all(jobs.starts[job_id] for job_id in LONG))
        await until(lambda: set(BEHIND) <= set(early) and room.redis.zcard(KEYS.leases) == SLOTS)
        others = Jobs()
        async with serving(room, others, max_jobs=SLOTS):
            await until(lambda: all_ended(room, BEHIND))
        assert others.starts == dict.fromkeys(BEHIND, 2)  # they come back after their first try, and this was it
        jobs.gate.set()
        await until(lambda: all_ended(room, [*QUICK, *LONG]))
    assert jobs.starts == dict.fromkeys([*QUICK, *LONG], 1)
    assert room.left_behind() == []


async def test_a_worker_that_stops_gives_back_what_it_has_started_ahead(
    room: Room, jobs: Jobs, early: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slots, "SHORT_S", 60.0)
    fill(room)
    async with serving(room, jobs, max_jobs=SLOTS):
        await until(lambda: set(BEHIND) <= set(early))
        assert room.redis.zcard(KEYS.leases) == 2 * SLOTS
    assert room.redis.zcard(KEYS.leases) == 0
    assert room.redis.zcard(KEYS.queue) == 2 * SLOTS
    assert not set(BEHIND) & set(jobs.starts)


async def test_a_worker_whose_task_was_cancelled_gives_it_back_before_its_runs_end(
    room: Room, jobs: Jobs, early: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(slots, "SHORT_S", 60.0)
    fill(room)
    runtime = Runtime(Settings(_env_file=None, holdfast_data_dir=tmp_path), owns_queue=False)
    async with serving(room, jobs, max_jobs=SLOTS, on_drain=runtime.begin_draining) as worker:
        await until(lambda: set(BEHIND) <= set(early))
        (main,) = (task for task in asyncio.all_tasks() if "Worker.main" in repr(task.get_coro()))
        main.cancel()
        draining = asyncio.create_task(process._drain(worker, runtime))
        await until(lambda: room.redis.zcard(KEYS.leases) == SLOTS)
        jobs.gate.set()
        await draining
    assert jobs.starts.keys() == {*QUICK, *LONG}


async def test_what_is_lost_as_it_is_started_keeps_no_slot(
    room: Room, jobs: Jobs, early: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slots, "SHORT_S", 60.0)
    start = Engine.start
    fill(room)
    async with serving(room, jobs, max_jobs=SLOTS) as worker:

        def start_and_lose(self: Engine, claims: list[Claimed], *, ahead: bool = False) -> None:
            for claimed in claims if ahead else ():  # the thread's word is on its way
                asyncio.get_running_loop().call_soon(worker.engine._lost, claimed)
            start(self, claims, ahead=ahead)

        monkeypatch.setattr(Engine, "start", start_and_lose)
        await until(lambda: all(jobs.starts[job_id] for job_id in LONG))
        monkeypatch.setattr(Engine, "start", start)
        jobs.gate.set()
        await until(lambda: all_ended(room, [*QUICK, *LONG, *BEHIND]))
        await until(lambda: worker.job_counter == worker.engine.slots.ahead == len(worker.tasks) == 0)


async def test_what_another_worker_has_meanwhile_is_not_started(
    room: Room, jobs: Jobs, early: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slots, "SHORT_S", 60.0)
    fill(room)
    lost, *others = BEHIND
    async with serving(room, jobs, max_jobs=SLOTS, lease_s=0.3) as worker:
        await until(lambda: set(BEHIND) <= set(early))
        room.redis.hset(f"{KEYS.queue}:owners", lost, "another:1")
        await until(lambda: worker.engine.slots.ahead == SLOTS - 1)
        jobs.gate.set()
        await until(lambda: all_ended(room, [*LONG, *others]))
    assert lost not in jobs.starts


async def test_a_worker_that_stood_still_starts_nothing_that_it_had_started_ahead(
    room: Room, jobs: Jobs, early: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slots, "SHORT_S", 60.0)
    fill(room)
    async with serving(room, jobs, max_jobs=SLOTS, lease_s=0.5) as sleeper:
        await until(lambda: set(BEHIND) <= set(early))
        monkeypatch.setattr(sleeper.engine.keeper, "_renew_all", lambda *_: None)  # nor does its thread get on
        others = Jobs()
        others.gate.set()
        async with serving(room, others, max_jobs=SLOTS):
            await until(lambda: all_ended(room, [*LONG, *BEHIND]))
        jobs.gate.set()
        room.enqueue_all("gated", after := ids("d-after", SLOTS))
        await until(lambda: all_ended(room, after))
    assert others.starts.keys() == {*LONG, *BEHIND}
    assert not set(BEHIND) & set(jobs.starts)
    assert room.left_behind() == []


async def test_a_claim_whose_answer_comes_late_starts_nothing(room: Room, jobs: Jobs) -> None:
    woken = asyncio.Event()
    async with serving(room, jobs, max_jobs=SLOTS, lease_s=0.5) as sleeper:
        await until(lambda: sleeper._engine is not None)
        (claimer,) = sleeper.engine.claimers
        script = claimer._script

        async def answer_late(**given: Any) -> Any:
            answer = await script(**given)
            if len(answer) > 1:
                await woken.wait()
            return answer

        claimer._script = answer_late
        room.enqueue_all("retrying", QUICK[:SLOTS], 0)
        await until(lambda: room.redis.zcard(KEYS.leases) == SLOTS)
        others = Jobs()
        async with serving(room, others, max_jobs=SLOTS):
            await until(lambda: all_ended(room, QUICK[:SLOTS]))
        woken.set()
        room.enqueue_all("retrying", BEHIND, 0)
        await until(lambda: all_ended(room, BEHIND))
    assert others.starts.keys() == set(QUICK[:SLOTS])
    assert jobs.starts.keys() == set(BEHIND)
    assert room.left_behind() == []


async def test_many_more_short_runs_than_slots_keep_to_the_slots(room: Room, jobs: Jobs, early: list[str]) -> None:
    names = ids("short", 60 * SLOTS)
    room.enqueue_all("retrying", names, 0)
    most = 0
    async with serving(room, jobs, max_jobs=SLOTS) as worker:
        while not all_ended(room, names):
            most = max(most, worker.job_counter)
            await asyncio.sleep(0)
    assert jobs.starts == dict.fromkeys(names, 1)
    assert early
    assert most <= SLOTS
    assert room.left_behind() == []
