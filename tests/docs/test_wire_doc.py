"""docs/wire.md says what the code does: its JSON is compared, its examples are run."""

import ast
import inspect
import json
import re
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from holdfast import ImportReport, ImportTasks, Progress, RunFailed, RunState, scripts, wire
from holdfast.requests import IMPORT_FIELDS, REQUEST_TYPES
from jobs.registry import BUILT_IN
from tests import skips
from tests.processes import CHECKOUT, clean_environment
from tests.queue.workplace import PATIENCE_S, Workplace
from tests.servers import RedisServer
from tests.servers.binaries import REDIS, find_server, find_tool

PAGE = (CHECKOUT / "docs" / "wire.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    """Returns what stands below a heading."""
    return re.split(r"^## ", PAGE, flags=re.MULTILINE)[titles().index(title) + 1].partition("\n")[2]


def titles() -> list[str]:
    return re.findall(r"^## (.+)$", PAGE, flags=re.MULTILINE)


def blocks(title: str, language: str) -> list[str]:
    """Returns the fenced blocks of a language below a heading."""
    return re.findall(rf"^```{language}\n(.*?)^```$", section(title), flags=re.MULTILINE | re.DOTALL)


def first_columns(title: str) -> list[list[str]]:
    """Returns what stands in backticks in the first column of each row of a table."""
    rows = re.findall(r"^\| (`.*?) \|", section(title), flags=re.MULTILINE)
    return [re.findall(r"`(.+?)`", row) for row in rows]


def test_the_keys_are_those_of_the_code() -> None:
    names = {name for row in first_columns("Keys") for name in row}
    prefixes = (wire.JOB_KEY, wire.IN_PROGRESS_KEY, wire.RETRY_KEY, wire.PROGRESS_KEY, wire.RESULT_KEY)
    queue = wire.DEFAULT_QUEUE
    shared = {queue, queue + wire.INTAKE_SUFFIX, queue + wire.BELL_SUFFIX, wire.ABORT_KEY, f"{queue}:health-check"}
    assert names == shared | {f"{prefix}ID" for prefix in prefixes}


def test_the_script_is_the_client_s() -> None:
    (script,) = blocks("Enqueue", "lua")
    assert script.strip() == scripts.ENQUEUE.text.strip()


def test_the_job_is_what_the_client_writes() -> None:
    (example,) = blocks("The job", "json")
    job = wire.read_job(example.encode())
    request = ImportTasks.model_validate(job["k"])
    assert json.loads(wire.job_payload(request.kind, request.payload(), job["et"])) == job
    assert sorted(name for (name,) in first_columns("The job")) == sorted([*job, "u"])
    assert datetime.fromtimestamp(job["et"] / 1000, UTC) == datetime(2026, 1, 1, tzinfo=UTC)


def test_the_progress_is_what_a_handle_reads() -> None:
    (example,) = blocks("Progress", "json")
    progress = Progress.model_validate_json(example)
    assert json.loads(progress.model_dump_json()) == json.loads(example)


def test_the_results_are_what_a_handle_reads() -> None:
    success, failure = (json.loads(block) for block in blocks("Results", "json"))
    assert list(success) == list(failure)
    read = wire.read_result(wire.dumps(success))
    assert (read.succeeded, read.state) == (True, RunState.SUCCEEDED)
    assert ImportReport.model_validate(read.report).model_dump(mode="json") == success["r"]
    assert UUID(success["id"]).version == 7
    assert UUID(success["id"]).int >> 80 == success["et"]
    told = failure["r"]["error"]
    error = RunFailed(failure["id"], told["type"], told["message"])
    assert json.loads(wire.dumps({**failure, "r": error})) == failure
    read = wire.read_result(wire.dumps(failure))
    assert (read.state, read.error_type, read.message) == (RunState.FAILED, told["type"], told["message"])


def test_every_kind_is_described() -> None:
    described = re.findall(r"^`(\w+)` ", section("Requests"), flags=re.MULTILINE)
    assert sorted(REQUEST_TYPES) == sorted(job.kind for job in BUILT_IN) == sorted(described)


@pytest.mark.parametrize("kind", REQUEST_TYPES)
def test_every_field_of_a_request_is_described(kind: str) -> None:
    part = re.split(rf"^`{kind}` ", section("Requests"), flags=re.MULTILINE)[1]
    part = re.split(r"^`\w+` ", part, flags=re.MULTILINE)[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| .* \| (.*)\|$", part, flags=re.MULTILINE))
    fields = REQUEST_TYPES[kind].model_fields
    assert list(rows) == list(fields)
    for name, shown in rows.items():
        default = shown.strip().strip("`")
        if not fields[name].is_required() and fields[name].default not in (None, {}, ()):
            assert json.loads(default) == fields[name].default, name


def test_every_field_of_an_imported_task_is_described() -> None:
    assert [field for field in IMPORT_FIELDS if f"`{field}`" not in section("Requests")] == []


def test_links_and_headings_of_the_page_exist() -> None:
    anchors = {re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-") for title in titles()}
    assert set(re.findall(r"\]\(#([^)]+)\)", PAGE)) <= anchors


@pytest.fixture(scope="module")
def place(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workplace]:
    redis_server.flush()
    place = Workplace(redis_server.url, tmp_path_factory.mktemp("docs"))
    with place.started_worker():
        yield place


def run_example(place: Workplace, source: str, folder: Path, config: pytest.Config) -> dict[str, Any]:
    """Runs the page's Bash example as it stands there; returns the JSON that it prints."""
    redis_cli = skips.made_or_skipped(lambda: find_tool(find_server(*REDIS), "redis-cli", "valkey-cli"), config)
    bash = skips.made_or_skipped(lambda: find_tool(redis_cli, "bash"), config)
    (folder / "redis-cli").symlink_to(redis_cli)
    (folder / "enqueue.lua").write_text(blocks("Enqueue", "lua")[0], encoding="utf-8")
    environment = clean_environment(REDIS_URL=place.redis_url, SOURCE=source)
    environment["PATH"] = f"{folder}:{environment['PATH']}"
    (script,) = blocks("A complete example", "bash")
    done = subprocess.run(
        [str(bash), "-c", script],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    printed: dict[str, Any] = json.loads(done.stdout)
    return printed


@pytest.mark.parametrize("succeeds", [True, False])
async def test_the_example_runs_and_prints_what_the_page_shows(
    place: Workplace, tmp_path: Path, pytestconfig: pytest.Config, succeeds: bool
) -> None:
    path = place.imports / "plain.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("title\nA task\nAnother one\n", encoding="utf-8")
    result = run_example(place, str(path) if succeeds else "/etc/passwd", tmp_path, pytestconfig)
    shown = json.loads(blocks("Results", "json")[0 if succeeds else 1])
    assert list(result) == list(shown)
    assert result["s"] is succeeds
    assert list(result["r"]) == list(shown["r"])
    if succeeds:
        assert (result["r"]["rows_read"], result["r"]["inserted"]) == (2, 2)
    else:
        assert list(result["r"]["error"]) == list(shown["r"]["error"])
        assert result["r"]["error"]["type"] == shown["r"]["error"]["type"]
    assert UUID(result["id"]).version == 7
    assert UUID(result["id"]).int >> 80 == result["et"]
    async with place.ledger() as ledger:
        run = await ledger.run_of(result["id"])
    assert (run.id, run.state) == (UUID(result["id"]), "succeeded" if succeeds else "failed")


@pytest.mark.filterwarnings("ignore:Call to deprecated close:DeprecationWarning")
async def test_the_stock_arq_example_runs(place: Workplace) -> None:
    path, expected = place.write_tasks("stock.csv", 100)
    (example,) = blocks("Stock arq", "python")
    code = compile(example, "docs/wire.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    names: dict[str, Any] = {"redis_url": place.redis_url, "source": str(path)}
    running = eval(code, names)  # noqa: S307 - our own page
    assert inspect.isawaitable(running)
    await running
    await names["pool"].aclose(close_connection_pool=True)
    assert ImportReport.model_validate(names["report"]).rows_read == expected.rows
