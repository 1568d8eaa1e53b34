"""Redis with sentinels: the worker and its producers go on with the new master, by TLS and with passwords, too."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import pytest
from arq.connections import ArqRedis

from holdfast import Client, QueueUnavailable, RunCancelled, RunState, wire
from holdfast.ids import uuid7
from tests.faults.history import Expected
from tests.queue.workplace import PATIENCE_S, SUCCESS, Workplace
from tests.servers import Certificate, RedisServer, SentinelServer, wait_until
from tests.skips import made_or_skipped
from worker.queue.sync_client import sync_client
from worker.redis_url import arq_connection

Made = TypeVar("Made")
PASSWORD = "canary"
LEASES = f"{wire.DEFAULT_QUEUE}:leases"


@dataclass
class Watched:
    """A master, its replica, and the sentinel that watches over them."""

    master: RedisServer
    replica: RedisServer
    sentinel: SentinelServer

    def await_replication(self) -> None:
        with self.master.connect() as client:
            assert wait_until(lambda: bool(client.wait(1, 1000)), PATIENCE_S)


@contextlib.contextmanager
def watched(certificate: Certificate | None = None) -> Iterator[Watched]:
    with contextlib.ExitStack() as stack:
        start: Callable[[Any], Any] = stack.enter_context
        master = start(RedisServer(password=PASSWORD, certificate=certificate))
        following = ["--replicaof", "127.0.0.1", str(master.port)]
        replica = start(RedisServer(password=PASSWORD, certificate=certificate, extra_args=following))
        yield Watched(master, replica, start(SentinelServer(master, password=PASSWORD)))


async def patiently(call: Callable[[], Awaitable[Made]]) -> Made:
    """What a producer does: once more while there is no master."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                return await call()
            except QueueUnavailable:
                await asyncio.sleep(0.1)


@pytest.mark.parametrize("end_of_the_master", ["is demoted", "dies"])
async def test_runs_go_on_with_the_new_master(
    tmp_path: Path, pytestconfig: pytest.Config, end_of_the_master: str
) -> None:
    with made_or_skipped(watched, pytestconfig) as servers:
        place = Workplace(servers.sentinel.url, tmp_path)
        async with Client(place.redis_url) as client, place.ledger() as ledger:
            with place.started_worker(LEASE_S="1.5") as worker:
                endless = await client.enqueue(place.import_request("endless.csv", rows=10_000, batch_rows=1))
                long = await client.enqueue(place.import_request("long.csv", rows=1000, batch_rows=10))
                for run in (endless, long):
                    await ledger.until(UUID(run.id), "running", rows_read=1)
                waiting = asyncio.create_task(patiently(lambda: long.result(timeout_s=PATIENCE_S)))
                servers.await_replication()
                if end_of_the_master == "dies":
                    servers.master.kill()
                    assert wait_until(lambda: servers.sentinel.master_port() == servers.replica.port, PATIENCE_S)
                else:
                    servers.sentinel.fail_over()
                with servers.replica.connect() as redis:
                    before = redis.zscore(LEASES, endless.id)
                    assert wait_until(lambda: redis.zscore(LEASES, endless.id) > before, PATIENCE_S)
                run_id = str(uuid7())
                request = place.import_request("small.csv")
                small = await patiently(lambda: client.enqueue(request, run_id=run_id))
                assert (await patiently(lambda: small.result(timeout_s=PATIENCE_S))).rows_read == 50
                assert (await waiting).rows_read == 1000
                assert await patiently(endless.cancel)
                with pytest.raises(RunCancelled):
                    await patiently(lambda: endless.result(timeout_s=PATIENCE_S))
                assert worker.terminate() == 0
            states = {run.job_id: (run.state, run.fence) for run in await ledger.runs()}
            assert states == {
                endless.id: ("cancelled", 1),
                **dict.fromkeys([long.id, small.id], ("succeeded", 1)),
            }
            cancelled = Expected(0, frozenset({RunState.CANCELLED}))
            assert await ledger.problems({endless.id: cancelled, long.id: SUCCESS, small.id: SUCCESS}) == []
    assert PASSWORD not in worker.text


@pytest.mark.parametrize("has_sentinel", [False, True], ids=["a server", "a sentinel"])
async def test_by_tls(tmp_path: Path, pytestconfig: pytest.Config, *, has_sentinel: bool) -> None:
    """The worker, its thread that renews leases, and the client; a certificate of somebody else is refused."""
    certificate = made_or_skipped(lambda: make_certificate(tmp_path / "ours"), pytestconfig)
    other = make_certificate(tmp_path / "another's")
    with made_or_skipped(lambda: watched(certificate), pytestconfig) as servers:
        url = servers.sentinel.url if has_sentinel else servers.master.url
        place = Workplace(url, tmp_path)
        async with Client(url) as client:
            run = await client.enqueue(place.import_request())
            with place.worker("--burst") as worker:
                assert (await run.result(timeout_s=PATIENCE_S)).rows_read == 50
                assert worker.wait() == 0
        pool = arq_pool(url)
        with sync_client(pool.connection_pool, 5.0) as client_of_the_thread:
            assert client_of_the_thread.ping()
        assert await pool.ping()
        await pool.aclose(close_connection_pool=True)
        refused = url.replace(str(certificate.certificate), str(other.certificate))
        with place.worker(REDIS_URL=refused, STARTUP_PATIENCE_S="0", name="refused") as refused_worker:
            assert refused_worker.wait() == 1
    assert "certificate verify failed" in refused_worker.text.splitlines()[-1]
    assert PASSWORD not in worker.text + refused_worker.text


def make_certificate(folder: Path) -> Certificate:
    folder.mkdir()
    return Certificate.make(folder)


def arq_pool(url: str) -> Any:
    connection = arq_connection(url, wire.DEFAULT_QUEUE)
    if "redis_pool" in connection:
        return connection["redis_pool"]
    settings = connection["redis_settings"]
    kept = ("host", "port", "password", "ssl", "ssl_ca_certs", "ssl_check_hostname")
    return ArqRedis(**{name: getattr(settings, name) for name in kept})


async def test_sentinels_that_are_away_are_passed_over(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    with made_or_skipped(watched, pytestconfig) as servers:
        url = servers.sentinel.url.replace("127.0.0.1:", "127.0.0.1:1,127.0.0.1:", 1)
        place = Workplace(url, tmp_path)
        async with Client(url) as client:
            run = await client.enqueue(place.import_request())
            with place.worker("--burst") as worker:
                assert (await run.result(timeout_s=PATIENCE_S)).rows_read == 50
                assert worker.wait() == 0


def test_a_master_that_no_sentinel_knows_is_one_line_without_passwords(
    tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    with made_or_skipped(watched, pytestconfig) as servers:
        port = servers.sentinel.port
        settings = {"REDIS_URL": servers.sentinel.url.replace("service=mymaster", "service=another")}
        with Workplace("", tmp_path).worker(STARTUP_PATIENCE_S="0.2", **settings) as worker:
            assert worker.wait() == 1
    assert worker.text.splitlines()[-1] == (
        f"error: REDIS_URL redis+sentinel://127.0.0.1:{port}/0?service=another: no sentinel names a master 'another' "
        f"that is up (127.0.0.1:{port} knows no such master); start Redis or correct the URL"
    )
    assert PASSWORD not in worker.text
