"""The checker of histories finds each wrong that it is there to find, and nothing else."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from db.base import Base
from db.connection import DatabaseManager
from db.models import JobAttempt
from db.repositories import history
from db.settings import DatabaseSettings
from holdfast.ids import uuid7
from holdfast.outbox import job_runs, job_runs_history
from holdfast.states import RunState
from tests.faults.effects import effects, make_tables
from tests.faults.history import Asked, Expected, check_history

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
STEPS = 3
FAILS = Expected(states=frozenset({RunState.FAILED}), most_charged=1)
CANCELLED = Expected(STEPS, states=frozenset({RunState.CANCELLED}), atomic=False)
ERROR = {"type": "trial", "message": "it fails each time"}


class Past:
    """A history of four runs, in order: one that crashed once, one that failed, one cancelled midway, a duplicate."""

    def __init__(self, session: AsyncSession) -> None:
        self.session = session
        self.asked = Asked()
        self.crashed, self.failed, self.cancelled, self.duplicate = (uuid7() for _ in range(4))

    async def write(self) -> None:
        duplicate = replace(FAILS, states=frozenset({RunState.CANCELLED}), most_charged=0)
        await self.run(self.crashed, Expected(STEPS), ["crashed", "succeeded"], report={"steps": STEPS})
        await self.run(self.failed, FAILS, ["failed"], error=ERROR, attempts=1)
        await self.run(self.cancelled, CANCELLED, ["cancelled"], error=ERROR)
        marks = {"error": ERROR, "reason": "duplicate", "duplicate_of": self.crashed, "state": "cancelled"}
        await self.run(self.duplicate, duplicate, [], **marks)
        for step in range(1, STEPS + 1):
            await self.effect(self.crashed, step, fence=1 if step == 1 else 2)
        await self.effect(self.cancelled, 1)

    async def run(self, run_id: UUID, expected: Expected, outcomes: list[str], **values: Any) -> None:
        """Write a run with its ended attempts."""
        self.asked.acknowledged[str(run_id)].append(expected)
        row = {
            "id": run_id,
            "kind": "trial_write",
            "queue": "arq:queue",
            "job_id": str(run_id),
            "request": {},
            "state": outcomes[-1] if outcomes else "waiting",
            "enqueued_at": NOW,
            "due_at": NOW,
            "finished_at": NOW,
            "fence": len(outcomes),
        }
        await self.session.execute(insert(job_runs).values(row | values))
        for fence, outcome in enumerate(outcomes, start=1):
            await self.attempt(run_id, fence, outcome)

    async def attempt(self, run_id: UUID, fence: int, outcome: str) -> None:
        times = {"started_at": NOW, "finished_at": NOW + timedelta(seconds=1)}
        values = {"run_id": run_id, "fence": fence, "attempt": 1, "worker_id": "w", "outcome": outcome, **times}
        await self.session.execute(insert(JobAttempt).values(values))

    async def effect(self, run_id: UUID, step: int, *, fence: int = 1) -> None:
        await self.session.execute(insert(effects).values(run_id=run_id, step=step, fence=fence))

    async def change(self, run_id: UUID, **values: Any) -> None:
        await self.session.execute(update(job_runs).where(job_runs.c.id == run_id).values(values))


@pytest.fixture
async def past(tmp_path: Path) -> AsyncIterator[Past]:
    manager = DatabaseManager(DatabaseSettings(_env_file=None, database_url=f"sqlite:///{tmp_path / 'past.db'}"))
    async with manager.engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    await make_tables(manager.engine)
    async with manager.session() as session:
        made = Past(session)
        await made.write()
        await session.commit()
        yield made
    await manager.close()


async def found(past: Past, **options: Any) -> dict[str, list[str]]:
    """What the checker finds, by the name of the finding."""
    await past.session.commit()
    manager = DatabaseManager(DatabaseSettings(_env_file=None, database_url=str(past.session.get_bind().engine.url)))
    findings = await check_history(manager, past.asked, **options)
    await manager.close()
    names = [words.partition(":")[0] for words in findings.problems]
    return {name: getattr(findings, name) for name in names}


async def test_a_good_history_has_no_findings(past: Past) -> None:
    assert await found(past) == {}


async def test_a_good_history_may_stand_in_the_history(past: Past) -> None:
    await history.move_finished(past.session, finished_before=NOW + timedelta(days=1), limit=10)
    assert await found(past) == {}


async def lose(past: Past) -> None:
    past.asked.acknowledged[str(uuid7())].append(Expected())


async def lose_one_of_two_by_the_same_id(past: Past) -> None:
    past.asked.acknowledged[str(past.crashed)].append(Expected())


async def never_end(past: Past) -> None:
    await past.session.execute(update(JobAttempt).where(JobAttempt.outcome == "failed").values(outcome="retry"))
    await past.change(past.failed, state="waiting")


async def end_otherwise(past: Past) -> None:
    past.asked.acknowledged[str(past.failed)] = [Expected(most_charged=1)]


async def leave_an_effect_out(past: Past) -> None:
    await past.session.execute(delete(effects).where(effects.c.step == STEPS))


async def take_effect_twice(past: Past) -> None:
    await past.effect(past.crashed, STEPS, fence=2)


async def take_effect_too_often(past: Past) -> None:
    await past.effect(past.crashed, STEPS + 1, fence=2)


async def take_effect_and_fail(past: Past) -> None:
    await past.effect(past.failed, 1)


async def leave_a_gap_and_be_cancelled(past: Past) -> None:
    await past.effect(past.cancelled, 3)


async def take_effect_without_a_run(past: Past) -> None:
    await past.effect(uuid7(), 1)


async def run_what_nobody_asked_for(past: Past) -> None:
    del past.asked.acknowledged[str(past.crashed)]


async def run_once_more_than_asked(past: Past) -> None:
    await past.run(
        uuid7(), Expected(0), ["succeeded"], report={}, job_id=str(past.failed), enqueued_at=NOW.replace(day=3)
    )
    past.asked.acknowledged.popitem()


async def charge_an_innocent(past: Past) -> None:
    await past.session.execute(update(JobAttempt).where(JobAttempt.outcome == "crashed").values(outcome="retry"))
    await past.change(past.crashed, attempts=1)


async def leave_a_start_out(past: Past) -> None:
    await past.session.execute(delete(JobAttempt).where(JobAttempt.outcome == "crashed"))


async def skip_a_fence(past: Past) -> None:
    await past.session.execute(update(JobAttempt).where(JobAttempt.outcome == "failed").values(fence=2))
    await past.change(past.failed, fence=2)


async def take_effect_out_of_turn(past: Past) -> None:
    await past.session.execute(
        update(effects).where(effects.c.run_id == past.crashed, effects.c.step == STEPS).values(fence=1)
    )


async def take_effect_at_a_fence_that_never_was(past: Past) -> None:
    await past.session.execute(update(effects).where(effects.c.step == STEPS).values(fence=9))


async def go_on_after_the_end(past: Past) -> None:
    await past.session.execute(update(JobAttempt).where(JobAttempt.outcome == "crashed").values(outcome="succeeded"))


async def count_no_charge(past: Past) -> None:
    await past.change(past.failed, attempts=0)


async def succeed_without_a_report(past: Past) -> None:
    await past.change(past.crashed, report=None)


async def fail_without_a_reason(past: Past) -> None:
    await past.change(past.failed, error=None)


async def end_at_no_time(past: Past) -> None:
    await past.change(past.failed, finished_at=None)


async def end_before_the_start(past: Past) -> None:
    await past.session.execute(update(JobAttempt).values(finished_at=NOW - timedelta(seconds=1)))


async def keep_a_unique_key(past: Past) -> None:
    await past.change(past.failed, live_key="trial_write:k")


async def be_the_duplicate_of_nothing(past: Past) -> None:
    await past.change(past.duplicate, duplicate_of=None)


async def stand_in_both_tables(past: Past) -> None:
    columns = history.COLUMNS
    over = select(*(job_runs.c[name] for name in columns)).where(job_runs.c.id == past.failed)
    await past.session.execute(insert(job_runs_history).from_select(columns, over))


PLANTS: list[tuple[str, Callable[[Past], Awaitable[None]]]] = [
    ("lost", lose),
    ("lost", lose_one_of_two_by_the_same_id),
    ("unended", never_end),
    ("wrong_ends", end_otherwise),
    ("missing", leave_an_effect_out),
    ("doubled", take_effect_twice),
    ("stray", take_effect_too_often),
    ("stray", take_effect_and_fail),
    ("stray", leave_a_gap_and_be_cancelled),
    ("stray", take_effect_without_a_run),
    ("phantoms", run_what_nobody_asked_for),
    ("phantoms", run_once_more_than_asked),
    ("charged", charge_an_innocent),
    ("fences", leave_a_start_out),
    ("fences", skip_a_fence),
    ("fences", take_effect_out_of_turn),
    ("fences", take_effect_at_a_fence_that_never_was),
    ("states", go_on_after_the_end),
    ("states", count_no_charge),
    ("states", succeed_without_a_report),
    ("states", fail_without_a_reason),
    ("states", end_at_no_time),
    ("states", end_before_the_start),
    ("states", keep_a_unique_key),
    ("states", be_the_duplicate_of_nothing),
    ("states", stand_in_both_tables),
]


@pytest.mark.parametrize(("finding", "plant"), PLANTS, ids=[plant.__name__ for _, plant in PLANTS])
async def test_each_wrong_is_found(past: Past, finding: str, plant: Callable[[Past], Awaitable[None]]) -> None:
    await plant(past)
    assert set(await found(past)) == {finding}


async def test_what_redis_keeps_is_found(past: Past) -> None:
    assert await found(past, left_in_redis=["arq:queue"]) == {"left_in_redis": ["arq:queue"]}


async def test_what_was_never_acknowledged_may_be_missing_but_not_wrong(past: Past) -> None:
    past.asked.unsure[str(uuid7())].append(Expected())
    past.asked.unsure[str(past.crashed)] = past.asked.acknowledged.pop(str(past.crashed))
    assert await found(past) == {}
    await take_effect_twice(past)
    assert set(await found(past)) == {"doubled"}
