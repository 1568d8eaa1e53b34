"""Compares what an import has left with what its file had to lead to, and with what a history may look like."""

import csv
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import Row, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from db.models import NEXT_STATES, ImportReject, JobAttempt, Task
from db.repositories import job_run, run_list
from holdfast.states import RunState
from tests.faults.history import Asked, Expected, check_history
from tests.faults.task_files import TaskFile, fingerprint
from tests.faults.watch import Sample, Watch

PAGE_ROWS = 5000


@dataclass
class Verdict:
    """What differs from what had to be; nothing does when `problems` is empty."""

    lost: int = 0
    """Rows of the file that are missing, or stand there with another content."""
    doubled: int = 0
    """Rows that stand there too often, or with a content that no row of the file has."""
    wrong_rejects: int = 0
    """Lines that were rejected and should not have been, the other way round, or under another code."""
    wrong_counters: list[str] = field(default_factory=list)
    broken_rules: list[str] = field(default_factory=list)

    @property
    def problems(self) -> list[str]:
        """Everything that is wrong, in words."""
        counts = {"lost": self.lost, "doubled": self.doubled, "wrong rejects": self.wrong_rejects}
        return [f"{name}: {count}" for name, count in counts.items() if count] + self.wrong_counters + self.broken_rules


async def judge(watch: Watch, run_id: UUID, file: TaskFile, *, crashes: int, retries: int = 0) -> Verdict:
    """Look at everything that a finished import has left.

    Args:
        watch: has seen the run's history.
        run_id: the only import of this database.
        file: what was imported.
        crashes: how often its worker died while it had the run.
        retries: how many attempts were charged because they failed for a passing reason.
    """
    verdict = Verdict(broken_rules=_broken_history(watch.history))
    async with watch.manager.session(read_only=True) as session:
        run = await job_run.get_run(session, run_id)
        assert run is not None
        attempts = await run_list.list_attempts(session, run_id)
        found = Counter([_fingerprint(row) async for row in _tasks(session)])
        verdict.lost, verdict.doubled = (file.tasks - found).total(), (found - file.tasks).total()
        rejects = await _rejects(session, run_id)
    verdict.wrong_rejects = len(set(rejects.items()) ^ set(file.rejects.items()))
    verdict.wrong_counters = _wrong_counters(run, file)
    asked = Asked()
    asked.acknowledged[run.job_id].append(Expected(0, most_charged=retries))
    verdict.broken_rules += _broken_end(run, attempts, crashes, retries)
    verdict.broken_rules += (await check_history(watch.manager, asked)).problems
    if run.report is not None and _read_rejects_file(run.report["rejects_file"]) != list(rejects.items()):
        verdict.broken_rules.append(f"{run.report['rejects_file']} is not what stands in import_rejects")
    return verdict


def _broken_history(history: Sequence[Sample]) -> list[str]:
    broken = [
        f"history: {before} was followed by {after}"
        for before, after in pairwise(history)
        if after.fence < before.fence
        or after.rows_read < before.rows_read
        # Samples may miss steps, but there is no step out of a final state.
        or (before.state.is_over and after != before)
        or (before.fence == after.fence and after.state is not before.state and not _may_follow(before, after))
    ]
    for sample in history:
        parts = sum(count for name, count in sample.counters.items() if name != "rows_read")
        if parts != sample.rows_read:
            broken.append(f"history: the counters of {sample} do not add up")
    return broken


def _may_follow(before: Sample, after: Sample) -> bool:
    return after.state in NEXT_STATES[before.state]


def _wrong_counters(run: Row[Any], file: TaskFile) -> list[str]:
    wrong = []
    for place, counts in (("the ledger", run.counters or {}), ("the report", run.report or {})):
        differing = {name: counts.get(name) for name, count in file.counters.items() if counts.get(name) != count}
        if differing:
            wrong.append(f"{place} counts {differing}, but it must be {file.counters}")
    return wrong


def _broken_end(run: Row[Any], attempts: Sequence[JobAttempt], crashes: int, retries: int) -> list[str]:
    outcomes = Counter(attempt.outcome for attempt in attempts)
    rules = {
        f"the run is {run.state} ({run.error})": run.state == RunState.SUCCEEDED.value,
        f"{run.attempts} attempts were charged, not {retries}": run.attempts == retries,
        f"the ledger counts {run.crashes} crashes in a row of {crashes}": run.crashes <= crashes,
        f"the attempts ended as {dict(outcomes)}": outcomes
        == +Counter({"succeeded": 1, "crashed": crashes, "retry": retries}),
        "the successful attempt is not the last one": bool(attempts) and attempts[-1].outcome == "succeeded",
    }
    return [words for words, holds in rules.items() if not holds]


async def _tasks(session: AsyncSession) -> AsyncIterator[Row[Any]]:
    columns = (Task.id, Task.external_key, Task.title, Task.description, Task.status, Task.completed_at)
    query = select(*columns, Task.metadata_json).order_by(Task.id).limit(PAGE_ROWS)
    page = (await session.execute(query)).all()
    while page:
        for row in page:
            yield row
        page = (await session.execute(query.where(Task.id > page[-1].id))).all()


def _fingerprint(row: Row[Any]) -> bytes:
    metadata = dict(row.metadata_json or {})
    key = row.external_key if row.external_key is not None else metadata.pop("key", None)
    points = metadata.pop("points", "")
    assert not metadata, f"unexpected metadata: {metadata}"
    return fingerprint(key, row.title, row.description, row.status.value, row.completed_at, points)


async def _rejects(session: AsyncSession, run_id: UUID) -> dict[int, str]:
    query = select(ImportReject.line, ImportReject.code).where(ImportReject.run_id == run_id)
    total = (await session.execute(select(func.count()).select_from(ImportReject))).scalar_one()
    rejects = {row.line: row.code for row in await session.execute(query.order_by(ImportReject.line))}
    assert total == len(rejects), "import_rejects holds rows of another run"
    return rejects


def _read_rejects_file(path: str | None) -> list[tuple[int, str]]:
    if path is None:
        return []
    with Path(path).open(encoding="utf-8", newline="") as file:
        return [(int(row["line"]), row["code"]) for row in csv.DictReader(file)]
