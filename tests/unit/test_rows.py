"""From a record of the file to a validated task."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db.models import TaskStatus
from holdfast import ImportTasks
from jobs.import_tasks.record_types import Position, Record
from jobs.import_tasks.rows import Reject, Row, RowReader, TaskRow, effective_mapping


def record_of(values: dict[str, Any] | None, raw: str = "raw", line: int = 2) -> Record:
    return Record(line=line, values=values, raw=raw, problem=None, end=Position(0, 1))


def read(values: Mapping[str, Any] | None = None, /, **request: Any) -> Row | Reject:
    """Read one record with the request's mapping; without one each column is the field of its name."""
    record = {"title": "t", **(values or {})}
    reader = RowReader(ImportTasks(source="/x", **request), tuple(record))
    return reader.read(record_of(record))


def task_of(values: Mapping[str, Any] | None = None, /, **request: Any) -> TaskRow:
    row = read(values, **request)
    assert isinstance(row, Row), row
    return row.task


def problem_of(values: Mapping[str, Any], /, **request: Any) -> tuple[str, str | None, str]:
    reject = read(values, **request)
    assert isinstance(reject, Reject), reject
    assert (reject.line, reject.raw) == (2, "raw")
    assert "\n" not in reject.problem.reason
    return reject.problem.code, reject.problem.column, reject.problem.reason


@given(st.text(min_size=1, max_size=255), st.text(), st.text(min_size=1, max_size=255))
def test_texts_are_not_changed(title: str, description: str, key: str) -> None:
    task = task_of({"title": title, "description": description, "external_key": key})
    assert (task.title, task.description, task.external_key) == (title, description, key)


def test_columns_are_mapped_and_constants_set() -> None:
    task = task_of(
        {"summary": " s ", "points": "3", "unused": "u"},
        mapping={"title": "summary", "metadata.story points": "points"},
        constants={"status": "COMPLETED", "metadata.origin": "sheet", "external_key": "k"},
    )
    assert (task.title, task.status, task.external_key) == (" s ", TaskStatus.COMPLETED, "k")
    assert task.metadata == {"origin": "sheet", "story points": "3"}


def test_without_a_mapping_each_column_that_has_a_fields_name_is_that_field() -> None:
    request = ImportTasks(source="/x", constants={"status": "PENDING"})
    columns = ("title", "status", "Description", "metadata", "user")
    assert effective_mapping(request, columns) == {"title": "title", "user": "user"}


def test_the_key_alone_leaves_the_other_fields_to_their_names() -> None:
    columns = ("title", "issue", "external_key", "user")
    request = ImportTasks(source="/x", mapping={"external_key": "issue"}, constants={"user": "ada"})
    assert effective_mapping(request, columns) == {"title": "title", "external_key": "issue"}
    request = ImportTasks(source="/x", mapping={"external_key": "issue", "title": "title"})
    assert effective_mapping(request, columns) == {"title": "title", "external_key": "issue"}


def test_an_empty_cell_is_absent_only_where_the_empty_text_means_nothing() -> None:
    task = task_of({"description": "", "status": "", "completed_at": "", "created_at": ""})
    assert (task.description, task.status, task.completed_at, task.created_at) == ("", TaskStatus.PENDING, None, None)
    assert problem_of({"title": ""})[:2] == ("string_too_short", "title")
    assert problem_of({"external_key": ""})[:2] == ("string_too_short", "external_key")


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("2026-01-31T08:30:00Z", datetime(2026, 1, 31, 8, 30, tzinfo=UTC)),
        ("2026-01-31 08:30:00.123456+01:00", datetime(2026, 1, 31, 7, 30, 0, 123456, tzinfo=UTC)),
        ("2026-01-31T08:30-0530", datetime(2026, 1, 31, 14, 0, tzinfo=UTC)),
        ("1000-01-01T00:00:00Z", datetime(1000, 1, 1, tzinfo=UTC)),
        ("9999-12-31T23:59:59Z", datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)),
    ],
)
def test_instants_become_utc(text: str, instant: datetime) -> None:
    assert task_of({"completed_at": text}).completed_at == instant


@pytest.mark.parametrize(
    ("values", "code", "words"),
    [
        ({"title": "t" * 300}, "string_too_long", "should have at most 255 characters"),
        ({"title": None}, "missing", "title is missing"),
        ({"title": 3}, "string_type", "title=3: Input should be a valid string"),
        ({"external_key": "k" * 256}, "string_too_long", "at most 255"),
        ({"status": "LATER"}, "enum", "status='LATER': Input should be 'PENDING', 'IN_PROGRESS', 'COMPLETED'"),
        ({"status": "pending"}, "enum", "status='pending'"),
        ({"completed_at": "2026-01-31T08:30:00"}, "timezone_aware", "should have timezone info"),
        ({"completed_at": "2026-02-30T08:30:00Z"}, "datetime", "day value is outside expected range"),
        ({"completed_at": "yesterday"}, "datetime", "ISO 8601"),
        ({"completed_at": "1767225600"}, "datetime", "ISO 8601"),
        ({"completed_at": 1767225600}, "datetime", "ISO 8601"),
        ({"completed_at": "0999-12-31T23:59:59Z"}, "datetime_out_of_range", "between the years 1000 and 9999"),
        ({"completed_at": "9999-12-31T23:59:59-01:00"}, "datetime_out_of_range", "between the years"),
        ({"user": "u" * 151}, "string_too_long", "at most 150"),
    ],
)
def test_what_does_not_fit_is_rejected_with_field_value_and_rule(values: dict[str, Any], code: str, words: str) -> None:
    found, column, reason = problem_of(values)
    assert found.startswith(code)
    assert column == next(iter(values))
    assert words in reason


def test_a_reject_names_the_column_and_cuts_a_long_value() -> None:
    mapping = {"title": "summary"}
    code, column, reason = problem_of({"summary": "s" * 10_000}, mapping=mapping)
    assert (code, column) == ("string_too_long", "summary")
    assert len(reason) < 200
    assert problem_of({"summary": ""}, mapping=mapping)[2].startswith("summary=''")


def test_metadata_that_mariadb_could_not_hold_is_rejected() -> None:
    def nested(depth: int) -> dict[str, Any]:
        inner: dict[str, Any] = {}
        for _ in range(depth - 1):
            inner = {"a": inner}
        return inner

    reader = RowReader(ImportTasks(source="/x", mapping={"title": "title", "metadata.m": "m"}), ("title", "m"))
    good = reader.read(record_of({"title": "t", "m": nested(30)}))
    bad = reader.read(record_of({"title": "t", "m": nested(31)}))
    assert isinstance(good, Row)
    assert isinstance(bad, Reject)
    assert "at most 31 levels deep" in bad.problem.reason


def test_a_record_that_could_not_be_read_stays_rejected() -> None:
    reader = RowReader(ImportTasks(source="/x"), ("title",))
    reject = reader.read(record_of(None, "a,b,c", 7))
    assert isinstance(reject, Reject)
    assert (reject.line, reject.raw, reject.problem.code) == (7, "a,b,c", "malformed")
