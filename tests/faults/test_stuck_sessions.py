"""The dead client's last statement is still in the server's socket: PostgreSQL's backends are frozen, then let go."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from uuid import UUID

import pytest

from holdfast.requests import ArchiveDeleted
from holdfast.states import LIVE_STATES
from tests.faults.archives import Destination, judge_archive, make_archivable
from tests.faults.history import Expected
from tests.faults.kinds import TrialWrite
from tests.faults.locks import backends_of_runs
from tests.faults.trial import PATIENCE_S, Trial
from tests.faults.watch import Watch

SOON_S = 15.0
SENT_S = 0.3
"""Longer than a batch takes."""
ANSWERED_S = 2.0
ARCHIVED_ROWS = 2_000


async def test_a_live_worker_is_not_fenced_out_by_a_dead_one(postgres_trial: Trial) -> None:
    trial = postgres_trial
    (dies,) = await trial.started()
    slow = TrialWrite(steps=40, pause_s=0.02, hold_s=0.1, slow_starts=1)
    run_ids = await trial.enqueue(slow for _ in range(10))
    await trial.until_running(run_ids, dies)
    async with _some_frozen_in_a_batch(trial, 3) as frozen:
        await trial.pause(SENT_S)  # the worker sends what the frozen backends do not read
        dies.kill()
        (lives,) = await trial.started()
        (fresh,) = await trial.enqueue([TrialWrite()])
        await trial.until_over([fresh], within_s=SOON_S)

        async def only_the_frozen_are_left() -> bool:
            return len(await trial.runs(*LIVE_STATES)) <= frozen

        await trial.until(only_the_frozen_are_left, "the end of the runs whose rows are free", within_s=SOON_S)
    findings = await trial.findings()

    assert findings.problems == []
    assert lives.alive


@pytest.mark.parametrize("destination", ["tables", "files"])
async def test_an_archive_goes_on_behind_a_dead_ones_last_statement(
    postgres_trial: Trial, destination: Destination
) -> None:
    trial, watch = postgres_trial, Watch(postgres_trial.manager)
    before = await make_archivable(trial.manager, ARCHIVED_ROWS)
    (dies,) = await trial.started()
    (job_id,) = await trial.enqueue([ArchiveDeleted(destination=destination, batch_rows=5)], expected=Expected(0))
    run_id = UUID(job_id)
    await watch.until(run_id, lambda now: now.counters.get("rows", 0) >= ARCHIVED_ROWS // 5, worker=dies)
    async with _some_frozen_in_a_batch(trial, 1):
        await trial.pause(SENT_S)
        dies.kill()
        (lives,) = await trial.started()
        (fresh,) = await trial.enqueue([TrialWrite()])
        await trial.until_over([fresh], within_s=SOON_S)
    findings = await trial.findings()

    assert findings.problems == []
    assert lives.alive
    assert (await judge_archive(watch, run_id, before, destination)).problems == []


@asynccontextmanager
async def _some_frozen_in_a_batch(trial: Trial, least: int) -> AsyncIterator[int]:
    """Freezes backends between two statements, and tells how many.

    One that was frozen in the middle of a statement may hold a lock of the server's own, as that of its log: then
    nobody writes any more, which no client can help.
    """
    frozen = set[int]()

    async def enough() -> bool:
        chosen = set(await backends_of_runs(trial.manager))
        _tell(chosen, signal.SIGSTOP)
        frozen.update(chosen)
        try:
            async with asyncio.timeout(ANSWERED_S):
                between = set(await backends_of_runs(trial.manager))
        except TimeoutError:
            between = set()
        _tell(frozen - between, signal.SIGCONT)
        frozen.intersection_update(between)
        return len(frozen) >= least

    try:
        await trial.until(enough, f"{least} runs in a batch", within_s=PATIENCE_S)
        yield len(frozen)
    finally:
        _tell(frozen, signal.SIGCONT)


def _tell(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        os.kill(pid, number)
