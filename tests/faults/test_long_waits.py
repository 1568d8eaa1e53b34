"""Runs that wait for days, or for longer than Redis keeps anything, and ids that are used again (FAULTS, row 16)."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from arq.connections import ArqRedis, RedisSettings, create_pool

from holdfast import Client, RunNotFound, wire
from tests.faults.history import Expected
from tests.faults.kinds import Done, TrialWrite
from tests.faults.trial import Trial
from tests.faults.waits import wait_for_days

KEPT_S = 1
TIMES = 3


async def stock_producer(trial: Trial) -> ArqRedis:
    settings = RedisSettings.from_dsn(trial.redis_url)
    return await create_pool(settings, job_serializer=wire.dumps, job_deserializer=wire.loads)


async def test_an_id_that_is_used_again_is_another_run_each_time(trial: Trial) -> None:
    await trial.started(KEEP_RESULT_S=str(KEPT_S))
    producer = await stock_producer(trial)
    for number in range(1, TIMES + 1):
        assert await producer.enqueue_job(TrialWrite.kind, _job_id="daily", steps=number) is not None
        trial.asked.acknowledged["daily"].append(Expected(number))

        async def told_and_forgotten(number: int = number) -> bool:
            is_over = [run.state for run in await trial.runs()] == ["succeeded"] * number
            return is_over and not trial.redis.exists(wire.RESULT_KEY + "daily", wire.JOB_KEY + "daily")

        await trial.until(told_and_forgotten, "the result's end")
    await producer.aclose()

    assert (await trial.findings()).problems == []


async def test_runs_that_wait_for_days_run_once(trial: Trial) -> None:
    await wait_for_days(trial, 10)

    assert (await trial.findings()).problems == []


async def test_what_redis_has_forgotten_the_ledger_tells(trial: Trial) -> None:
    await trial.started(KEEP_RESULT_S=str(KEPT_S))
    (early,) = await trial.send([TrialWrite(steps=2)])
    (late,) = await trial.send([TrialWrite()], at=datetime.now(UTC) + timedelta(seconds=2 * KEPT_S))
    await trial.until_over()

    async def forgotten() -> bool:
        return not trial.redis.exists(wire.RESULT_KEY + early, wire.RESULT_KEY + late)

    await trial.until(forgotten, "the results' end")
    async with Client(trial.redis_url) as client:
        with pytest.raises(RunNotFound, match="runs show"):
            await client.run(early, Done).result(timeout_s=5)
    shown = await trial.command("runs", "show", early)

    assert (shown["state"], shown["steps"]) == ("succeeded", 2)
    assert (await trial.findings()).problems == []


async def test_a_payload_that_expires_before_anybody_has_seen_it_is_told(trial: Trial) -> None:
    """Stock producers let Redis throw payloads away: what is lost there is said, and our own runs wait on."""
    producer = await stock_producer(trial)
    await producer.enqueue_job(TrialWrite.kind, _job_id="expires", _expires=timedelta(milliseconds=100))
    await producer.aclose()
    async with Client(trial.redis_url) as client:
        run = await client.enqueue(TrialWrite())
    trial.asked.acknowledged[run.id].append(Expected())

    async def expired() -> bool:
        return not trial.redis.exists(wire.JOB_KEY + "expires")

    await trial.until(expired, "the expiry")
    (worker,) = await trial.started()
    await trial.until_over([run.id])
    findings = await trial.findings()
    parked = json.loads(trial.redis.hget(f"{wire.DEFAULT_QUEUE}:quarantine", "expires"))

    assert findings.problems == []
    assert parked["reason"] == "the payload is gone: it expired, or was removed"
    assert "job expires expired" in worker.text
