"""From columns to fields: --map, --set, --key, --user, and what is taken when nothing is said."""

import shlex
from pathlib import Path

import pytest
from sqlalchemy import insert, select

from db.models import User
from tests.cli.command import invoke
from tests.cli.tables import Tables
from tests.imports.files import write


def test_columns_that_are_named_as_fields_are_those_fields(tables: Tables, tmp_path: Path) -> None:
    header = "external_key,title,description,status,completed_at,created_at,weight"
    row = "A-1, edges ,text,COMPLETED,2026-01-31T08:30:00.25+01:00,2025-12-31T23:00:00Z,9"
    assert invoke("import", write(tmp_path, f"{header}\n{row}\n"), "--json").document["inserted"] == 1
    (task,) = tables.tasks()
    assert (task.external_key, task.title, task.description, task.status) == ("A-1", " edges ", "text", "COMPLETED")
    assert task.completed_at is not None
    assert task.completed_at.isoformat() == "2026-01-31T07:30:00.250000+00:00"
    assert task.created_at.isoformat() == "2025-12-31T23:00:00+00:00"
    assert task.metadata_json is None


def test_a_key_leaves_the_other_fields_to_their_names(tables: Tables, tmp_path: Path) -> None:
    path = write(tmp_path, "key,title,description\nA-1,one,text\n")
    assert invoke("import", path, "--key", "key").code == 0
    assert [(task.external_key, task.title, task.description) for task in tables.tasks()] == [("A-1", "one", "text")]


def test_metadata_and_constants(tables: Tables, tmp_path: Path) -> None:
    path = write(tmp_path, "key,summary,points,my team\nA-1,one,3,\nA-2,two,,db\n")
    words = [
        "--key",
        "key",
        "--map",
        "title=summary",
        "--map",
        "metadata.points=points",
        "--map",
        "metadata.team=my team",
    ]
    constants = ["--set", "metadata.source=old tracker", "--set", "status=IN_PROGRESS", "--set", "metadata.a=b=c"]
    assert invoke("import", path, *words, *constants).code == 0
    tasks = tables.by_key()
    always = {"source": "old tracker", "a": "b=c"}
    assert tasks["A-1"].metadata_json == {"points": "3", "team": "", **always}
    assert tasks["A-2"].metadata_json == {"points": "", "team": "db", **always}
    assert {task.status for task in tasks.values()} == {"IN_PROGRESS"}


def test_the_owner_is_made_and_cannot_sign_in(tables: Tables, tmp_path: Path) -> None:
    invoke("import", write(tmp_path, "title\none\n"))
    invoke("import", write(tmp_path, "title\ntwo\n"), "--user", "Zoë ")
    users = tables.users()
    assert sorted(users.values()) == ["Zoë ", "importer"]
    assert [(task.title, users[task.user_id], task.created_by) for task in tables.tasks()] == [
        ("one", "importer", "importer"),
        ("two", "Zoë ", "Zoë "),
    ]
    assert tables.read(select(User.hashed_password)) == [(None,), (None,)]


@pytest.mark.parametrize("create", [False, True], ids=["known users only", "--create-users"])
def test_an_owner_from_a_column(tables: Tables, tmp_path: Path, create: bool) -> None:
    tables.change(insert(User).values(username="ada"))
    path = write(tmp_path, "title,assignee\none,ada\ntwo,bob\nthree,\nfour,ada\nfive,bob\n")
    words = ["--map", "title=title", "--map", "user=assignee", *(["--create-users"] if create else [])]
    report = invoke("import", path, *words, "--json").document
    unknown = [] if create else [(3, "assignee", "unknown_user"), (6, "assignee", "unknown_user")]
    empty = [(4, "assignee", "string_too_short")]
    assert tables.rejects() == sorted(unknown + empty)
    assert (report["inserted"], report["rejected"]) == ((4, 1) if create else (2, 3))
    assert sorted(tables.users().values()) == (["ada", "bob"] if create else ["ada"])


def test_the_first_tasks_of_an_ndjson_file_do_not_decide_about_its_fields(tables: Tables, tmp_path: Path) -> None:
    lines = [f'{{"title": "task {number}"}}' for number in range(150)]
    lines.append('{"title": "late", "description": "given only here", "external_key": "L-1", "status": "CANCELLED"}')
    assert invoke("import", write(tmp_path, "\n".join(lines), "t.ndjson"), "--json").document["inserted"] == 151
    late = tables.by_key()["L-1"]
    assert (late.description, late.status) == ("given only here", "CANCELLED")


WRONG_OPTIONS = {
    "--map tilte=title": "import: mapping: 'tilte' is not a field of a task: use one of external_key, title,"
    " description, status, completed_at, created_at, user or metadata.NAME",
    "--map title=titel": "column 'titel' is not in the file: its columns are 'title', 'key', 'note';"
    " did you mean 'title'?",
    "--map description=note": "no column is mapped onto title, which every task must have: the file has 'title', 'key',"
    " 'note'; name one with --map title=COLUMN",
    "--map title": "--map 'title' is not FIELD=VALUE: write it as --map title=summary",
    "--set =x": "--set '=x' is not FIELD=VALUE: write it as --set title=summary",
    "--map title=title --map title=key": "--map gives 'title' twice: give it once",
    "--map external_key=key --key key": "--key and --map external_key=COLUMN are the same: give one of the two",
    "--map title=title --set title=x": "import: 'title' is both mapped and set: give it one of the two",
    "--set status=DONE": "status='DONE': Input should be 'PENDING', 'IN_PROGRESS', 'COMPLETED' or 'CANCELLED';"
    " no row could be loaded with it, so set another value",
    "--set completed_at=2024": "completed_at='2024': Input should be a date and time in ISO 8601 with an offset, as"
    " 2026-01-31T08:30:00+01:00; no row could be loaded with it, so set another value",
    "--max-rejects few": "--max-rejects 'few' is neither a number of rows nor a percentage such as 5%",
    "--max-rejects -1": "import: max_rejects=-1: Input should be greater than or equal to 0",
    "--max-rejects 101%": "import: max_rejects_percent=101.0: Input should be less than or equal to 100",
    "--user ''": "import: user='': String should have at least 1 character",
    "--delimiter ;;": "import: delimiter=';;': String should have at most 1 character",
    "--encoding utf-99": "encoding 'utf-99' is not a text encoding that Python reads files in; use its name there,"
    " such as utf-8, cp1252 or utf-16",
    "--format xml": "Invalid value for '--format': 'xml' is not one of 'csv', 'ndjson'; see"
    " `python -m worker import --help`",
    "--batch-rows 0": "Invalid value for '--batch-rows': 0 is not in the range 1<=x<=10000; see"
    " `python -m worker import --help`",
    "--rejects r.csv --detach": "--rejects and --detach exclude each other: the file is written at the run's end",
}


@pytest.mark.parametrize("words", WRONG_OPTIONS)
def test_wrong_options_are_found_before_anything_is_done(
    tables: Tables, data_dir: Path, tmp_path: Path, words: str
) -> None:
    ended = invoke("import", write(tmp_path, "title,key,note\none,1,\n"), *shlex.split(words), "--json")
    assert (ended.code, ended.line) == (2, WRONG_OPTIONS[words])
    assert tables.runs() == []
    assert not (data_dir / "spool").exists()
