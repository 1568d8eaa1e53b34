"""One look at the ledger: what operators say, what is to be dispatched, and whether anything runs."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from db.connection import get_async_session, get_reader
from db.repositories import control, due_runs
from db.repositories.glance import Glance, Glancer
from holdfast import outbox
from holdfast.requests import ImportTasks
from tests.databases.runs import QUEUE, admitted, wanted
from worker import ledger
from worker.retries import Outcome

pytestmark = pytest.mark.usefixtures("manager")

KIND = "import_tasks"
REQUEST = ImportTasks(source="/imports/tasks.csv")
NOTHING = Glance([], undispatched=False, running=False)


async def look(
    *,
    queues: Sequence[str] = (QUEUE,),
    kinds: Sequence[str] = (KIND,),
    after: UUID = due_runs.FIRST_ID,
    undispatched: bool = True,
    running: bool = True,
) -> Glance:
    due_before = datetime.now(UTC) + timedelta(minutes=1)
    glancer = Glancer(queues, kinds)
    async with get_reader() as reader:
        return await glancer.look(
            reader, due_before=due_before, after=after, undispatched=undispatched, running=running
        )


async def enqueued(at: datetime | None = None) -> UUID:
    async with get_async_session() as session:
        return await outbox.enqueue(session, REQUEST, at=at)


async def found_by_a_dispatch() -> list[UUID]:
    """What the page of the dispatch shows, where a look says that there is something."""
    async with get_reader() as reader:
        page = await due_runs.undispatched_runs(reader, wanted(), after=due_runs.FIRST_ID, most=10)
    return [run.id for run in page]


async def test_an_empty_ledger_shows_nothing() -> None:
    assert await look() == await look(kinds=()) == NOTHING


async def test_what_is_due_and_not_in_redis_yet_is_seen() -> None:
    run_id = await enqueued()
    assert (await look()).undispatched
    assert await found_by_a_dispatch() == [run_id]
    assert (await look(queues=("other", QUEUE), kinds=("other", KIND))).undispatched
    assert await look(undispatched=False) == NOTHING
    assert await look(queues=("other",)) == await look(kinds=("other",)) == await look(kinds=()) == NOTHING
    assert await look(after=run_id) == NOTHING
    async with get_async_session() as session:
        await due_runs.mark_dispatched(session, [run_id])
    assert await look() == NOTHING
    assert await found_by_a_dispatch() == []


async def test_what_is_due_later_is_not_seen_yet() -> None:
    await enqueued(at=datetime.now(UTC) + timedelta(hours=1))
    assert await look() == NOTHING
    assert await found_by_a_dispatch() == []


async def test_what_runs_is_seen() -> None:
    given = await admitted("ada")
    assert await look() == await look(queues=("other", QUEUE), kinds=()) == Glance([], False, running=True)
    assert await look(running=False) == await look(queues=("other",)) == NOTHING
    await ledger.finish(given, Outcome("succeeded", report={}))
    assert await look() == NOTHING


async def test_several_controls_come_with_the_same_answers() -> None:
    await enqueued()
    async with get_async_session() as session:
        await control.set_paused(session, "queue", QUEUE, paused=True)
        await control.set_paused(session, "kind", "other", paused=True)
        await control.set_limit(session, "kind", KIND, 0)
    seen = await look()
    assert (len(seen.controls), seen.undispatched, seen.running) == (3, True, False)
    async with get_reader() as reader:
        controls = await control.controls_of(reader, seen.controls)
        assert controls == await control.load_controls(reader)
    assert len(controls.paused) == 2
    assert controls.full == {("kind", KIND)}
