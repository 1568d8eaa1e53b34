"""`python -m worker run --burst`: it ends when nothing is due, and says what it has left."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import update

from db.models import Installation
from db.repositories import control
from holdfast import Client, outbox, wire
from tests.queue.lasting_kinds import Lasting
from tests.queue.workplace import PATIENCE_S, Workplace, log_events
from tests.servers import RedisServer, wait_until

FAR = timedelta(hours=1)
IMPORTS, QUEUE = ("kind", "import_tasks"), ("queue", wire.DEFAULT_QUEUE)


@pytest.fixture
def place(redis_url: str, tmp_path: Path) -> Workplace:
    return Workplace(redis_url, tmp_path)


async def test_a_burst_ends_when_nothing_is_due(place: Workplace) -> None:
    async with Client(place.redis_url) as client, place.ledger() as ledger:
        due = [await client.enqueue(place.import_request(f"{number}.csv")) for number in range(3)]
        later = await client.enqueue(place.import_request("later.csv"), at=datetime.now(UTC) + FAR)
        await client.enqueue(Lasting(gate="unknown to this worker"), at=datetime.now(UTC) + FAR)
        async with ledger.manager.session() as session:
            from_ledger = await outbox.enqueue(session, place.import_request("ledger.csv"))
            await outbox.enqueue(session, place.import_request("ledger.csv"), at=datetime.now(UTC) + FAR)
        with place.worker("--burst") as worker:
            assert worker.wait(PATIENCE_S) == 0
        assert [await run.status() for run in due] == ["succeeded"] * 3
        assert await later.status() == "waiting"
        states = {run.id: run.state for run in await ledger.runs()}
        assert states.pop(from_ledger) == "succeeded"
        assert sorted(states.values()) == ["succeeded"] * 3 + ["waiting"] * 2


@pytest.mark.parametrize(
    ("scope", "most", "why"), [(IMPORTS, None, "paused"), (QUEUE, None, "paused"), (IMPORTS, 0, "limited")]
)
async def test_a_burst_leaves_what_may_not_start_here_and_says_so(
    place: Workplace, scope: tuple[str, str], most: int | None, why: str
) -> None:
    async with Client(place.redis_url) as client, place.ledger() as ledger:
        async with ledger.manager.session() as session:
            await outbox.enqueue(session, Lasting(gate="unknown to this worker"))
            for name in ("1.csv", "2.csv"):
                await outbox.enqueue(session, place.import_request(name))
            if most is None:
                await control.set_paused(session, *scope, paused=True)
            else:
                await control.set_limit(session, *scope, most)
        await client.enqueue(place.import_request("3.csv"))
        with place.worker("--burst") as worker:
            assert worker.wait(PATIENCE_S) == 0
        assert {run.state for run in await ledger.runs()} == {"waiting"}
    (said,) = [event for event in log_events(worker) if event["event"].startswith("due runs were left")]
    assert (said[why], said["unknown_kind"]) == (3, 1)


async def test_a_burst_ends_on_a_held_database(place: Workplace) -> None:
    async with Client(place.redis_url) as client, place.ledger() as ledger:
        with place.started_worker("owner") as owner:
            assert owner.terminate() == 0
        async with ledger.manager.session() as session:
            elsewhere = {"server": "sqlite 1", "addresses": ["/elsewhere/holdfast.db"]}
            await session.execute(update(Installation).values(elsewhere))
            await outbox.enqueue(session, place.import_request())
        await client.enqueue(place.import_request())
        with place.worker("--burst") as worker:
            assert worker.wait(PATIENCE_S) == 0
        assert [run.state for run in await ledger.runs()] == ["waiting"]
    (said,) = [event for event in log_events(worker) if event["event"].startswith("due runs were left")]
    assert said["held"] == 1


def test_a_burst_ends_though_redis_had_refused_to_say_what_is_due(place: Workplace, redis_server: RedisServer) -> None:
    with place.redis() as redis:
        redis.acl_setuser("ada", enabled=True, passwords="+a", keys="*", channels="*", commands=["+@all", "-zcount"])
        redis.acl_log_reset()
        with place.worker("--burst", REDIS_URL=f"redis://ada:a@127.0.0.1:{redis_server.port}/0") as worker:
            assert wait_until(lambda: "zcount" in [entry["object"] for entry in redis.acl_log()], PATIENCE_S)
            redis.acl_setuser("ada", enabled=True, commands=["+zcount"])
            assert worker.wait() == 0
        redis.acl_deluser("ada")
