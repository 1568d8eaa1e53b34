"""Whatever workers do and in whatever order, a run takes only the steps that `NEXT_STATES` allows."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from db.connection import DatabaseManager, close_database, get_async_session, initialize_database
from db.models import NEXT_STATES
from db.repositories import job_run, worker_heartbeat
from db.repositories.job_run import BornRun, RunRow
from db.settings import DatabaseSettings
from holdfast.states import RunState
from tests.databases.conftest import empty_tables
from tests.databases.runs import QUEUE, admitted, attempts_of, born, heartbeat, run_of, silence, vitals
from worker import ledger, recovery
from worker.ledger import Admitted, AlreadyOver
from worker.retries import Outcome

WORKERS = st.sampled_from(["ada", "bob", "eve"])
ENDS = st.sampled_from(
    [
        Outcome("succeeded", report={"rows_read": 1}),
        Outcome("failed", error={"type": "E", "message": "m"}),
        Outcome("retry", error={"type": "E", "message": "m"}, delay_s=1.0),
        Outcome("interrupted"),
    ]
)
STEPS = st.one_of(
    st.tuples(st.just("admit"), WORKERS),
    st.tuples(st.just("admit"), WORKERS),
    st.tuples(st.just("finish"), st.tuples(st.integers(0, 9), ENDS)),
    st.tuples(st.just("put back"), WORKERS),
    st.tuples(st.just("die"), WORKERS),
    st.tuples(st.just("refuse"), st.none()),
)


@dataclass
class History:
    """One run, and what its workers hold in their hands."""

    run: BornRun = field(default_factory=born)
    admissions: list[Admitted] = field(default_factory=list)

    async def take(self, step: str, argument: object) -> None:
        match step, argument:
            case "admit", str(name):
                await heartbeat(name)
                answer = await ledger.admit(self.run, vitals(name), active_here=())
                if isinstance(answer, Admitted):
                    self.admissions.append(answer)
            case "finish", (int(number), Outcome() as outcome) if self.admissions:
                await ledger.finish(self.admissions[number % len(self.admissions)], outcome)
            case "put back", str(name):
                await heartbeat(name)
                here = {one.run_id for one in self.admissions}
                await recovery.put_back_orphans(vitals(name), QUEUE, active_here=here if name == "ada" else ())
            case "die", str(name):
                await silence(name)
            case "refuse", None:
                await ledger.refuse(self.run, {"type": "invalid_request", "message": "m"})

    async def row(self) -> RunRow | None:
        async with get_async_session() as session:
            row = await job_run.find_born_run(session, self.run)
        return row if row is None else await run_of(row.id)


async def replay(steps: list[tuple[str, object]]) -> None:
    history, before = History(), None
    for step, argument in steps:
        await history.take(step, argument)
        after = await history.row()
        if before is not None:
            assert after is not None
            check_step(before, after)
        before = after
    if before is not None:
        await check_books(before, history)
    async with get_async_session() as session:
        await worker_heartbeat.forget(session, ["ada", "bob", "eve"])


def check_step(before: RunRow, after: RunRow) -> None:
    old, new = RunState(before.state), RunState(after.state)
    if old is new and before.fence == after.fence:
        assert after.due_at == before.due_at
    elif old is new:  # the only state that may follow itself
        crashed = before.worker_id != after.worker_id  # a worker that did not hear of its admission has not
        assert (old, after.fence, after.crashes) == (RunState.RUNNING, before.fence + 1, before.crashes + crashed)
    else:
        assert new in NEXT_STATES[old]
    if old.is_over:
        assert after == before
    assert after.fence - before.fence in {0, 1}
    assert after.attempts - before.attempts in {0, 1}
    assert after.crashes - before.crashes in {0, 1}
    assert (after.fence > before.fence) <= (new is RunState.RUNNING)


async def check_books(row: RunRow, history: History) -> None:
    """Each start has ended once, and is written down as what it cost."""
    ended = await attempts_of(row.id)
    starts = row.fence - (row.state == RunState.RUNNING.value)
    assert [one.fence for one in ended] == list(range(1, starts + 1))
    assert row.crashes == sum(one.outcome == "crashed" for one in ended)
    assert row.attempts == sum(one.outcome in {"retry", "failed"} for one in ended)
    assert sorted(one.fence for one in history.admissions) == list(range(1, row.fence + 1))
    if RunState(row.state).is_over:
        told = await ledger.admit(history.run, vitals("eve"), active_here=())
        assert told == AlreadyOver(row.id, RunState(row.state), row.report, row.error)


@pytest.fixture
def runner(settings: DatabaseSettings) -> Iterator[asyncio.Runner]:
    """An event loop for hypothesis, which knows none, with the process's pool."""
    with asyncio.Runner() as made:
        made.run(empty_tables(made.run(initialize_database(settings, patience_s=10))))
        yield made
        made.run(close_database())


def test_only_allowed_steps_are_taken(runner: asyncio.Runner) -> None:
    @given(st.lists(STEPS, min_size=1, max_size=12))
    @hypothesis_settings(max_examples=30, deadline=None)
    def check(steps: list[tuple[str, object]]) -> None:
        runner.run(replay(steps))

    check()


def test_what_is_over_stays_over() -> None:
    assert set(NEXT_STATES) == set(RunState)
    for state, following in NEXT_STATES.items():
        # What is over waits again only where an operator says so.
        assert following <= {RunState.WAITING} or not state.is_over, state


async def test_a_step_that_the_table_lacks_is_refused(manager: DatabaseManager) -> None:
    given = await admitted("ada")
    async with get_async_session() as session:
        assert await job_run.leave_running(session, given.run_id, given.fence, RunState.SUCCEEDED)
    over = await run_of(given.run_id)
    async with get_async_session() as session:
        with pytest.raises(ValueError, match="a run that is succeeded cannot become running"):
            await job_run.set_running(session, over, "bob")
