"""Workers of several queues, with the ledger: each is dispatched, taken in, put back and reconciled."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import update

from holdfast import Client, outbox
from holdfast.outbox import job_runs
from tests.queue.workplace import PATIENCE_S, Workplace, log_events
from tests.servers import wait_until

HIGH, LOW = "app:high", "app:low"


@pytest.fixture
def place(redis_url: str, tmp_path: Path) -> Workplace:
    return Workplace(redis_url, tmp_path)


async def test_runs_of_all_queues_are_run_in_the_order_of_the_queues(place: Workplace) -> None:
    async with place.ledger() as ledger, Client(place.redis_url, queue=LOW) as low, Client(place.redis_url) as other:
        straight = [await low.enqueue(place.import_request(f"{number}.csv")) for number in range(3)]
        not_ours = await other.enqueue(place.import_request("other.csv"))
        async with ledger.manager.session() as session:
            born_here = [await outbox.enqueue(session, place.import_request("x.csv"), queue=HIGH) for _ in range(3)]
        with place.worker("--burst", "--queue", f"{HIGH}=1", "--queue", LOW, "--max-jobs", "2") as worker:
            assert worker.wait(PATIENCE_S) == 0
        states = {run.id: (run.queue, run.state) for run in await ledger.runs()}
        assert states == {
            **dict.fromkeys(born_here, (HIGH, "succeeded")),
            **{UUID(run.id): (LOW, "succeeded") for run in straight},
        }
        assert await not_ours.status() == "waiting"
    begun = [event["run_id"] for event in log_events(worker) if event["event"] == "run started"]
    assert begun.index(str(born_here[-1])) > 2, "one slot of two is kept for the other queue"


async def test_what_is_left_of_a_less_urgent_queue_is_taken_up_again(place: Workplace) -> None:
    """A dead worker's run goes back, and what Redis has lost is put there again."""
    soon = datetime.now(UTC) + timedelta(minutes=1)
    async with place.ledger() as ledger:
        async with ledger.manager.session() as session:
            orphan = await outbox.enqueue(session, place.import_request(), queue=LOW)
            lost = await outbox.enqueue(session, place.import_request(), queue=LOW, at=soon)
            running = {"state": "running", "worker_id": "dead", "fence": 1, "started_at": datetime.now(UTC)}
            await session.execute(update(job_runs).where(job_runs.c.id == orphan).values(running))
            await session.execute(update(job_runs).where(job_runs.c.id == lost).values(dispatched_at=datetime.now(UTC)))
        with place.worker("--queue", HIGH, "--queue", LOW) as worker, place.redis() as redis:
            assert (await ledger.until(orphan, "succeeded")).fence == 2
            assert wait_until(lambda: redis.zscore(LOW, str(lost)) is not None, PATIENCE_S)
            redis.flushall()
            assert wait_until(lambda: redis.zscore(LOW, str(lost)) is not None, PATIENCE_S)
            assert worker.terminate() == 0


async def test_stock_arq_refuses_several_queues(place: Workplace) -> None:
    with place.worker(program=("-m", "arq", "worker.main.WorkerSettings"), QUEUES=f"{HIGH},{LOW}") as worker:
        assert worker.wait() == 1
    last = "RuntimeError: QUEUES names 2 queues, stock arq serves one: name one"
    assert worker.text.splitlines()[-1] == last
