"""What the client says when Redis dies, hangs, is full, is a replica or forgets it: the outcome is never guessed."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Iterator

import pytest

from holdfast import Client, QueueUnavailable, RunExists, RunState, SyncClient, connection
from holdfast.connection import MAX_CONNECTIONS
from holdfast.ids import uuid7, uuid7_texts
from tests.queue.wire_hands import PATIENCE_S, Echo, EchoReport, Hands, Way, until
from tests.servers import RedisServer, wait_until


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """A Redis of this file's own: it is paused and restarted."""
    with RedisServer(extra_args=["--repl-diskless-sync-delay", "0"]) as server:
        yield server


@pytest.fixture
def hands(server: RedisServer) -> Iterator[Hands]:
    server.flush()
    hands = Hands(server.url)
    yield hands
    hands.close()


@pytest.fixture
async def client(server: RedisServer, hands: Hands) -> AsyncIterator[Client]:
    async with Client(server.url, timeout_s=0.5) as client:
        await client.enqueue(Echo())  # it is connected
        yield client


async def fails(client: Client, outcome: str, words: str) -> str:
    """Asserts that an enqueue raises the typed error within the deadline; returns the id that it used."""
    async with asyncio.timeout(5):
        with pytest.raises(QueueUnavailable, match=words) as caught:
            await client.enqueue(Echo())
    assert caught.value.outcome == outcome
    (run_id,) = caught.value.run_ids
    return run_id


async def test_a_connection_that_died_unused_is_replaced_without_a_word(client: Client, hands: Hands) -> None:
    for _ in range(3):
        hands.redis.client_kill_filter(_type="normal", skipme=True)
        await client.enqueue(Echo())
    assert len(hands.waiting()) == 4


async def test_a_server_that_was_restarted_is_found_again(server: RedisServer, client: Client, hands: Hands) -> None:
    server.restart()
    run = await client.enqueue(Echo())
    assert hands.waiting() == [run.id]


def test_the_client_without_a_loop_replaces_a_dead_connection_as_well(server: RedisServer, hands: Hands) -> None:
    with SyncClient(server.url) as client:
        client.enqueue(Echo())
        hands.redis.client_kill_filter(_type="normal", skipme=True)
        client.enqueue(Echo())
    assert len(hands.waiting()) == 2


async def test_a_connection_that_rested_for_long_is_not_trusted(
    client: Client, hands: Hands, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = hands.redis.info("stats")["total_connections_received"]
    await client.enqueue(Echo())
    assert hands.redis.info("stats")["total_connections_received"] == before
    monkeypatch.setattr(connection, "LONGEST_IDLE_S", 0.0)
    await client.enqueue(Echo())
    assert hands.redis.info("stats")["total_connections_received"] == before + 1


async def test_a_connection_that_dies_after_sending_leaves_the_outcome_unknown(client: Client, hands: Hands) -> None:
    hands.redis.execute_command("CLIENT", "PAUSE", 60_000, "WRITE")
    enqueueing = asyncio.create_task(fails(client, "unknown", "closed by server"))
    await until(lambda: any(other["flags"] == "b" for other in hands.redis.client_list()))
    hands.redis.client_kill_filter(_type="normal", skipme=True)
    run_id = await enqueueing
    hands.redis.client_unpause()
    await client.enqueue(Echo(), run_id=run_id)


async def test_a_pause_that_is_longer_than_the_deadline_leaves_the_outcome_unknown(
    client: Client, hands: Hands
) -> None:
    hands.redis.execute_command("CLIENT", "PAUSE", 60_000, "WRITE")
    run_id = await fails(client, "unknown", "no answer in time")
    hands.redis.client_unpause()
    with contextlib.suppress(RunExists):  # both are right: Redis may see the lost connection or the command first
        await client.enqueue(Echo(), run_id=run_id)
    assert hands.waiting().count(run_id) == 1


async def test_a_server_that_hangs_leaves_the_outcome_unknown(
    server: RedisServer, client: Client, hands: Hands
) -> None:
    server.pause()
    try:
        run_id = await fails(client, "unknown", "no answer in time")
    finally:
        server.resume()
    with pytest.raises(RunExists):
        await client.enqueue(Echo(), run_id=run_id)
    assert hands.waiting().count(run_id) == 1


async def test_a_half_open_connection_ends_within_five_seconds(server: RedisServer, hands: Hands) -> None:
    async with Way(server.url).listening() as way, Client(way.url) as client:  # with the deadline of its own
        await client.enqueue(Echo())
        way.is_cut = True
        await fails(client, "unknown", "no answer in time")
        way.is_cut = False
        await client.enqueue(Echo())
        assert way.opened == 2
    assert len(hands.waiting()) == 2


async def test_every_call_has_the_deadline(server: RedisServer, client: Client, hands: Hands) -> None:
    run = await client.enqueue(Echo())
    server.pause()
    try:
        calls = (run.status(), run.progress(), run.cancel(), run.result(), client.enqueue_many([Echo()]))
        async with asyncio.timeout(5):
            errors = await asyncio.gather(*calls, return_exceptions=True)
    finally:
        server.resume()
    assert [type(error) for error in errors] == [QueueUnavailable] * 5


@pytest.mark.parametrize("is_replica", [False, True])
async def test_a_redis_that_takes_no_writes_has_refused(server: RedisServer, is_replica: bool) -> None:
    options = ["--replicaof", "127.0.0.1", str(server.port)] if is_replica else ["--maxmemory", "1"]
    with RedisServer(extra_args=options) as other:
        hands = Hands(other.url)
        if is_replica:
            assert wait_until(lambda: hands.redis.info("replication")["master_link_status"] == "up", PATIENCE_S)
        words = "read only replica" if is_replica else "used memory > 'maxmemory'"
        async with Client(other.url) as client:
            run_id = await fails(client, "refused", f"Redis refused: .*{words}")
            with pytest.raises(QueueUnavailable, match=words) as caught:
                await client.enqueue_many([Echo()] * 600)
            assert caught.value.outcome == "refused"
            assert len(caught.value.run_ids) == 600
            if is_replica:
                hands.redis.replicaof("NO", "ONE")
            else:
                hands.redis.config_set("maxmemory", 0)
            before = hands.waiting()
            assert hands.redis.exists(f"arq:job:{run_id}") == 0
            await client.enqueue(Echo(), run_id=run_id)
            assert set(hands.waiting()) == {*before, run_id}
        hands.close()


async def test_no_place_for_another_client_is_a_refusal(server: RedisServer, hands: Hands) -> None:
    hands.redis.config_set("maxclients", len(hands.redis.client_list()))
    try:
        async with Client(server.url) as client:
            with pytest.raises(QueueUnavailable) as caught:
                await client.enqueue(Echo())
    finally:
        hands.redis.config_set("maxclients", 10_000)
    # Redis answers before it has read anything, and closes; the answer may be overtaken by the close.
    assert caught.value.outcome == ("refused" if "max number of clients" in str(caught.value) else "unknown")
    assert hands.waiting() == []


async def test_many_callers_share_a_bounded_number_of_connections(client: Client, hands: Hands) -> None:
    before = hands.redis.info("stats")["total_connections_received"]
    runs = await asyncio.gather(*[client.enqueue(Echo(text=str(number))) for number in range(500)])
    assert hands.redis.info("stats")["total_connections_received"] - before <= MAX_CONNECTIONS
    assert [hands.payload(run.id)["k"]["text"] for run in runs] == [str(number) for number in range(500)]


async def test_callers_that_give_up_do_not_take_the_answers_of_others(client: Client, hands: Hands) -> None:
    chance = random.Random(7)  # noqa: S311 - the same in each run

    async def enqueue_and_check(number: int) -> None:
        run = await client.enqueue(Echo(text=str(number)))
        hands.redis.set(f"arq:result:{run.id}", f'{{"s":true,"r":{{"text":"{number}"}}}}')
        assert await run.status() is RunState.SUCCEEDED
        assert await run.result() == EchoReport(text=str(number))

    tasks = [asyncio.create_task(enqueue_and_check(number)) for number in range(300)]
    for _ in range(60):
        await asyncio.sleep(0)
        chance.choice(tasks).cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {type(None), asyncio.CancelledError}


async def test_a_client_that_is_closed_leaves_no_connection(server: RedisServer, hands: Hands) -> None:
    before = len(hands.redis.client_list())
    client = Client(server.url)
    run = await client.enqueue(Echo())
    hands.finish(run.id)
    await run.result()
    slow = asyncio.create_task(client.run(str(uuid7()), EchoReport, born_in_ledger=True).result())
    await asyncio.sleep(0)
    await client.close()
    with pytest.raises(QueueUnavailable, match="the client was closed"):
        await slow
    assert wait_until(lambda: len(hands.redis.client_list()) == before, PATIENCE_S)


async def test_options_in_the_url_do_not_change_what_is_read(server: RedisServer, hands: Hands) -> None:
    url = f"{server.url}?protocol=3&decode_responses=True&max_connections=3&health_check_interval=1"
    async with Client(url) as client:
        run = await client.enqueue(Echo())
        hands.finish(run.id)
        assert await run.result() == EchoReport(text=run.id)


async def test_a_user_with_a_password_and_a_database_of_its_own(server: RedisServer, hands: Hands) -> None:
    hands.redis.acl_setuser("producer", enabled=True, passwords=["+secret"], keys=["*"], categories=["+@all"])
    try:
        async with Client(server.url.replace("//", "//producer:secret@").replace("/0", "/3")) as client:
            (run_id,) = uuid7_texts(1)
            await client.enqueue(Echo(), run_id=run_id)
            other = Hands(server.url.replace("/0", "/3"))
            assert other.waiting() == [run_id]
            other.close()
        assert hands.waiting() == []
    finally:
        hands.redis.acl_deluser("producer")
