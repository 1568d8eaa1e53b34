"""Stock arq as the worker: `arq worker.main.WorkerSettings` runs imports, and the ledger's invariants hold under it."""

import os
import signal
from pathlib import Path
from uuid import UUID

import pytest

from holdfast import Client, ImportReport, ImportTasks, outbox, wire
from samples.make_tasks import FIELD_MAP
from tests.processes import WorkerProcess, clean_environment
from tests.queue.workplace import PATIENCE_S, Workplace, assert_counts

STOCK = ("-m", "arq", "worker.main.WorkerSettings")


@pytest.fixture
def place(redis_url: str, tmp_path: Path) -> Workplace:
    return Workplace(redis_url, tmp_path)


def stock_worker(place: Workplace) -> WorkerProcess:
    worker = place.worker(program=STOCK)
    worker.wait_for("worker started")
    return worker


async def test_stock_arq_runs_an_import_by_the_ledger_s_rules(place: Workplace) -> None:
    path, expected = place.write_tasks("tasks.csv", 4000)
    async with Client(place.redis_url) as client, place.ledger() as ledger:
        run = await client.enqueue(ImportTasks(source=str(path), mapping=FIELD_MAP, batch_rows=50))
        with place.redis() as redis:
            payload = redis.get(wire.JOB_KEY + run.id)
        with stock_worker(place) as worker, place.redis() as redis:
            # I1: what the run has done is there only after its admission.
            running = await ledger.until(UUID(run.id), "running", rows_read=50)
            assert (running.fence, running.attempts) == (1, 0)
            assert str(worker.pid) in running.worker_id.split(":")
            # I2: Redis is told after the ledger.
            report = await run.result(timeout_s=PATIENCE_S)
            assert_counts(report, expected)
            over = await ledger.run_of(run.id)
            assert (over.state, over.fence, ImportReport.model_validate(over.report)) == ("succeeded", 1, report)
            finish_ms = wire.loads(redis.get(wire.RESULT_KEY + run.id))["ft"]
            assert over.finished_at.timestamp() * 1000 <= finish_ms + 1
            # I3: it is not run again, but answered again.
            redis.delete(wire.RESULT_KEY + run.id)
            redis.set(wire.JOB_KEY + run.id, payload)
            redis.zadd(wire.DEFAULT_QUEUE, {run.id: 1})
            assert await run.result(timeout_s=PATIENCE_S) == report
            assert await ledger.run_of(run.id) == over
            assert [attempt.outcome for attempt in await ledger.attempts(over.id)] == ["succeeded"]


async def test_stock_arq_takes_runs_from_the_ledger_and_ends_at_a_signal(place: Workplace) -> None:
    async with place.ledger() as ledger, Client(place.redis_url) as client:
        with stock_worker(place) as worker:
            async with ledger.manager.session() as session:
                run_id = await outbox.enqueue(session, place.import_request())
            assert (await ledger.until(run_id, "succeeded")).attempts == 0
            assert (await client.run(str(run_id), ImportReport).result(timeout_s=PATIENCE_S)).rows_read == 50
            os.kill(worker.pid, signal.SIGTERM)
            worker.wait()
        assert "worker stopped" in worker.text


def test_stock_arq_without_redis_url_says_what_to_do(tmp_path: Path) -> None:
    environment = clean_environment(HOLDFAST_DATA_DIR=str(tmp_path / "data"))
    with WorkerProcess(environment, tmp_path, program=STOCK, arguments=()) as worker:
        assert worker.wait() == 1
    assert worker.text.splitlines()[-1] == (
        "RuntimeError: REDIS_URL is not set: stock arq cannot run the embedded queue; "
        "set it, or use `python -m worker run`"
    )
