"""Files of archives that the database knows nothing of, because it was restored from an older backup."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import delete, func, insert, select, update

from db.models import ArchivePart, Erasure, Task
from holdfast.outbox import job_runs
from tests.cli.command import invoke
from tests.cli.tables import Tables
from tests.cli.test_archive import LONG_AGO, damage, ids, remove
from worker.cli.archive_adopt import ARE_ERASED

__all__ = ["ids"]


@pytest.fixture
def folder(tables: Tables, ids: list[UUID], data_dir: Path) -> Path:
    """The folder of a run of three files that are not listed any more."""
    run_id: str = invoke("archive", "--to", "files", "--batch-rows", "3", "--json").document["run_id"]
    tables.change(delete(ArchivePart))
    return data_dir / "archives" / str(run_id)


def listed(tables: Tables) -> int:
    return int(tables.read(select(func.count()).select_from(ArchivePart))[0][0])


def test_they_are_shown_and_come_back(tables: Tables, ids: list[UUID], folder: Path) -> None:
    shown = invoke("archives", "list")
    assert shown.code == 0
    assert shown.err == (
        f"not known to this database: 9 rows of tasks in 3 files of run {folder.name}; "
        f"enter them with: archives adopt {folder.name}\n"
    )
    (known,) = invoke("archives", "list", "--json").document["not_listed"]
    assert (known["table"], known["rows"], known["files"], known["run_id"]) == ("tasks", 9, 3, folder.name)
    assert invoke("archives", "restore", "tasks", str(ids[3]), "--json").document["refused"] != []

    adopted = invoke("archives", "adopt", "--json")
    assert (adopted.code, adopted.document) == (0, {"adopted": [known], "problems": []})
    assert invoke("archives", "list", "--verify", "--json").document["not_listed"] == []
    assert invoke("archives", "restore", "tasks", str(ids[3]), "--json").document["restored"] == {"tasks": 1}
    assert invoke("archives", "adopt").out == ""
    assert invoke("archives", "list").err == ""


def test_what_was_erased_for_good_is_told_and_can_be_erased_again(
    tables: Tables, ids: list[UUID], folder: Path
) -> None:
    listed_keys = [
        {"table_name": "tasks", "row_key": str(one), "reason": "-", "erased_at": LONG_AGO} for one in ids[:2]
    ]
    tables.change(insert(Erasure).values(listed_keys))
    ended = invoke("archives", "adopt")
    assert (ended.code, listed(tables)) == (1, 3)
    assert f"2 rows of run {folder.name} {ARE_ERASED}" in ended.err
    assert "9 rows  3 files" in ended.out
    again = invoke("archives", "erase", "--again", "--yes", "--json").document
    assert (again["erased"], again["files"]) == ({"tasks": 2}, 1)
    assert invoke("archives", "list", "--verify").code == 0
    assert invoke("archives", "adopt").out == ""


def test_only_what_is_missing_is_entered(tables: Tables, folder: Path) -> None:
    assert invoke("archives", "adopt", folder.name).code == 0
    tables.change(delete(ArchivePart).where(ArchivePart.number == 2))
    assert "3 rows  1 files" in invoke("archives", "adopt", folder.name).out
    assert listed(tables) == 3


@pytest.mark.parametrize("restored", [1, 3], ids=["written anew", "emptied"])
def test_a_file_that_was_changed_since_takes_the_place_of_the_one_that_is_listed(
    tables: Tables, ids: list[UUID], restored: int
) -> None:
    """A backup of the database was restored that is older than the last `archives restore`."""
    run_id = str(invoke("archive", "--to", "files", "--batch-rows", "3", "--json").document["run_id"])
    parts: Any = ArchivePart.__table__
    backup = [dict(zip(parts.columns.keys(), row, strict=True)) for row in tables.read(select(parts))]
    back = ids[3 : 3 + restored]
    assert invoke("archives", "restore", "tasks", *map(str, back)).code == 0
    tables.change(delete(parts), insert(parts).values(backup), delete(Task).where(Task.id.in_(back)))

    (shown,) = invoke("archives", "list", "--json").document["not_listed"]
    assert (shown["table"], shown["rows"], shown["run_id"]) == ("tasks", 3 - restored, run_id)
    assert invoke("archives", "adopt", "--json").document == {"adopted": [shown], "problems": []}
    assert invoke("archives", "list", "--verify", "--json").document["not_listed"] == []
    rest = [str(one) for one in ids[:9] if one not in back]
    ended = invoke("archives", "restore", "tasks", *rest, "--json").document
    assert (ended["restored"], ended["refused"]) == ({"tasks": len(rest)}, [])


def test_a_file_that_its_run_has_not_told_of_yet_stays_listed(tables: Tables, folder: Path) -> None:
    """A worker was killed between its commit and the manifest: both files are there, and the database is right."""
    assert invoke("archives", "adopt").code == 0
    (path,) = folder.glob("*-000002.*.zst")
    shutil.copy(path, folder / "tasks-000002.newer.ndjson.zst")
    tables.change(update(ArchivePart).where(ArchivePart.number == 2).values(file="tasks-000002.newer.ndjson.zst"))
    assert invoke("archives", "list", "--json").document["not_listed"] == []
    assert invoke("archives", "adopt").out == ""


def count_wrong(path: Path) -> None:
    change(path.parent, rows=4)


def name_another_table(path: Path) -> None:
    change(path.parent, table="users; --")


def change(folder: Path, **values: object) -> None:
    manifest = folder / "manifest.json"
    document = json.loads(manifest.read_bytes())
    document["parts"][0] |= values
    manifest.write_text(json.dumps(document))


HARMS = {
    "has the SHA-256": damage,
    "cannot be read": remove,
    "has 3 rows, its manifest says 4": count_wrong,
    "is of 'users; --', to which no model is mapped": name_another_table,
}


@pytest.mark.parametrize("words", HARMS)
def test_of_a_run_with_a_damaged_file_nothing_is_entered(tables: Tables, folder: Path, words: str) -> None:
    harm: Callable[[Path], None] = HARMS[words]
    harm(min(folder.glob("*.zst")))
    ended = invoke("archives", "adopt")
    assert (ended.code, ended.out, listed(tables)) == (1, "", 0)
    assert words in ended.line
    assert len(invoke("archives", "adopt", "--json").document["problems"]) == 1


@pytest.mark.parametrize("name", ["../../holdfast.db", "/etc/passwd", ".hidden", "a\\b", "a\0b", ""])
def test_a_manifest_leads_out_of_its_folder_nowhere(tables: Tables, folder: Path, name: str) -> None:
    change(folder, file=name)
    ended = invoke("archives", "adopt")
    assert (ended.code, listed(tables)) == (1, 0)
    assert ended.line.startswith(f"{folder / 'manifest.json'} is no manifest: parts.0.file: ")
    assert invoke("archives", "list").code == 0


@pytest.mark.parametrize("text", ["", "[]", "{", '{"format": 2}', "\x00"])
def test_what_is_no_manifest_is_named(tables: Tables, folder: Path, text: str) -> None:
    (folder / "manifest.json").write_text(text)
    assert "is no manifest: " in invoke("archives", "list").err
    assert invoke("archives", "adopt").code == 1


def test_a_folder_of_another_name_is_told(tables: Tables, folder: Path) -> None:
    folder.rename(folder.parent / "copy")
    assert f"is of the run {folder.name}: give its folder that name" in invoke("archives", "adopt").line


def test_nothing_is_entered_while_a_run_may_change_files(tables: Tables, folder: Path) -> None:
    run_id = invoke("archive", "--detach", "--json").document["run_id"]
    ended = invoke("archives", "adopt")
    assert (ended.code, listed(tables)) == (1, 0)
    assert ended.line == f"run {run_id} (archive_deleted) is not over and may change files: say it again after its end"
    tables.change(delete(job_runs).where(job_runs.c.id == UUID(run_id)))
    assert invoke("archives", "adopt").code == 0


@pytest.mark.parametrize("run_id", ["x", str(UUID(int=7))])
def test_a_run_that_is_not_there_is_wrong_usage(tables: Tables, folder: Path, run_id: str) -> None:
    ended = invoke("archives", "adopt", run_id)
    assert (ended.code, ended.out) == (2, "")
    assert len(ended.err.splitlines()) == 1
