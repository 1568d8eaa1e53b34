"""How runs end other than by their report: suspects, duplicates, cancelled, snoozed; and how they begin again."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from sqlalchemy import update

from db.connection import get_async_session, get_reader
from db.repositories import job_run, run_actions
from db.repositories.job_run import BornRun
from holdfast.ids import uuid7
from holdfast.outbox import job_runs
from holdfast.states import RunState
from tests.databases.runs import (
    QUEUE,
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
from worker import ledger, recovery
from worker.grouped_ledger import GroupedLedger
from worker.ledger import Admission, Admitted, AlreadyOver, HeldElsewhere, Suspect
from worker.retries import Outcome

pytestmark = pytest.mark.usefixtures("manager")

DONE = Outcome("succeeded", report={"rows_read": 1})
FAILED = Outcome("failed", error={"type": "E", "message": "m"})


async def admission(run: BornRun, name: str = "ada", *, is_alone: bool = False) -> Admission:
    return await ledger.admit(run, vitals(name), active_here=(), is_alone=is_alone)


async def suspect() -> BornRun:
    """A run that has cost two workers; none of the workers here has a heartbeat."""
    run = born()
    for name in ("dead 1", "dead 2"):
        assert isinstance(await admission(run, name), Admitted)
    return run


async def test_after_two_crashes_a_run_starts_only_alone() -> None:
    run = await suspect()
    run_id = UUID(run.job_id)
    assert await admission(run) == Suspect(run_id)
    row = await run_of(run_id)
    assert (row.state, row.reason, row.crashes, row.attempts) == ("waiting", "suspect", 2, 0)
    assert [one.outcome for one in await attempts_of(run_id)] == ["crashed", "crashed"]
    assert await admission(run) == Suspect(run_id)  # and no third crash was charged
    assert await admission(run, is_alone=True) == Admitted(run_id, 3, 1)
    assert await ledger.finish(Admitted(run_id, 3, 1), DONE) == DONE
    assert ((await run_of(run_id)).state, (await run_of(run_id)).crashes) == ("succeeded", 2)


async def test_in_a_group_a_suspect_is_told_from_the_others() -> None:
    run = await suspect()
    assert await admission(run) == Suspect(UUID(run.job_id))
    worker = GroupedLedger(vitals("ada"), set())
    answers = await asyncio.gather(*(worker.admit(one) for one in (born(), run, born())))
    assert [type(answer) for answer in answers] == [Admitted, Suspect, Admitted]


@pytest.mark.parametrize("finder", ["admission", "put-back"])
async def test_a_crash_alone_quarantines(finder: str) -> None:
    run = await suspect()
    run_id = UUID(run.job_id)
    assert await admission(run, "dead 3", is_alone=True) == Admitted(run_id, 3, 1)
    if finder == "put-back":
        assert await recovery.put_back_orphans(vitals("ada"), QUEUE, active_here=()) == []
    end = await admission(run)
    message = "it ran alone and worker dead 3 died, as 2 did before; look before replaying"
    assert end == AlreadyOver(run_id, RunState.QUARANTINED, None, {"type": "quarantined", "message": message})
    row = await run_of(run_id)
    assert (row.state, row.crashes, row.attempts, row.fence) == ("quarantined", 3, 0, 3)
    assert row.finished_at is not None
    assert len(await attempts_of(run_id)) == 3


async def test_a_duplicate_ends_and_names_the_run_that_stands_for_it() -> None:
    await heartbeat("ada")
    first, second = born(unique_key="k"), born(unique_key="k")
    given = await admission(first)
    assert isinstance(given, Admitted)
    end = await admission(second)
    assert isinstance(end, AlreadyOver)
    assert (end.state, end.error) == (
        RunState.CANCELLED,
        {
            "type": "duplicate",
            "message": f"run {given.run_id} with the same unique key is live and stands for it",
            "state": "cancelled",
            "duplicate_of": str(given.run_id),
        },
    )
    row = await run_of(end.run_id)
    assert (row.state, row.reason, row.duplicate_of, row.live_key) == ("cancelled", "duplicate", given.run_id, None)
    assert await admission(second) == end
    assert isinstance(await admission(born(unique_key="other")), Admitted)


async def test_a_key_belongs_to_its_kind_whatever_colons_they_have() -> None:
    for kind, key in (("sync", "user:5"), ("sync:user", "5"), ("sync:", "user:5"), (":sync", "user:5")):
        run = replace(born(unique_key=key), kind=kind)
        assert isinstance(await admission(run), Admitted)
        assert isinstance(await admission(replace(born(unique_key=key), kind=kind)), AlreadyOver)


async def test_workers_of_earlier_versions_see_the_same_key() -> None:
    given = await admitted("ada", born_run=born(unique_key="k:1"))
    assert (await run_of(given.run_id)).live_key == "import_tasks:k:1"


async def test_a_key_of_an_earlier_version_is_seen_while_its_run_lives() -> None:
    first, second = (replace(born(unique_key="5"), kind="sync:user") for _ in range(2))
    given = await admission(first)
    assert isinstance(given, Admitted)
    async with get_async_session() as session:
        await session.execute(update(job_runs).values(live_key="sync:user:5"))
    assert isinstance(await admission(second), AlreadyOver)
    await ledger.finish(given, Outcome("interrupted"))
    assert isinstance(await admission(first), Admitted)


@pytest.mark.parametrize("outcome", [DONE, FAILED, Outcome("cancelled", error={"type": "cancelled", "message": "m"})])
async def test_the_key_is_free_again_when_its_run_is_over(outcome: Outcome) -> None:
    given = await admitted("ada", born_run=born(unique_key="k"))
    await ledger.finish(given, outcome)
    assert isinstance(await admission(born(unique_key="k")), Admitted)


async def test_the_key_stays_with_a_run_that_waits_for_its_next_attempt() -> None:
    run = born(unique_key="k")
    given = await admitted("ada", born_run=run)
    for outcome in (Outcome("retry", error=FAILED.error), Outcome("snoozed", delay_s=1.0), Outcome("interrupted")):
        await ledger.finish(given, outcome)
        assert isinstance(await admission(born(unique_key="k")), AlreadyOver)
        given = await admitted("ada", born_run=run)


async def test_of_many_with_one_key_at_the_same_moment_one_lives() -> None:
    await heartbeat("ada", "bob")
    for make in (born, waiting_run):
        runs = [made if isinstance(made := make(unique_key=make.__name__), BornRun) else await made for _ in range(6)]
        workers = [GroupedLedger(vitals(name), set()) for name in ("ada", "bob")]
        answers = await asyncio.gather(*(workers[at % 2].admit(run) for at, run in enumerate(runs)))
        (winner,) = [answer for answer in answers if isinstance(answer, Admitted)]
        losers = [answer for answer in answers if isinstance(answer, AlreadyOver)]
        assert len(losers) == 5
        assert {(await run_of(loser.run_id)).duplicate_of for loser in losers} == {winner.run_id}


async def operate(action: run_actions.Action, run_id: UUID) -> RunState | None:
    async with get_async_session() as session:
        return await action(session, run_id)


async def test_a_waiting_run_is_cancelled_at_once() -> None:
    run = await waiting_run(unique_key="k")
    run_id = UUID(run.job_id)
    assert await operate(run_actions.cancel, run_id) is RunState.CANCELLED
    assert await operate(run_actions.cancel, run_id) is None
    assert await admission(run) == AlreadyOver(run_id, RunState.CANCELLED, None, ledger.CANCELLED)
    assert isinstance(await admission(born(unique_key="k")), Admitted)
    assert await operate(run_actions.cancel, uuid7()) is None
    fresh = born()
    assert await ledger.cancel(fresh) == AlreadyOver(UUID(fresh.job_id), RunState.CANCELLED, None, ledger.CANCELLED)


async def test_a_running_run_is_asked_and_ends_as_cancelled_whatever_its_attempt_does() -> None:
    await heartbeat("ada")
    given = await admitted("ada")
    run = await born_again(given.run_id)
    assert await operate(run_actions.cancel, given.run_id) is RunState.RUNNING
    assert await ledger.cancel(run) == HeldElsewhere(given.run_id, "ada")
    async with get_reader() as reader:
        assert [one.id for one in await job_run.cancel_requested(reader, {given.run_id})] == [given.run_id]
    await ledger.finish(given, Outcome("interrupted"))
    worker = GroupedLedger(vitals("ada"), set())
    end, _ = await asyncio.gather(worker.admit(run), worker.admit(born()))
    assert end == AlreadyOver(given.run_id, RunState.CANCELLED, None, ledger.CANCELLED)


async def test_a_cancelled_run_whose_worker_died_does_not_begin_again() -> None:
    given = await admitted("dead")
    assert await operate(run_actions.cancel, given.run_id) is RunState.RUNNING
    end = await admission(await born_again(given.run_id))
    assert end == AlreadyOver(given.run_id, RunState.CANCELLED, None, ledger.CANCELLED)
    assert [one.outcome for one in await attempts_of(given.run_id)] == ["crashed"]


async def test_a_snooze_charges_nothing_and_is_due_later() -> None:
    given = await admitted("ada")
    await ledger.finish(given, Outcome("snoozed", delay_s=90.0))
    row = await run_of(given.run_id)
    assert (row.state, row.reason, row.attempts, row.error) == ("waiting", "snoozed", 0, None)
    assert timedelta(seconds=80) < row.due_at - datetime.now(UTC) <= timedelta(seconds=91)
    assert await admitted("ada", run_id=given.run_id) == Admitted(given.run_id, 2, 1)


@pytest.mark.parametrize("moved", [False, True], ids=["ledger", "history"])
async def test_a_failed_run_is_replayed_wherever_it_is(moved: bool) -> None:
    given = await admitted("ada", born_run=born(unique_key="k"))
    run = await born_again(given.run_id)
    await ledger.finish(given, FAILED)
    if moved:
        assert await move_everything() == 1
    results = await asyncio.gather(*(operate(run_actions.replay, given.run_id) for _ in range(2)))
    assert sorted(map(str, results)) == ["None", "waiting"]
    row = await run_of(given.run_id)
    assert (row.state, row.reason, row.attempts, row.crashes, row.error) == ("waiting", "replayed", 0, 0, None)
    assert (row.finished_at, row.dispatched_at, row.request, row.unique_key) == (None, None, run.request, "k")
    assert await admission(run) == Admitted(given.run_id, 2, 1)
    assert isinstance(await admission(born(unique_key="k")), AlreadyOver)
    assert [one.outcome for one in await attempts_of(given.run_id)] == ["failed"]


async def test_a_quarantined_run_is_replayed_with_a_clean_slate() -> None:
    run = await suspect()
    await admission(run, "dead 3", is_alone=True)
    assert isinstance(await admission(run), AlreadyOver)
    await move_everything()
    assert await operate(run_actions.replay, UUID(run.job_id)) is RunState.WAITING
    assert await admission(run) == Admitted(UUID(run.job_id), 4, 1)


async def test_only_failed_and_quarantined_runs_are_replayed() -> None:
    given = await admitted("ada")
    assert await operate(run_actions.replay, given.run_id) is None
    await ledger.finish(given, DONE)
    assert await operate(run_actions.replay, given.run_id) is None
    await move_everything()
    assert await operate(run_actions.replay, given.run_id) is None
    assert await operate(run_actions.replay, uuid7()) is None
    waiting = await waiting_run()
    assert await operate(run_actions.replay, UUID(waiting.job_id)) is None
