"""The mistakes of the model, planted in the real parts."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

from sqlalchemy import update

import jobs.context
import worker.run
from db.connection import get_async_session
from db.repositories import due_runs, job_run, live_keys, worker_heartbeat
from holdfast.outbox import job_runs
from holdfast.states import RunState
from tests.model.model_ledger import Flaw
from worker import ledger, reconcile, recovery
from worker.queue import scripts, upkeep

Plant = tuple[Any, str, Any]
"""Module, name, and what stands there instead."""


@contextmanager
def planted(*plants: Plant) -> Iterator[None]:
    with ExitStack() as stack:
        for place, name, wrong in plants:
            stack.enter_context(patch.object(place, name, wrong))
        yield


def cut(place: Any, name: str, right: str, wrong: str) -> Plant:
    """Changes a script's text."""
    text: str = getattr(place, name)
    assert text.count(right) == 1, f"{name} does not have {right!r} once"
    return place, name, text.replace(right, wrong)


def always(run: Any, fence: int) -> bool:
    del run, fence
    return True


async def none_alive(session: Any, *, timeout_s: float) -> set[str]:
    del session, timeout_s
    return set()


async def no_holder(session: Any, run: Any) -> None:
    del session, run


async def none_missing(*args: Any) -> int:
    del args
    return 0


async def not_recorded(runtime: Any, admitted: Any, outcome: Any, logger: Any) -> Any:
    del runtime, admitted, logger
    return outcome


async def start_over(session: Any, born: Any) -> Any:
    run = await find_or_enter(session, born)
    if RunState(run.state).is_over:
        await session.execute(update(job_runs).where(job_runs.c.id == run.id).values(state="waiting", cursor=None))
        return await job_run.get_run(session, run.id, lock=True)
    return run


async def put_back_unseen(orphan: Any, vitals: Any, active_here: Any) -> bool:
    async with get_async_session(read_only=True) as session:
        now = await job_run.get_run(session, orphan.id)
    assert now is not None
    with patch.object(recovery._Present, "has_left", lambda self, run: True):
        return await put_back(now, vitals, active_here)


async def read_and_mark(reader: Any, wanted: Any, **page: Any) -> Any:
    runs = await undispatched_runs(reader, wanted, **page)
    async with get_async_session() as session:
        await due_runs.mark_dispatched(session, [run.id for run in runs])
    return runs


async def charge(session: Any, run: Any, outcome: str, error: Any = None) -> None:
    await add_attempt(session, run, "retry" if outcome == "crashed" else outcome, error)


CLAIM_IS_ITS = "if owner[i] == token .. ':' .. ARGV[4 * i + 1] or owner[i] == token then"
find_or_enter, put_back = ledger.find_or_enter, recovery._put_back
undispatched_runs, add_attempt = due_runs.undispatched_runs, job_run.add_attempt

REAL_FLAWS: Mapping[Flaw, Callable[[], AbstractContextManager[None]]] = {
    "no fence in a batch": lambda: planted((jobs.context, "holds_fence", always)),
    "no fence at the end": lambda: planted((job_run, "holds_fence", always)),
    "no token in a renewal": lambda: planted(
        cut(upkeep, "RENEW", "elseif owner[i] or redis.call", "elseif redis.call"),
        cut(upkeep, "RECLAIM", "if not redis.call('HGET', owners, id) and still_ours", "if still_ours"),
    ),
    "no token at the end of a claim": lambda: planted(cut(scripts, "FINISH", CLAIM_IS_ITS, "if owner[i] then")),
    "no number at the end of a claim": lambda: planted(
        cut(scripts, "FINISH", CLAIM_IS_ITS, "if owner[i] and string.sub(owner[i], 1, #token) == token then")
    ),
    "told before the commit": lambda: planted((worker.run, "record_finished", not_recorded)),
    "over runs start again": lambda: planted((ledger, "find_or_enter", start_over)),
    "living workers count as dead": lambda: planted((worker_heartbeat, "live_workers", none_alive)),
    "put back without a second look": lambda: planted((recovery, "_put_back", put_back_unseen)),
    "marked before it is put": lambda: planted(
        (due_runs, "undispatched_runs", read_and_mark), (reconcile, "_put_missing", none_missing)
    ),
    "what waits is not compared": lambda: planted((reconcile, "_put_missing", none_missing)),
    "a crash is charged": lambda: planted((job_run, "add_attempt", charge)),
    "keys are not looked at": lambda: planted((live_keys, "take_live_key", no_holder)),
}
"""What would be a job's own mistake is not among them: effects beside the batch, or before the start."""
