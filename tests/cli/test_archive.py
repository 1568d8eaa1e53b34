"""``archive`` and ``archives``: from the command line through a worker and back."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import func, insert, select, update

from db.models import TASKS_ARCHIVE, Erasure, Task, User
from holdfast.ids import uuid7
from tests.archive.hostile import HOSTILE_NAMES
from tests.cli.command import invoke
from tests.cli.tables import Tables

LONG_AGO = datetime.now(UTC) - timedelta(days=100)


@pytest.fixture
def ids(tables: Tables) -> list[UUID]:
    """Ten tasks, all but the last of them soft-deleted 100 days ago."""
    user, keys = uuid7(), [uuid7() for _ in range(10)]
    rows = [
        {
            "id": key,
            "title": f"task {number}",
            "external_key": f"K-{number}",
            "user_id": user,
            "is_deleted": number < 9,
            "deleted_at": LONG_AGO + timedelta(seconds=number) if number < 9 else None,
        }
        for number, key in enumerate(keys)
    ]
    tables.change(insert(User).values(id=user, username="ada"), insert(Task).values(rows))
    return keys


def archived(tables: Tables) -> int:
    return int(tables.read(select(func.count()).select_from(TASKS_ARCHIVE))[0][0])


def test_archive_moves_what_is_due(tables: Tables, ids: list[UUID]) -> None:
    ended = invoke("archive", "--older-than", "90d", "--json")
    assert ended.code == 0
    assert ended.document["state"] == "succeeded"
    assert (ended.document["moved"], ended.document["due"]) == ({"tasks": 9}, {"tasks": 9})
    assert (len(tables.tasks()), archived(tables)) == (1, 9)
    again = invoke("archive", "tasks")
    assert again.code == 0
    assert "moved             tasks 0\n" in again.out


def test_a_dry_run_moves_nothing(tables: Tables, ids: list[UUID]) -> None:
    ended = invoke("archive", "tasks", "--dry-run", "--json")
    assert (ended.code, ended.document["due"], ended.document["dry_run"]) == (0, {"tasks": 9}, True)
    assert (len(tables.tasks()), archived(tables)) == (10, 0)


def test_nothing_is_purged_without_a_yes(tables: Tables, ids: list[UUID]) -> None:
    preview = invoke("archive", "tasks", "--to", "purge")
    assert preview.code == 0
    assert "due               tasks 9\n" in preview.out
    assert preview.err == "nothing was purged: say it again with --yes\n"
    assert len(tables.tasks()) == 10
    assert invoke("archive", "tasks", "--to", "purge", "--yes", "--json").document["moved"] == {"tasks": 9}
    assert (len(tables.tasks()), archived(tables)) == (1, 0)


def test_limits_of_a_run(tables: Tables, ids: list[UUID]) -> None:
    some = invoke("archive", "--max-rows", "4", "--batch-rows", "3", "--connections", "2", "--json").document
    assert (some["moved"], some["ended_by"], some["left"]) == ({"tasks": 4}, "max_rows", {"tasks": 5})
    none = invoke("archive", "--until", "2020-01-01T00:00:00Z", "--json").document
    assert (none["moved"], none["ended_by"]) == ({"tasks": 0}, "until")
    assert invoke("archive", "--older-than", "15w", "--json").document["due"] == {"tasks": 0}


def test_detached(tables: Tables, ids: list[UUID]) -> None:
    ended = invoke("archive", "--detach", "--json")
    (run,) = tables.runs()
    assert (ended.code, ended.document) == (0, {"run_id": str(run.id), "state": "waiting"})


@pytest.mark.parametrize("to", ["table", "files"])
def test_search_restore_and_list(tables: Tables, ids: list[UUID], to: str) -> None:
    invoke("archive", "--to", to)
    found = invoke("archives", "search", "tasks", "external_key=K-3", "--json").document
    (row,) = found["rows"]
    assert (row["id"], row["values"]["title"], found["more"]) == (str(ids[3]), "task 3", False)
    assert (row["file"] is None) is (to == "table")
    shown = invoke("archives", "search", "tasks", "title~task", "--limit", "4")
    assert (shown.code, shown.out.count("title='task ")) == (0, 4)
    assert shown.err == "4 rows; there are more: raise --limit, or ask for less\n"
    since = (LONG_AGO + timedelta(seconds=7)).isoformat()
    assert len(invoke("archives", "search", "tasks", "--deleted-since", since, "--json").document["rows"]) == 2

    preview = invoke("archives", "restore", "tasks", str(ids[3]), "--dry-run", "--json").document
    assert (preview["restored"], preview["dry_run"]) == ({"tasks": 1}, True)
    restored = invoke("archives", "restore", "tasks", str(ids[3]), str(ids[9]), "--json")
    assert restored.code == 1
    assert (restored.document["state"], restored.document["restored"]) == ("succeeded", {"tasks": 1})
    assert [one["code"] for one in restored.document["refused"]] == ["not_archived"]
    assert {task.id for task in tables.tasks()} == {ids[3], ids[9]}

    (listed,) = [one for one in invoke("archives", "list", "--verify", "--json").document["archives"] if one["rows"]]
    assert (listed["table"], listed["rows"], listed["files"]) == ("tasks", 8, 0 if to == "table" else 1)
    assert f"{8:>12,} rows" in invoke("archives", "list", "tasks").out


def test_a_conflict_is_named(tables: Tables, ids: list[UUID]) -> None:
    invoke("archive")
    tables.change(update(Task).where(Task.id == ids[9]).values(external_key="K-3"))
    ended = invoke("archives", "restore", "tasks", str(ids[3]))
    assert ended.code == 1
    assert ended.err == (
        f"refused: tasks {ids[3]}: its external_key 'K-3' is taken by tasks {ids[9]}: change or delete that one first\n"
    )
    assert archived(tables) == 9


def test_nothing_is_erased_without_a_yes(tables: Tables, ids: list[UUID]) -> None:
    invoke("archive")
    words = ("archives", "erase", "tasks", str(ids[3]), "--reason", "ticket 4711", "--by", "ada")
    preview = invoke(*words)
    assert preview.code == 0
    assert "erased            tasks 1\n" in preview.out
    assert preview.err == "nothing was erased: say it again with --yes\n"
    assert archived(tables) == 9
    done = invoke(*words, "--yes", "--json")
    assert (done.code, done.document["erased"], done.document["listed"]) == (0, {"tasks": 1}, 1)
    ((key, reason, by),) = tables.read(select(Erasure.row_key, Erasure.reason, Erasure.erased_by))
    assert (key, reason, by) == (str(ids[3]), "ticket 4711", "ada")
    back = invoke("archives", "restore", "tasks", str(ids[3]))
    assert (back.code, "does not come back" in back.err) == (1, True)


def test_a_living_row_is_not_erased(tables: Tables, ids: list[UUID]) -> None:
    ended = invoke("archives", "erase", "tasks", str(ids[9]), "--reason", "-", "--yes")
    assert ended.code == 1
    assert ended.err == f"refused: tasks {ids[9]} is in its table and not deleted: delete it there first\n"


def test_what_came_back_is_erased_again(tables: Tables, ids: list[UUID]) -> None:
    listed = {"table_name": "tasks", "row_key": str(ids[9]), "reason": "-", "erased_at": LONG_AGO}
    tables.change(insert(Erasure).values(listed))
    preview = invoke("archives", "erase", "--again", "--json").document
    assert (preview["erased"], preview["dry_run"], len(tables.tasks())) == ({"tasks": 1}, True, 10)
    assert invoke("archives", "erase", "--again", "--yes", "--json").document["erased"] == {"tasks": 1}
    assert len(tables.tasks()) == 9


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[20] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("why", ["Not a directory", "No such file or directory"])
def test_a_folder_that_cannot_be_written_ends_the_run_at_once(
    tables: Tables, ids: list[UUID], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    folder = Path("/proc/archives")  # where nobody may make a folder
    if why == "Not a directory":
        folder = tmp_path / "file" / "archives"
        folder.parent.touch()
    monkeypatch.setenv("ARCHIVE_DIR", str(folder))
    ended = invoke("archive", "--to", "files")
    (run,) = tables.runs()
    assert run.error is not None
    words = (
        f"cannot be written ({why}): its rows were not deleted; set ARCHIVE_DIR to a folder that the worker may write"
    )
    assert ended.code == 1
    assert words in ended.error
    assert (run.error["type"], run.attempts, len(tables.tasks())) == ("folder_unusable", 1, 10)


def remove(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("harm", [damage, remove])
def test_a_damaged_file_is_named(tables: Tables, ids: list[UUID], data_dir: Path, harm: Callable[[Path], None]) -> None:
    invoke("archive", "--to", "files")
    (path,) = (data_dir / "archives").glob("*/*.zst")
    harm(path)
    for words in (("archives", "search", "tasks"), ("archives", "list", "--verify")):
        ended = invoke(*words)
        assert ended.code == 1
        assert f"error: {path} " in ended.err
    ended = invoke("archives", "restore", "tasks", str(ids[3]))
    assert (ended.code, f"error: {path} " in ended.err) == (1, True)
    assert len(tables.tasks()) == 1


WRONG = {
    "archive task": "'task' is no table of a mapped model with soft deletion: did you mean tasks?",
    "archive users": "'users' is no table of a mapped model with soft deletion: those are tasks",
    "archive tasks tasks": "archive: tables=('tasks', 'tasks'): 'tasks' is named twice: name it once",
    "archive --older-than 90": "--older-than '90' is no length of time: write it as 90d, 12w, 36h or 90m",
    "archive --older-than 99999d": "archive: older_than_days=99999.0: Input should be less than or equal to 36500",
    "archive --until soon": "--until 'soon' is no time: write it as 2026-01-31T08:30:00+01:00",
    "archives restore tasks 1": "'1' is no key of tasks: it must be one value (id UUID)",
    "archives restore users 1": "'users' is no table of a mapped model with soft deletion: those are tasks",
    "archives erase": "TABLE and ID are missing: name the rows to erase, or say --again",
    "archives erase tasks 1 --reason x": "'1' is no key of tasks: it must be one value (id UUID)",
    "archives search tasks titel=x": "'titel' is no column of tasks: did you mean title?",
    "archives search tasks title": "'title' is no condition: write COLUMN=VALUE, or COLUMN~TEXT for a part of a text",
    "archives search tasks id=x": "id=x: id takes no such value",
    "archives search tasks deleted_at=2025-01-01": "deleted_at=2025-01-01: it has no offset: write it as 2025-01-01Z"
    " or 2025-01-01+01:00",
    "archives search tasks status=LOST": "status=LOST: status takes no such value",
    "archives search tasks is_deleted=maybe": "is_deleted=maybe: is_deleted takes no such value",
    "archives search tasks is_deleted~x": "is_deleted~x: is_deleted is no text: write is_deleted=VALUE",
    "archives search tasks tags~one": "tags~one: tags holds JSON or a list: ask for another column",
    "archives search tasks tags=one": "tags=one: tags holds JSON or a list: ask for another column",
}


@pytest.mark.parametrize("words", WRONG)
def test_wrong_usage(tables: Tables, words: str) -> None:
    ended = invoke(*words.split())
    assert (ended.code, ended.line) == (2, WRONG[words])
    assert tables.runs() == []


@pytest.mark.parametrize("words", [("deleted_at=0001-01-01T00:00Z",), ("--deleted-since", "0999-12-31T00:00Z")])
def test_a_time_that_no_database_holds_is_wrong_usage(tables: Tables, words: tuple[str, ...]) -> None:
    ended = invoke("archives", "search", "tasks", *words)
    assert (ended.code, " is not of the years 1000 to 9999" in ended.line) == (2, True)


def test_what_is_no_text_is_wrong_usage(tables: Tables) -> None:
    ended = invoke("archives", "search", "tasks", "title=\udcff")
    assert (ended.code, ended.line) == (2, "'title=\\udcff' is no UTF-8: write it as text")


def test_an_erasure_needs_a_reason(tables: Tables) -> None:
    ended = invoke("archives", "erase", "tasks", str(uuid7()))
    assert (ended.code, ended.line) == (2, '--reason is missing: say why, as in --reason "ticket 4711"')


COMMANDS = {
    "archive": (),
    "archives search": (),
    "archives list": (),
    "archives restore": (str(UUID(int=1)),),
    "archives erase": (str(UUID(int=1)), "--reason", "x", "--yes"),
}


def no_database(*given: object) -> None:
    raise AssertionError(f"a database was opened: {given}")


@pytest.mark.parametrize("command", COMMANDS)
def test_no_name_reaches_sql(tables: Tables, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.cli.database.initialize_database", no_database)
    for name in HOSTILE_NAMES:
        if name == "" and command == "archives list":
            continue  # no name
        ended = invoke(*command.split(), name, *COMMANDS[command])
        assert (ended.code, ended.out) == (2, ""), name
        assert len(ended.err.splitlines()) == 1, name
        assert ended.err.startswith("error: "), name


def test_no_column_name_reaches_sql(tables: Tables, ids: list[UUID], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.cli.database.initialize_database", no_database)
    for name in HOSTILE_NAMES:
        ended = invoke("archives", "search", "tasks", f"{name}=1")
        assert (ended.code, ended.out) == (2, ""), name
        assert len(ended.err.splitlines()) == 1, name
    assert len(tables.tasks()) == 10


def test_hostile_values_are_only_values(tables: Tables, ids: list[UUID]) -> None:
    invoke("archive")
    for value in ("' OR 1=1 --", "K-1'; DROP TABLE tasks_archive; --", "%", "_", "\\"):
        for operator in ("=", "~"):
            assert invoke("archives", "search", "tasks", f"title{operator}{value}", "--json").document["rows"] == []
    assert archived(tables) == 9
