"""The dead client's last statement is still in the server's socket: PostgreSQL's backends are frozen, then let go."""

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from holdfast.states import LIVE_STATES
from tests.faults.kinds import TrialWrite
from tests.faults.locks import backends_of_runs
from tests.faults.trial import Trial

SOON_S = 15.0
SENT_S = 0.2


async def test_a_live_worker_is_not_fenced_out_by_a_dead_one(postgres_trial: Trial) -> None:
    trial = postgres_trial
    (dies,) = await trial.started()
    run_ids = await trial.enqueue(TrialWrite(steps=40, pause_s=0.01, hold_s=0.01) for _ in range(10))
    await trial.until_running(run_ids, dies)
    with _frozen(await _some_in_a_batch(trial)) as backends:
        await trial.pause(SENT_S)  # the worker sends what the frozen backends do not read
        dies.kill()
        (lives,) = await trial.started()
        (fresh,) = await trial.enqueue([TrialWrite()])
        await trial.until_over([fresh], within_s=SOON_S)

        async def only_the_frozen_are_left() -> bool:
            return len(await trial.runs(*LIVE_STATES)) <= len(backends)

        await trial.until(only_the_frozen_are_left, "the end of the runs whose rows are free", within_s=SOON_S)
    findings = await trial.findings()

    assert findings.problems == []
    assert lives.alive


async def _some_in_a_batch(trial: Trial) -> list[int]:
    found: list[int] = []

    async def enough() -> bool:
        found[:] = await backends_of_runs(trial.manager)
        return len(found) >= 3

    await trial.until(enough, "three runs in a batch")
    return found


@contextmanager
def _frozen(pids: Sequence[int]) -> Iterator[Sequence[int]]:
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield pids
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
