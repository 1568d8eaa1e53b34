"""`db upgrade`, `downgrade`, `current`, `check`, `reset`, `seed`."""

import sys
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from db import schema
from db.migrate import head_revision
from db.models import Task, TaskStatus, User
from db.urls import is_local
from tests.cli.command import invoke
from tests.cli.tables import Tables


def test_upgrade_and_current(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)
    newest = head_revision()
    behind = invoke("db", "current", "--json")
    assert behind.code == 1
    assert {key: behind.document[key] for key in ("revision", "newest", "up_to_date")} == {
        "revision": None,
        "newest": newest,
        "up_to_date": False,
    }
    upgraded = invoke("db", "upgrade", "--json")
    assert upgraded.code == 0
    assert [upgraded.document[key] for key in ("was", "revision", "up_to_date")] == [None, newest, True]
    assert invoke("db", "upgrade", "--json").document["was"] == newest
    current = invoke("db", "current")
    assert (current.code, current.err) == (0, "")
    assert current.out.endswith(f": revision {newest} (newest: {newest})\n")
    assert Tables(database_url).runs() == []


def test_down_and_up_again(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)
    newest = head_revision()
    assert invoke("db", "upgrade").code == 0
    agrees = invoke("db", "check", "--json")
    assert (agrees.code, agrees.document["differences"], agrees.document["up_to_date"]) == (0, [], True)
    down = invoke("db", "downgrade", "0003", "--json")
    assert (down.code, down.document["was"], down.document["revision"]) == (0, newest, "0003")
    differs = invoke("db", "check")
    assert differs.code == 1
    assert "tasks lacks the index ix_tasks_status_id" in differs.out.splitlines()
    unknown = invoke("db", "downgrade", "9999")
    assert (unknown.code, unknown.line) == (2, "revision '9999': Can't locate revision identified by '9999'")
    assert invoke("db", "upgrade", "--json").document["was"] == "0003"
    assert invoke("db", "check").out == "the tables are what the models say\n"


def rows_of(tables: Tables) -> list[tuple[Any, ...]]:
    """Every person and task, as the database has them."""
    users = tables.read(select(*User.__table__.c).order_by(User.id))
    return users + tables.read(select(*Task.__table__.c).order_by(Task.id))


def test_the_same_number_seeds_the_same_rows(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)
    tables = Tables(database_url)
    assert invoke("db", "upgrade").code == 0
    words = ("db", "seed", "--users", "7", "--tasks", "60", "--seed", "3")
    seeded = invoke(*words, "--json")
    assert {key: seeded.document[key] for key in ("users", "tasks", "seed")} == {"users": 7, "tasks": 60, "seed": 3}
    first = rows_of(tables)
    assert len(first) == 67
    assert {task.status for task in tables.tasks()} == set(TaskStatus)
    assert all((task.completed_at is None) is (task.status is not TaskStatus.COMPLETED) for task in tables.tasks())
    again = invoke(*words)
    assert (again.code, again.line) == (1, "seed 3 is in the database already: give another --seed, or reset it first")
    refused = invoke("db", "reset")
    assert refused.code == 2
    assert " holds rows (users 7, tasks 60): its tables are not dropped; say --yes if all of it may be lost" in (
        refused.line
    )
    assert rows_of(tables) == first
    assert invoke("db", "reset", "--yes", "--json").document["rows_lost"] == {"users": 7, "tasks": 60}
    assert (rows_of(tables), invoke("db", "check").code) == ([], 0)
    assert invoke(*words).code == 0
    assert rows_of(tables) == first
    assert invoke(*words[:-1], "4").code == 0
    assert len(rows_of(tables)) == 134
    assert invoke("db", "reset", "--yes").code == 0
    assert invoke("db", "reset").code == 0  # nothing can be lost


def test_nobody_owns_the_tasks(tables: Tables) -> None:
    ended = invoke("db", "seed", "--users", "0")
    assert (ended.code, ended.line) == (2, "200 tasks need somebody to own them: make at least one user")
    assert tables.tasks() == []


def test_a_database_elsewhere_is_neither_reset_nor_seeded(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", postgres_url)
    assert invoke("db", "upgrade").code == 0
    commands = sys.modules["worker.cli.db"]  # the name `db` there is the group of commands
    for module in (commands, schema):
        monkeypatch.setattr(module, "is_local", lambda url: is_local(url.set(host="db.example.org")))
    for command, consequence in (
        ("reset", "its tables are not dropped; say --yes if all of it may be lost"),
        ("seed", "no development data is added; say --yes if that is meant"),
    ):
        ended = invoke("db", command)
        assert ended.code == 2
        assert f"is not on this machine: {consequence}" in ended.line
    assert invoke("db", "seed", "--users", "1", "--tasks", "1", "--yes").code == 0


def test_the_statements_are_printed(monkeypatch: pytest.MonkeyPatch, sqlite_url: str) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@localhost/x")  # nothing is connected
    printed = invoke("db", "upgrade", "--sql")
    assert printed.code == 0
    assert "CREATE TABLE tasks (" in printed.out
    assert invoke("db", "upgrade", "--sql", "--json").code == 2
    monkeypatch.setenv("DATABASE_URL", sqlite_url)
    ended = invoke("db", "upgrade", "--sql")
    assert ended.code == 2
    assert ended.line.endswith("; --sql works for PostgreSQL and MySQL/MariaDB")


def test_the_embedded_database_is_made(tmp_path: Path) -> None:
    assert invoke("db", "upgrade").code == 0
    assert (tmp_path / "data" / "holdfast.db").exists()
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700
    assert invoke("db", "current").code == 0


def test_the_embedded_database_migrates_itself(tmp_path: Path) -> None:
    ended = invoke("runs", "list", "--json")
    assert ended.document == {"runs": [], "next_cursor": None, "total": 0}
    assert invoke("db", "current", "--json").document["up_to_date"]


@pytest.mark.parametrize("words", ["import {}", "enqueue import_tasks source=/x", "runs list", "run --burst"])
def test_other_databases_must_be_up_to_date(
    sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    monkeypatch.setenv("DATABASE_URL", sqlite_url)
    monkeypatch.setenv("LOG_LEVEL", "error")
    path = tmp_path / "tasks.csv"
    path.write_text("title\none\n")
    ended = invoke(*words.format(path).split())
    assert (ended.code, ended.line) == (
        1,
        f"the database is at revision none but this version needs {head_revision()}: run `python -m worker db upgrade`",
    )
    spool = tmp_path / "data" / "spool"
    assert not spool.exists() or list(spool.iterdir()) == []


def test_the_password_is_not_printed(monkeypatch: pytest.MonkeyPatch, postgres_url: str) -> None:
    monkeypatch.setenv("DATABASE_URL", postgres_url.replace("postgres@", "postgres:canary@"))
    for words in (["db", "upgrade"], ["db", "upgrade", "--json"], ["db", "current"]):
        ended = invoke(*words)
        assert ended.code == 0
        assert "canary" not in ended.out + ended.err
        assert "postgres:***@" in ended.out
