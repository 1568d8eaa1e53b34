"""What the ledger says of an entry that a worker cannot run, before Redis is told."""

import itertools
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import pytest
from arq.worker import JobExecutionFailed, Retry
from redis.asyncio import Redis
from sqlalchemy import update

from db.connection import get_async_session
from db.repositories import job_run
from db.repositories.job_run import BornRun
from db.settings import DatabaseSettings
from holdfast import wire
from holdfast.outbox import job_runs
from tests.databases.runs import QUEUE, admitted, born, move_everything, run_of, waiting_run
from worker import ledger
from worker.dispatch import milliseconds
from worker.queue.claims import Claimed
from worker.queue.ends import Refused, Withdrawn
from worker.queue.scripts import QueueKeys
from worker.refusals import LONG_IN_REDIS, ask_the_ledger
from worker.retries import Outcome
from worker.runtime import Runtime
from worker.settings import Settings

pytestmark = pytest.mark.usefixtures("manager")

Lacks = Literal["", "payload", "function"]
EACH: list[Lacks] = ["", "payload", "function"]


@pytest.fixture
async def runtime(settings: DatabaseSettings, redis_url: str) -> AsyncIterator[Runtime]:
    runtime = Runtime(Settings.model_validate(settings.model_dump()), owns_queue=False)
    async with Redis.from_url(redis_url) as runtime.redis:
        yield runtime


def claimed(job_id: str, *, due: datetime | None = None, aborted: bool = False, id_problem: str = "") -> Claimed:
    """An entry that this worker has claimed."""
    return Claimed(
        keys=QueueKeys(QUEUE),
        number=1,
        raw_id=job_id.encode(),
        job_id=job_id,
        score=milliseconds(due or datetime.now(UTC) - timedelta(hours=1)),
        payload=None,
        payload_bytes=-1,
        job_try=1,
        aborted=aborted,
        id_problem=id_problem,
        ref=job_id,
        ran_out=False,
    )


async def ask(runtime: Runtime, entry: Claimed, lacks: Lacks = "", *, born_run: BornRun | None = None) -> None:
    enqueued_ms = 0 if born_run is None else milliseconds(born_run.enqueued_at)
    await ask_the_ledger(runtime, entry, Refused(JobExecutionFailed("no luck"), lacks=lacks), enqueued_ms)


async def row_of(run: BornRun) -> Any:
    async with get_async_session() as session:
        return await job_run.find_born_run(session, run)


async def test_what_can_never_be_run_fails_for_the_reason_that_is_told(runtime: Runtime) -> None:
    run = await waiting_run(unique_key="k")
    await ask(runtime, claimed(run.job_id))
    row = await row_of(run)
    error = {"type": "JobExecutionFailed", "message": "no luck", "state": "failed"}
    assert (row.state, row.error, row.fence, row.live_key) == ("failed", error, 0, None)
    await ask(runtime, claimed(run.job_id))  # its worker has died before Redis was told
    assert await row_of(run) == row


async def test_a_payload_that_is_gone_is_written_anew(runtime: Runtime) -> None:
    run = await waiting_run()
    with pytest.raises(Retry):
        await ask(runtime, claimed(run.job_id), "payload")
    payload = wire.read_job(await runtime.redis.get(wire.JOB_KEY + run.job_id))
    assert (payload["f"], payload["k"], payload["et"]) == (run.kind, run.request, milliseconds(run.enqueued_at))
    assert (await row_of(run)).state == "waiting"


async def test_a_run_of_an_unknown_kind_is_left_to_other_workers(runtime: Runtime) -> None:
    run = await waiting_run()
    with pytest.raises(Retry):
        await ask(runtime, claimed(run.job_id), "function", born_run=run)
    assert (await row_of(run)).dispatched_at is not None


async def test_one_that_nobody_has_claimed_for_long_waits_in_the_ledger(runtime: Runtime) -> None:
    run = await waiting_run()
    async with get_async_session() as session:
        await session.execute(update(job_runs).values(dispatched_at=datetime.now(UTC) - LONG_IN_REDIS))
    with pytest.raises(Withdrawn) as withdrawn:
        await ask(runtime, claimed(run.job_id), "function", born_run=run)
    assert (await row_of(run)).dispatched_at is not None
    await withdrawn.value.then()
    row = await row_of(run)
    assert (row.state, row.dispatched_at) == ("waiting", None)


async def test_one_that_was_aborted_is_left_to_the_ledger(runtime: Runtime) -> None:
    run = await waiting_run()
    with pytest.raises(Retry):
        await ask(runtime, claimed(run.job_id, aborted=True), "function", born_run=run)
    assert (await row_of(run)).dispatched_at is not None


@pytest.mark.parametrize("lacks", EACH)
async def test_a_running_run_goes_on(runtime: Runtime, lacks: Lacks) -> None:
    given = await admitted("ada")
    with pytest.raises(Retry):
        await ask(runtime, claimed((await run_of(given.run_id)).job_id), lacks)
    assert (await run_of(given.run_id)).state == "running"


@pytest.mark.parametrize("lacks", ["payload", "function"])
async def test_an_end_that_was_not_told_yet_is_told_by_who_can(runtime: Runtime, lacks: Lacks) -> None:
    run = born()
    await ledger.finish(await admitted("ada", born_run=run), Outcome("succeeded", report={}))
    with pytest.raises(Retry):
        await ask(runtime, claimed(run.job_id), lacks)


@pytest.mark.parametrize(
    ("case", "lacks"),
    [
        *itertools.product(["unknown", "used again", "in the history", "odd id"], EACH),
        ("used again and lost", ""),
        ("used again and lost", "payload"),
    ],
)
async def test_what_redis_alone_knows_is_its_own(runtime: Runtime, case: str, lacks: Lacks) -> None:
    run = born()
    again = replace(run, enqueued_at=run.enqueued_at + timedelta(minutes=1))
    entry = claimed(run.job_id, due=again.enqueued_at)
    if case != "unknown":
        await ledger.finish(await admitted("ada", born_run=run), Outcome("succeeded", report={}))
    if case == "in the history":
        await move_everything()
    if case == "odd id":
        entry = claimed("a\0b", id_problem="" if lacks else "it is odd")
    await ask(runtime, entry, lacks, born_run=again if case == "used again" else None)
    assert await runtime.redis.exists(wire.JOB_KEY + run.job_id) == 0


@pytest.mark.parametrize("lacks", EACH)
async def test_a_held_worker_decides_nothing(runtime: Runtime, lacks: Lacks) -> None:
    run = await waiting_run()
    runtime.is_held = True
    with pytest.raises(Retry):
        await ask(runtime, claimed(run.job_id), lacks)
    assert (await row_of(run)).state == "waiting"
