"""Jobs that raise what is no `Exception`: it ends one run, and the worker has all its slots afterwards."""

import pytest

from tests.queue.engine.room import Room, ids
from tests.queue.engine.serving import Jobs, all_ended, serving, until


@pytest.mark.parametrize(
    ("function", "told"), [("panicking", ("Panic", "rust panicked")), ("exiting", ("SystemExit", "3"))]
)
async def test_a_job_that_raises_it_has_failed(room: Room, jobs: Jobs, function: str, told: tuple[str, str]) -> None:
    odd = ids(function, 5)
    async with serving(room, jobs, max_jobs=2) as worker:
        room.enqueue_all(function, odd)
        await until(lambda: all_ended(room, odd))
        await until(lambda: not worker.engine._running)
        assert (worker.tasks, worker.free_slots()) == ({}, 2)
        jobs.gate.set()
        room.enqueue("gated", job_id="next")
        await until(lambda: all_ended(room, ["next"]))
    errors = [result["r"]["error"] for result in room.wait_for_results(odd).values()]
    assert {(error["type"], error["message"]) for error in errors} == {told}
    assert jobs.starts == dict.fromkeys([*odd, "next"], 1)
