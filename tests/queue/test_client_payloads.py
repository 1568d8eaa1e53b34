"""What a client refuses before Redis is asked, and that a request and its JSON are the same."""

import json
import math
import time
from typing import Any, cast
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from holdfast import Client, ImportTasks, PayloadTooLarge, outbox, wire
from holdfast.batches import request_payload
from holdfast.ids import uuid7, uuid7_texts
from tests.queue.wire_hands import Echo, Hands
from tests.servers import free_port

TEXTS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=50)
NOWHERE = "redis://127.0.0.1:{}"


async def test_a_request_may_be_as_large_as_the_limit(redis_url: str) -> None:
    hands = Hands(redis_url)
    async with Client(redis_url, max_payload_bytes=1000) as client:
        empty = await client.enqueue(Echo(text="x"))
        rest = 1000 - hands.redis.strlen(f"arq:job:{empty.id}")
        largest = await client.enqueue(Echo(text="x" * (rest + 1)))
        assert hands.redis.strlen(f"arq:job:{largest.id}") == 1000
        with pytest.raises(
            PayloadTooLarge, match="the echo request has 1001 bytes but max_payload_bytes is 1000"
        ) as no:
            await client.enqueue(Echo(text="x" * (rest + 2)))
        assert (no.value.payload_bytes, no.value.max_bytes) == (1001, 1000)
        with pytest.raises(PayloadTooLarge, match="put the data where the worker can read it and pass its place"):
            await client.enqueue(Echo(text="ä" * 1000))
    assert hands.waiting() == [empty.id, largest.id]
    hands.close()


async def test_the_limit_is_one_mebibyte_and_redis_is_not_asked() -> None:
    async with Client(NOWHERE.format(free_port())) as client:
        with pytest.raises(PayloadTooLarge, match="max_payload_bytes is 1048576"):
            await client.enqueue(Echo(text="x" * 1024 * 1024))


async def test_the_outbox_has_the_same_limits() -> None:
    session = cast("Any", None)  # it is not used
    with pytest.raises(PayloadTooLarge):
        await outbox.enqueue(session, Echo(text="x" * 1024 * 1024))
    with pytest.raises(PayloadTooLarge):
        await outbox.enqueue(session, Echo(text="x" * 100), max_payload_bytes=100)
    with pytest.raises(ValueError, match="unique_key=''"):
        await outbox.enqueue(session, Echo(), unique_key="")
    whole = len(request_payload(Echo(), 1_767_225_600_000, max_bytes=1000))
    with pytest.raises(PayloadTooLarge, match="or raise it here and MAX_PAYLOAD_BYTES of the workers"):
        await outbox.enqueue(session, Echo(), max_payload_bytes=whole - 1)


async def test_texts_that_look_like_an_escape_are_taken(redis_url: str) -> None:
    async with Client(redis_url) as client:
        await client.enqueue(Echo(text="\\u0000 \x1f \\\\u0000"), unique_key="ä\\ud800")


@pytest.mark.parametrize("key", ["", "k" * 151])
async def test_a_unique_key_has_1_to_150_characters(key: str) -> None:
    async with Client(NOWHERE.format(free_port())) as client:
        with pytest.raises(ValueError, match=f"of {len(key)} characters: it needs 1 to 150; use a hash"):
            await client.enqueue(Echo(), unique_key=key)
        with pytest.raises(ValueError, match="it needs 1 to 150"):
            await client.enqueue_many([Echo(), Echo()], unique_keys=[None, key])


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_what_json_cannot_say_cannot_be_asked_for(number: float) -> None:
    with pytest.raises(ValidationError, match="finite"):
        Echo(number=number)


@given(source=TEXTS, constants=st.dictionaries(st.just("title"), TEXTS.filter(lambda text: "\x00" not in text)))
def test_a_request_and_its_json_are_the_same(source: str, constants: dict[str, str]) -> None:
    request = ImportTasks(source=source, constants=constants, batch_rows=7)
    assert json.loads(request.payload_json()) == request.payload()
    payload = wire.job_payload(request.kind, request.payload_json(), 1_700_000_000_000, unique_key=source)
    assert wire.loads(payload) == wire.loads(payload) | {"k": request.payload(), "u": source, "f": "import_tasks"}
    assert wire.loads(wire.job_payload(request.kind, request.payload(), 5)) == {
        "t": None,
        "f": "import_tasks",
        "a": [],
        "k": request.payload(),
        "et": 5,
    }


def test_ids_of_one_process_sort_as_they_were_made() -> None:
    ids = [str(uuid7()), *uuid7_texts(3000), str(uuid7()), *uuid7_texts(3000), str(uuid7())]
    assert ids == sorted(set(ids))
    for text in ids:
        made = UUID(text)
        assert (made.version, made.variant, str(made)) == (7, "specified in RFC 4122", text)


def test_ids_sort_even_when_the_clock_steps_back(monkeypatch: pytest.MonkeyPatch) -> None:
    now, first = time.time_ns(), str(uuid7())
    monkeypatch.setattr("time.time_ns", lambda: now - 1_000_000_000)
    assert uuid7_texts(2)[0] > first
