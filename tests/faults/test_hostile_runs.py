"""Hostile payloads of ledgered kinds: each is told with its reason, good runs go on behind it, and the worker lives."""

import json

from db.repositories.job_run import RunRow
from holdfast import wire
from holdfast.states import RunState
from tests.faults.history import Expected
from tests.faults.hostile import BAD_IDS, ODD_IDS, odd_payloads, payload, refused_payloads
from tests.faults.kinds import TrialSay, TrialWrite
from tests.faults.trial import Trial

QUEUE = wire.DEFAULT_QUEUE
ANY_END = Expected(states=frozenset({RunState.SUCCEEDED, RunState.FAILED}), most_charged=None)
NO_EFFECT = Expected(0, states=frozenset({RunState.FAILED}), most_charged=1)
NOT_DONE = Expected(states=frozenset({RunState.FAILED, RunState.QUARANTINED}), most_charged=None)


async def test_each_is_told_and_harms_nothing_else(trial: Trial) -> None:
    refused, odd = refused_payloads(), odd_payloads()
    for name, data in {**refused, **odd}.items():
        _put(trial, name.encode(), data, announced=True)
        trial.asked.unsure[name].append(NOT_DONE if name in refused else ANY_END)
    for number, raw_id in enumerate([*BAD_IDS.values(), *ODD_IDS.values()]):
        _put(trial, raw_id, payload(), announced=number % 2 == 0)
        trial.asked.unsure[raw_id.decode(errors="replace")].append(Expected())
    good = await trial.enqueue(TrialWrite() for _ in range(20))
    (worker,) = await trial.started()
    await trial.until_over(good)
    findings = await trial.findings()
    ends = {run.job_id: run for run in await trial.runs()}
    parked = _quarantined(trial)

    assert findings.problems == []
    assert [name for name in refused if not _is_told(name.encode(), ends, parked)] == []
    assert [name for name in odd if not _is_told(name.encode(), ends, parked)] == []
    assert [name for name, raw_id in BAD_IDS.items() if not parked.get(raw_id)] == []
    assert [name for name, raw_id in ODD_IDS.items() if ends[raw_id.decode()].state != RunState.SUCCEEDED] == []
    assert worker.alive


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


def _put(trial: Trial, raw_id: bytes, data: bytes, *, announced: bool) -> None:
    """Enqueues before all good runs, as stock producers do or, announced, as our client."""
    trial.redis.set(wire.JOB_KEY.encode() + raw_id, data)
    trial.redis.zadd(QUEUE, {raw_id: 1})
    if announced:
        trial.redis.rpush(QUEUE + wire.INTAKE_SUFFIX, raw_id)


def _quarantined(trial: Trial) -> dict[bytes, str]:
    """The reasons by the ids that Redis knows."""
    kept = trial.redis.hgetall(f"{QUEUE}:quarantine")
    return {raw_id: json.loads(entry)["reason"] for raw_id, entry in kept.items()}


def _is_told(raw_id: bytes, ends: dict[str, RunRow], parked: dict[bytes, str]) -> bool:
    """Whether the ledger or the quarantine says how it ended, and why if it did not succeed."""
    if (run := ends.get(raw_id.decode())) is None:
        return bool(parked.get(raw_id))
    return run.state == RunState.SUCCEEDED or bool(run.error["message"])
