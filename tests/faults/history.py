"""Compares what producers were told with what the ledger, the effects and Redis say when all is over."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, fields
from itertools import pairwise
from typing import Any
from uuid import UUID

from sqlalchemy import Row, inspect, select
from sqlalchemy.ext.asyncio import AsyncSession

from db.connection import DatabaseManager
from db.models import NEXT_STATES, JobAttempt
from db.repositories.job_run import RunRow
from holdfast.outbox import job_runs, job_runs_history
from holdfast.states import RunState
from tests.faults.effects import effects

SHOWN = 5
"""So many of each kind are shown."""
CHARGED = {"failed", "retry"}
AFTER = {name: RunState(name) for name in ("succeeded", "failed", "cancelled")}
"""The state after an attempt's outcome; after any other one the run waits."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What must come of a run that was asked for."""

    steps: int = 1
    """The effects of a run that succeeds: one for each step."""
    states: frozenset[RunState] = frozenset({RunState.SUCCEEDED})
    """How it may end."""
    atomic: bool = True
    """Whether a run that does not succeed may leave nothing; else it leaves its first steps."""
    most_charged: int | None = 0
    """Attempts that may be charged to it; None: any number."""


@dataclass(slots=True)
class Asked:
    """What producers have asked for, by the id that Redis knows; stock producers use ids again."""

    acknowledged: dict[str, list[Expected]] = field(default_factory=lambda: defaultdict(list))
    """Their enqueue returned, or their transaction was committed."""
    unsure: dict[str, list[Expected]] = field(default_factory=lambda: defaultdict(list))
    """Their producer died or was not answered before that: they may be there or not."""

    def all_of(self, job_id: str) -> list[Expected]:
        """Everything that was asked for under an id, the oldest first."""
        return [*self.acknowledged.get(job_id, ()), *self.unsure.get(job_id, ())]


@dataclass(slots=True)
class Findings:
    """What is wrong, each as one line about one run; nothing is when `problems` is empty."""

    lost: list[str] = field(default_factory=list)
    """Acknowledged, and not in the ledger."""
    unended: list[str] = field(default_factory=list)
    wrong_ends: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    """Effects that a run reports and that are not there."""
    doubled: list[str] = field(default_factory=list)
    """Effects that are there more than once."""
    stray: list[str] = field(default_factory=list)
    """Effects of runs that are not there, or left by one that did not succeed."""
    phantoms: list[str] = field(default_factory=list)
    """In the ledger, and never asked for."""
    charged: list[str] = field(default_factory=list)
    """Attempts that were charged to runs which did nothing wrong."""
    fences: list[str] = field(default_factory=list)
    """Starts that are not numbered from 1 on, or took effect out of their turn."""
    states: list[str] = field(default_factory=list)
    """Steps between states that `NEXT_STATES` does not have, and rows that contradict themselves."""
    left_in_redis: list[str] = field(default_factory=list)

    @property
    def problems(self) -> list[str]:
        """Everything that is wrong, in words."""
        words = []
        for each in fields(self):
            found = getattr(self, each.name)
            if found:
                more = "" if len(found) <= SHOWN else f"; {len(found) - SHOWN} more"
                words.append(f"{each.name}: {len(found)} ({'; '.join(found[:SHOWN])}{more})")
        return words


async def check_history(manager: DatabaseManager, asked: Asked, *, left_in_redis: Collection[str] = ()) -> Findings:
    """Look at everything that the runs of a database have left, once all of them should be over.

    Args:
        manager: the ledger's database, and the effects'.
        asked: all that was ever asked for there.
        left_in_redis: the keys of runs and claims that Redis still has.
    """
    findings = Findings(left_in_redis=sorted(left_in_redis))
    async with manager.session(read_only=True) as session:
        runs = await _read_runs(session, findings)
        attempts = await _by_run(session, select(JobAttempt.__table__).order_by(JobAttempt.fence))
        found = await _by_run(session, select(effects).order_by(effects.c.id)) if await _has_effects(session) else {}
    expectations = _match(runs, asked, findings)
    for run in runs:
        _check_row(run, findings)
        findings.fences += _broken_fences(run, attempts.get(run.id, []))
        findings.states += _broken_steps(run, attempts.get(run.id, []))
        if (expected := expectations.get(run.id)) is not None:
            _check_end(run, expected, attempts.get(run.id, []), findings)
            _check_effects(run, expected, found.get(run.id, []), findings)
    known = {run.id for run in runs}
    findings.stray += [f"{run_id}: {len(rows)} of no run" for run_id, rows in found.items() if run_id not in known]
    findings.stray += [f"{run_id}: attempts of no run" for run_id in attempts if run_id not in known]
    return findings


def _broken_fences(run: RunRow, attempts: Sequence[Row[Any] | JobAttempt]) -> list[str]:
    """Tell whether the ended attempts of a run that is over are not its starts 1 to n."""
    numbers = [attempt.fence for attempt in attempts]
    last = run.fence if RunState(run.state) is not RunState.RUNNING else run.fence - 1
    if numbers == list(range(1, last + 1)):
        return []
    return [f"{run.job_id}: attempts {numbers} are not the starts 1 to {last}"]


def _broken_steps(run: RunRow, attempts: Sequence[Row[Any] | JobAttempt]) -> list[str]:
    """Tell which steps of a run's life cannot have been, as far as its attempts tell of it."""
    path = [RunState.WAITING]
    for attempt in attempts:
        path += [RunState.RUNNING, AFTER.get(attempt.outcome, RunState.WAITING)]
    state = RunState(run.state)
    if state is RunState.QUARANTINED and path[-2:] == [RunState.RUNNING, RunState.WAITING]:
        path[-1] = state  # the crash that was one too many
    if path[-1] is not state:
        path.append(state)
    broken = [
        f"{run.job_id}: {before} was followed by {after}"
        for before, after in pairwise(path)
        if after not in NEXT_STATES[before]
    ]
    charges = [attempt.outcome for attempt in attempts if attempt.outcome in CHARGED]
    if run.attempts != len(charges):
        broken.append(f"{run.job_id}: counts {run.attempts} charged attempts of {len(charges)}")
    backwards = [attempt.fence for attempt in attempts if attempt.finished_at < attempt.started_at]
    if backwards:
        broken.append(f"{run.job_id}: attempts {backwards} end before they start")
    return broken


async def _read_runs(session: AsyncSession, findings: Findings) -> list[RunRow]:
    columns = [column.name for column in job_runs_history.columns]
    live = (await session.execute(select(*(job_runs.c[name] for name in [*columns, "live_key"])))).all()
    over = (await session.execute(select(job_runs_history))).all()
    twice = {run.id for run in live} & {run.id for run in over}
    findings.states += [f"{run_id}: stands in the ledger and in its history" for run_id in sorted(twice)]
    findings.states += [f"{run.job_id}: keeps its unique key" for run in live if _is_over(run) and run.live_key]
    findings.states += [f"{run.job_id}: is {run.state} in the history" for run in over if not _is_over(run)]
    return [*live, *(run for run in over if run.id not in twice)]


async def _has_effects(session: AsyncSession) -> bool:
    """Whether there is a table of effects: runs of other kinds leave theirs elsewhere."""
    connection = await session.connection()
    return await connection.run_sync(lambda sync: inspect(sync).has_table(effects.name))


async def _by_run(session: AsyncSession, query: Any) -> dict[UUID, list[Row[Any]]]:
    rows: dict[UUID, list[Row[Any]]] = defaultdict(list)
    for row in await session.execute(query):
        rows[row.run_id].append(row)
    return rows


def _is_over(run: RunRow) -> bool:
    return RunState(run.state).is_over


def _match(runs: Sequence[RunRow], asked: Asked, findings: Findings) -> dict[UUID, Expected]:
    """Find out which run is the answer to which request."""
    by_job_id: dict[str, list[RunRow]] = defaultdict(list)
    for run in sorted(runs, key=lambda run: run.enqueued_at):
        by_job_id[run.job_id].append(run)
    expectations: dict[UUID, Expected] = {}
    for job_id, there in by_job_id.items():
        wanted = asked.all_of(job_id)
        expectations |= {run.id: expected for run, expected in zip(there, wanted, strict=False)}
        findings.phantoms += [f"{job_id}: enqueued at {run.enqueued_at}" for run in there[len(wanted) :]]
    for job_id, wanted in asked.acknowledged.items():
        gone = len(wanted) - len(by_job_id.get(job_id, ()))
        if gone > 0:
            findings.lost.append(f"{job_id}: {gone} of {len(wanted)}")
    return expectations


def _check_row(run: RunRow, findings: Findings) -> None:
    if not _is_over(run):
        findings.unended.append(f"{run.job_id}: {run.state} ({run.reason}), fence {run.fence}")
        return
    state = RunState(run.state)
    rules = {
        "has no time of its end": run.finished_at is not None,
        "succeeded without a report": state is not RunState.SUCCEEDED or run.report is not None,
        f"is {state} and does not say why": state is RunState.SUCCEEDED or run.error is not None,
        "is a duplicate of nothing": run.reason != "duplicate" or run.duplicate_of is not None,
    }
    findings.states += [f"{run.job_id}: {words}" for words, holds in rules.items() if not holds]


def _check_end(run: RunRow, expected: Expected, attempts: Sequence[Row[Any]], findings: Findings) -> None:
    if _is_over(run) and RunState(run.state) not in expected.states:
        findings.wrong_ends.append(f"{run.job_id}: {run.state} ({run.error})")
    charged = [attempt for attempt in attempts if attempt.outcome in CHARGED]
    if expected.most_charged is not None and len(charged) > expected.most_charged:
        why = charged[-1].error
        findings.charged.append(f"{run.job_id}: {len(charged)}, not {expected.most_charged}; the last: {why}")


def _check_effects(run: RunRow, expected: Expected, rows: Sequence[Row[Any]], findings: Findings) -> None:
    steps = sorted(row.step for row in rows)
    once = sorted(set(steps))
    if len(steps) > len(once):
        findings.doubled.append(f"{run.job_id}: steps {[step for step in once if steps.count(step) > 1]}")
    if RunState(run.state) is RunState.SUCCEEDED:
        whole = range(1, expected.steps + 1)
        if set(whole) - set(once):
            findings.missing.append(f"{run.job_id}: steps {sorted(set(whole) - set(once))}")
        if set(once) - set(whole):
            findings.stray.append(f"{run.job_id}: steps {sorted(set(once) - set(whole))} of {expected.steps}")
    elif once and (expected.atomic or once != list(range(1, len(once) + 1))):
        findings.stray.append(f"{run.job_id}: it is {run.state} and left the steps {once}")
    fences = [row.fence for row in sorted(rows, key=lambda row: row.step)]
    if fences != sorted(fences) or any(not 1 <= fence <= run.fence for fence in fences):
        findings.fences.append(f"{run.job_id}: its steps took effect at the fences {fences}")
