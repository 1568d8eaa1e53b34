"""Any text in any column is loaded as it is or rejected under a code; nothing in between, and never an error."""

import csv
import shutil
import string
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from db.models import TaskStatus
from tests.cli.command import invoke
from tests.cli.tables import Tables

Cells = tuple[str, str, str, str, str]
COLUMNS = ("external_key", "title", "description", "status", "completed_at")
STATUSES = {status.value for status in TaskStatus}
INSTANTS = {
    "2026-01-31T08:30:00Z": "2026-01-31T08:30:00+00:00",
    "2024-02-29 23:59:59.999999-12:45": "2024-03-01T12:44:59.999999+00:00",
    "1000-01-01T00:00:00+00:00": "1000-01-01T00:00:00+00:00",
}
BAD_INSTANTS = ("2024", "1700000000", "2026-01-31T08:30:00", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59-14:00", "now")

ODD_CHARACTERS = ' \t\0\r\n",;\\\x1a\x7f\x85\ufeff\u2028\ud7ff\U0010ffff'
LIMITS = ["x" * 255, "x" * 256, "\U0001f418" * 255, "\U0001f418" * 256]
odd_texts = st.sampled_from([*ODD_CHARACTERS, *LIMITS, "", "\r\n", '""', "NULL", "\\N", "=1+1", "%s", "{}"])
texts = st.one_of(st.text(max_size=30), odd_texts, st.lists(odd_texts, max_size=4).map("".join))
cells = st.tuples(
    texts,
    texts,
    texts,
    st.one_of(st.sampled_from([*STATUSES, "", "DONE"]), texts),
    st.one_of(st.sampled_from([*INSTANTS, *BAD_INSTANTS, ""]), st.text(string.digits + "-:TZ+. ", max_size=26), texts),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("round-trips")


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(cells, min_size=1, max_size=80), batch_rows=st.sampled_from([7, 1000]))
def test_any_text(rows: list[Cells], batch_rows: int, folder: Path, migrated_file: Path) -> None:
    with pytest.MonkeyPatch.context() as environment:
        shutil.rmtree(folder)
        folder.mkdir()
        environment.setenv("HOLDFAST_DATA_DIR", str(folder))
        shutil.copy(migrated_file, folder / "holdfast.db")
        path = folder / "tasks.csv"
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows([COLUMNS, *rows])
        ended = invoke("import", path, "--format", "csv", "--batch-rows", str(batch_rows), "--json")
    assert (ended.code, ended.err) == (0, "")
    document, tables = ended.document, Tables.embedded(folder)
    found = {
        task.external_key: (task.title, task.description, task.status.value, task.completed_at)
        for task in tables.tasks()
    }
    codes = Counter(code for _, _, code in tables.rejects())
    assert document["rows_read"] == len(rows) == document["inserted"] + document["rejected"]
    assert (len(found), codes.total()) == (document["inserted"], document["rejected"])
    firsts: dict[str, Cells] = {}
    for row in rows:
        if may_be_loaded(row):
            firsts.setdefault(row[0], row)
    for key, (_, title, description, status, instant) in firsts.items():
        if is_surely_loaded(firsts[key]):
            moment = found[key][3]
            assert found[key][:3] == (title, description, status or "PENDING")
            assert (moment.isoformat() if moment else "") == INSTANTS.get(instant, "")
    assert found.keys() <= firsts.keys()


def may_be_loaded(row: Cells) -> bool:
    """Whether nothing but its date can be wrong with a row."""
    key, title, _, status, _ = row
    fits = 0 < len(key) <= 255 and 0 < len(title) <= 255 and status in {*STATUSES, ""}
    return fits and not any("\0" in cell for cell in row)


def is_surely_loaded(row: Cells) -> bool:
    return row[4] in {*INSTANTS, ""}
