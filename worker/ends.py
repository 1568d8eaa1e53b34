"""Telling producers how a run ended that never started: as a duplicate, or cancelled while it waited."""

import time
from typing import Any

from db.repositories.job_run import RunRow
from holdfast import wire
from holdfast.errors import RunCancelled
from worker.ledger import AlreadyOver

RESULT_KEPT_MS = 3_600_000

TELL_LUA = """
if redis.call('ZSCORE', KEYS[2], ARGV[1]) or redis.call('EXISTS', KEYS[3]) == 1 then return 0 end
redis.call('SET', KEYS[4], ARGV[2], 'PX', ARGV[3])
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('DEL', KEYS[5], KEYS[6])
redis.pcall('ZREM', KEYS[7], ARGV[1])
return 1
"""
"""KEYS: queue, leases, in-progress, result, job, retry, abort set. ARGV: id, result, how long it is kept (ms). A run
that a worker has claimed is left to it: it finds the run over and tells the same."""


async def tell_end(redis: Any, run: RunRow, end: AlreadyOver) -> None:
    """Tell Redis that a waiting run has ended, and take its entry away."""
    error = end.error or {}
    failure = RunCancelled(str(run.id), error["type"], error["message"], duplicate_of=error.get("duplicate_of"))
    prefixes = (wire.IN_PROGRESS_KEY, wire.RESULT_KEY, wire.JOB_KEY, wire.RETRY_KEY)
    keys = [run.queue, f"{run.queue}:leases", *(prefix + run.job_id for prefix in prefixes), wire.ABORT_KEY]
    await redis.eval(TELL_LUA, len(keys), *keys, run.job_id, _result(run, failure), RESULT_KEPT_MS)


def _result(run: RunRow, failure: RunCancelled) -> bytes:
    now_ms = time.time_ns() // 1_000_000
    return wire.dumps(
        {
            "t": 1,
            "f": run.kind,
            "a": [],
            "k": run.request,
            "et": round(run.enqueued_at.timestamp() * 1000),
            "s": False,
            "r": failure,
            "st": now_ms,
            "ft": now_ms,
            "q": run.queue,
            "id": run.job_id,
        }
    )
