"""The ledger's invariants: admission (I1), the end of an attempt, and what is handed out of a run that is over (I3)."""

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy import update

from db.connection import DatabaseManager, get_async_session
from db.repositories import job_run
from holdfast.ids import uuid7
from holdfast.outbox import job_runs
from holdfast.states import RunState
from tests.databases.runs import admitted, attempts_of, born, born_again, heartbeat, run_of, silence, vitals
from worker import ledger, recovery
from worker.ledger import Admitted, AlreadyOver, HeldElsewhere
from worker.retries import Outcome

pytestmark = pytest.mark.usefixtures("manager")


async def test_admission_is_written_before_it_is_told() -> None:
    run = born()
    given = await ledger.admit(run, vitals("ada"), active_here=())
    assert isinstance(given, Admitted)
    row = await run_of(given.run_id)
    assert (str(row.id), row.kind, row.queue, row.request) == (run.job_id, run.kind, run.queue, run.request)
    assert (row.state, row.fence, row.worker_id, row.attempts, row.crashes) == ("running", 1, "ada", 0, 0)
    assert (given.fence, given.attempt) == (1, 1)
    assert row.enqueued_at == run.enqueued_at
    assert abs(row.started_at - datetime.now(UTC)) < timedelta(minutes=1)
    assert await attempts_of(given.run_id) == []


async def test_of_two_admissions_of_one_run_at_once_one_wins() -> None:
    for _ in range(10):
        run = born()
        await heartbeat("ada", "bob")
        answers = await asyncio.gather(
            ledger.admit(run, vitals("ada"), active_here=()), ledger.admit(run, vitals("bob"), active_here=())
        )
        winners = [answer for answer in answers if isinstance(answer, Admitted)]
        losers = [answer for answer in answers if isinstance(answer, HeldElsewhere)]
        assert (len(winners), len(losers)) == (1, 1)
        row = await run_of(winners[0].run_id)
        assert (row.fence, row.worker_id, row.crashes) == (1, losers[0].worker_id, 0)


async def test_of_two_admissions_of_a_dispatched_run_at_once_one_wins() -> None:
    await heartbeat("ada", "bob")
    first = await admitted("ada")
    await ledger.finish(first, Outcome("interrupted"))
    run = job_run.BornRun("import_tasks", "arq:queue", str(first.run_id), (await run_of(first.run_id)).enqueued_at, {})
    answers = await asyncio.gather(*(ledger.admit(run, vitals(name), active_here=()) for name in ("ada", "bob")))
    assert {type(answer) for answer in answers} == {Admitted, HeldElsewhere}
    assert (await run_of(first.run_id)).fence == 2


async def test_a_run_that_this_process_performs_is_not_admitted_again() -> None:
    run = born()
    first = await ledger.admit(run, vitals("ada"), active_here=())
    again = await ledger.admit(run, vitals("ada"), active_here={first.run_id})
    assert again == HeldElsewhere(first.run_id, "ada")
    assert (await run_of(first.run_id)).fence == 1


@pytest.mark.parametrize(
    ("outcome", "state"),
    [
        (Outcome("succeeded", report={"rows_read": 3, "note": "\u00e4"}), RunState.SUCCEEDED),
        (Outcome("failed", error={"type": "missing_column", "message": "no column 'key'"}), RunState.FAILED),
    ],
    ids=lambda value: value.name if isinstance(value, Outcome) else str(value),
)
async def test_a_run_that_is_over_hands_out_its_stored_end(outcome: Outcome, state: RunState) -> None:
    run = born()
    first = await ledger.admit(run, vitals("ada"), active_here=())
    assert isinstance(first, Admitted)
    assert await ledger.finish(first, outcome) == outcome
    before = await run_of(first.run_id)
    end = AlreadyOver(first.run_id, state, outcome.report, outcome.error)
    assert await ledger.admit(run, vitals("bob"), active_here=()) == end
    assert await ledger.refuse(run, {"type": "invalid_request", "message": "another version"}) == end
    assert await run_of(first.run_id) == before


async def test_success_keeps_the_report_and_one_attempt() -> None:
    given = await admitted("ada")
    await ledger.finish(given, Outcome("succeeded", report={"rows_read": 3}))
    row = await run_of(given.run_id)
    assert (row.state, row.report, row.error, row.attempts) == ("succeeded", {"rows_read": 3}, None, 0)
    assert row.started_at <= row.finished_at
    (attempt,) = await attempts_of(given.run_id)
    assert (attempt.fence, attempt.attempt, attempt.outcome, attempt.worker_id) == (1, 1, "succeeded", "ada")
    assert attempt.started_at == row.started_at


async def test_a_retry_charges_an_attempt_and_is_due_later() -> None:
    given = await admitted("ada")
    error = {"type": "OperationalError", "message": "gone"}
    await ledger.finish(given, Outcome("retry", error=error, delay_s=90.0))
    row = await run_of(given.run_id)
    assert (row.state, row.reason, row.attempts, row.crashes) == ("waiting", "retry", 1, 0)
    assert timedelta(seconds=80) < row.due_at - datetime.now(UTC) <= timedelta(seconds=91)
    assert row.error == error
    second = await admitted("bob", run_id=given.run_id)
    assert (second.fence, second.attempt) == (2, 2)
    assert (await run_of(given.run_id)).error is None


async def test_an_interruption_charges_nothing_and_is_due_now() -> None:
    given = await admitted("ada")
    await ledger.finish(given, Outcome("interrupted"))
    row = await run_of(given.run_id)
    assert (row.state, row.reason, row.attempts, row.crashes) == ("waiting", "interrupted", 0, 0)
    assert row.due_at - datetime.now(UTC) < timedelta(seconds=1)
    second = await admitted("bob", run_id=given.run_id)
    assert (second.fence, second.attempt) == (2, 1)
    assert [one.outcome for one in await attempts_of(given.run_id)] == ["interrupted"]


async def test_the_last_attempt_is_charged_too() -> None:
    given = await admitted("ada")
    await ledger.finish(given, Outcome("failed", error={"type": "E", "message": "m"}))
    row = await run_of(given.run_id)
    assert (row.state, row.attempts, row.error) == ("failed", 1, {"type": "E", "message": "m"})


@pytest.mark.parametrize("name", ["succeeded", "failed", "retry", "interrupted"])
async def test_an_overtaken_worker_changes_nothing(name: str) -> None:
    first = await admitted("ada")
    second = await admitted("bob", run_id=first.run_id)  # ada has no heartbeat: it counts as dead
    before, attempts = await run_of(first.run_id), len(await attempts_of(first.run_id))
    late = Outcome(name, report={"late": True}, error={"type": "Late", "message": "late"})  # type: ignore[arg-type]
    assert await ledger.finish(first, late) == Outcome("lost")
    assert await run_of(first.run_id) == before
    assert len(await attempts_of(first.run_id)) == attempts == 1
    assert await ledger.finish(second, Outcome("succeeded", report={})) == Outcome("succeeded", report={})
    assert await ledger.finish(second, late) == Outcome("lost")


async def test_a_run_that_was_pruned_meanwhile_is_lost() -> None:
    nobody = Admitted(uuid7(), fence=1, attempt=1)
    assert await ledger.finish(nobody, Outcome("succeeded", report={})) == Outcome("lost")


async def test_a_dead_workers_run_is_admitted_again_uncharged() -> None:
    await heartbeat("ada", "bob")
    first = await admitted("ada")
    run_id = first.run_id
    assert await admission("bob", run_id) == HeldElsewhere(run_id, "ada")
    await silence("ada")
    assert await admission("bob", run_id) == Admitted(run_id, 2, 1)
    row = await run_of(run_id)
    assert (row.state, row.reason, row.fence, row.attempts, row.crashes) == ("running", None, 2, 0, 1)
    (crashed,) = await attempts_of(run_id)
    assert (crashed.fence, crashed.attempt, crashed.outcome, crashed.worker_id) == (1, 1, "crashed", "ada")
    assert crashed.error == {"type": "WorkerDied", "message": "worker ada ended without a word"}


async def test_a_dead_workers_run_is_put_back_uncharged() -> None:
    await heartbeat("ada", "bob")
    first, other = await admitted("ada"), await admitted("bob")
    here = vitals("bob")
    assert await recovery.put_back_orphans(here, "arq:queue", active_here={other.run_id}) == []
    await silence("ada")
    assert await recovery.put_back_orphans(here, "another queue", active_here={other.run_id}) == []
    assert await recovery.put_back_orphans(here, "arq:queue", active_here={other.run_id}) == [first.run_id]
    row = await run_of(first.run_id)
    assert (row.state, row.reason, row.fence, row.attempts, row.crashes) == ("waiting", "crashed", 1, 0, 1)
    assert row.dispatched_at is None
    assert [(one.fence, one.outcome) for one in await attempts_of(first.run_id)] == [(1, "crashed")]
    assert await ledger.finish(first, Outcome("succeeded", report={})) == Outcome("lost")
    assert (await run_of(other.run_id)).state == "running"
    assert await recovery.put_back_orphans(here, "arq:queue", active_here={other.run_id}) == []


async def test_what_this_worker_runs_no_more_is_put_back() -> None:
    """Its end could not be recorded, for the database stayed away."""
    given = await admitted("ada")
    assert await recovery.put_back_orphans(vitals("ada"), "arq:queue", active_here=()) == []  # it may be about to begin
    later = vitals("ada", timeout_s=-1.0)
    assert await recovery.put_back_orphans(later, "arq:queue", active_here={given.run_id}) == []
    assert await recovery.put_back_orphans(later, "arq:queue", active_here=()) == [given.run_id]


async def test_the_owner_of_an_embedded_queue_knows_the_others_dead_at_once() -> None:
    await heartbeat("old", queue_home="embedded:here")
    await heartbeat("elsewhere", queue_home="redis://there")
    left, held = await admitted("old"), await admitted("elsewhere")
    owner = vitals("new", queue_home="embedded:here", exclusive=True)
    assert await recovery.put_back_orphans(owner, "arq:queue", active_here=()) == [left.run_id]
    again = await admitted("old")
    taken = await ledger.admit(await born_again(again.run_id), owner, active_here=())
    assert taken == Admitted(again.run_id, 2, 1)
    kept = await ledger.admit(await born_again(held.run_id), owner, active_here=())
    assert kept == HeldElsewhere(held.run_id, "elsewhere")


async def test_several_workers_put_an_orphan_back_once() -> None:
    await heartbeat("ada", "bob", "eve")
    orphans = {(await admitted("dead")).run_id for _ in range(5)}
    put_back = await asyncio.gather(
        *(recovery.put_back_orphans(vitals(name), "arq:queue", active_here=()) for name in ("ada", "bob", "eve"))
    )
    assert sorted(run_id for run_ids in put_back for run_id in run_ids) == sorted(orphans)
    for run_id in orphans:
        assert (await run_of(run_id)).crashes == 1
        assert len(await attempts_of(run_id)) == 1


async def test_a_job_id_may_be_used_again_at_another_time() -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    first = await ledger.admit(born("nightly", at=now), vitals("ada"), active_here=())
    assert isinstance(first, Admitted)
    await ledger.finish(first, Outcome("succeeded", report={"day": 1}))
    second = await ledger.admit(born("nightly", at=now + timedelta(milliseconds=1)), vitals("ada"), active_here=())
    assert isinstance(second, Admitted)
    assert second.run_id != first.run_id
    assert await ledger.admit(born("nightly", at=now), vitals("ada"), active_here=()) == AlreadyOver(
        first.run_id, RunState.SUCCEEDED, {"day": 1}, None
    )


async def test_a_uuid7_used_again_gets_an_id_of_its_own() -> None:
    job_id, now = str(uuid7()), datetime.now(UTC).replace(microsecond=0)
    first = await ledger.admit(born(job_id, at=now), vitals("ada"), active_here=())
    second = await ledger.admit(born(job_id, at=now + timedelta(seconds=1)), vitals("ada"), active_here=())
    assert str(first.run_id) == job_id
    assert second.run_id != first.run_id


@pytest.mark.parametrize(
    "job_id",
    ["cron:nightly", str(uuid4()), str(uuid7()).upper(), "\U0001f600" * 200, " x "],
    ids=["words", "version 4", "upper case", "long", "spaces"],
)
async def test_a_job_id_that_is_no_uuid7_gets_an_id(job_id: str) -> None:
    run = born(job_id)
    given = await ledger.admit(run, vitals("ada"), active_here=())
    assert str(given.run_id) != job_id
    assert given.run_id.version == 7
    assert (await run_of(given.run_id)).job_id == job_id
    assert (await ledger.admit(run, vitals("ada"), active_here={given.run_id})).run_id == given.run_id


async def test_ids_that_differ_in_case_or_blanks_are_different_runs() -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    names = ["x", "X", "x "]
    ids = {(await ledger.admit(born(name, at=now), vitals("ada"), active_here=())).run_id for name in names}
    assert len(ids) == len(names)


async def test_a_request_that_cannot_be_read_ends_its_run() -> None:
    run = born()
    error = {"type": "invalid_request", "message": "source: Field required"}
    refused = await ledger.refuse(run, error)
    assert refused == AlreadyOver(UUID(run.job_id), RunState.FAILED, None, error)
    row = await run_of(refused.run_id)
    assert (row.state, row.error, row.fence, row.attempts) == ("failed", error, 0, 0)
    assert row.finished_at is not None
    assert await ledger.admit(run, vitals("ada"), active_here=()) == refused


async def test_a_request_that_another_version_is_running_goes_on() -> None:
    run = born()
    given = await ledger.admit(run, vitals("ada"), active_here=())
    assert await ledger.refuse(run, {"type": "invalid_request", "message": "m"}) == HeldElsewhere(given.run_id, "ada")
    assert (await run_of(given.run_id)).state == "running"


async def test_two_refusals_at_once_end_it_once() -> None:
    run, error = born(), {"type": "invalid_request", "message": "m"}
    first, second = await asyncio.gather(ledger.refuse(run, error), ledger.refuse(run, error))
    assert first == second == AlreadyOver(UUID(run.job_id), RunState.FAILED, None, error)


async def test_admission_waits_for_whoever_changes_the_run(manager: DatabaseManager) -> None:
    """I1: under the lock on its row, so that nothing that was decided before is overwritten."""
    first = await admitted("dead")
    again = await born_again(first.run_id)
    async with get_async_session() as session:
        await job_run.get_run(session, first.run_id, lock=True)
        late = asyncio.create_task(ledger.admit(again, vitals("ada"), active_here=()))
        ended = update(job_runs).where(job_runs.c.id == first.run_id)
        await session.execute(ended.values(state=RunState.SUCCEEDED.value, report={"rows_read": 1}))
        done, _ = await asyncio.wait([late], timeout=0.2)
        assert not done
    assert await late == AlreadyOver(first.run_id, RunState.SUCCEEDED, {"rows_read": 1}, None)
    assert manager.engine.pool.checkedout() == 0  # type: ignore[attr-defined]


async def admission(worker_id: str, run_id: UUID) -> ledger.Admission:
    return await ledger.admit(await born_again(run_id), vitals(worker_id), active_here=())
