"""Hostile payloads (FAULTS, row 12): each is told with its reason, good runs go on behind it, and the worker lives."""

import pytest

from holdfast.states import RunState
from tests.faults.history import Expected
from tests.faults.kinds import TrialSay
from tests.faults.poisoning import poison_redis
from tests.faults.trial import Trial

NO_EFFECT = Expected(0, states=frozenset({RunState.FAILED}), most_charged=1)
LATE_S = 5.0
"""Several times what is promised: the machine may be busy."""


@pytest.mark.parametrize("at_once", [True, False], ids=["all at once", "one by one"])
async def test_each_is_told_and_harms_nothing_else(trial: Trial, at_once: bool) -> None:
    poisoned = await poison_redis(trial, at_once=at_once)
    findings = await trial.findings()

    assert findings.problems == []
    assert at_once or poisoned.late_s < LATE_S


async def test_a_report_that_cannot_be_stored_fails_its_run_and_no_other(postgres_trial: Trial) -> None:
    trial = postgres_trial
    bad = await trial.enqueue([TrialSay(code_point=0), TrialSay(code_point=0xD800)], expected=NO_EFFECT)
    good = await trial.enqueue([TrialSay(code_point=65 + number) for number in range(10)], expected=Expected(0))
    await trial.started()
    findings = await trial.findings()
    ends = {run.job_id: run for run in await trial.runs()}

    assert findings.problems == []
    assert [(ends[run_id].state, ends[run_id].error["type"]) for run_id in bad] == [("failed", "unstorable")] * 2
    assert {ends[run_id].report["text"] for run_id in good} == set("ABCDEFGHIJ")
