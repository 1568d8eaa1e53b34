"""Keys that are taken: by an earlier import, by a row further up in the same file, by a deleted task."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from db.models import Task
from tests.cli.command import Ended, invoke
from tests.cli.tables import Tables
from tests.imports.files import write

COUNTS = ("rows_read", "inserted", "updated", "unchanged", "skipped", "rejected")


def load(path: Path, *words: str) -> Ended:
    return invoke("import", path, "--json", *words)


def counts(ended: Ended) -> dict[str, int]:
    """Returns the counts that are not zero, once they are seen to add up."""
    document = ended.document
    assert document["rows_read"] == sum(document[name] for name in COUNTS[1:])
    return {name: document[name] for name in COUNTS if document[name]}


def test_a_second_import_skips_what_is_there(tables: Tables, tmp_path: Path) -> None:
    load(write(tmp_path, "external_key,title\nA,one\nB,two\n"))
    second = load(write(tmp_path, "external_key,title\nA,other\nC,three\n"))
    assert counts(second) == {"rows_read": 2, "inserted": 1, "skipped": 1}
    assert tables.titles() == ["one", "three", "two"]


def test_an_update_changes_what_the_file_gives_and_nothing_else(tables: Tables, tmp_path: Path) -> None:
    header = "external_key,title,description,status,points,team"
    words = ("--map", "external_key=external_key", "--map", "title=title", "--map", "description=description")
    more = ("--map", "status=status", "--map", "metadata.points=points", "--map", "metadata.team=team")
    load(write(tmp_path, f"{header}\nA,one,first,COMPLETED,3,db\nB,two,second,PENDING,5,db\n"), *words, *more)
    made = tables.by_key()
    fewer = ("--map", "external_key=key", "--map", "title=name", "--map", "metadata.points=p", "--user", "ada")
    path = write(tmp_path, "key,name,p\nA,one,8\nB,two,5\nC,three,1\n")
    assert counts(load(path, *fewer, "--on-conflict", "update")) == {
        "rows_read": 3,
        "inserted": 1,
        "updated": 1,
        "unchanged": 1,
    }
    tasks = tables.by_key()
    changed, kept = tasks["A"], tasks["B"]
    assert (changed.title, changed.description, changed.status) == ("one", "first", "COMPLETED")
    assert changed.metadata_json == {"points": "8", "team": "db"}
    assert (changed.user_id, changed.created_by, changed.updated_by) == (made["A"].user_id, "importer", "ada")
    assert (changed.id, changed.created_at) == (made["A"].id, made["A"].created_at)
    assert changed.updated_at > made["A"].updated_at
    assert (kept.updated_at, kept.updated_by) == (made["B"].updated_at, None)
    assert counts(load(path, *fewer, "--on-conflict", "update")) == {"rows_read": 3, "unchanged": 3}


def test_an_update_takes_a_missing_key_for_nothing_and_a_null_for_null(tables: Tables, tmp_path: Path) -> None:
    row = '{"external_key": "%s", "title": "t", "description": "d", "completed_at": "2026-01-01T00:00:00Z"}\n'
    load(write(tmp_path, row % "A" + row % "B", "t.ndjson"))
    news = '{"external_key": "A", "title": "new"}\n{"external_key": "B", "title": "t", "description": null}\n'
    assert counts(load(write(tmp_path, news, "t.ndjson"), "--on-conflict", "update")) == {"rows_read": 2, "updated": 2}
    tasks = tables.by_key()
    then = datetime(2026, 1, 1, tzinfo=UTC)
    assert [(tasks[key].title, tasks[key].description, tasks[key].completed_at) for key in "AB"] == [
        ("new", "d", then),
        ("t", None, then),
    ]


def test_an_update_with_empty_dates_and_states(tables: Tables, tmp_path: Path) -> None:
    header = "external_key,title,status,created_at,completed_at\n"
    row = ",one,COMPLETED,2025-01-01T00:00:00Z,2026-01-01T00:00:00Z\n"
    load(write(tmp_path, f"{header}A{row}B{row}"))
    path = write(tmp_path, f"{header}A,one,,,\nB,one,PENDING,2024-01-01T00:00:00Z,\n")
    assert counts(load(path, "--on-conflict", "update")) == {"rows_read": 2, "updated": 2}
    tasks = tables.by_key()
    assert [(tasks[key].status, tasks[key].created_at.year, tasks[key].completed_at) for key in "AB"] == [
        ("COMPLETED", 2025, None),
        ("PENDING", 2024, None),
    ]


def test_a_mapped_owner_is_changed(tables: Tables, tmp_path: Path) -> None:
    words = ("--map", "external_key=key", "--map", "title=title", "--create-users")
    path = write(tmp_path, "key,title,who\nA,one,ada\n")
    load(path, *words, "--map", "user=who")
    assert counts(load(path, *words, "--on-conflict", "update")) == {"rows_read": 1, "unchanged": 1}
    handed_on = write(tmp_path, "key,title,who\nA,one,bob\n")
    again = load(handed_on, *words, "--map", "user=who", "--on-conflict", "update")
    assert counts(again) == {"rows_read": 1, "updated": 1}
    (task,) = tables.tasks()
    assert tables.users()[task.user_id] == "bob"


@pytest.mark.parametrize("rule", ["skip", "update"])
@pytest.mark.parametrize("batch_rows", ["1", "100"], ids=["across batches", "in one batch"])
def test_the_same_key_twice_in_a_file(tables: Tables, tmp_path: Path, batch_rows: str, rule: str) -> None:
    path = write(tmp_path, "key,title\nA,first\nB,other\nA,second\nA,third\n")
    words = ("--key", "key", "--map", "title=title", "--batch-rows", batch_rows, "--on-conflict", rule)
    rejects = [(4, "key", "duplicate_key"), (5, "key", "duplicate_key")]
    assert counts(load(path, *words)) == {"rows_read": 4, "inserted": 2, "rejected": 2}
    assert tables.rejects() == rejects
    expected: dict[str, int] = {"skipped": 4} if rule == "skip" else {"unchanged": 2, "rejected": 2}
    for _ in range(2):
        assert counts(load(path, *words)) == {"rows_read": 4, **expected}
    assert tables.titles() == ["first", "other"]
    if rule == "update":
        assert tables.rejects() == rejects * 3


def test_the_second_of_two_rows_never_undoes_an_update(tables: Tables, tmp_path: Path) -> None:
    load(write(tmp_path, "external_key,title\nA,old\n"))
    path = write(tmp_path, "external_key,title\nA,first\nA,second\n")
    for batch_rows in ("1", "100"):
        ended = load(path, "--on-conflict", "update", "--batch-rows", batch_rows)
        assert ended.document["rejected"] == 1
        assert tables.titles() == ["first"]


@pytest.mark.parametrize("rule", ["skip", "update"])
def test_a_deleted_task_stays_deleted(tables: Tables, tmp_path: Path, rule: str) -> None:
    path = write(tmp_path, "external_key,title\nA,one\n")
    load(path)
    tables.change(update(Task).values(is_deleted=True, deleted_at=datetime(2026, 1, 1, tzinfo=UTC), title="gone"))
    assert counts(load(path, "--on-conflict", rule)) == {"rows_read": 1, "skipped": 1}
    assert tables.titles() == ["gone"]


@pytest.mark.parametrize(("rule", "title", "others"), [("skip", "one", "skipped"), ("update", "new", "unchanged")])
def test_deleted_tasks_are_restored_where_asked_for(
    tables: Tables, tmp_path: Path, rule: str, title: str, others: str
) -> None:
    path = write(tmp_path, "external_key,title\nA,one\nB,two\nC,three\n")
    load(path)
    tables.change(update(Task).where(Task.external_key != "B").values(is_deleted=True, deleted_at=datetime.now(UTC)))
    path.write_text("external_key,title\nA,new\nB,two\nD,four\n")
    ended = load(path, "--on-conflict", rule, "--restore-deleted", "--user", "ada")
    assert counts(ended) == {"rows_read": 3, "inserted": 1, "updated": 1, others: 1}
    tasks = tables.by_key()
    assert {key: (tasks[key].is_deleted, tasks[key].deleted_at is None) for key in "ABC"} == {
        "A": (False, True),
        "B": (False, True),
        "C": (True, False),
    }
    assert (tasks["A"].title, tasks["A"].updated_by) == (title, "ada")
    again = load(path, "--on-conflict", rule, "--restore-deleted", "--user", "ada")
    assert counts(again) == {"rows_read": 3, others: 3}


def test_a_deleted_key_can_be_an_error_or_come_back(tables: Tables, tmp_path: Path) -> None:
    path = write(tmp_path, "external_key,title\nA,one\n")
    load(path)
    tables.change(update(Task).values(is_deleted=True, deleted_at=datetime.now(UTC)))
    failed = load(path, "--on-conflict", "fail")
    assert failed.error == (
        "line 2: external_key 'A' is taken by a deleted task; import with --restore-deleted, or with --on-conflict skip"
    )
    assert counts(load(path, "--on-conflict", "fail", "--restore-deleted")) == {"rows_read": 1, "updated": 1}
    assert not tables.by_key()["A"].is_deleted


def test_a_taken_key_can_be_made_an_error(tables: Tables, tmp_path: Path) -> None:
    load(write(tmp_path, "external_key,title\nB,one\n"))
    path = write(tmp_path, "external_key,title\nA,two\nB,three\nC,four\n")
    words = ("--on-conflict", "fail", "--atomic", "--batch-rows", "1")
    failed = load(path, *words)
    message = "line 3: external_key 'B' is taken already; import with --on-conflict skip or update"
    assert (failed.code, failed.error) == (1, message)
    document: dict[str, Any] = failed.document
    assert (document["state"], document["error"]) == ("failed", {"type": "duplicate_key", "message": message})
    assert tables.titles() == ["one"]


def test_rows_without_a_key_are_always_new(tables: Tables, tmp_path: Path) -> None:
    path = write(tmp_path, '{"title": "one"}\n{"title": "one", "external_key": null}\n', "t.ndjson")
    for _ in range(2):
        assert counts(load(path)) == {"rows_read": 2, "inserted": 2}
    assert tables.titles() == ["one"] * 4
