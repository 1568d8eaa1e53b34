"""`enqueue_many` and the enqueue script: what stands in Redis afterwards, and in how many calls it came there."""

import json
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from holdfast import Client, Enqueued, PayloadTooLarge, QueueUnavailable, Run, RunExists, SyncClient, batches, scripts
from holdfast.ids import uuid7_texts
from tests.queue.wire_hands import Echo, EchoReport, Hands, LightEcho, Way

FAR = timedelta(hours=1)


@pytest.fixture
def hands(redis_url: str) -> Iterator[Hands]:
    hands = Hands(redis_url)
    yield hands
    hands.close()


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[Client]:
    async with Client(redis_url) as client:
        yield client


async def test_many_come_in_their_order_in_one_call_for_each_five_hundred(client: Client, hands: Hands) -> None:
    requests = [Echo(text=f"number {number}") for number in range(1250)]
    hands.redis.config_resetstat()
    enqueued = await client.enqueue_many(requests)
    assert hands.calls("eval", "evalsha") == 3
    assert type(enqueued) is Enqueued
    assert (len(enqueued.runs), enqueued.taken) == (1250, ())
    ids = [run.id for run in enqueued.runs]
    assert all(UUID(run_id).version == 7 for run_id in ids)
    assert hands.waiting() == ids == hands.intake()
    for run, request in zip(enqueued.runs, requests, strict=True):
        assert isinstance(run, Run)
        payload = hands.payload(run.id)
        assert payload == {"t": None, "f": "echo", "a": [], "k": {"text": request.text}, "et": payload["et"]}
    hands.finish(ids[700])
    assert await enqueued.runs[700].result() == EchoReport(text=ids[700])


async def test_one_request_many_times_is_many_runs(client: Client, hands: Hands) -> None:
    request = Echo(text="again")
    enqueued = await client.enqueue_many([request] * 10)
    assert len(set(hands.waiting())) == 10
    assert {json.dumps(hands.payload(run.id)["k"]) for run in enqueued.runs} == {'{"text": "again"}'}


async def test_a_due_time_is_everybodys(client: Client, hands: Hands) -> None:
    at = datetime.now(UTC) + FAR
    enqueued = await client.enqueue_many([Echo(), LightEcho()], at=at)
    scores = [hands.redis.zscore("arq:queue", run.id) for run in enqueued.runs]
    assert scores == [int(at.timestamp() * 1000)] * 2


async def test_taken_ids_are_told_and_the_others_enqueued(client: Client, hands: Hands) -> None:
    waiting, over, twice, fresh = ids = uuid7_texts(4)
    await client.enqueue(Echo(text="first"), run_id=waiting)
    hands.finish(over)
    requests = [Echo(text=text) for text in ("waiting", "over", "twice", "fresh", "twice again")]
    enqueued = await client.enqueue_many(requests, run_ids=[*ids, twice])
    assert enqueued.taken == (waiting, over, twice)
    assert [run.id for run in enqueued.runs] == [*ids, twice]
    assert hands.waiting() == [waiting, twice, fresh]
    assert hands.intake() == [waiting, twice, fresh]
    assert [hands.payload(run_id)["k"]["text"] for run_id in (waiting, twice, fresh)] == ["first", "twice", "fresh"]
    assert (await client.enqueue_many(requests[:4], run_ids=ids)).taken == tuple(ids)


async def test_an_answer_that_is_lost_midway_is_repeated_without_doubles(redis_url: str, hands: Hands) -> None:
    requests = [Echo(text=str(number)) for number in range(1200)]
    async with Way(redis_url).listening() as way, Client(way.url) as client:
        way.let_through = 1
        with pytest.raises(QueueUnavailable) as caught:
            await client.enqueue_many(requests)
        assert caught.value.outcome == "unknown"
        assert len(caught.value.run_ids) == 1200
        assert hands.waiting() == list(caught.value.run_ids[:1000])
        way.let_through = None
        enqueued = await client.enqueue_many(requests, run_ids=caught.value.run_ids)
    assert enqueued.taken == caught.value.run_ids[:1000]
    assert hands.waiting() == list(caught.value.run_ids)


async def test_one_enqueue_names_its_id_when_its_outcome_is_unknown(redis_url: str, hands: Hands) -> None:
    async with Way(redis_url).listening() as way, Client(way.url) as client:
        way.let_through = 0
        with pytest.raises(QueueUnavailable) as caught:
            await client.enqueue(Echo())
        (run_id,) = caught.value.run_ids
        way.let_through = None
        with pytest.raises(RunExists, match=run_id):
            await client.enqueue(Echo(), run_id=run_id)
    assert hands.waiting() == [run_id]


async def test_nothing_is_sent_when_one_of_many_is_too_large(client: Client, hands: Hands) -> None:
    with pytest.raises(PayloadTooLarge):
        await client.enqueue_many([*[Echo()] * 600, Echo(text="x" * 1024 * 1024)])
    assert hands.redis.dbsize() == 0


async def test_a_call_carries_a_bounded_number_of_bytes(
    client: Client, hands: Hands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "CALL_BYTES", 1000)
    requests = [Echo(text="x" * size) for size in (300, 300, 300, 2000, 300, 300)]
    hands.redis.config_resetstat()
    enqueued = await client.enqueue_many(requests)
    assert hands.calls("eval", "evalsha") == 4  # two, one, the large one, two
    assert hands.waiting() == [run.id for run in enqueued.runs]


async def test_none_is_nothing(client: Client, hands: Hands) -> None:
    assert await client.enqueue_many([]) == Enqueued((), ())
    assert hands.redis.dbsize() == 0


async def test_each_request_needs_its_own_id_and_key(client: Client) -> None:
    with pytest.raises(ValueError, match="run_ids has 1 items for 2 requests"):
        await client.enqueue_many([Echo(), Echo()], run_ids=["one"])
    with pytest.raises(ValueError, match="unique_keys has 3 items for 2 requests"):
        await client.enqueue_many([Echo(), Echo()], unique_keys=["a", "b", None])


async def test_unique_keys_are_told_to_the_workers(client: Client, hands: Hands) -> None:
    one = await client.enqueue(Echo(), unique_key='the "1st"')
    many = await client.enqueue_many([Echo()] * 3, unique_keys=["a", None, "b"])
    keys = [hands.payload(run.id).get("u", "none") for run in (one, *many.runs)]
    assert keys == ['the "1st"', "a", "none", "b"]


async def test_kinds_without_a_ledger_are_not_announced_to_it(client: Client, hands: Hands) -> None:
    light = await client.enqueue(LightEcho())
    mixed = await client.enqueue_many([LightEcho(text="0"), Echo(text="1"), LightEcho(text="2"), Echo(text="3")])
    assert hands.intake() == [mixed.runs[1].id, mixed.runs[3].id]
    assert set(hands.waiting()) == {light.id, *(run.id for run in mixed.runs)}
    texts = [hands.payload(run.id)["k"]["text"] for run in mixed.runs]
    assert texts == ["0", "1", "2", "3"]


async def test_the_intake_list_keeps_the_newest_where_nobody_reads_it(client: Client, hands: Hands) -> None:
    hands.redis.rpush("arq:queue:intake", *[f"old {number}" for number in range(scripts.INTAKE_RUNS)])
    enqueued = await client.enqueue_many([Echo()] * 3)
    kept = hands.intake()
    assert len(kept) == scripts.INTAKE_RUNS
    assert kept[0] == "old 3"
    assert kept[-3:] == [run.id for run in enqueued.runs]


@pytest.mark.parametrize("key", ["arq:queue", "arq:queue:intake"])
async def test_a_key_of_another_type_refuses_and_takes_no_id(client: Client, hands: Hands, key: str) -> None:
    hands.redis.set(key, "a string")
    (run_id,) = uuid7_texts(1)
    with pytest.raises(QueueUnavailable, match="WRONGTYPE") as caught:
        await client.enqueue(Echo(), run_id=run_id)
    assert caught.value.outcome == "refused"
    hands.redis.delete(key)
    await client.enqueue(Echo(), run_id=run_id)
    assert hands.waiting() == [run_id]


async def test_a_waiting_run_takes_less_than_600_bytes(client: Client, hands: Hands) -> None:
    before = hands.redis.info("memory")["used_memory_dataset"]
    await client.enqueue_many([Echo(text="x", number=number) for number in range(20_000)])
    assert (hands.redis.info("memory")["used_memory_dataset"] - before) / 20_000 < 600


async def test_redis_that_forgot_the_script_gets_it_again(client: Client, hands: Hands) -> None:
    await client.enqueue(Echo())
    hands.redis.config_resetstat()
    await client.enqueue(Echo())
    assert (hands.calls("eval"), hands.calls("evalsha")) == (0, 1)
    hands.redis.script_flush()
    enqueued = await client.enqueue_many([Echo()] * 600)
    assert len(hands.waiting()) == 602
    assert enqueued.taken == ()


def test_the_client_without_a_loop_does_the_same(redis_url: str, hands: Hands) -> None:
    with SyncClient(redis_url) as client:
        first = client.enqueue(Echo(text="one"), unique_key="k")
        enqueued = client.enqueue_many(
            [Echo(), Echo(text="b")], run_ids=[first.id, "own"], unique_keys=[None, "b"], at=datetime.now(UTC) + FAR
        )
        assert enqueued.taken == (first.id,)
        assert hands.payload("own")["u"] == "b"
        assert hands.waiting() == [first.id, "own"]
        hands.finish("own", {"text": "done"})
        assert enqueued.runs[1].result() == EchoReport(text="done")
        assert client.run("own", EchoReport).result() == EchoReport(text="done")
