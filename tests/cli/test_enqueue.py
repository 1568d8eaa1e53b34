"""`enqueue`: any kind, now or later."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.cli.command import invoke
from tests.cli.tables import Tables


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that jobs may read."""
    monkeypatch.setenv("IMPORT_ROOTS", str(tmp_path))
    file = tmp_path / "tasks.csv"
    file.write_text("title\none\ntwo\n")
    return file


def test_now(tables: Tables, path: Path) -> None:
    ended = invoke("enqueue", "import_tasks", f"source={path}", "user=ada", 'mapping={"title": "title"}', "--json")
    (found,) = tables.runs()
    assert ended.code == 0
    assert ended.document == {"run_id": str(found.id), "state": "waiting"}
    assert found.request == {"source": str(path), "user": "ada", "mapping": {"title": "title"}}
    assert (found.state, found.reason) == ("waiting", None)


def test_and_wait_for_the_end(tables: Tables, path: Path) -> None:
    ended = invoke("enqueue", "import_tasks", f"source={path}", "batch_rows=1", "--wait", "--json")
    assert (ended.code, ended.err) == (0, "")
    assert [ended.document[key] for key in ("state", "kind", "inserted")] == ["succeeded", "import_tasks", 2]
    shown = invoke("enqueue", "import_tasks", f"source={path}", "--wait").out
    assert shown.splitlines()[0].endswith(" (import_tasks): succeeded")
    assert len(tables.titles()) == 4


@pytest.mark.parametrize(
    ("words", "seconds"), [(["--in", "3600"], 3600), (["--in", "0.5"], 0.5), (["--in", "-60"], -60)]
)
def test_in_some_seconds(tables: Tables, path: Path, words: list[str], seconds: float) -> None:
    before = datetime.now(UTC)
    assert invoke("enqueue", "import_tasks", f"source={path}", *words).code == 0
    (found,) = tables.runs()
    assert before + timedelta(seconds=seconds) <= found.due_at <= datetime.now(UTC) + timedelta(seconds=seconds)
    assert found.reason == "scheduled"


def test_at_a_time(tables: Tables, path: Path) -> None:
    ended = invoke("enqueue", "import_tasks", f"source={path}", "--at", "2099-01-31T08:30:00+01:00")
    (found,) = tables.runs()
    assert ended.out == f"run {found.id} is waiting\n"
    assert found.due_at == datetime(2099, 1, 31, 7, 30, tzinfo=UTC)
    assert invoke("run", "--burst").code == 0
    assert tables.runs()[0].state == "waiting"


WRONG = {
    "import": "KIND 'import' is unknown: use one of archive_deleted, erase_archived, import_tasks, restore_archived",
    "import_tasks": "import_tasks: source: Field required",
    "import_tasks source": "'source' is not FIELD=VALUE: write it as source=/imports/tasks.csv",
    "import_tasks source=/a source=/b": "'source' is given twice: give it once",
    "import_tasks source=/a sorce=/b": "import_tasks: sorce='/b': Extra inputs are not permitted",
    "import_tasks source=/a batch_rows=0": "import_tasks: batch_rows=0: Input should be greater than or equal to 1",
    "import_tasks source=7": "import_tasks: source=7: Input should be a valid string",
    "import_tasks source=/a mapping.x=1": "import_tasks: mapping.x=1: Extra inputs are not permitted",
    'import_tasks source=/a mapping={"tilte":"x"}': "import_tasks: mapping: 'tilte' is not a field of a task: use one"
    " of external_key, title, description, status, completed_at, created_at, user or metadata.NAME",
    "import_tasks source=/a --at soon": "--at 'soon' is no time: write it as 2026-01-31T08:30:00+01:00",
    "import_tasks source=/a --at 2026-01-31T08:30:00": "--at '2026-01-31T08:30:00' has no offset: write it as"
    " 2026-01-31T08:30:00Z or 2026-01-31T08:30:00+01:00",
    "import_tasks source=/a --at 9999-12-31T23:59:59-14:00": "--at '9999-12-31T23:59:59-14:00' is no time: write it as"
    " 2026-01-31T08:30:00+01:00",
    "import_tasks source=/a --at 0001-01-01T00:00Z": "--at '0001-01-01T00:00Z' is not of the years 1000 to 9999:"
    " the database keeps no other",
    "import_tasks source=/a --in -40000000000": "--in -4e+10 is not of the years 1000 to 9999: the database keeps no"
    " other",
    'import_tasks source="/a\\u0000b"': "the import_tasks request holds a NUL character (U+0000): take it out",
    "import_tasks source=/a --in nan": "--in nan leads to no date: give seconds, such as 3600",
    "import_tasks source=/a --in 1e300": "--in 1e+300 leads to no date: give seconds, such as 3600",
    "import_tasks source=/a --in soon": "Invalid value for '--in': 'soon' is not a valid float; see"
    " `python -m worker enqueue --help`",
    "import_tasks source=/a --at 2026-01-31T08:30:00Z --in 5": "--at and --in exclude each other: give one",
}


@pytest.mark.parametrize("words", WRONG)
def test_wrong_requests_are_not_enqueued(tables: Tables, words: str) -> None:
    ended = invoke("enqueue", *words.split(), "--json")
    assert (ended.code, ended.line) == (2, WRONG[words])
    assert tables.runs() == []


def test_a_deeply_nested_value_is_text(tables: Tables) -> None:
    ended = invoke("enqueue", "import_tasks", f"source=/{'x' * 10}", f"user={'[' * 20_000}")
    assert ended.code == 2
    assert "String should have at most 150 characters" in ended.line


def test_a_unique_key(tables: Tables, path: Path) -> None:
    words = ("enqueue", "import_tasks", f"source={path}", "--unique-key", "nightly")
    assert invoke(*words).code == 0
    ended = invoke(*words, "--wait", "--json")
    first, second = sorted(tables.runs(), key=lambda run: run.id)
    assert first.unique_key == "nightly"
    assert (second.state, second.duplicate_of) == ("cancelled", first.id)
    assert (ended.code, ended.document["state"]) == (1, "cancelled")


@pytest.mark.parametrize("key", ["", "k" * 151])
def test_a_wrong_unique_key(tables: Tables, path: Path, key: str) -> None:
    ended = invoke("enqueue", "import_tasks", f"source={path}", "--unique-key", key)
    assert ended.code == 2
    assert ended.err.startswith(f"error: --unique-key={key[:40]!r} of {len(key)} characters")
    assert tables.runs() == []
