"""What a producer may get wrong: it is told what, why and what to do, and nothing has been sent."""

from collections.abc import AsyncIterator, Iterator
from typing import Any, cast

import pytest

from holdfast import Client, ImportTasks, SyncClient
from tests.queue.wire_hands import Echo, EchoReport, Hands

BAD_IDS = ["", "x" * 256, "a\0b", "\ud800", 5]


@pytest.fixture
def hands(redis_url: str) -> Iterator[Hands]:
    hands = Hands(redis_url)
    yield hands
    assert hands.waiting() == []
    hands.close()


@pytest.fixture
async def client(redis_url: str, hands: Hands) -> AsyncIterator[Client]:
    del hands
    async with Client(redis_url) as client:
        yield client


@pytest.mark.parametrize("run_id", BAD_IDS)
async def test_an_id_that_no_ledger_keeps(client: Client, run_id: Any) -> None:
    """A worker would park the entry in quarantine, long after the producer was told that it is enqueued."""
    rule = r"run_id=.*: it must be text of 1 to 255 characters without NUL; use a UUID version 7"
    with pytest.raises(ValueError, match=rule):
        await client.enqueue(Echo(), run_id=run_id)
    with pytest.raises(ValueError, match=rule):
        await client.enqueue_many([Echo(), Echo()], run_ids=["good", run_id])


@pytest.mark.parametrize("request_", [{"source": "/x"}, None, ImportTasks])
async def test_what_is_no_request(client: Client, request_: Any) -> None:
    rule = r"is no request: pass one, as ImportTasks\(source=...\)"
    with pytest.raises(TypeError, match=rule):
        await client.enqueue(request_)
    with pytest.raises(TypeError, match=rule):
        await client.enqueue_many(cast("list[Echo]", [Echo(), request_]))


@pytest.mark.parametrize(
    ("text", "unique_key", "rule"),
    [
        ("a\0b", None, r"the echo request holds a NUL character \(U\+0000\): take it out"),
        ("\ud800", None, "the echo request cannot be written as JSON: .* surrogates not allowed; change that value"),
        ("\\u0000", "a\0b", "unique_key='a.x00b': it must be text without NUL and half surrogate pairs"),
        ("", "\udcff", "unique_key='.udcff': it must be text"),
    ],
)
async def test_text_that_no_ledger_keeps(client: Client, text: str, unique_key: str | None, rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        await client.enqueue(Echo(text="").model_copy(update={"text": text}), unique_key=unique_key)


def test_settings_under_which_nothing_could_work(redis_url: str) -> None:
    for timeout_s in (0, -1, float("nan")):
        with pytest.raises(ValueError, match=r"timeout_s=.*: it must be more than 0 seconds"):
            Client(redis_url, timeout_s=timeout_s)
    with pytest.raises(ValueError, match="queue is empty: name it, as arq:queue"):
        Client(redis_url, queue="")


async def test_the_client_without_a_loop_inside_of_one(redis_url: str) -> None:
    client = SyncClient(redis_url)
    with pytest.raises(RuntimeError, match=r"SyncClient was called inside a running event loop: await .* Client"):
        client.enqueue(Echo())


def test_the_client_without_a_loop_is_closed_once(redis_url: str) -> None:
    with SyncClient(redis_url) as client:
        run = client.run("0198c0de-0000-7000-8000-000000000000", EchoReport)
        client.close()
    client.close()
    with pytest.raises(RuntimeError, match="this SyncClient was closed: make another one"):
        run.status()
