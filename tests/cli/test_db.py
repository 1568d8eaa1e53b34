"""`db upgrade` and `db current`."""

from pathlib import Path

import pytest

from db.migrate import head_revision
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
