"""`holdfast.Client` when Redis is away, silent or cut off, refuses, or holds what no worker has written."""

import asyncio
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from holdfast import (
    Client,
    ImportReport,
    ImportTasks,
    QueueUnavailable,
    RunExists,
    SyncClient,
    WireFormatError,
    wire,
)
from holdfast.ids import uuid7
from tests.queue.engine.proxy import Proxy
from tests.queue.workplace import PATIENCE_S, Workplace
from tests.servers import RedisServer, free_port

REQUEST = ImportTasks(source="/imports/tasks.csv")
Connected = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listener(connected: Connected) -> AsyncIterator[tuple[str, list[int]]]:
    """Listens on a port; yields its Redis URL and a list that grows with each connection."""
    connections: list[int] = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(len(connections))
        try:
            await connected(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}", connections
    finally:
        server.close()


async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Reads everything and never answers."""
    del writer
    while await reader.read(4096):
        pass


async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers byte by byte for ever: no single wait for a byte is long."""
    del reader
    writer.write(b"$1000000\r\n")
    while not writer.is_closing():
        writer.write(b"x")
        await asyncio.sleep(0.01)


async def fails_with(url: str, outcome: str, words: str, *, timeout_s: float = 0.3) -> None:
    """Asserts that enqueueing raises the one typed error, soon."""
    async with asyncio.timeout(PATIENCE_S), Client(url, timeout_s=timeout_s) as client:
        with pytest.raises(QueueUnavailable, match=words) as caught:
            await client.enqueue(REQUEST)
    assert caught.value.outcome == outcome


async def test_a_closed_port_has_refused_the_request() -> None:
    await fails_with(
        f"redis://127.0.0.1:{free_port()}", "refused", "out of reach: .*connecting to 127.0.0.1", timeout_s=5
    )


async def test_a_socket_that_is_not_there_has_refused_the_request(tmp_path: Path) -> None:
    await fails_with(f"unix://{tmp_path / 'none.sock'}", "refused", "connecting to", timeout_s=5)


@pytest.mark.skipif(sys.platform != "linux", reason="how a full backlog behaves is told for Linux")
async def test_a_connection_that_does_not_come_to_be_has_refused_the_request() -> None:
    with socket.socket() as full, socket.socket() as first, socket.socket() as second:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for filler in (first, second):
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        await fails_with(f"redis://127.0.0.1:{full.getsockname()[1]}", "refused", "connecting to")


@pytest.mark.parametrize("answer", [swallow, drip])
async def test_a_server_that_does_not_answer_leaves_the_outcome_unknown(answer: Connected) -> None:
    async with listener(answer) as (url, connections):
        await fails_with(url, "unknown", "out of reach")
        assert len(connections) == 1  # a repetition of its own would find its id taken


def test_the_client_without_a_loop_raises_the_same() -> None:
    with SyncClient(f"redis://127.0.0.1:{free_port()}") as client, pytest.raises(QueueUnavailable) as caught:
        client.enqueue(REQUEST)
    assert caught.value.outcome == "refused"


async def test_an_error_reply_is_a_refusal(redis_url: str) -> None:
    place = urlsplit(redis_url).netloc
    async with Client(redis_url) as client:
        await client._connection.call("ACL", "SETUSER", "reader", "on", ">secret", "~*", "+get")
        await client._connection.call("SET", "arq:wrong", "a string")
    advice = "correct the user and the password of the URL"
    await fails_with(f"redis://reader:wrong@{place}/0", "refused", f"Redis refused: .*password.*; {advice}")
    advice = "give this user the rights of the producer"
    await fails_with(f"redis://reader:secret@{place}/0", "refused", f"Redis refused: .*permissions.*; {advice}")
    async with Client(redis_url, queue="arq:wrong") as client:
        with pytest.raises(QueueUnavailable, match="WRONGTYPE") as caught:
            await client.enqueue(REQUEST)
    assert caught.value.outcome == "refused"


def without_answer_to_enqueue(redis_url: str) -> AbstractAsyncContextManager[tuple[str, list[int]]]:
    """A way to Redis on which each request arrives, but the answer to an enqueue does not."""
    address = urlsplit(redis_url)

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_redis, to_redis = await asyncio.open_connection(address.hostname, address.port)
        try:
            while request := await reader.read(65536):
                to_redis.write(request)
                answer = await from_redis.read(65536)
                if b"EVAL" in request:
                    return
                writer.write(answer)
        finally:
            to_redis.close()

    return listener(forward)


async def test_an_enqueue_with_unknown_outcome_is_safely_repeated(redis_url: str, tmp_path: Path) -> None:
    place = Workplace(redis_url, tmp_path)
    request, run_id = place.import_request(), str(uuid7())
    async with without_answer_to_enqueue(redis_url) as (url, _), Client(url) as cut_off:
        with pytest.raises(QueueUnavailable) as caught:
            await cut_off.enqueue(request, run_id=run_id)
    assert caught.value.outcome == "unknown"
    async with Client(redis_url) as client:
        with pytest.raises(RunExists):
            await client.enqueue(request, run_id=run_id)
        with place.worker("--burst") as worker:
            report = await client.run(run_id, ImportReport).result(timeout_s=PATIENCE_S)
            assert worker.wait() == 0
    assert report.rows_read == 50
    async with place.ledger() as ledger:
        assert [run.job_id for run in await ledger.runs()] == [run_id]


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x80\x04\x95\x05\x00\x00\x00\x00\x00\x00\x00}\x94.",  # a pickle
        b"",
        b"[]",
        b'"text"',
        b"{}",
        b'{"s": 1, "r": {}}',
        b'{"s": true}',
        b"[" * 100_000,
        b'{"s": true, "r": null}',
        b'{"s": true, "r": {"rows_read": "many"}}',
    ],
)
async def test_a_result_that_is_none_is_named_as_such(redis_url: str, garbage: bytes) -> None:
    run_id = str(uuid7())
    async with Client(redis_url) as client:
        run = client.run(run_id, ImportReport)
        await client._connection.call("SET", wire.RESULT_KEY + run_id, garbage)
        with pytest.raises(WireFormatError):
            await run.result(timeout_s=PATIENCE_S)


@pytest.mark.parametrize("garbage", [b"\xff", b"[]", b"{}", b'{"done": "far"}'])
async def test_a_progress_that_is_none_is_named_as_such(redis_url: str, garbage: bytes) -> None:
    run_id = str(uuid7())
    async with Client(redis_url) as client:
        await client._connection.call("SET", wire.PROGRESS_KEY + run_id, garbage)
        with pytest.raises(WireFormatError):
            await client.run(run_id, ImportReport).progress()


async def test_connections_to_a_master_that_was_demoted_are_given_up(redis_server: RedisServer) -> None:
    with RedisServer() as demoted, Proxy(demoted.port) as proxy:
        async with Client(proxy.url) as client:
            await asyncio.gather(*(client.ping() for _ in range(5)))
            proxy.target = redis_server.port
            with demoted.connect() as redis:
                redis.replicaof("127.0.0.1", redis_server.port)
            with pytest.raises(QueueUnavailable, match="against a read only replica") as caught:
                await client.enqueue(REQUEST)
            assert caught.value.outcome == "refused"
            run = await client.enqueue(REQUEST)
            with redis_server.connect() as redis:
                assert redis.exists(wire.JOB_KEY + run.id)
