"""What operators say about queues and kinds."""

import pytest

from db.connection import get_async_session, get_reader
from db.repositories import control
from db.repositories.control import Controls
from tests.databases.runs import QUEUE, admitted
from worker import ledger
from worker.retries import Outcome

pytestmark = pytest.mark.usefixtures("manager")

KIND = "import_tasks"


async def controls() -> Controls:
    async with get_reader() as reader:
        return await control.load_controls(reader)


async def test_a_queue_or_kind_is_paused_and_goes_on() -> None:
    assert await controls() == Controls()
    for scope, name in (("queue", QUEUE), ("kind", KIND)):
        for _ in range(2):
            async with get_async_session() as session:
                await control.set_paused(session, scope, name, paused=True)
        found = await controls()
        assert found.paused == {(scope, name)}
        assert found.obstacle(queue=QUEUE, kind=KIND) == "paused"
        assert found.obstacle(queue="other", kind="other") is None
        async with get_async_session() as session:
            await control.set_paused(session, scope, name, paused=False)
        assert await controls() == Controls()


async def test_a_limit_counts_what_runs() -> None:
    for scope, name in (("queue", QUEUE), ("kind", KIND)):
        for _ in range(2):
            async with get_async_session() as session:
                await control.set_limit(session, scope, name, 1)
        assert (await controls()).limits == ((scope, name, 1),)
        assert (await controls()).obstacle(queue=QUEUE, kind=KIND) is None
        given = await admitted("ada")
        assert (await controls()).obstacle(queue=QUEUE, kind=KIND) == "limited"
        assert (await controls()).obstacle(queue="other", kind="other") is None
        await ledger.finish(given, Outcome("succeeded", report={}))
        assert (await controls()).full == frozenset()
        async with get_async_session() as session:
            await control.set_limit(session, scope, name, None)
        assert await controls() == Controls()


async def test_pause_and_limit_do_not_forget_each_other() -> None:
    async with get_async_session() as session:
        await control.set_limit(session, "kind", KIND, 0)
        await control.set_paused(session, "kind", KIND, paused=True)
    assert (await controls()).obstacle(queue=QUEUE, kind=KIND) == "paused"
    async with get_async_session() as session:
        await control.set_paused(session, "kind", KIND, paused=False)
    assert (await controls()).obstacle(queue=QUEUE, kind=KIND) == "limited"
