"""Rows that are not loaded: where they are named, and how many there may be; dry and atomic imports."""

import csv
import stat
from pathlib import Path

import pytest

from samples.make_tasks import FIELD_MAP, write_tasks
from tests.cli.command import invoke
from tests.cli.tables import Tables
from tests.imports.files import write

MAPPING = [word for field, column in FIELD_MAP.items() for word in ("--map", f"{field}={column}")]
FEWER_FIELDS = (
    "the record has 2 fields, the header has 3: both must be equal; mend the row (a field that holds ',' must stand"
    " in quotes)"
)
THREE_OF_FIVE = "external_key,title\nA,one\nB,\nC,two\nD\nE,three\n"


def lines_of(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def test_a_generated_file_and_its_rejects(tables: Tables, tmp_path: Path) -> None:
    source, rejects = tmp_path / "tasks.csv", tmp_path / "rejects.csv"
    with source.open("w", encoding="utf-8", newline="") as file:
        expected = write_tasks(file, 1200, seed=3)
    ended = invoke("import", source, *MAPPING, "--rejects", rejects, "--batch-rows", "97", "--json")
    bad = sum(expected.rejected.values())
    assert (ended.code, ended.err) == (0, "")
    assert list(ended.document) == [
        "run_id",
        "state",
        "rows_read",
        "inserted",
        "updated",
        "unchanged",
        "skipped",
        "rejected",
        "rejects_file",
        "duration_s",
        "rows_per_s",
    ]
    assert [ended.document[key] for key in ("rows_read", "inserted", "rejected")] == [1200, expected.good, bad]
    assert ended.document["rejects_file"] == str(rejects)
    header, *rows = lines_of(rejects)
    assert header == ["line", "column", "code", "reason", "raw"]
    found = [(int(line), column or None, code) for line, column, code, _, _ in rows]
    assert found == tables.rejects() == sorted(found)
    assert {code: sum(code == other for _, _, other in found) for _, _, code in found} == expected.rejected
    assert stat.S_IMODE(rejects.stat().st_mode) == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "rejects.csv", "tasks.csv"]


def test_each_reject_says_what_is_wrong_and_shows_the_row(tables: Tables, tmp_path: Path) -> None:
    rejects = tmp_path / "rejects.csv"
    path = write(tmp_path, 'external_key,title,status\nA,"two\nlines",DONE\n\nB,,PENDING\nC,x\n')
    assert invoke("import", path, "--rejects", rejects).code == 0
    statuses = "Input should be 'PENDING', 'IN_PROGRESS', 'COMPLETED' or 'CANCELLED'"
    assert lines_of(rejects)[1:] == [
        ["2", "status", "enum", f"status='DONE': {statuses}", 'A,"two\nlines",DONE'],
        ["5", "title", "string_too_short", "title='': String should have at least 1 character", "B,,PENDING"],
        [
            "6",
            "",
            "too_few_fields",
            FEWER_FIELDS,
            "C,x",
        ],
    ]


def test_an_old_file_of_rejects_is_replaced(tables: Tables, tmp_path: Path) -> None:
    rejects = write(tmp_path, "what was there", "rejects.csv")
    ended = invoke("import", write(tmp_path, "title\none\n"), "--rejects", rejects, "--json")
    assert ended.document["rejects_file"] is None
    assert lines_of(rejects) == [["line", "column", "code", "reason", "raw"]]


def test_without_a_name_the_rejects_lie_in_the_data_folder(tables: Tables, data_dir: Path, tmp_path: Path) -> None:
    document = invoke("import", write(tmp_path, THREE_OF_FIVE), "--json").document
    written = Path(document["rejects_file"])
    assert written == data_dir / "rejects" / f"{document['run_id']}.csv"
    assert [row[2] for row in lines_of(written)[1:]] == ["string_too_short", "too_few_fields"]
    assert stat.S_IMODE(written.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("limit", ["2", "40%", "100%"])
def test_as_many_rejects_as_allowed(tables: Tables, tmp_path: Path, limit: str) -> None:
    ended = invoke("import", write(tmp_path, THREE_OF_FIVE), "--max-rejects", limit, "--json")
    assert (ended.code, ended.document["state"]) == (0, "succeeded")


@pytest.mark.parametrize("limit", ["0", "1", "39.9%"])
def test_too_many_rejects(tables: Tables, data_dir: Path, tmp_path: Path, limit: str) -> None:
    ended = invoke("import", write(tmp_path, THREE_OF_FIVE), "--max-rejects", limit, "--json")
    document = ended.document
    rejects = data_dir / "rejects" / f"{document['run_id']}.csv"
    assert ended.code == 1
    assert ended.error == (
        f"2 of 5 rows were rejected but --max-rejects is {limit}; they are in {rejects}: mend them, or allow more"
    )
    assert (document["state"], document["rejects_file"]) == ("failed", str(rejects))
    assert len(lines_of(rejects)) == 3
    assert tables.titles() == ["one", "three", "two"]


def test_the_limit_stops_a_long_import_early(tables: Tables, tmp_path: Path) -> None:
    path = write(tmp_path, "title\n" + "x\n" * 10 + '""\n' + "x\n" * 100)
    ended = invoke("import", path, "--max-rejects", "0", "--batch-rows", "5", "--json")
    assert [ended.document[key] for key in ("rows_read", "inserted", "rejected")] == [15, 14, 1]


@pytest.mark.parametrize("is_made", [False, True], ids=["nothing", "a user and a task"])
def test_a_dry_run_changes_nothing_and_reports_truly(tables: Tables, tmp_path: Path, is_made: bool) -> None:
    if is_made:
        invoke("import", write(tmp_path, "external_key,title\nA,one\n"))
    before = (tables.titles(), tables.users())
    words = ["--dry-run", "--batch-rows", "2", "--rejects", str(tmp_path / "r.csv"), "--json"]
    document = invoke("import", write(tmp_path, THREE_OF_FIVE + "E,again\n"), *words).document
    counts = [document[key] for key in ("rows_read", "inserted", "skipped", "rejected")]
    assert counts == ([6, 2, 1, 3] if is_made else [6, 3, 0, 3])
    assert (tables.titles(), tables.users()) == before
    assert [row[2] for row in lines_of(tmp_path / "r.csv")[1:]] == [
        "string_too_short",
        "too_few_fields",
        "duplicate_key",
    ]
    assert tables.rejects() == []


def test_an_atomic_import_that_fails_leaves_its_rejects_file_and_nothing_else(tables: Tables, tmp_path: Path) -> None:
    words = ["--atomic", "--batch-rows", "1", "--max-rejects", "1", "--rejects", str(tmp_path / "r.csv"), "--json"]
    ended = invoke("import", write(tmp_path, THREE_OF_FIVE), *words)
    assert (ended.code, ended.document["state"]) == (1, "failed")
    assert [row[0] for row in lines_of(tmp_path / "r.csv")[1:]] == ["3", "5"]
    assert (tables.titles(), tables.users(), tables.rejects()) == ([], {}, [])


def test_an_atomic_import_that_succeeds(tables: Tables, tmp_path: Path) -> None:
    document = invoke("import", write(tmp_path, THREE_OF_FIVE), "--atomic", "--batch-rows", "1", "--json").document
    assert [document[key] for key in ("rows_read", "inserted", "rejected")] == [5, 3, 2]
    assert tables.titles() == ["one", "three", "two"]
