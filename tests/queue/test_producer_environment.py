"""A producer in its own environment: only the wheel and its locked requirements, with the newest redis-py."""

import json
import socket
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from holdfast import ImportReport
from samples.make_tasks import FIELD_MAP
from tests import skips
from tests.processes import CHECKOUT, clean_environment
from tests.queue.workplace import Workplace, assert_counts
from tests.servers import RedisServer, free_port

INSTALL_TIMEOUT_S = 120.0
NO_REGISTRY = ("(from versions: none)", "Retrying (Retry(", "ProxyError", "ConnectTimeoutError")
"""How pip words that it did not reach one; a wrong hash or a broken package sounds different."""

PRODUCER = """
import asyncio, importlib.util, json, sys
import holdfast, redis
from holdfast import Client, ImportTasks, QueueUnavailable, RunExists, RunFailed

async def outcome(url):
    try:
        async with Client(url, timeout_s=0.5) as client:
            await client.enqueue(ImportTasks(source="/a.csv"))
    except QueueUnavailable as error:
        return error.outcome

async def main(url, source, mapping, closed, silent):
    async with Client(url) as client:
        run = await client.enqueue(ImportTasks(source=source, mapping=json.loads(mapping)))
        report = await run.result(timeout_s=60)
        state, progress = await run.status(), await run.progress()
        bad = await client.enqueue(ImportTasks(source="/etc/passwd"))
        try:
            await bad.result(timeout_s=60)
        except RunFailed as error:
            failure = error.error_type
        try:
            await client.enqueue(ImportTasks(source=source), run_id=run.id)
        except RunExists:
            taken = True
    print(json.dumps({
        "missing": [name for name in ("arq", "sqlalchemy", "db", "jobs", "worker")
                    if importlib.util.find_spec(name) is None],
        "redis": redis.__version__, "holdfast": holdfast.__file__, "report_type": type(report).__name__,
        "report": report.model_dump(), "state": state, "rows_read": progress.counters["rows_read"],
        "failure": failure, "taken": taken, "closed": await outcome(closed), "silent": await outcome(silent),
    }))

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built by the backend of `pyproject.toml`; no registry is asked."""
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder))
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def producer(wheel: Path, tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Path:
    """The Python of a new environment with the wheel and `requirements/producer.txt`."""
    folder = tmp_path_factory.mktemp("producer") / "venv"
    # pip of the tests' own environment installs into the new one: making another pip would take longest of all.
    run(sys.executable, "-m", "venv", "--without-pip", str(folder))
    python = folder / "bin" / "python"
    locked = ["--require-hashes", "-r", str(CHECKOUT / "requirements" / "producer.txt")]
    for words in (locked, ["--no-deps", "--no-index", str(wheel)]):
        pip = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check", "--no-input"]
        done = subprocess.run(
            [*pip, "install", "--quiet", "--retries", "1", *words],
            capture_output=True,
            text=True,
            timeout=INSTALL_TIMEOUT_S,
            check=False,
        )
        if done.returncode and any(sign in done.stderr for sign in NO_REGISTRY):
            skips.skip_missing(
                "pip reaches no package registry: connect the machine, or set PIP_INDEX_URL", pytestconfig
            )
        assert done.returncode == 0, done.stderr
    return python


def run(*command: str) -> None:
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stderr


def test_the_wheel_holds_the_library_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        files = {Path(name) for name in archive.namelist()}
        (metadata,) = (archive.read(str(name)).decode() for name in files if name.name == "METADATA")
    roots = {file.parts[0] for file in files}
    assert {root for root in roots if not root.endswith(".dist-info")} == {"holdfast"}
    assert len(roots) == 2
    sources = {file.relative_to(CHECKOUT) for file in (CHECKOUT / "holdfast").glob("**/*.py")}
    assert {file for file in files if file.parts[0] == "holdfast"} == sources | {Path("holdfast/py.typed")}
    needed = [line for line in metadata.splitlines() if line.startswith("Requires-Dist") and "extra ==" not in line]
    assert sorted(line.split()[1].partition(">")[0].partition("<")[0] for line in needed) == ["pydantic", "redis"]


def test_a_producer_enqueues_and_gets_its_typed_report(
    producer: Path, redis_server: RedisServer, redis_url: str, tmp_path: Path
) -> None:
    place = Workplace(redis_url, tmp_path)
    path, expected = place.write_tasks("tasks.csv", 200)
    with place.started_worker(), socket.create_server(("127.0.0.1", 0)) as silent:
        closed = f"redis://127.0.0.1:{free_port()}"
        words = [redis_url, str(path), json.dumps(FIELD_MAP), closed, f"redis://127.0.0.1:{silent.getsockname()[1]}"]
        told = produce(producer, words, tmp_path)
        connections = _pending(silent)
    assert told["missing"] == ["arq", "sqlalchemy", "db", "jobs", "worker"]
    assert int(told["redis"].partition(".")[0]) >= 8
    assert Path(told["holdfast"]).is_relative_to(producer.parent.parent)
    assert told["report_type"] == "ImportReport"
    assert_counts(ImportReport.model_validate(told["report"]), expected)
    assert (told["state"], told["rows_read"], told["failure"]) == ("succeeded", 200, "outside_roots")
    assert told["taken"] is True
    assert (told["closed"], told["silent"], connections) == ("refused", "unknown", 1)


def produce(python: Path, words: list[str], folder: Path) -> dict[str, Any]:
    """Runs the producer in its environment, away from the checkout; returns what it printed."""
    environment = clean_environment()
    del environment["PYTHONPATH"]
    script = folder / "producer.py"
    script.write_text(PRODUCER, encoding="utf-8")
    done = subprocess.run(
        [str(python), "-W", "error", str(script), *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=INSTALL_TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def _pending(listener: socket.socket) -> int:
    listener.setblocking(False)
    count = 0
    while True:
        try:
            listener.accept()[0].close()
        except BlockingIOError:
            return count
        count += 1
