"""The Procfile as honcho runs it. Honcho exits with 0 even when it killed a process: its output tells."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from samples.make_tasks import FIELD_MAP, write_tasks
from tests.processes import CHECKOUT, clean_environment
from tests.servers import wait_until
from tests.servers.guard import signal_tree

TIMEOUT_S = 60.0
ROWS = 500


@pytest.fixture
def environment(tmp_path: Path, sqlite_url: str) -> dict[str, str]:
    """Variables of a platform: the environment's own programs first, a database, no Redis."""
    variables = clean_environment(
        DATABASE_URL=sqlite_url, HOLDFAST_DATA_DIR=str(tmp_path / "data"), REDIS_URL="", LOG_FORMAT="json"
    )
    return variables | {"PATH": os.pathsep.join([str(Path(sys.executable).parent), variables["PATH"]])}


def test_release_migrates_and_the_worker_works(environment: dict[str, str], tmp_path: Path) -> None:
    released = _release(environment, tmp_path)
    assert "release.1 stopped (rc=0)" in released, released
    assert _worker(environment, "db", "current", "--json")["up_to_date"] is True
    source = tmp_path / "tasks.csv"
    with source.open("w", encoding="utf-8", newline="") as file:
        expected = write_tasks(file, ROWS, seed=2)
    mapping = [word for field, column in FIELD_MAP.items() for word in ("--map", f"{field}={column}")]

    with _honcho_start(environment, tmp_path) as (honcho, output):
        _wait_for(honcho, output, "worker started")
        report = _worker(environment, "import", str(source), *mapping, "--json")
        honcho.send_signal(signal.SIGTERM)
        honcho.wait(TIMEOUT_S)

    assert (report["state"], report["inserted"], report["rows_read"]) == ("succeeded", expected.good, ROWS)
    lines = [line.partition("| ")[2] for line in output.read_text().splitlines() if "worker.1" in line]
    events = [json.loads(line)["event"] for line in lines if line.startswith("{")]
    assert [event for event in events if event in {"worker started", "run succeeded", "worker stopped"}] == [
        "worker started",
        "run succeeded",
        "worker stopped",
    ], "it was the Procfile's worker, and it ended by itself"
    assert "SIGKILL" not in output.read_text()
    assert "Traceback" not in output.read_text()


def _release(environment: dict[str, str], folder: Path) -> str:
    command = [*_honcho(folder), "start", "release"]
    with (folder / "release.log").open("w+", encoding="utf-8") as output:
        subprocess.run(command, env=environment, stdout=output, stderr=output, timeout=TIMEOUT_S, check=True)
        output.seek(0)
        return output.read()


@contextmanager
def _honcho_start(environment: dict[str, str], folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    output = folder / "honcho.log"
    with output.open("wb") as file:
        honcho = subprocess.Popen(
            [*_honcho(folder), "start", "worker"], env=environment, stdout=file, stderr=subprocess.STDOUT
        )
    try:
        yield honcho, output
    finally:
        signal_tree(honcho.pid, signal.SIGKILL)  # honcho's processes are groups of their own
        honcho.wait(TIMEOUT_S)


def _honcho(folder: Path) -> list[str]:
    # The processes run in the folder of the Procfile; the .env of a developer there must not win over our variables.
    empty = folder / "empty.env"
    empty.touch()
    return ["honcho", "--no-colour", "--env", str(empty), "--app-root", str(CHECKOUT)]


def _wait_for(honcho: "subprocess.Popen[bytes]", output: Path, words: str) -> None:
    wait_until(lambda: words in output.read_text() or honcho.poll() is not None, TIMEOUT_S)
    assert words in output.read_text(), output.read_text()


def _worker(environment: dict[str, str], *arguments: str) -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, "-m", "worker", *arguments],
        cwd=CHECKOUT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    document: dict[str, object] = json.loads(done.stdout)
    return document
