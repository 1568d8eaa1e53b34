"""What the embedded queue says of itself, and what it does with hostile bytes."""

import logging
import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from redis.exceptions import ResponseError

from tests.queue.embedded_clients import Wire, connect
from worker.embedded import EmbeddedRedis
from worker.embedded import front as front_module
from worker.embedded.resp import MAX_BULK_BYTES, MAX_LINE_BYTES, ProtocolError, RequestParser, encode

HOSTILE = [
    b"",
    b" ",
    b"\0",
    b"\0\0\0",
    b"\r\n",
    b"\n",
    b"\r",
    b"a\r\nb",
    b"$5\r\nhello\r\n",
    b"*1\r\n$4\r\nPING\r\n",
    b"-ERR not an error\r\n",
    b"+OK",
    b":1",
    b"\xff\xfe",
    b"\x80abc",
    b"\xc3\x28",
    "žluťoučký 任务 🧨".encode(),
    bytes(range(256)),
    b"'; DROP TABLE tasks; --",
    b"x" * 100_000,
]


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis(tmp_path) as running:
        yield running


@pytest.fixture(params=[2, 3], ids=["resp2", "resp3"])
def client(request: pytest.FixtureRequest, queue: EmbeddedRedis) -> Iterator[Any]:
    with closing(connect(queue.socket_path, protocol=request.param)) as connected:
        yield connected


@pytest.fixture
def wire(queue: EmbeddedRedis) -> Iterator[Wire]:
    with closing(Wire(queue.socket_path)) as connected:
        yield connected


# What clients ask on connecting, and of the server ------------------------------------------------------------------


def test_a_client_names_itself_and_is_listed(queue: EmbeddedRedis) -> None:
    with closing(connect(queue.socket_path, client_name="importer", db=3)) as client:
        assert client.client_getname() in {"importer", b"importer"}
        (listed,) = client.client_list()
        assert (listed["id"], listed["name"], listed["lib-name"]) == (str(client.client_id()), "importer", "redis-py")
        with pytest.raises(ResponseError, match="cannot contain spaces"):
            client.client_setname("two\nlines")


def test_info_names_the_process_and_its_sections(client: Any) -> None:
    client.set("key", "value")
    everything = client.info()
    assert everything["process_id"] == os.getpid()
    assert everything["used_memory"] > 1_000_000
    assert (everything["connected_clients"], everything["maxmemory_policy"]) == (1, "noeviction")
    assert everything["db0"]["keys"] == client.dbsize() == 1
    assert set(client.info("clients")) == {"connected_clients", "blocked_clients"}
    assert client.info("nosuch") == {}


def test_config_get_tells_that_nothing_is_evicted(client: Any) -> None:
    assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
    assert client.config_get("nosuch*") == {}


def test_what_it_does_not_have_is_an_error_and_the_connection_goes_on(client: Any) -> None:
    for command in (
        "CLIENT TRACKING ON",
        "NOSUCH",
        "ACL LIST",
        "FCALL f 0",
        "AUTH secret",
        "HELLO 4",
        "HELLO 2 AUTH u p",
    ):
        with pytest.raises(ResponseError):
            client.execute_command(*command.split())
    assert client.ping()
    assert client.execute_command("COMMAND COUNT") > 100


def test_a_password_is_refused_with_the_reason(queue: EmbeddedRedis) -> None:
    with (
        closing(connect(queue.socket_path, password="secret")) as client,
        pytest.raises(ResponseError, match="socket's file mode"),
    ):
        client.ping()


def test_values_have_the_types_of_their_protocol(client: Any) -> None:
    client.hset("hash", mapping={"a": 1, "b": 2})
    client.zadd("zset", {"low": 1, "high": 2.5})
    client.sadd("set", "x", "y")
    assert client.hgetall("hash") == {b"a": b"1", b"b": b"2"}
    assert client.zscore("zset", "high") == 2.5
    assert [tuple(pair) for pair in client.zrange("zset", 0, -1, withscores=True)] == [(b"low", 1.0), (b"high", 2.5)]
    assert client.smembers("set") == {b"x", b"y"}
    assert client.get("missing") is None
    assert client.blpop(["missing"], timeout=0.01) is None


# Hostile input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_bytes_come_back_as_they_went(client: Any, text: bytes) -> None:
    client.set(text, text)
    client.hset(b"hash" + text, text, text)
    client.zadd(b"zset" + text, {text: 1})
    assert client.get(text) == text
    assert client.hgetall(b"hash" + text) == {text: text}
    assert client.zrange(b"zset" + text, 0, -1) == [text]
    assert sorted(client.keys()) == sorted([text, b"hash" + text, b"zset" + text])
    assert client.eval("return {KEYS[1], ARGV[1], redis.call('get', KEYS[1])}", 1, text, text) == [text] * 3
    assert client.delete(text) == 1


@pytest.mark.parametrize(
    ("garbage", "said"),
    [
        (b"*1\r\n:5\r\n", b"expected '$', got b':'"),
        (b"*x\r\n", b"invalid multibulk length"),
        (b"*99999999\r\n", b"invalid multibulk length"),
        (b"*1\r\n$-1\r\n", b"invalid bulk length"),
        (b"*1\r\n$1_0\r\n", b"invalid bulk length"),
        (b"*1\r\n$%d\r\n" % (MAX_BULK_BYTES + 1), b"invalid bulk length"),
        (b"*1\r\n$4\r\nPINGXX", b"a bulk string does not end with CRLF"),
        (b"\x16\x03\x01\x02\x00\x01\n", b"neither an array of bulk strings nor a line of text"),
        (b"x" * MAX_LINE_BYTES, b"too big inline request"),
    ],
)
def test_garbage_ends_its_own_connection_only(queue: EmbeddedRedis, wire: Wire, garbage: bytes, said: bytes) -> None:
    with closing(Wire(queue.socket_path)) as other:
        wire.send(b"PING\r\n" + garbage)
        assert wire.rest() == b"+PONG\r\n-ERR Protocol error: " + said + b"\r\n"
        other.send(b"PING\r\n")
        assert other.line() == b"+PONG\r\n"


def test_requests_may_be_typed_or_come_in_pieces(wire: Wire) -> None:
    wire.send(b"\r\n*0\r\n*-1\r\nset  key value\nGET key\r\n")
    assert [wire.line() for _ in range(3)] == [b"+OK\r\n", b"$5\r\n", b"value\r\n"]
    for byte in b"*2\r\n$4\r\nECHO\r\n$4\r\na\r\nb\r\n":
        wire.send(bytes([byte]))
    assert [wire.line() for _ in range(3)] == [b"$4\r\n", b"a\r\n", b"b\r\n"]


def test_quit_answers_and_closes(wire: Wire) -> None:
    wire.send(b"PING\r\nQUIT\r\nPING\r\n")
    assert wire.rest() == b"+PONG\r\n+OK\r\n"


def test_a_request_is_limited_even_when_it_is_many_small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.embedded.resp.MAX_REQUEST_BYTES", 100)
    parser = RequestParser()
    parser.feed(b"*9\r\n" + b"$20\r\n" + b"x" * 20 + b"\r\n" + b"$20\r\n" + b"x" * 20 + b"\r\n")
    assert parser.next_request() is None
    with pytest.raises(ProtocolError, match="too big request"):
        parser.feed(b"$20\r\n" + b"x" * 60)


def test_a_client_that_does_not_read_is_dropped(
    queue: EmbeddedRedis, wire: Wire, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(front_module, "_MAX_UNSENT_BYTES", 1_000_000)
    with closing(connect(queue.socket_path)) as client, caplog.at_level(logging.WARNING, logger="worker.embedded"):
        client.set("big", b"x" * 1_000_000)
        wire.send(b"GET big\r\n" * 20)
        while client.info("clients")["connected_clients"] > 1:
            pass
    assert "does not read its replies" in caplog.text


def test_a_large_value_and_a_long_pipeline_pass(client: Any) -> None:
    value = os.urandom(5_000_000)
    assert client.set("large", value)
    pipe = client.pipeline(transaction=False)
    for _ in range(5):
        pipe.get("large")
    assert pipe.execute() == [value] * 5
    for number in range(20_000):
        pipe.rpush("list", number)
    assert pipe.execute() == list(range(1, 20_001))


def test_an_error_inside_fakeredis_is_an_error_reply(client: Any, caplog: pytest.LogCaptureFixture) -> None:
    with (
        caplog.at_level(logging.CRITICAL, logger="worker.embedded"),
        pytest.raises(ResponseError, match="cannot run this"),
    ):
        client.eval("return cjson.decode(ARGV[1])", 0, b"\xff")
    assert client.ping()


def test_a_value_without_a_form_on_the_wire_is_a_fault() -> None:
    with pytest.raises(TypeError, match="object has no form"):
        encode([object()], 2)
