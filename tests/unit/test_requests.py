"""What a producer may ask for, and what it is told when it may not."""

import re
from typing import Any

import pytest
from pydantic import ValidationError

from holdfast import (
    ArchiveDeleted,
    ArchiveReport,
    EraseArchived,
    EraseReport,
    ImportReport,
    ImportTasks,
    RestoreArchived,
    RestoreReport,
)
from holdfast.requests import REQUEST_TYPES
from tests.archive.hostile import HOSTILE_NAMES

REPORT = {
    "rows_read": 5,
    "inserted": 1,
    "updated": 1,
    "unchanged": 1,
    "skipped": 1,
    "rejected": 1,
    "rejects_file": None,
    "duration_s": 0.5,
    "rows_per_s": 10.0,
}


def problem_of(**values: object) -> str:
    with pytest.raises(ValidationError) as caught:
        ImportTasks.model_validate({"source": "/imports/tasks.csv", **values})
    (error,) = caught.value.errors()
    return f"{'.'.join(str(part) for part in error['loc'])}: {error['msg']}"


def test_the_payload_holds_what_was_asked_for_and_comes_back() -> None:
    request = ImportTasks(
        source="/imports/tasks.csv", mapping={"title": "summary"}, batch_rows=500, on_conflict="update"
    )
    payload = request.payload()
    assert payload == {
        "source": "/imports/tasks.csv",
        "mapping": {"title": "summary"},
        "batch_rows": 500,
        "on_conflict": "update",
    }
    assert ImportTasks.model_validate(payload) == request
    assert ImportTasks(source="/x").payload() == {"source": "/x"}


def test_a_request_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        ImportTasks(source="/x").source = "/y"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"source": ""}, "source: String should have at least 1 character"),
        ({"source": None}, "source: Input should be a valid string"),
        ({"unknown": 1}, "unknown: Extra inputs are not permitted"),
        ({"batch_rows": 0}, "batch_rows: Input should be greater than or equal to 1"),
        ({"batch_rows": 10_001}, "batch_rows: Input should be less than or equal to 10000"),
        ({"max_rejects": -1}, "max_rejects: Input should be greater than or equal to 0"),
        ({"max_rejects_percent": 101}, "max_rejects_percent: Input should be less than or equal to 100"),
        ({"on_conflict": "replace"}, "on_conflict: Input should be 'skip', 'update' or 'fail'"),
        ({"format": "xlsx"}, "format: Input should be 'csv' or 'ndjson'"),
        ({"delimiter": ";;"}, "delimiter: String should have at most 1 character"),
        ({"user": "u" * 151}, "user: String should have at most 150 characters"),
        ({"mapping": {"colour": "c"}}, "'colour' is not a field of a task: use one of external_key, title"),
        ({"mapping": {"metadata.": "c"}}, "'metadata.' is not a field of a task"),
        ({"mapping": {"metadata. x": "c"}}, "'metadata. x' is not a field of a task"),
        ({"constants": {"id": "c"}}, "'id' is not a field of a task"),
        ({"constants": {"title": "a\x00b"}}, "the value for 'title' holds a NUL character: take it out"),
        ({"mapping": {"title": "a"}, "constants": {"title": "b"}}, "'title' is both mapped and set: give it one"),
    ],
)
def test_a_wrong_request_is_refused_by_field(values: dict[str, object], problem: str) -> None:
    assert problem in problem_of(**values)


def test_metadata_may_have_any_name() -> None:
    mapping = {"metadata.story points": "a", "metadata.\u00e4.b": "b"}
    assert ImportTasks(source="/x", mapping=mapping).mapping == mapping


def test_the_report_of_a_newer_worker_can_be_read() -> None:
    report = ImportReport.model_validate({**REPORT, "warp_factor": 9})
    assert (report.rows_read, report.encoding, report.dry_run) == (5, "utf-8", False)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_a_report_holds_no_number_that_json_has_not(number: float) -> None:
    with pytest.raises(ValidationError, match=r"rows_per_s\n.*finite number"):
        ImportReport.model_validate({**REPORT, "rows_per_s": number})


def test_each_kind_knows_its_report() -> None:
    kinds = {"archive_deleted": ArchiveDeleted, "erase_archived": EraseArchived, "import_tasks": ImportTasks}
    assert {**kinds, "restore_archived": RestoreArchived} == REQUEST_TYPES
    assert ImportTasks(source="/x").typed_report() is ImportReport
    assert ArchiveDeleted().typed_report() is ArchiveReport
    assert RestoreArchived(table="tasks", ids=("1",)).typed_report() is RestoreReport
    assert EraseArchived(again=True).typed_report() is EraseReport


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"again": True, "table": "tasks"},
        {"again": True, "reason": "x"},
        {"table": "tasks", "ids": ["1"]},
        {"table": "tasks", "ids": ["1"], "reason": " "},
        {"table": "tasks", "reason": "x"},
        {"ids": ["1"], "reason": "x"},
        {"table": "tasks; --", "ids": ["1"], "reason": "x"},
        {"table": "tasks", "ids": ["1"] * 1001, "reason": "x"},
        {"table": "tasks", "ids": [""], "reason": "x"},
    ],
)
def test_an_erasure_needs_rows_and_a_reason_or_the_list(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        EraseArchived.model_validate(fields)


NOW = "2026-01-31T08:30:00Z"


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"tables": ["tasks; DROP TABLE users"]}, "String should match pattern"),
        ({"tables": ["tasks", "tasks"]}, "'tasks' is named twice: name it once"),
        ({"older_than_days": 1, "deleted_before": NOW}, "older_than_days and deleted_before are both given"),
        ({"until": "2026-01-31T08:30:00"}, "Input should have timezone info"),
        ({"older_than_days": -1}, "greater than or equal to 0"),
        ({"max_rows": 0}, "greater than or equal to 1"),
        ({"destination": "tape"}, "Input should be 'tables', 'files' or 'purge'"),
        ({"batch_target_ms": "nan"}, "finite number"),
    ],
)
def test_wrong_archives_are_refused(values: dict[str, object], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        ArchiveDeleted.model_validate(values)


@pytest.mark.parametrize("name", HOSTILE_NAMES, ids=range(len(HOSTILE_NAMES)))
def test_a_hostile_table_name_is_no_name_or_at_most_a_word(name: str) -> None:
    try:
        request = ArchiveDeleted(tables=(name,))
    except ValidationError:
        return
    assert re.fullmatch(r"[A-Za-z0-9_.]+", request.tables[0])
