"""A producer's cancel against a worker as a process: paused, running, and what is left in Redis."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest

from db.repositories import control
from holdfast import Client, ImportReport, ImportTasks, RunCancelled, outbox, wire
from samples.make_tasks import FIELD_MAP
from tests.queue.workplace import PATIENCE_S, Workplace, log_events


@pytest.fixture
def place(redis_url: str, tmp_path: Path) -> Workplace:
    return Workplace(redis_url, tmp_path)


async def test_what_waits_in_a_paused_queue_or_for_tomorrow_ends(place: Workplace) -> None:
    async with Client(place.redis_url) as client, place.ledger() as ledger:
        async with ledger.manager.session() as session:
            await control.set_paused(session, "queue", wire.DEFAULT_QUEUE, paused=True)
        with place.started_worker() as worker:
            async with ledger.manager.session() as session:
                tomorrow = datetime.now(UTC) + timedelta(days=1)
                run_ids = [await outbox.enqueue(session, place.import_request(), at=at) for at in (None, tomorrow)]
            paused = await client.enqueue(place.import_request())
            runs = [*(client.run(one, ImportReport, born_in_ledger=True) for one in run_ids), paused]
            for run in runs:
                assert await run.cancel()
            for run in runs:
                with pytest.raises(RunCancelled):
                    await run.result(timeout_s=PATIENCE_S)
                assert (await ledger.until(UUID(run.id), "cancelled")).fence == 0
            assert worker.terminate() == 0
        with place.redis() as redis:
            assert redis.exists(wire.ABORT_KEY, wire.DEFAULT_QUEUE) == 0
    assert "run started" not in [event["event"] for event in log_events(worker)]


async def test_a_running_run_ends_in_the_ledger_before_redis_forgets_the_wish(place: Workplace) -> None:
    path, expected = place.write_tasks("large.csv", 50_000)
    async with Client(place.redis_url) as client, place.ledger() as ledger:
        run = await client.enqueue(ImportTasks(source=str(path), mapping=FIELD_MAP, batch_rows=50))
        with place.started_worker() as worker:
            await ledger.until(UUID(run.id), "running", rows_read=50)
            assert await run.cancel()
            with pytest.raises(RunCancelled):
                await run.result(timeout_s=PATIENCE_S)
            row = await ledger.run_of(run.id)
            assert (row.state, row.attempts, row.crashes) == ("cancelled", 0, 0)
            assert row.counters["rows_read"] < expected.rows
            with place.redis() as redis:
                assert redis.exists(wire.ABORT_KEY) == 0
            assert worker.terminate() == 0
    assert "run cancelled" in [event["event"] for event in log_events(worker)]
