"""What happens to a claim and its lease between two calls: each is forced here, or met by doing it often."""

from typing import Any

import pytest

from holdfast import wire
from tests.odd_errors import Panic
from tests.queue.engine.room import Room, ids
from tests.queue.engine.serving import KEYS, Jobs, all_ended, serving, until
from worker.queue.claims import Claimer


async def test_retries_are_neither_lost_nor_doubled_while_leases_are_renewed(room: Room, jobs: Jobs) -> None:
    names = ids("job", 100)
    async with serving(room, jobs, lease_s=0.02):  # the thread renews all the time
        room.enqueue_all("retrying", names, 20)
        await until(lambda: all_ended(room, names))

    assert jobs.starts == dict.fromkeys(names, 21)
    assert room.left_behind() == []


async def test_a_lease_that_has_run_out_is_taken_up_by_its_worker_and_ends_with_its_run(room: Room, jobs: Jobs) -> None:
    async with serving(room, jobs, lease_s=60) as worker:
        room.enqueue("gated", job_id="job")
        await until(lambda: jobs.starts["job"] == 1)
        owner = room.redis.hget(f"{KEYS.queue}:owners", "job")
        for forgotten in ("nothing", wire.IN_PROGRESS_KEY + "job"):  # that one has an expiry of its own
            room.redis.delete(forgotten)
            room.redis.zadd(KEYS.leases, {"job": 1})
            room.redis.zadd(KEYS.queue, {"job": 1})
            await until(lambda: room.redis.zscore(KEYS.leases, "job") > 1)
            assert room.redis.hget(f"{KEYS.queue}:owners", "job") == owner
        jobs.gate.set()
        await until(lambda: all_ended(room, ["job"]))
        await worker.engine.finisher.drain()
        assert room.left_behind() == []
    assert jobs.starts == {"job": 1}


async def test_the_thread_of_the_leases_outlives_what_nobody_has_foreseen(
    room: Room, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(room, jobs, lease_s=0.3) as worker:
        await until(lambda: worker._engine is not None)
        keeper, failures = worker.engine.keeper, list[float]()
        watch = keeper._watch_loop

        def fail_once(interval_s: float) -> None:
            if not failures:
                failures.append(room.redis.zscore(KEYS.leases, "job"))
                raise RuntimeError("nobody has thought of it")
            watch(interval_s)

        monkeypatch.setattr(keeper, "_watch_loop", fail_once)
        room.enqueue("gated", job_id="job")
        await until(lambda: failures and room.redis.zscore(KEYS.leases, "job") > failures[0])
        assert keeper._thread is not None
        assert keeper._thread.is_alive()
        jobs.gate.set()
        await until(lambda: all_ended(room, ["job"]))
    assert jobs.starts == {"job": 1}


async def test_claims_whose_answer_was_lost_go_back_after_the_outage(room: Room, jobs: Jobs) -> None:
    names = ids("job", 5)
    jobs.gate.set()
    async with serving(room, jobs, lease_s=600, longest_idle_s=0.2) as worker:
        await until(lambda: worker._engine is not None)
        unheard = Claimer(worker.pool, KEYS, worker.engine.terms)
        worker.allow_pick_jobs = False
        room.enqueue_all("gated", names)
        assert len(await unheard.claim(10)) == len(names)
        worker.allow_pick_jobs = True
        worker.engine.order.stumbled(ConnectionError("cut off"))
        await until(lambda: all_ended(room, names))

    assert jobs.starts == dict.fromkeys(names, 1)


async def test_a_claim_that_was_held_up_claims_nothing(room: Room, jobs: Jobs) -> None:
    async with serving(room, jobs, lease_s=1, longest_idle_s=60) as worker:
        await until(lambda: worker._engine is not None)
        claimer = worker.engine.claimers[0]
        await until(lambda: claimer._ahead_ms is not None)
        assert claimer._ahead_ms is not None
        claimer._ahead_ms -= 5000  # as if the call took five seconds to get there
        room.enqueue("gated", job_id="job")
        jobs.gate.set()
        await until(lambda: all_ended(room, ["job"]))

    assert jobs.starts == {"job": 1}


async def test_renewing_does_not_send_payloads(room: Room, jobs: Jobs) -> None:
    large = "x" * 900_000
    async with serving(room, jobs, lease_s=0.3):
        room.enqueue_all("gated", ids("job", 5), large)
        await until(lambda: len(jobs.starts) == 5)
        before = room.redis.info("stats")["total_net_input_bytes"]
        ends = set()

        def renewed_often() -> bool:
            ends.add(room.redis.zscore(f"{KEYS.queue}:leases", "job-0"))
            return len(ends) > 5

        await until(renewed_often)
        assert room.redis.info("stats")["total_net_input_bytes"] - before < len(large)
        jobs.gate.set()


@pytest.mark.parametrize("failure", [ValueError("hook"), Panic("hook")], ids=lambda error: type(error).__name__)
async def test_a_hook_that_fails_costs_a_lease_and_nothing_else(room: Room, jobs: Jobs, failure: BaseException) -> None:
    failures: list[int] = []

    async def fails_once(_ctx: dict[str, Any]) -> None:
        if not failures:
            failures.append(1)
            raise failure

    async with serving(room, jobs, lease_s=0.3, on_job_start=fails_once, longest_idle_s=0.3) as worker:
        room.enqueue("gated", job_id="job")
        jobs.gate.set()
        await until(lambda: all_ended(room, ["job"]))
        await until(lambda: not worker.engine._running)
        assert (worker.tasks, worker.free_slots()) == ({}, 100)

    assert jobs.starts == {"job": 1}
