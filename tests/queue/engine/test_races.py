"""What happens between two calls: each is forced here, or met by doing it often."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from arq import Retry
from arq.connections import RedisSettings
from arq.worker import func

from holdfast import wire
from tests.queue.engine.room import Room, ids
from worker.queue import Worker, upkeep
from worker.queue.claims import Claimed, Claimer
from worker.queue.finish import Finish
from worker.queue.scripts import QueueKeys

KEYS = QueueKeys(wire.DEFAULT_QUEUE)


class Jobs:
    """Jobs of a worker in the test's own process."""

    def __init__(self) -> None:
        self.starts: Counter[str] = Counter()
        self.gate = asyncio.Event()

    async def gated(self, ctx: dict[str, Any], *_arguments: Any) -> str:
        self.starts[ctx["job_id"]] += 1
        await self.gate.wait()
        return "done"

    async def again(self, ctx: dict[str, Any]) -> None:
        self.starts[ctx["job_id"]] += 1
        if ctx["job_try"] == 1:
            raise Retry
        await self.gate.wait()

    async def retrying(self, ctx: dict[str, Any], times: int) -> str:
        self.starts[ctx["job_id"]] += 1
        if ctx["job_try"] <= times:
            raise Retry
        return "done"


@pytest.fixture
def jobs() -> Jobs:
    return Jobs()


@asynccontextmanager
async def serving(room: Room, jobs: Jobs, **options: Any) -> AsyncIterator[Worker]:
    """Runs a worker while the block runs."""
    worker = Worker(
        [
            func(jobs.gated, name="gated"),
            func(jobs.again, name="again"),
            func(jobs.retrying, name="retrying", max_tries=100),
        ],
        redis_settings=RedisSettings.from_dsn(room.url),
        handle_signals=False,
        max_jobs=options.pop("max_jobs", 100),
        keep_result=600,
        allow_abort_jobs=True,
        job_serializer=wire.dumps,
        job_deserializer=wire.loads,
    )
    for name, value in options.items():
        setattr(worker, name, value)
    main = asyncio.create_task(worker.main())
    try:
        yield worker
    finally:
        main.cancel()
        await asyncio.gather(main, return_exceptions=True)
        await worker.close()


async def until(condition: Any) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - Redis does not set events
            await asyncio.sleep(0.01)


def all_ended(room: Room, job_ids: list[str]) -> bool:
    return bool(room.redis.exists(*(wire.RESULT_KEY + job_id for job_id in job_ids)) == len(job_ids))


async def test_retries_are_neither_lost_nor_doubled_while_leases_are_renewed(room: Room, jobs: Jobs) -> None:
    names = ids("job", 100)
    async with serving(room, jobs, lease_s=0.02):  # the thread renews all the time
        room.enqueue_all("retrying", names, 20)
        await until(lambda: all_ended(room, names))

    assert jobs.starts == dict.fromkeys(names, 21)
    assert room.left_behind() == []


async def test_a_claim_that_is_made_again_after_its_run_went_back_goes_back(room: Room, jobs: Jobs) -> None:
    async with serving(room, jobs, lease_s=60) as worker:
        room.enqueue("gated", job_id="job")
        await until(lambda: jobs.starts["job"] == 1)
        engine = worker.engine
        (claimed,) = engine._running
        worker.allow_pick_jobs = False
        engine._running[claimed].cancel()
        await until(lambda: not engine._running)
        score = room.redis.zscore(KEYS.queue, "job")
        assert await _reclaim(worker, claimed) == [1]  # the thread was on its way
        engine._reclaimed(claimed)
        await engine.finisher.drain()

        assert room.redis.zscore(KEYS.queue, "job") == score
        assert room.redis.exists(wire.JOB_KEY + "job", f"{KEYS.queue}:leases", f"{KEYS.queue}:owners") == 1
        worker.allow_pick_jobs = True
        jobs.gate.set()
        await until(lambda: all_ended(room, ["job"]))
    assert jobs.starts == {"job": 2}


async def test_a_claim_that_is_made_again_after_its_run_ended_ends(room: Room, jobs: Jobs) -> None:
    async with serving(room, jobs, lease_s=60) as worker:
        room.enqueue("gated", job_id="job")
        await until(lambda: jobs.starts["job"] == 1)
        (claimed,) = worker.engine._running
        jobs.gate.set()
        await until(lambda: not worker.engine._running)
        assert await _reclaim(worker, claimed) == [0], "there is a result"
        room.redis.delete(wire.RESULT_KEY + "job")  # none is kept, say
        assert await _reclaim(worker, claimed) == [1]
        worker.engine._reclaimed(claimed)
        await worker.engine.finisher.drain()

        assert room.left_behind() == []
    assert jobs.starts == {"job": 1}


async def test_an_end_that_is_told_twice_leaves_the_next_claim_alone(room: Room, jobs: Jobs) -> None:
    async with serving(room, jobs, lease_s=60) as worker:
        await until(lambda: worker._engine is not None)
        tell, answers = worker.engine.finisher._script, list[Any]()

        async def lose_the_first_answer(**call: Any) -> Any:
            answer = await tell(**call)
            answers.append(answer)
            if len(answers) == 1:
                await until(lambda: jobs.starts["job"] == 2)
                raise ConnectionError
            return answer

        worker.engine.finisher._script = lose_the_first_answer
        room.enqueue("again", job_id="job")
        await until(lambda: len(answers) == 2)
        assert answers == [[1], [0]]
        assert room.redis.exists(f"{KEYS.queue}:leases", f"{KEYS.queue}:owners") == 2
        jobs.gate.set()
        await until(lambda: all_ended(room, ["job"]))
        assert room.left_behind() == []
    assert jobs.starts == {"job": 2}


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


async def _reclaim(worker: Worker, claimed: Claimed) -> list[int]:
    redis: Any = worker.pool
    terms = worker.engine.terms
    arguments = [terms.token, terms.lease_ms, terms.in_progress_ms, claimed.raw_id, claimed.number, claimed.score]
    arguments.append(claimed.payload)
    answer: list[int] = await redis.register_script(upkeep.RECLAIM)(keys=KEYS.all(), args=arguments)
    return answer


async def _end(worker: Worker, finish: Finish) -> bool:
    finish.heard = asyncio.get_running_loop().create_future()
    worker.engine.finisher.submit(finish)
    return await finish.heard


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


async def test_an_end_that_was_heard_twice_counts_once(room: Room, jobs: Jobs) -> None:
    async with serving(room, jobs, lease_s=60) as worker:
        room.enqueue("gated", job_id="job")
        await until(lambda: jobs.starts["job"] == 1)
        (claimed,) = worker.engine._running
        jobs.gate.set()
        await until(lambda: not worker.engine._running)
        result = room.redis.get(wire.RESULT_KEY + "job")
        assert await _end(worker, Finish(claimed, over=True, result=b"second", result_ms=1000)) is False

    assert room.redis.get(wire.RESULT_KEY + "job") == result


async def test_a_late_end_does_not_touch_a_new_run_of_the_same_id(room: Room, jobs: Jobs) -> None:
    async with serving(room, jobs, lease_s=60) as worker:
        room.enqueue("gated", job_id="job")
        await until(lambda: jobs.starts["job"] == 1)
        (claimed,) = worker.engine._running
        jobs.gate.set()
        await until(lambda: not worker.engine._running)
        room.redis.delete(wire.RESULT_KEY + "job")
        room.enqueue("gated", "new", job_id="job", defer_s=600)
        assert await _end(worker, Finish(claimed, over=True, result=b"late", result_ms=1000)) is False
        assert room.redis.zcard(KEYS.queue) == 1
        assert room.redis.exists(wire.JOB_KEY + "job", wire.RESULT_KEY + "job") == 1


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


async def test_a_hook_that_fails_costs_a_lease_and_nothing_else(room: Room, jobs: Jobs) -> None:
    failures: list[int] = []

    async def fails_once(_ctx: dict[str, Any]) -> None:
        if not failures:
            failures.append(1)
            raise ValueError("hook")

    async with serving(room, jobs, lease_s=0.3, on_job_start=fails_once, longest_idle_s=0.3):
        room.enqueue("gated", job_id="job")
        jobs.gate.set()
        await until(lambda: all_ended(room, ["job"]))

    assert jobs.starts == {"job": 1}
