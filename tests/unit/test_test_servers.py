"""The servers that the tests start for themselves."""

import contextlib
import os
import select
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

import pytest
import redis
from sqlalchemy import inspect, make_url
from sqlalchemy.ext.asyncio import create_async_engine

from tests import skips
from tests.servers import (
    MariaDBServer,
    PostgresServer,
    RedisServer,
    Server,
    ServerError,
    free_port,
    wait_until,
)
from tests.servers.guard import signal_tree

CHECKOUT = Path(__file__).parents[2]
CLASSES = {"redis": RedisServer, "postgres": PostgresServer, "mariadb": MariaDBServer}

DatabaseServer = PostgresServer | MariaDBServer


@pytest.fixture(params=["postgres", "mariadb"])
def database_server(request: pytest.FixtureRequest) -> DatabaseServer:
    server = request.getfixturevalue(f"{request.param}_server")
    assert isinstance(server, PostgresServer | MariaDBServer)
    return server


@pytest.fixture(params=["postgres", "mariadb"])
def own_database_server(request: pytest.FixtureRequest, pytestconfig: pytest.Config) -> Iterator[DatabaseServer]:
    make: Callable[[], DatabaseServer] = PostgresServer if request.param == "postgres" else MariaDBServer
    with skips.made_or_skipped(make, pytestconfig) as server:
        yield server


@pytest.fixture
def own_redis(pytestconfig: pytest.Config) -> Iterator[RedisServer]:
    with skips.made_or_skipped(RedisServer, pytestconfig) as server:
        yield server


@pytest.mark.smoke
def test_redis_url_is_an_empty_redis(redis_url: str, redis_server: RedisServer) -> None:
    with redis.Redis.from_url(redis_url) as client:
        assert client.dbsize() == 0
        client.set("left", "over")
        redis_server.flush()
        assert client.dbsize() == 0


@pytest.mark.smoke
def test_sqlite_url_is_a_fresh_file(sqlite_url: str) -> None:
    path = Path(urlsplit(sqlite_url).path.removeprefix("/"))
    assert not path.exists()
    with sqlite3.connect("/" / path) as connection:
        connection.execute("CREATE TABLE empty (id INTEGER)")
    connection.close()


@pytest.mark.parametrize(("fixture", "driver"), [("postgres_url", "asyncpg"), ("mariadb_url", "asyncmy")])
async def test_urls_are_for_drivers(fixture: str, driver: str, request: pytest.FixtureRequest) -> None:
    url = make_url(request.getfixturevalue(fixture))
    engine = create_async_engine(url.set(drivername=f"{url.drivername}+{driver}"))
    try:
        async with engine.connect() as connection:
            assert not await connection.run_sync(lambda sync: inspect(sync).get_table_names())
    finally:
        await engine.dispose()


def test_database_url_runs_on_each_engine(database_url: str, request: pytest.FixtureRequest) -> None:
    assert urlsplit(database_url).scheme == request.node.callspec.id


def test_databases_are_apart(database_server: DatabaseServer) -> None:
    first, second = database_server.create_database(), database_server.create_database()
    try:
        database_server.execute("CREATE TABLE kept (id INTEGER)", first)
        with pytest.raises(ServerError, match="kept"):
            database_server.execute("SELECT * FROM kept", second)
    finally:
        database_server.drop_database(first)
        database_server.drop_database(second)


@pytest.mark.parametrize("by", ["url", "name"])
def test_a_clone_has_tables_rows_and_keys(database_server: DatabaseServer, by: str) -> None:
    template = database_server.create_database()
    database_server.execute("CREATE TABLE parent (id INTEGER PRIMARY KEY)", template)
    database_server.execute("CREATE TABLE child (id INTEGER, FOREIGN KEY (id) REFERENCES parent (id))", template)
    database_server.execute("INSERT INTO parent VALUES (7)", template)
    clone = database_server.create_database(template if by == "url" else template.rpartition("/")[2])
    try:
        assert database_server.execute("SELECT id FROM parent", clone) == "7"
        with pytest.raises(ServerError, match="foreign key"):
            database_server.execute("INSERT INTO child VALUES (8)", clone)
    finally:
        database_server.drop_database(clone)
        database_server.drop_database(template)


def test_text_comes_back_as_it_went_in(database_server: DatabaseServer) -> None:
    url = database_server.create_database()
    try:
        database_server.execute("CREATE TABLE words (word VARCHAR(20))", url)
        database_server.execute("INSERT INTO words VALUES ('Zoë 🦉')", url)
        assert database_server.execute("SELECT word FROM words", url) == "Zoë 🦉"
    finally:
        database_server.drop_database(url)


@contextlib.contextmanager
def session(server: DatabaseServer, url: str) -> Iterator[Callable[[str], IO[bytes]]]:
    """An open session: sends SQL and gives the stream that the answer comes from."""
    if isinstance(server, PostgresServer):
        command = [str(server._psql), "--no-psqlrc", "--quiet", "--no-align", "--tuples-only", url]
    else:
        options = ["--unbuffered", "--skip-column-names", url.rpartition("/")[2]]
        command = [str(server._client), *server._login(), *options]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as client:
        sent, answers = client.stdin, client.stdout
        assert sent is not None
        assert answers is not None

        def send(statement: str) -> IO[bytes]:
            sent.write(f"{statement}\n".encode())
            sent.flush()
            return answers

        yield send
        client.kill()


def test_an_open_transaction_does_not_hold_up_a_drop(database_server: DatabaseServer) -> None:
    url = database_server.create_database()
    database_server.execute("CREATE TABLE held (id INTEGER)", url)
    with session(database_server, url) as send:
        assert send("BEGIN; INSERT INTO held VALUES (1); SELECT 7;").readline() == b"7\n"
        database_server.drop_database(url)
    with pytest.raises(ServerError, match=url.rpartition("/")[2]):
        database_server.execute("SELECT 1", url)


def test_a_paused_server_freezes_open_sessions(database_server: DatabaseServer) -> None:
    with session(database_server, database_server.url) as send:
        assert send("SELECT 1;").readline() == b"1\n"
        database_server.pause()
        try:
            answers = send("SELECT 2;")
            assert select.select([answers], [], [], 0.3) == ([], [], [])
        finally:
            database_server.resume()
        assert answers.readline() == b"2\n"


def test_committed_rows_survive_a_kill(own_database_server: DatabaseServer) -> None:
    server = own_database_server
    server_url, database = server.url, server.create_database()
    server.execute("CREATE TABLE kept (id INTEGER)", database)
    server.execute("INSERT INTO kept VALUES (7)", database)
    before = server.pid
    server.kill()
    assert not server.running
    assert not _accepts(server)
    server.start()
    assert server.url == server_url
    assert server.pid != before
    assert server.execute("SELECT id FROM kept", database) == "7"
    server.restart()
    assert server.execute("SELECT id FROM kept", database) == "7"


def test_a_paused_redis_answers_after_resume(own_redis: RedisServer) -> None:
    with redis.Redis.from_url(own_redis.url, socket_timeout=0.2) as client:
        client.ping()
        own_redis.pause()
        with pytest.raises(redis.TimeoutError):
            client.ping()
        own_redis.resume()
    own_redis.flush()


def test_redis_forgets_unless_told_otherwise(own_redis: RedisServer, pytestconfig: pytest.Config) -> None:
    with skips.made_or_skipped(lambda: RedisServer(appendonly="always"), pytestconfig) as durable:
        for server, kept in ((own_redis, None), (durable, b"1")):
            with redis.Redis.from_url(server.url) as client:
                client.set("key", "1")
            server.kill()
            server.start()
            with redis.Redis.from_url(server.url) as client:
                assert client.get("key") == kept


def test_stop_ends_a_paused_server(own_redis: RedisServer) -> None:
    own_redis.pause()
    own_redis.stop()
    assert not own_redis.running
    with pytest.raises(ServerError, match="does not run; call start"):
        _ = own_redis.pid


def test_a_server_that_died_can_be_started_again(own_redis: RedisServer) -> None:
    os.kill(own_redis.pid, signal.SIGKILL)
    assert wait_until(lambda: not own_redis.running, timeout_s=10)
    own_redis.start()
    own_redis.flush()


def test_extra_arguments_reach_the_server(pytestconfig: pytest.Config) -> None:
    make = skips.made_or_skipped(lambda: RedisServer(extra_args=["--maxmemory", "10mb"]), pytestconfig)
    with make as server, redis.Redis.from_url(server.url) as client:
        assert client.config_get("maxmemory") == {"maxmemory": "10485760"}


def test_a_failed_start_shows_the_log_and_leaves_nothing(pytestconfig: pytest.Config) -> None:
    server = skips.made_or_skipped(lambda: RedisServer(extra_args=["--no-such-option", "1"]), pytestconfig)
    with (
        pytest.raises(ServerError, match=r"redis did not start on port \d+; its log ends with:[^$]*no-such-option"),
        server,
    ):
        pass
    assert not server.folder.exists()


def test_a_taken_port_is_replaced_at_the_first_start(pytestconfig: pytest.Config) -> None:
    server = skips.made_or_skipped(RedisServer, pytestconfig)
    with socket.create_server(("127.0.0.1", free_port())) as other:
        server.port = taken = other.getsockname()[1]
        with server:
            assert server.port != taken


@pytest.mark.parametrize("name", CLASSES)
def test_a_server_dies_with_a_killed_test_process(name: str, pytestconfig: pytest.Config) -> None:
    skips.made_or_skipped(CLASSES[name], pytestconfig).close()
    program = f"""
from tests.servers import {CLASSES[name].__name__} as Made
with Made() as server:
    print(server.pid, server.folder, flush=True)
    input()
"""
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        pid, folder = process.stdout.readline().split()
        process.kill()
    assert wait_until(lambda: not Path(folder).exists(), timeout_s=30)
    assert not _lives(int(pid))


def test_a_signal_reaches_grandchildren() -> None:
    with subprocess.Popen(["sh", "-c", "sh -c 'echo $$; read never' & wait"], stdout=subprocess.PIPE) as shell:
        assert shell.stdout is not None
        grandchild = int(shell.stdout.readline())
        signal_tree(shell.pid, signal.SIGKILL)
    assert wait_until(lambda: not _lives(grandchild), timeout_s=10)
    signal_tree(shell.pid, signal.SIGKILL)


def _accepts(server: Server) -> bool:
    try:
        socket.create_connection(("127.0.0.1", server.port)).close()
    except ConnectionRefusedError:
        return False
    return True


def _lives(pid: int) -> bool:
    if Path("/proc/self/stat").exists():  # a container may have no `ps`
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return False
    else:
        listing = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
        state = listing.stdout.strip()[:1]
    return state not in {"", "Z"}
