"""Imports that wait, are interrupted, or lose the worker that they watch."""

import json
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from uuid import UUID

import pytest

from db.models import JobRun
from holdfast.requests import ImportTasks
from tests.cli.command import finish, invoke, start
from tests.cli.tables import Tables
from tests.imports.files import write
from tests.processes import START_TIMEOUT_S, WorkerProcess, clean_environment
from tests.servers import wait_until

ROWS = 2000
# Small batches, so that the import has a middle of some seconds to be caught in.
WORDS = ("--key", "k", "--map", "title=title", "--batch-rows", "4", "--json")


@contextmanager
def started(*words: str | Path, folder: Path, **settings: str) -> Iterator[subprocess.Popen[str]]:
    """Starts a command; it is killed at the end if it still lives."""
    with ExitStack() as stack:
        process = stack.enter_context(start(*words, folder=folder, settings=settings))
        stack.callback(process.kill)
        yield process


def the_run(tables: Tables, process: subprocess.Popen[str], condition: Callable[[JobRun], bool]) -> JobRun:
    """Waits until the one run meets a condition; returns it."""

    def met() -> bool:
        return any(condition(found) for found in tables.runs()) or process.poll() is not None

    assert wait_until(met, START_TIMEOUT_S)
    assert process.poll() is None, process.communicate()
    return tables.runs()[-1]


def is_in_its_middle(found: JobRun) -> bool:
    return 0 < (found.counters or {}).get("rows_read", 0) < ROWS


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write(tmp_path, "k,title\n" + "".join(f"{number},task {number}\n" for number in range(ROWS)))


def assert_loaded_once(tables: Tables, run_id: UUID | str) -> None:
    (found,) = [each for each in tables.runs() if str(each.id) == str(run_id)]
    assert (found.state, found.attempts) == ("succeeded", 0)
    assert found.report is not None
    assert [found.report[key] for key in ("rows_read", "inserted", "rejected")] == [ROWS, ROWS, 0]
    assert len(tables.titles()) == ROWS


def test_ctrl_c_leaves_a_run_that_a_worker_finishes(tables: Tables, data_dir: Path, tmp_path: Path, path: Path) -> None:
    with started("import", path, *WORDS, folder=tmp_path) as process:
        run_id = the_run(tables, process, is_in_its_middle).id
        process.send_signal(signal.SIGINT)
        ended = finish(process)
    assert ended.code == 1
    assert ended.error == f"run {run_id} was interrupted and waits; `python -m worker run` goes on with it"
    assert (ended.document["run_id"], ended.document["state"]) == (str(run_id), "waiting")
    (interrupted,) = tables.runs()
    assert (interrupted.state, interrupted.reason) == ("waiting", "interrupted")
    assert len(tables.titles()) == ended.document["inserted"] < ROWS
    assert len(list((data_dir / "spool").iterdir())) == 1
    assert invoke("run", "--burst").code == 0
    assert_loaded_once(tables, run_id)
    assert list((data_dir / "spool").iterdir()) == []


def test_ctrl_c_while_standard_input_is_read(tables: Tables, data_dir: Path, tmp_path: Path) -> None:
    with start("import", "-", folder=tmp_path, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write("title\nhalf of the file\n")
        process.stdin.flush()
        spool = data_dir / "spool"
        assert wait_until(lambda: spool.exists() and bool(list(spool.iterdir())), START_TIMEOUT_S)
        process.send_signal(signal.SIGINT)
        ended = finish(process)
    assert (ended.code, ended.line) == (130, "interrupted")
    assert list(spool.iterdir()) == []
    assert tables.runs() == []


def test_without_a_worker_it_says_what_it_waits_for(
    tables: Tables, data_dir: Path, tmp_path: Path, redis_url: str
) -> None:
    """Two imports wait; one of them is told to stop, and the worker that comes later does both."""
    path = write(tmp_path, "title\none\n")
    settings = {"REDIS_URL": redis_url, "DATABASE_URL": tables.url}
    with (
        started("import", path, folder=tmp_path, **settings) as given_up,
        started("import", path, "--json", folder=tmp_path, **settings) as patient,
    ):
        assert given_up.stderr is not None
        assert patient.stderr is not None
        waiting = given_up.stderr.readline()
        home = redis_url.removesuffix("/0")
        assert waiting.startswith(
            f"waiting: no worker of arq:queue is alive at {home}/0; start one with `python -m worker run` (run "
        )
        assert waiting.endswith(" stays queued if you stop waiting)\n")
        assert patient.stderr.readline().startswith("waiting: no worker of arq:queue is alive")
        given_up.send_signal(signal.SIGINT)
        stopped = finish(given_up)
        assert stopped.code == 130
        run_id = waiting.partition("(run ")[2].split()[0]
        assert stopped.line == (
            f"stopped waiting for run {run_id}: it goes on without you; `python -m worker runs show {run_id}` shows it"
        )
        variables = clean_environment(HOLDFAST_DATA_DIR=str(data_dir), **settings)
        with WorkerProcess(variables, tmp_path, arguments=["run", "--burst"]) as worker:
            ended = finish(patient)
            assert worker.wait() == 0
    assert (ended.code, ended.err, ended.document["inserted"]) == (0, "", 1)
    assert [found.state for found in tables.runs()] == ["succeeded"] * 2
    assert list((data_dir / "spool").iterdir()) == []


def test_the_worker_that_it_watches_dies(tables: Tables, data_dir: Path, tmp_path: Path, path: Path) -> None:
    with WorkerProcess(clean_environment(HOLDFAST_DATA_DIR=str(data_dir)), tmp_path) as worker:
        worker.wait_for("worker started")
        with started("import", path, *WORDS, folder=tmp_path) as process:
            run_id = the_run(tables, process, is_in_its_middle).id
            worker.kill()
            ended = finish(process)
    assert (ended.code, ended.err, ended.document["run_id"]) == (0, "", str(run_id))
    assert_loaded_once(tables, run_id)


def test_two_imports_at_once_in_one_data_folder(tables: Tables, data_dir: Path, tmp_path: Path, path: Path) -> None:
    other = write(tmp_path, "title\none\n", "other.csv")
    with (
        started("import", path, *WORDS, folder=tmp_path) as first,
        started("import", other, "--json", folder=tmp_path) as second,
    ):
        ends = [finish(process) for process in (first, second)]
    assert [(ended.code, ended.err) for ended in ends] == [(0, ""), (0, "")]
    assert [ended.document["inserted"] for ended in ends] == [ROWS, 1]
    assert len(tables.titles()) == ROWS + 1
    assert list((data_dir / "spool").iterdir()) == []


def test_a_second_embedded_worker_is_refused(
    tables: Tables, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOG_LEVEL", "error")
    with WorkerProcess(clean_environment(HOLDFAST_DATA_DIR=str(data_dir)), tmp_path) as worker:
        worker.wait_for("worker started")
        refused = invoke("run")
        assert refused.code == 1
        assert refused.line == (
            f"the embedded queue in {data_dir} is held by process {worker.pid}, and a data folder has one owner:"
            " enqueue through that process, stop it, or set HOLDFAST_DATA_DIR to another folder or REDIS_URL to a Redis"
        )
        assert invoke("import", write(tmp_path, "title\none\n"), "--json").document["inserted"] == 1
        assert worker.terminate() == 0


def test_a_run_that_was_put_into_the_ledger_by_a_producer_is_done_too(tables: Tables, tmp_path: Path) -> None:
    """`enqueue` is the door for every kind; the request is as a producer writes it."""
    words = [f"{key}={json.dumps(value)}" for key, value in {"batch_rows": 5, "mapping": {"title": "t"}}.items()]
    path = write(tmp_path, "t\none\n")
    request = ImportTasks(source=str(path), batch_rows=5, mapping={"title": "t"})
    assert invoke("enqueue", "import_tasks", f"source={path}", *words, "--json").document["state"] == "waiting"
    assert [found.request for found in tables.runs()] == [request.payload()]
