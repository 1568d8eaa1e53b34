"""From Redis into the ledger: which runs somebody wants to be cancelled. Redis may forget it, the ledger does not."""

from collections.abc import Sequence
from typing import Any

from db.connection import get_async_session, get_reader
from db.in_time import in_time
from db.repositories import run_actions
from db.repositories.job_run import RunRow
from holdfast.states import RunState
from worker.ends import tell_end
from worker.ledger import CANCELLED, AlreadyOver
from worker.newcomers import is_storable_id

ABORTS_AT_ONCE = 500


async def carry(redis: Any, queue: str, aborted: Sequence[bytes]) -> None:
    """Cancel the live runs that stand in arq's set of aborts: waiting ones end, running ones are asked to.

    Their entries stay in the set until they have ended: whoever claims or performs a run looks there, too.

    Args:
        redis: arq's connection.
        queue: the queue's key.
        aborted: job ids of the set, whoever's they are.
    """
    wished = (raw_id.decode(errors="replace") for raw_id in aborted)
    job_ids = [job_id for job_id in wished if is_storable_id(job_id)]  # anybody may have written the others
    async with in_time(), get_reader() as reader:
        runs = await run_actions.uncancelled(reader, queue, job_ids)
    for run in runs:
        async with in_time(), get_async_session() as session:
            state = await run_actions.cancel(session, run.id)
        if state is RunState.CANCELLED:
            await tell_cancelled(redis, run)


async def tell_cancelled(redis: Any, run: RunRow) -> None:
    """Tell Redis that a waiting run was cancelled."""
    await tell_end(redis, run, AlreadyOver(run.id, RunState.CANCELLED, None, CANCELLED))
