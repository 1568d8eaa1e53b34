"""The embedded queue as processes meet it: who owns it, who reaches it, where it is, what survives."""

import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.queue.embedded_clients import connect
from worker.embedded import EmbeddedQueueInUse, EmbeddedRedis, is_listening, socket_path

OWNER = """
import signal, sys
from pathlib import Path
from worker.embedded import EmbeddedRedis
EmbeddedRedis(Path(sys.argv[1])).start()
print("listening", flush=True)
signal.pause()
"""


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis(tmp_path) as running:
        yield running


@contextmanager
def owner_process(data_dir: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen([sys.executable, "-c", OWNER, str(data_dir)], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "listening\n"
            yield process
        finally:
            process.kill()


# Ownership ----------------------------------------------------------------------------------------------------------


def test_start_makes_a_private_folder_and_a_private_socket(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    with EmbeddedRedis(data_dir) as queue:
        assert queue.socket_path == data_dir / "queue.sock" == socket_path(data_dir)
        assert stat.S_IMODE(data_dir.stat().st_mode) == 0o700
        assert stat.S_IMODE(queue.socket_path.stat().st_mode) == 0o600
        assert (data_dir / "queue.lock").read_text() == f"{os.getpid()}\n"


def test_stop_removes_the_socket_frees_the_folder_and_may_be_repeated(tmp_path: Path) -> None:
    queue = EmbeddedRedis(tmp_path)
    queue.stop()
    for _ in range(3):
        queue.start()
        assert is_listening(tmp_path)
        queue.stop()
        queue.stop()
        assert not queue.socket_path.exists()
        assert not is_listening(tmp_path)
    assert not [thread for thread in threading.enumerate() if thread.name == "embedded-queue"]


def test_stop_drops_its_clients_even_one_that_waits(tmp_path: Path) -> None:
    queue = EmbeddedRedis(tmp_path)
    queue.start()
    with socket.socket(socket.AF_UNIX) as idle, socket.socket(socket.AF_UNIX) as waiting:
        for client in (idle, waiting):
            client.settimeout(30)
            client.connect(str(queue.socket_path))
            client.sendall(b"PING\r\n")
            assert client.recv(16) == b"+PONG\r\n"
        waiting.sendall(b"BLPOP nothing 0\r\n")
        idle.sendall(b"PING\r\n")
        assert idle.recv(16) == b"+PONG\r\n"
        queue.stop()
        assert idle.recv(16) == b""
        assert waiting.recv(16) == b""


def test_a_second_owner_is_refused_with_the_folder_the_process_and_the_way_out(tmp_path: Path) -> None:
    with owner_process(tmp_path) as process:
        with pytest.raises(EmbeddedQueueInUse) as refused:
            EmbeddedRedis(tmp_path).start()
        message = str(refused.value)
        assert str(tmp_path) in message
        assert f"process {process.pid}," in message
        assert "REDIS_URL" in message
        assert "HOLDFAST_DATA_DIR" in message
        assert is_listening(tmp_path)


def test_starting_twice_is_refused_and_leaves_the_first_at_work(queue: EmbeddedRedis, tmp_path: Path) -> None:
    for other in (queue, EmbeddedRedis(tmp_path)):
        with pytest.raises(EmbeddedQueueInUse, match=f"held by process {os.getpid()},"):
            other.start()
    assert is_listening(tmp_path)


def test_a_new_owner_takes_over_after_kill_9(tmp_path: Path) -> None:
    with owner_process(tmp_path) as process:
        with closing(connect(socket_path(tmp_path))) as client:
            client.set("before", "1")
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=30)
    assert socket_path(tmp_path).is_socket()
    assert not is_listening(tmp_path)
    with EmbeddedRedis(tmp_path), closing(connect(socket_path(tmp_path))) as client:
        assert is_listening(tmp_path)
        assert client.get("before") is None


def test_every_start_has_its_own_replication_id(tmp_path: Path) -> None:
    seen = set()
    for _ in range(2):
        with EmbeddedRedis(tmp_path), closing(connect(socket_path(tmp_path))) as client:
            seen.add(client.info("replication")["master_replid"])
    assert len(seen) == 2


def test_a_file_in_the_socket_s_place_is_named_and_kept(tmp_path: Path) -> None:
    socket_path(tmp_path).write_text("precious")
    for _ in range(2):  # The second time shows that the lock was freed.
        with pytest.raises(OSError, match=r"cannot listen on .*queue\.sock.*HOLDFAST_DATA_DIR"):
            EmbeddedRedis(tmp_path).start()
    assert socket_path(tmp_path).read_text() == "precious"


# Long paths ---------------------------------------------------------------------------------------------------------


def test_a_long_data_folder_gets_a_short_private_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    data_dir = tmp_path / ("d" * 120)
    with EmbeddedRedis(data_dir) as queue, closing(connect(socket_path(data_dir))) as client:
        assert len(os.fsencode(queue.socket_path)) <= 103
        assert stat.S_IMODE(queue.socket_path.parent.stat().st_mode) == 0o700
        assert is_listening(data_dir)
        assert client.ping()
    assert not queue.socket_path.exists()


@pytest.fixture
def short_temporary_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A folder of the test's own as the temporary directory; pytest's are too long for a socket's name."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield


@pytest.mark.usefixtures("short_temporary_folder")
def test_a_short_socket_s_folder_that_others_can_enter_is_refused(tmp_path: Path) -> None:
    data_dir = tmp_path / ("d" * 120)
    folder = socket_path(data_dir).parent
    folder.mkdir()
    folder.chmod(0o755)
    with pytest.raises(PermissionError, match="mode 0700"):
        EmbeddedRedis(data_dir).start()
    assert not is_listening(data_dir)


def test_each_folder_has_its_own_short_socket_and_spelling_does_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long, other = tmp_path / ("d" * 120), tmp_path / ("e" * 120)
    long.mkdir()
    monkeypatch.chdir(long)
    assert socket_path(Path()) == socket_path(long) == socket_path(long / ".." / long.name)
    assert socket_path(long) != socket_path(other)


def test_nothing_listens_where_nothing_was_started(tmp_path: Path) -> None:
    assert not is_listening(tmp_path / "missing")
    socket_path(tmp_path).write_text("no socket")
    assert not is_listening(tmp_path)


# Several processes ------------------------------------------------------------------------------------------


def test_two_processes_share_one_queue(tmp_path: Path) -> None:
    script = "import redis, sys; r = redis.Redis(unix_socket_path=sys.argv[1]); r.rpush('list', sys.argv[2]); r.close()"
    # The owner's main thread is asleep from start to end.
    with owner_process(tmp_path), closing(connect(socket_path(tmp_path))) as client:
        for text in ("one", "two"):
            subprocess.run([sys.executable, "-c", script, str(socket_path(tmp_path)), text], check=True, timeout=60)
        assert client.lrange("list", 0, -1) == [b"one", b"two"]
