"""What each client of the embedded queue has of its own: transactions, scripts, blocking commands, subscriptions."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from redis.exceptions import ResponseError, WatchError

from tests.queue.embedded_clients import Wire, connect, wait_until_blocked
from worker.embedded import EmbeddedRedis


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


# Pipelines, transactions, scripts -----------------------------------------------------------------------------------


def test_an_error_in_a_pipeline_stops_nothing(client: Any) -> None:
    pipe = client.pipeline(transaction=False)
    pipe.set("text", "value").lpush("text", "no list").execute_command("NOSUCH").get("text")
    first, wrong_type, unknown, last = pipe.execute(raise_on_error=False)
    assert (first, last) == (True, b"value")
    assert isinstance(wrong_type, ResponseError)
    assert "WRONGTYPE" in str(wrong_type)
    assert isinstance(unknown, ResponseError)


def test_exec_keeps_the_replies_beside_an_error(client: Any) -> None:
    pipe = client.pipeline(transaction=True)
    pipe.set("text", "value").lpush("text", "no list").get("text").info("server")
    first, wrong_type, last, info = pipe.execute(raise_on_error=False)
    assert (first, last) == (True, b"value")
    assert isinstance(wrong_type, ResponseError)
    assert info["redis_mode"] == "standalone"


def test_a_transaction_with_a_request_that_cannot_be_queued_is_not_run(wire: Wire) -> None:
    wire.send(b"MULTI\r\nSET key value\r\nNOSUCH\r\nEXEC\r\nGET key\r\n")
    assert [wire.line() for _ in range(2)] == [b"+OK\r\n", b"+QUEUED\r\n"]
    assert wire.line().startswith(b"-ERR unknown command")
    assert wire.line().startswith(b"-EXECABORT")
    assert wire.line() == b"$-1\r\n"


def test_a_watched_key_that_changed_refuses_the_transaction(queue: EmbeddedRedis, client: Any) -> None:
    with closing(connect(queue.socket_path)) as other, client.pipeline() as pipe:
        pipe.watch("key")
        other.set("key", "theirs")
        pipe.multi()
        pipe.set("key", "ours")
        with pytest.raises(WatchError):
            pipe.execute()
        assert client.get("key") == b"theirs"


def test_transactions_of_two_clients_do_not_mix(queue: EmbeddedRedis, wire: Wire) -> None:
    with closing(Wire(queue.socket_path)) as other:
        wire.send(b"SELECT 1\r\nMULTI\r\nSET key mine\r\n")
        assert [wire.line() for _ in range(3)] == [b"+OK\r\n", b"+OK\r\n", b"+QUEUED\r\n"]
        other.send(b"GET key\r\n")
        assert other.line() == b"$-1\r\n"
        wire.send(b"EXEC\r\n")
        assert [wire.line() for _ in range(2)] == [b"*1\r\n", b"+OK\r\n"]
        other.send(b"GET key\r\nSELECT 1\r\nGET key\r\n")
        assert [other.line() for _ in range(4)] == [b"$-1\r\n", b"+OK\r\n", b"$4\r\n", b"mine\r\n"]


def test_scripts_run_by_text_and_by_digest(client: Any) -> None:
    script = "redis.call('zadd', KEYS[1], ARGV[1], 'x') return {redis.call('zscore', KEYS[1], 'x'), 7, false}"
    assert client.eval(script, 1, "zset", 3) == [b"3", 7, None]
    assert client.register_script("return ARGV[1]")(args=["x"]) == b"x"
    digest = client.script_load("return redis.error_reply('MYERR no')")
    with pytest.raises(ResponseError, match="MYERR no"):
        client.evalsha(digest, 0)
    with pytest.raises(ResponseError):
        client.evalsha("0" * 40, 0)


def test_a_script_reaches_neither_python_nor_the_system_and_does_not_block(client: Any) -> None:
    assert client.eval("return {type(python), type(io), type(os.execute), type(require)}", 0) == [b"nil"] * 4
    with pytest.raises(ResponseError):
        client.eval("return redis.call('blpop', 'nothing', 0)", 0)
    client.xadd("stream", {"field": "value"}, id="1-1")
    assert not client.eval("return redis.call('xread', 'block', 0, 'streams', 'stream', '9-9')", 0)
    assert client.ping()


# Blocking and subscriptions -----------------------------------------------------------------------------------------


def test_a_blocked_client_holds_up_nobody(client: Any, wire: Wire) -> None:
    wire.send(b"BLPOP list 0\r\nPING\r\n")
    wait_until_blocked(client, 1)
    client.set("other", "work")
    client.rpush("list", "element")
    assert [wire.line() for _ in range(6)] == [
        b"*2\r\n",
        b"$4\r\n",
        b"list\r\n",
        b"$7\r\n",
        b"element\r\n",
        b"+PONG\r\n",
    ]
    assert client.llen("list") == 0


def test_a_blocked_client_outlives_a_key_of_another_type(client: Any, wire: Wire) -> None:
    wire.send(b"BLPOP list 0\r\n")
    wait_until_blocked(client, 1)
    client.set("list", "a string")
    client.delete("list")
    client.rpush("list", "element")
    assert wire.line() == b"*2\r\n"


def test_a_blocking_command_times_out_with_a_null_array(wire: Wire) -> None:
    wire.send(b"BLPOP list 0.01\r\nBLPOP list nonsense\r\nGET list\r\n")
    assert wire.line() == b"*-1\r\n"
    assert wire.line().startswith(b"-ERR timeout")
    assert wire.line() == b"$-1\r\n"


def test_a_client_that_left_while_blocked_takes_nothing_with_it(queue: EmbeddedRedis) -> None:
    with closing(connect(queue.socket_path)) as client:
        with closing(Wire(queue.socket_path)) as gone:
            gone.send(b"BLPOP list 0\r\n")
            wait_until_blocked(client, 1)
        wait_until_blocked(client, 0)
        client.rpush("list", "element")
        assert client.lrange("list", 0, -1) == [b"element"]


def test_client_kill_closes_the_connection(client: Any, wire: Wire) -> None:
    wire.send(b"CLIENT ID\r\n")
    number = int(wire.line()[1:])
    assert client.client_kill_filter(_id=str(number)) == 1
    assert wire.rest() == b""
    with pytest.raises(ResponseError):
        client.client_kill("no:such")


def test_messages_reach_their_subscribers(queue: EmbeddedRedis, client: Any) -> None:
    with closing(connect(queue.socket_path)) as publisher, client.pubsub(ignore_subscribe_messages=False) as listener:
        listener.subscribe("news")
        listener.psubscribe("n*")
        assert [message["type"] for message in (next_message(listener) for _ in range(2))] == [
            "subscribe",
            "psubscribe",
        ]
        assert publisher.publish("news", b"\xff\r\n") == 2
        messages = [next_message(listener) for _ in range(2)]
        assert [(message["type"], message["data"]) for message in messages] == [
            ("message", b"\xff\r\n"),
            ("pmessage", b"\xff\r\n"),
        ]
    assert client.publish("news", "nobody") == 0


def next_message(listener: Any) -> dict[str, Any]:
    message: dict[str, Any] | None = listener.get_message(timeout=30)
    assert message is not None
    return message


def test_resp3_marks_messages_as_pushed(wire: Wire) -> None:
    wire.send(b"HELLO 3 SETNAME listener\r\nSUBSCRIBE news\r\n")
    assert wire.line() == b"%7\r\n"
    while wire.line() != b"*0\r\n":
        pass
    assert wire.line() == b">3\r\n"
