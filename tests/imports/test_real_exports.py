"""Whole files on every engine, with the embedded queue and with a Redis: what is loaded is what the file says."""

import csv
import shlex
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from samples.make_tasks import FIELD_MAP, Task, make_rows, write_tasks
from tests.cli.command import invoke, run
from tests.cli.tables import Tables
from tests.processes import CHECKOUT, WorkerProcess, clean_environment

SHARED = CHECKOUT.parent / "shared" / "data"
EXPORTS = {"mesos.csv": 1680, "usergrid.csv": 482, "springxd.csv": 3526}
MAPPING = shlex.split(
    "--map external_key=issuekey --map title=title --map description=description --map metadata.storypoint=storypoint"
)
ISSUE_COMMAND = ["import", "../shared/data/mesos.csv", *MAPPING, "--json"]
SAMPLE_MAPPING = [word for field, column in FIELD_MAP.items() for word in ("--map", f"{field}={column}")]

needs_exports = pytest.mark.skipif(
    not SHARED.is_dir(), reason=f"the real exports are not in {SHARED}: they are not part of this project"
)


@dataclass(frozen=True)
class Place:
    """A database and a queue that commands of this process use, and a worker where the queue is a Redis."""

    tables: Tables

    def load(self, path: Path, mapping: list[str]) -> list[int]:
        """Imports a file; returns how many rows were read, inserted, skipped and rejected."""
        ended = invoke("import", path, *mapping, "--json")
        assert (ended.code, ended.err) == (0, "")
        return [ended.document[key] for key in ("rows_read", "inserted", "skipped", "rejected")]


@pytest.fixture(params=["embedded", "redis"])
def place(
    request: pytest.FixtureRequest, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Place]:
    settings = {"DATABASE_URL": database_url, "HOLDFAST_DATA_DIR": str(tmp_path / "data")}
    if request.param == "redis":
        settings["REDIS_URL"] = request.getfixturevalue("redis_url")
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    assert invoke("db", "upgrade").code == 0
    with ExitStack() as stack:
        if request.param == "redis":
            worker = stack.enter_context(WorkerProcess(clean_environment(**settings), tmp_path))
            worker.wait_for("worker started")
        yield Place(Tables(database_url))


def read_export(path: Path) -> dict[str, tuple[str, str, dict[str, str]]]:
    """Returns title, description and metadata by key, as Python's csv module reads them."""
    with path.open(encoding="utf-8", newline="") as file:
        return {
            row["issuekey"]: (row["title"], row["description"], {"storypoint": row["storypoint"]})
            for row in csv.DictReader(file)
        }


def loaded(tables: Tables) -> dict[str | None, tuple[str, str | None, object]]:
    """Returns the same of every task in the tables that no state was given for."""
    tasks = tables.by_key().items()
    return {
        key: (task.title, task.description, task.metadata_json) for key, task in tasks if task.status.value == "PENDING"
    }


def test_whole_files(place: Place, tmp_path: Path) -> None:
    """A generated file for everybody, and the real exports for those who have them: one after the other, because a
    place takes longer to make than a file to import."""
    check_generated_file(place, tmp_path)
    if SHARED.is_dir():
        check_real_exports(place)


def check_generated_file(place: Place, folder: Path) -> None:
    rows, seed, path = 700, 13, folder / "generated.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        counts = write_tasks(file, rows, seed)
    bad = sum(counts.rejected.values())
    assert place.load(path, SAMPLE_MAPPING) == [rows, counts.good, 0, bad]
    codes = [code for _, _, code in place.tables.rejects()]
    assert {code: codes.count(code) for code in codes} == counts.rejected
    repeated = counts.rejected["duplicate_key"]
    assert place.load(path, SAMPLE_MAPPING) == [rows, 0, counts.good + repeated, bad - repeated]
    expected = {task.key: task for task in (Task(*row.fields) for row in make_rows(rows, seed) if row.code is None)}
    tasks = place.tables.by_key()
    assert tasks.keys() == expected.keys()
    for key, task in expected.items():
        found = tasks[key]
        assert (found.title, found.description, found.status) == (task.summary, task.details, task.state)
        assert found.metadata_json == {"points": task.points}
        assert bool(found.completed_at) == bool(task.done_at)


def check_real_exports(place: Place) -> None:
    expected: dict[str, tuple[str, str, dict[str, str]]] = {}
    for name, rows in EXPORTS.items():
        assert place.load(SHARED / name, MAPPING) == [rows, rows, 0, 0]
        expected |= read_export(SHARED / name)
    smallest = min(EXPORTS, key=lambda name: EXPORTS[name])
    assert place.load(SHARED / smallest, MAPPING) == [EXPORTS[smallest], 0, EXPORTS[smallest], 0]
    assert len(expected) == sum(EXPORTS.values())
    assert any(title != title.strip() for title, _, _ in expected.values())
    found = loaded(place.tables)
    assert {key: found[key] for key in expected} == expected
    assert list(place.tables.users().values()) == ["importer"]


@needs_exports
def test_the_command_of_the_issue_in_an_empty_folder(tmp_path: Path) -> None:
    """In a process of its own, with nothing configured and nothing there."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    (tmp_path / "shared").symlink_to(SHARED.parent)
    for inserted in (1680, 0):
        ended = run(*ISSUE_COMMAND, folder=folder)
        assert (ended.code, ended.err) == (0, "")
        document = ended.document
        assert [document[key] for key in ("state", "rows_read", "inserted", "rejected")] == [
            "succeeded",
            1680,
            inserted,
            0,
        ]
    assert loaded(Tables.embedded(folder / "data")) == read_export(SHARED / "mesos.csv")
    assert list((folder / "data" / "spool").iterdir()) == []
