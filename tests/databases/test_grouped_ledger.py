"""Admission and endings a hundred at a time: as one by one, only quicker, and none holds up the others."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from sqlalchemy import func, insert, select

from db.connection import DatabaseManager, get_async_session
from db.models import JobAttempt
from db.repositories import job_run, run_groups
from holdfast.ids import uuid7
from holdfast.outbox import job_runs
from holdfast.states import RunState
from tests.databases.engines import ON_SERVERS
from tests.databases.runs import (
    admitted,
    attempts_of,
    born,
    born_again,
    heartbeat,
    move_everything,
    run_of,
    vitals,
    waiting_run,
)
from worker import ledger
from worker.grouped_ledger import GroupedLedger
from worker.ledger import Admission, Admitted, AlreadyOver, HeldElsewhere
from worker.retries import Outcome

pytestmark = pytest.mark.usefixtures("manager")


def grouped(name: str = "ada") -> GroupedLedger:
    return GroupedLedger(vitals(name), set())


async def admit_all(worker: GroupedLedger, borns: Sequence[job_run.BornRun]) -> list[Admission]:
    return await asyncio.gather(*(worker.admit(one) for one in borns))


async def count_running() -> int:
    query = select(func.count()).select_from(job_runs).where(job_runs.c.state == "running", job_runs.c.fence == 1)
    async with get_async_session(read_only=True) as session:
        return (await session.execute(query)).scalar_one()


async def test_a_hundred_of_all_sorts_at_once() -> None:
    fresh = [born() for _ in range(40)]
    known = [await waiting_run() for _ in range(40)]
    ended = await admitted("bob")
    await ledger.finish(ended, Outcome("succeeded", report={"rows_read": 1}))
    await heartbeat("bob")
    held = await admitted("bob")
    now = datetime.now(UTC)
    cron = [born("nightly", at=now - timedelta(milliseconds=number)) for number in range(17)]
    odd = [await born_again(ended.run_id), await born_again(held.run_id)]
    answers = await admit_all(grouped(), [*fresh, *known, *odd, *cron])
    ordinary = [answer for answer in answers if isinstance(answer, Admitted)]
    assert len(ordinary) == 97
    assert {(one.fence, one.attempt) for one in ordinary} == {(1, 1)}
    assert len({one.run_id for one in ordinary}) == 97
    assert [str(answer.run_id) for answer in answers[:80]] == [one.job_id for one in (*fresh, *known)]
    assert answers[80] == AlreadyOver(ended.run_id, RunState.SUCCEEDED, {"rows_read": 1}, None)
    assert answers[81] == HeldElsewhere(held.run_id, "bob")
    assert await count_running() == 98
    row = await run_of(answers[0].run_id)
    assert (row.state, row.worker_id, row.request, row.attempts) == ("running", "ada", fresh[0].request, 0)
    assert row.started_at is not None


@pytest.mark.parametrize("is_changed", [False, True], ids=["locked", "changed, too"])
@ON_SERVERS  # SQLite has one writer, whoever it is
async def test_a_row_that_somebody_has_locked_waits_alone(manager: DatabaseManager, is_changed: bool) -> None:
    borns = [await waiting_run() for _ in range(100)]
    worker = grouped()
    async with get_async_session() as session:
        await job_run.get_run(session, UUID(borns[50].job_id), lock=True)
        if is_changed:
            await job_run.set_reason(session, UUID(borns[50].job_id), "retry")
        answers = [asyncio.ensure_future(worker.admit(one)) for one in borns]
        others = [*answers[:50], *answers[51:]]
        async with asyncio.timeout(20):
            assert {type(answer) for answer in await asyncio.gather(*others)} == {Admitted}
            assert isinstance(await worker.admit(born()), Admitted)  # nor does the next group wait
        assert not answers[50].done()
    assert await answers[50] == Admitted(UUID(borns[50].job_id), 1, 1)


async def test_two_workers_that_admit_the_same_hundred_admit_each_once() -> None:
    await heartbeat("ada", "bob")
    for borns in ([born() for _ in range(100)], [await waiting_run() for _ in range(100)]):
        ada, bob = await asyncio.gather(
            admit_all(grouped("ada"), borns), admit_all(grouped("bob"), list(reversed(borns)))
        )
        for one, other in zip(ada, reversed(bob), strict=True):
            assert {type(one), type(other)} == {Admitted, HeldElsewhere}
            assert one.run_id == other.run_id
            assert (await run_of(one.run_id)).fence == 1


async def test_an_id_that_is_used_again_is_another_run() -> None:
    job_id, now = str(uuid7()), datetime.now(UTC).replace(microsecond=0)
    borns = [born(job_id, at=now - timedelta(seconds=number)) for number in range(3)]
    answers = await admit_all(grouped(), [*borns[:2], born()])
    assert len({answer.run_id for answer in answers}) == 3
    assert {(await run_of(answer.run_id)).enqueued_at for answer in answers[:2]} == {
        one.enqueued_at for one in borns[:2]
    }
    (third, _) = await admit_all(grouped(), [borns[2], born()])
    assert third.run_id not in {answer.run_id for answer in answers}


async def test_the_same_id_at_the_same_time_in_two_queues_is_two_runs() -> None:
    one = born("nightly")
    other = replace(one, queue="other")
    first, second = await admit_all(grouped(), [one, other])
    assert first.run_id != second.run_id
    assert {(await run_of(answer.run_id)).queue for answer in (first, second)} == {one.queue, "other"}
    again = await admit_all(GroupedLedger(vitals("ada"), {first.run_id, second.run_id}), [other, one])
    assert again == [HeldElsewhere(second.run_id, "ada"), HeldElsewhere(first.run_id, "ada")]


async def test_what_has_left_for_the_history_is_not_run_again() -> None:
    given = await admitted("ada", born_run=born(at=datetime.now(UTC) - timedelta(hours=1)))
    late = await born_again(given.run_id)
    await ledger.finish(given, Outcome("succeeded", report={"rows_read": 7}))
    await move_everything()
    answers = await admit_all(grouped(), [late, born()])
    assert answers[0] == AlreadyOver(given.run_id, RunState.SUCCEEDED, {"rows_read": 7}, None)


async def test_an_old_id_that_is_used_again_can_follow_into_the_history() -> None:
    old = UUID(int=uuid7().int - (3_600_000 << 80))
    for number in range(2):
        borns = [born(str(old), at=datetime.now(UTC) - timedelta(seconds=9 - number)), born()]
        answers = await admit_all(grouped(), borns)
        for answer in answers:
            assert isinstance(answer, Admitted)
            assert (answer.run_id == old) is (number == 0 and answer is answers[0])
            await ledger.finish(answer, Outcome("succeeded", report={}))
        assert await move_everything() == 2


async def test_a_request_that_the_database_refuses_fails_alone(manager: DatabaseManager) -> None:
    bad = replace(born(), kind="k" * 101)
    results = await asyncio.gather(
        *(grouped_worker.admit(one) for grouped_worker in [grouped()] for one in [born(), bad, born()]),
        return_exceptions=True,
    )
    refused = manager.engine.dialect.name != "sqlite"  # which minds no lengths
    assert [isinstance(result, Admitted) for result in results] == [True, not refused, True]


async def test_a_run_that_is_twice_in_a_group_is_admitted_once() -> None:
    twice, other = await waiting_run(), await waiting_run()
    answers = await admit_all(grouped(), [twice, other, twice])
    assert answers[1] == Admitted(UUID(other.job_id), 1, 1)
    assert {type(answers[0]), type(answers[2])} == {Admitted, HeldElsewhere}
    assert (await run_of(UUID(twice.job_id))).fence == 1


async def test_endings_in_a_group() -> None:
    worker = grouped()
    given = [answer for answer in await admit_all(worker, [born() for _ in range(100)]) if isinstance(answer, Admitted)]
    overtaken = await admitted("eve", run_id=given[0].run_id)  # ada has no heartbeat: it counts as dead
    before = await run_of(overtaken.run_id)
    outcomes = [Outcome("succeeded", report={"number": number}) for number in range(100)]
    pruned = Admitted(uuid7(), 1, 1)
    endings = [*zip(given, outcomes, strict=True), (pruned, outcomes[0]), (overtaken, Outcome("interrupted"))]
    ended = await asyncio.gather(*(worker.finish(*ending) for ending in endings[:-1]))
    assert ended == [Outcome("lost"), *outcomes[1:], Outcome("lost")]
    assert await run_of(overtaken.run_id) == before
    for number in (1, 99):
        row = await run_of(given[number].run_id)
        assert (row.state, row.report, row.live_key) == ("succeeded", {"number": number}, None)
        assert row.started_at <= row.finished_at
        (attempt,) = await attempts_of(row.id)
        assert (attempt.fence, attempt.attempt, attempt.outcome, attempt.worker_id) == (1, 1, "succeeded", "ada")
    assert await worker.finish(*endings[-1]) == Outcome("interrupted")
    assert (await run_of(overtaken.run_id)).state == "waiting"
    again = await asyncio.gather(*(worker.finish(*ending) for ending in endings[1:3]))
    assert again == [Outcome("lost"), Outcome("lost")]


async def test_two_admissions_of_one_run_may_end_in_one_group() -> None:
    first = await admitted("dead")
    second = await admitted("ada", run_id=first.run_id)
    worker, done = grouped(), Outcome("succeeded", report={})
    outcomes = await asyncio.gather(worker.finish(second, done), worker.finish(first, done))
    assert list(outcomes) == [done, Outcome("lost")]
    assert (await run_of(first.run_id)).state == "succeeded"


async def test_an_ending_that_cannot_be_written_down_hinders_no_other() -> None:
    worker = grouped()
    given = [answer for answer in await admit_all(worker, [born(), born()]) if isinstance(answer, Admitted)]
    async with get_async_session() as session:  # an attempt of this fence is there already
        run = await run_of(given[0].run_id)
        row = {"run_id": run.id, "fence": 1, "attempt": 1, "worker_id": "w", "outcome": "crashed"}
        when = {"started_at": run.started_at, "finished_at": run.started_at}
        await session.execute(insert(JobAttempt).values(**row, **when))
    done = Outcome("succeeded", report={})
    results = await asyncio.gather(*(worker.finish(one, done) for one in given), return_exceptions=True)
    assert isinstance(results[0], Exception)
    assert results[1] == done


async def test_what_is_warmed_up_changes_nothing() -> None:
    await run_groups.warm_up(2)
    async with get_async_session() as session:
        assert await session.scalar(select(func.count()).select_from(job_runs)) == 0
