"""An end that is told twice or too late, and a claim that is made again after it: each is forced here."""

import asyncio
from typing import Any

from holdfast import wire
from tests.queue.engine.room import Room
from tests.queue.engine.serving import KEYS, Jobs, all_ended, serving, until
from worker.queue import Worker, upkeep
from worker.queue.claims import Claimed
from worker.queue.finish import Finish


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


async def test_an_end_that_was_heard_twice_counts_once(room: Room, jobs: Jobs) -> None:
    async with serving(room, jobs, lease_s=60) as worker:
        room.enqueue("gated", job_id="job")
        await until(lambda: jobs.starts["job"] == 1)
        (claimed,) = worker.engine._running
        jobs.gate.set()
        await until(lambda: not worker.engine._running)
        result = room.redis.get(wire.RESULT_KEY + "job")
        assert await _end(worker, Finish(claimed, "over", result=b"second", result_ms=1000)) is False

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
        assert await _end(worker, Finish(claimed, "over", result=b"late", result_ms=1000)) is False
        assert room.redis.zcard(KEYS.queue) == 1
        assert room.redis.exists(wire.JOB_KEY + "job", wire.RESULT_KEY + "job") == 1


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
