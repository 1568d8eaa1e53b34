"""Entries that a worker cannot run: while the ledger has a live run behind them Redis is told no end (I2)."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest

from holdfast import Client, RunFailed, RunState, outbox, wire
from holdfast.errors import RunNotFound
from tests.faults.history import Expected
from tests.faults.kinds import Done, TrialWrite
from tests.queue.workplace import PATIENCE_S, SUCCESS, Ledger, Workplace

FAILED = Expected(0, frozenset({RunState.FAILED}), most_charged=0)
KINDS = {"HOLDFAST_PLUGINS": "tests.faults.kinds"}


@pytest.fixture
async def place(database_url: str, redis_url: str, tmp_path: Path) -> Workplace:
    return Workplace(redis_url, tmp_path, database_url)


@pytest.fixture
async def ledger(place: Workplace) -> AsyncIterator[Ledger]:
    async with place.ledger() as ledger:
        yield ledger


async def test_what_no_worker_takes_ends_in_the_ledger_as_well(place: Workplace, ledger: Ledger) -> None:
    request = TrialWrite(steps=0, note="x" * wire.MAX_PAYLOAD_BYTES)
    async with ledger.manager.session() as session:
        run_id = await outbox.enqueue(session, request, max_payload_bytes=2 * wire.MAX_PAYLOAD_BYTES)
    async with Client(place.redis_url) as client:
        with place.started_worker(**KINDS), pytest.raises(RunFailed, match="the limit is 1048576") as told:
            await client.run(run_id, Done, born_in_ledger=True).result(timeout_s=PATIENCE_S)
        row = await ledger.run_of(str(run_id))
    assert (row.state, row.error["type"], row.error["message"]) == (
        "failed",
        told.value.error_type,
        told.value.message,
    )
    assert await ledger.problems({str(run_id): FAILED}) == []


async def test_a_run_whose_payload_is_gone_is_run(place: Workplace, ledger: Ledger) -> None:
    async with Client(place.redis_url) as client:
        with place.redis() as redis, place.started_worker(**KINDS):
            run = await client.enqueue(TrialWrite(steps=0), at=datetime.now(UTC) + timedelta(seconds=3))
            await ledger.until(UUID(run.id), "waiting")
            assert redis.delete(wire.JOB_KEY + run.id) == 1
            assert (await run.result(timeout_s=PATIENCE_S)).steps == 0
    assert await ledger.problems({run.id: SUCCESS}) == []


async def test_a_worker_that_does_not_know_the_kind_leaves_its_run_to_others(place: Workplace, ledger: Ledger) -> None:
    gate = place.folder / "gate"
    async with Client(place.redis_url) as client:
        with place.started_worker("new", **KINDS, MAX_JOBS="1"), place.started_worker("old") as old:
            async with ledger.manager.session() as session:
                holder = await outbox.enqueue(session, TrialWrite(steps=0, gate=str(gate)))
            await ledger.until(holder, "running")
            async with ledger.manager.session() as session:
                run_id = await outbox.enqueue(session, TrialWrite(steps=0))
            old.wait_for("this worker does not know the kind")
            run = client.run(run_id, Done, born_in_ledger=True)
            with pytest.raises((TimeoutError, RunNotFound)):
                await run.result(timeout_s=0.5)
            gate.touch()
            assert (await run.result(timeout_s=PATIENCE_S)).steps == 0
    assert await ledger.problems({str(one): SUCCESS for one in (holder, run_id)}) == []
