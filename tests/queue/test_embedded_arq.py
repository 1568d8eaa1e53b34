"""Stock arq over the embedded queue: its pool, its worker, producers in other processes."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from arq.connections import ArqRedis, RedisSettings, create_pool, log_redis_info
from arq.worker import Worker, func

from worker.embedded import EmbeddedRedis

PRODUCER = """
import asyncio, json, sys
from arq.connections import RedisSettings, create_pool
async def main(path, *texts):
    settings = RedisSettings(unix_socket_path=path)
    pool = await create_pool(settings, job_serializer=lambda value: json.dumps(value).encode())
    for text in texts:
        job = await pool.enqueue_job("echo", text)
        print(job.job_id)
    await pool.aclose(close_connection_pool=True)
asyncio.run(main(*sys.argv[1:]))
"""


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis(tmp_path) as running:
        yield running


def produce(path: Path, *texts: str) -> list[str]:
    """Enqueue `echo` jobs from a process of its own, with stock arq; return their ids."""
    done = subprocess.run(
        [sys.executable, "-c", PRODUCER, str(path), *texts], check=True, capture_output=True, text=True, timeout=60
    )
    return done.stdout.split()


# The worker of arq 0.28 closes its pool by a name that redis-py has deprecated.
stock_worker = pytest.mark.filterwarnings("ignore:Call to deprecated close:DeprecationWarning")


def to_json(value: dict[str, Any]) -> bytes:
    return json.dumps(value).encode()


async def pool_of(queue: EmbeddedRedis) -> ArqRedis:
    settings = RedisSettings(unix_socket_path=str(queue.socket_path))
    return await create_pool(settings, job_serializer=to_json, job_deserializer=json.loads)


async def run_burst(queue: EmbeddedRedis, *functions: Any) -> Worker:
    worker = Worker(
        [func(function, name=function.__name__) for function in functions],
        redis_settings=RedisSettings(unix_socket_path=str(queue.socket_path)),
        burst=True,
        handle_signals=False,
        poll_delay=0.01,
        job_serializer=to_json,
        job_deserializer=json.loads,
    )
    try:
        await worker.main()
    finally:
        await worker.close()
    return worker


async def echo(_ctx: dict[str, Any], text: str) -> str:
    return text


@stock_worker
async def test_stock_arq_runs_jobs_over_it(queue: EmbeddedRedis) -> None:
    pool = await pool_of(queue)
    try:
        jobs = [await pool.enqueue_job("echo", f"text {number}") for number in range(20)]
        twice = [await pool.enqueue_job("echo", "once", _job_id="same") for _ in range(2)]
        assert twice[1] is None
        worker = await run_burst(queue, echo)
        assert (worker.jobs_complete, worker.jobs_failed, worker.jobs_retried) == (21, 0, 0)
        assert [await job.result(timeout=30) for job in jobs if job] == [f"text {number}" for number in range(20)]
        assert await pool.zcard("arq:queue") == 0
    finally:
        await pool.aclose(close_connection_pool=True)


async def test_arq_s_log_line_about_redis_finds_all_it_reads(queue: EmbeddedRedis) -> None:
    pool = await pool_of(queue)
    lines: list[str] = []
    try:
        await pool.set("key", "value")
        await log_redis_info(pool, lines.append)
    finally:
        await pool.aclose(close_connection_pool=True)
    assert lines[0].startswith("redis_version=7.4.0 mem_usage=")
    assert lines[0].endswith("M clients_connected=1 db_keys=1")


@stock_worker
async def test_a_job_that_blocks_the_loop_does_not_freeze_its_queue(queue: EmbeddedRedis) -> None:
    async def blocks(_ctx: dict[str, Any]) -> list[str]:
        assert threading.current_thread() is threading.main_thread()
        # Held up in this thread until another process has enqueued: with the queue in this loop it would never end.
        return produce(queue.socket_path, "from outside")

    pool = await pool_of(queue)
    try:
        job = await pool.enqueue_job("blocks")
        worker = await run_burst(queue, blocks, echo)
        assert job is not None
        (outside_id,) = await job.result(timeout=30)
        assert worker.jobs_complete == 2
        result = await pool.get(f"arq:result:{outside_id}")
        assert result is not None
        assert json.loads(result)["r"] == "from outside"
    finally:
        await pool.aclose(close_connection_pool=True)
