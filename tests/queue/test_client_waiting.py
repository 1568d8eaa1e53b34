"""Waiting for results: Redis tells of them, one pair of connections for all who wait, and polling where it does not."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from holdfast import Client, QueueUnavailable, RunNotFound, RunState, SyncClient, watch
from holdfast.ids import uuid7, uuid7_texts
from tests.queue.wire_hands import PATIENCE_S, Echo, EchoReport, Hands, Way, until
from worker.embedded import EmbeddedRedis


@pytest.fixture
def hands(redis_url: str) -> Iterator[Hands]:
    hands = Hands(redis_url)
    yield hands
    hands.close()


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[Client]:
    async with Client(redis_url) as client:
        yield client


async def waited_for(client: Client, hands: Hands, count: int = 1) -> tuple[list[str], list[asyncio.Task[EchoReport]]]:
    """Enqueues runs and waits for each in a task; returns when Redis has been asked for all of them."""
    runs = (await client.enqueue_many([Echo()] * count)).runs
    tasks = [asyncio.create_task(run.result()) for run in runs]
    await until(lambda: hands.redis.info("stats")["tracking_total_keys"] >= count)
    return [run.id for run in runs], tasks


async def ended(tasks: list[asyncio.Task[EchoReport]]) -> list[str]:
    async with asyncio.timeout(PATIENCE_S):
        return [report.text for report in await asyncio.gather(*tasks)]


async def test_a_result_is_told_and_not_polled(client: Client, hands: Hands, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "SWEEP_S", 3600.0)
    hands.redis.config_resetstat()
    (run_id,), tasks = await waited_for(client, hands)
    await until(lambda: hands.calls("zmscore"))  # the first look is over
    hands.redis.config_resetstat()
    hands.finish(run_id)
    assert await ended(tasks) == [run_id]
    assert hands.calls("mget", "get") == 1  # the one that fetched it
    assert hands.calls("zmscore", "exists", "ping") == 0


async def test_many_wait_on_one_pair_of_connections(client: Client, hands: Hands) -> None:
    before = len(hands.redis.client_list())
    ids, tasks = await waited_for(client, hands, 600)
    assert len(hands.redis.client_list()) == before + 3  # the pair, and the one that enqueued
    for run_id in reversed(ids):
        hands.finish(run_id)
    assert await ended(tasks) == ids


async def test_several_wait_for_the_same_run(client: Client, hands: Hands) -> None:
    (run_id,), tasks = await waited_for(client, hands)
    others = [asyncio.create_task(client.run(run_id, EchoReport).result()) for _ in range(5)]
    others.append(asyncio.create_task(client.run(run_id, EchoReport).result(timeout_s=0.01)))
    with pytest.raises(TimeoutError, match=f"run {run_id} was not over within 0.01 s: it goes on"):
        await others.pop()
    hands.finish(run_id)
    assert await ended(tasks + others) == [run_id] * 6


async def test_a_result_that_is_there_already_comes_at_once(client: Client, hands: Hands) -> None:
    run = await client.enqueue(Echo())
    hands.finish(run.id)
    assert await run.result() == await run.result(timeout_s=PATIENCE_S) == EchoReport(text=run.id)


@pytest.mark.parametrize("kind", ["pubsub", "normal"])
async def test_lost_connections_are_opened_again(
    client: Client, hands: Hands, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "SWEEP_S", 0.1)
    (run_id,), tasks = await waited_for(client, hands)
    for _ in range(3):
        hands.redis.client_kill_filter(_type=kind, skipme=True)
        await until(lambda: len(hands.redis.client_list(_type="pubsub")) == 1)
        await asyncio.sleep(0)
    hands.finish(run_id)
    assert await ended(tasks) == [run_id]


async def test_a_listener_that_hears_nothing_is_noticed(
    redis_url: str, hands: Hands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "SWEEP_S", 0.1)
    async with Way(redis_url).listening() as way, Client(way.url) as client:
        (run_id,), tasks = await waited_for(client, hands)
        way.mute_subscribers()
        await until(lambda: way.opened >= 5)  # the pair was opened anew
        hands.finish(run_id)
        assert await ended(tasks) == [run_id]


async def test_a_wait_on_a_half_open_connection_ends_with_the_typed_error(
    redis_url: str, hands: Hands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "SWEEP_S", 0.1)
    async with Way(redis_url).listening() as way, Client(way.url, timeout_s=0.5) as client:
        (run_id,), tasks = await waited_for(client, hands)
        way.is_cut = True
        async with asyncio.timeout(PATIENCE_S):
            with pytest.raises(QueueUnavailable, match="no answer in time"):
                await tasks[0]
        way.is_cut = False
        hands.finish(run_id)
        assert await client.run(run_id, EchoReport).result() == EchoReport(text=run_id)


async def test_a_run_that_redis_has_lost_is_given_time_to_come_back(
    client: Client, hands: Hands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "SWEEP_S", 0.05)
    (back, gone), tasks = await waited_for(client, hands, 2)
    await asyncio.sleep(0.2)  # both were seen in the queue
    hands.redis.flushall()
    hands.redis.zadd("arq:queue", {back: 1})
    monkeypatch.setattr(watch, "VANISHED_GRACE_S", 0.1)
    async with asyncio.timeout(PATIENCE_S):
        with pytest.raises(RunNotFound, match=gone):
            await tasks[1]
    assert not tasks[0].done()
    hands.finish(back)
    assert await ended(tasks[:1]) == [back]


async def test_a_run_of_the_outbox_that_is_not_in_redis_yet_is_waited_for(client: Client, hands: Hands) -> None:
    run_id = uuid7()
    run = client.run(run_id, EchoReport, born_in_ledger=True)
    assert await run.status() is RunState.WAITING
    with pytest.raises(TimeoutError):
        await run.result(timeout_s=0.05)
    waiting = asyncio.create_task(run.result())
    await until(lambda: hands.redis.info("stats")["tracking_total_keys"])
    hands.redis.zadd("arq:queue", {str(run_id): 1})
    hands.finish(str(run_id))
    assert await ended([waiting]) == [str(run_id)]
    assert await run.status() is RunState.SUCCEEDED
    with pytest.raises(RunNotFound):
        await client.run(uuid7(), EchoReport).result()


async def test_a_user_who_may_not_track_polls(redis_url: str, hands: Hands) -> None:
    hands.redis.acl_setuser(
        "plain", enabled=True, nopass=True, keys=["*"], channels=["*"], commands=["+@all", "-client|tracking"]
    )
    try:
        async with Client(redis_url.replace("//", "//plain@")) as client:
            runs = (await client.enqueue_many([Echo()] * 3)).runs
            tasks = [asyncio.create_task(run.result()) for run in runs]
            hands.redis.config_resetstat()
            await until(lambda: hands.calls("mget") >= 3)
            for run in runs:
                hands.finish(run.id)
            assert await ended(tasks) == [run.id for run in runs]
            assert len(hands.redis.client_list(_type="pubsub")) == 0
    finally:
        hands.redis.acl_deluser("plain")


async def test_nobody_waiting_costs_nothing(client: Client, hands: Hands, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "SWEEP_S", 0.02)
    (run_id,), tasks = await waited_for(client, hands)
    hands.finish(run_id)
    await ended(tasks)
    await until(lambda: client._watch._task is not None and client._watch._task.done())
    hands.redis.config_resetstat()
    await asyncio.sleep(0.1)
    assert hands.calls("mget", "zmscore", "ping") == 0


async def test_a_status_is_never_lost_between_queue_and_result(client: Client, hands: Hands) -> None:
    """The looks stand in an order in which a run that ends between them is seen."""
    runs = (await client.enqueue_many([Echo()] * 300)).runs

    def end_all() -> None:
        for run in runs:
            hands.finish(run.id)

    ending = asyncio.create_task(asyncio.to_thread(end_all))
    async with asyncio.timeout(PATIENCE_S):
        for run in runs:
            while await run.status() is not RunState.SUCCEEDED:
                pass
    await ending


def test_the_client_without_a_loop_hears_as_well(redis_url: str, hands: Hands) -> None:
    with SyncClient(redis_url) as client:
        for run_id in uuid7_texts(3):
            run = client.enqueue(Echo(), run_id=run_id)
            with pytest.raises(TimeoutError):
                run.result(timeout_s=0.02)
            hands.finish(run_id)
            assert run.result(timeout_s=PATIENCE_S) == EchoReport(text=run_id)


async def test_the_embedded_queue_is_polled(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path) as queue:
        url = f"unix://{queue.socket_path}"
        hands = Hands(url)
        async with Client(url) as client:
            runs = (await client.enqueue_many([Echo()] * 3)).runs
            tasks = [asyncio.create_task(run.result()) for run in runs]
            await until(lambda: client._watch._push is None)
            for run in runs:
                hands.finish(run.id)
            assert await ended(tasks) == [run.id for run in runs]
            assert hands.intake() == [run.id for run in runs]
            assert await (await client.enqueue(Echo())).cancel()
        hands.close()
