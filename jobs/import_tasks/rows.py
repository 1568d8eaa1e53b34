"""From a record of the file to a validated task."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from db.models import TaskStatus
from holdfast.requests import IMPORT_FIELDS, ImportTasks
from jobs.import_tasks.record_types import Problem, Record

METADATA_PREFIX = "metadata."
EARLIEST_YEAR, LATEST_YEAR = 1000, 9999  # what MySQL's DATETIME holds; the other engines hold more
METADATA_DEPTH_LIMIT = 31
"""How deep MariaDB's JSON may be nested, the metadata object itself counted; the other engines hold more."""
_ISO_8601 = re.compile(
    r"\d{4}-\d{2}-\d{2}(?:[Tt ]\d{2}:\d{2}(?::\d{2}(?:[.,]\d{1,6})?)?(?:[Zz]|[+-]\d{2}(?::?\d{2})?)?)?"
)
_SHOWN_CHARACTERS = 80


def _iso_8601_only(value: object) -> object:
    # pydantic alone would take "2024" for a number of seconds since 1970.
    if isinstance(value, datetime) or (isinstance(value, str) and _ISO_8601.fullmatch(value)):
        return value
    raise PydanticCustomError(
        "datetime_from_date_parsing",
        "Input should be a date and time in ISO 8601 with an offset, as 2026-01-31T08:30:00+01:00",
    )


def _in_range(value: datetime) -> datetime:
    try:
        in_utc = value.astimezone(UTC)
    except OverflowError:
        in_utc = None
    if in_utc is None or not EARLIEST_YEAR <= in_utc.year <= LATEST_YEAR:
        raise PydanticCustomError(
            "datetime_out_of_range", f"Input should lie between the years {EARLIEST_YEAR} and {LATEST_YEAR}"
        )
    return in_utc


def _not_too_deep(value: dict[str, Any]) -> dict[str, Any]:
    pending: list[tuple[Any, int]] = [(value, 1)]
    while pending:
        container, depth = pending.pop()
        if depth > METADATA_DEPTH_LIMIT:
            raise PydanticCustomError("too_deep", f"Input should be nested at most {METADATA_DEPTH_LIMIT} levels deep")
        inner = container.values() if isinstance(container, dict) else container
        pending.extend((item, depth + 1) for item in inner if isinstance(item, dict | list))
    return value


Instant = Annotated[AwareDatetime, AfterValidator(_in_range), BeforeValidator(_iso_8601_only), Field(strict=False)]


class TaskRow(BaseModel):
    """One task as a file may give it. Nothing is trimmed: a value that does not fit is rejected."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    title: str = Field(min_length=1, max_length=255)
    description: str | None = None
    status: Annotated[TaskStatus, Field(strict=False)] = TaskStatus.PENDING
    completed_at: Instant | None = None
    created_at: Instant | None = None
    external_key: Annotated[str, Field(min_length=1, max_length=255)] | None = None
    user: Annotated[str, Field(min_length=1, max_length=150)] | None = None
    metadata: Annotated[dict[str, Any], AfterValidator(_not_too_deep)] | None = None


EMPTY_IS_NULL = frozenset({"status", "completed_at", "created_at"})
"""Fields for which an empty cell of a CSV file is a null; elsewhere it is the empty text."""
NEVER_NULL = frozenset({"title", "status", "created_at"})
"""Fields for which a null means that nothing was given; the others become NULL."""


@dataclass(frozen=True, slots=True)
class Row:
    """One good row."""

    line: int
    raw: str
    task: TaskRow


@dataclass(frozen=True, slots=True)
class Reject:
    """One row that is not loaded, and why."""

    line: int
    raw: str
    problem: Problem


class RowReader:
    """Turns records into rows, by the request's mapping.

    Args:
        request: the mapping and the constants.
        columns: the file's header; where the mapping lets it, each column that has a field's name is that field.
    """

    def __init__(self, request: ImportTasks, columns: tuple[str, ...]) -> None:
        self.mapping = effective_mapping(request, columns)
        self._fields = {f: c for f, c in self.mapping.items() if not f.startswith(METADATA_PREFIX)}
        self._metadata = {
            f.removeprefix(METADATA_PREFIX): c for f, c in self.mapping.items() if f.startswith(METADATA_PREFIX)
        }
        self._constants = {f: v for f, v in request.constants.items() if not f.startswith(METADATA_PREFIX)}
        self._constant_metadata = {
            f.removeprefix(METADATA_PREFIX): v for f, v in request.constants.items() if f.startswith(METADATA_PREFIX)
        }

    def read(self, record: Record) -> Row | Reject:
        """Validate one record."""
        if record.values is None:
            problem = record.problem or Problem("malformed", "the record could not be read")
            return Reject(record.line, record.raw, problem)
        values = self._map(record.values)
        try:
            return Row(record.line, record.raw, TaskRow.model_validate(values))
        except ValidationError as error:
            return Reject(record.line, record.raw, self._problem(error, values))

    def _map(self, record: Mapping[str, Any]) -> dict[str, Any]:
        values: dict[str, Any] = dict(self._constants)
        for field, column in self._fields.items():
            if column in record:
                value = record[column]
                if value == "" and field in EMPTY_IS_NULL:
                    value = None
                if value is None and field in NEVER_NULL:
                    continue
                values[field] = value
        metadata = {name: record[column] for name, column in self._metadata.items() if column in record}
        if metadata or self._constant_metadata:
            values["metadata"] = self._constant_metadata | metadata
        return values

    def _problem(self, error: ValidationError, values: Mapping[str, Any]) -> Problem:
        first = error.errors(include_url=False, include_input=False)[0]
        field = str(first["loc"][0]) if first["loc"] else ""
        column = self._fields.get(field, field)
        subject = (
            f"{column} is missing" if first["type"] == "missing" else f"{column}={_shortened(values.get(field, ''))}"
        )
        return Problem(str(first["type"]), f"{subject}: {first['msg']}", column)


def find_bad_constant(constants: Mapping[str, str]) -> str | None:
    """Say which constant no task can have, and why; None when all are good."""
    fields = {field: value for field, value in constants.items() if not field.startswith(METADATA_PREFIX)}
    try:
        TaskRow.model_validate({"title": "a title", **fields})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = str(first["loc"][0])
        return f"{field}={_shortened(fields[field])}: {first['msg']}"
    return None


def effective_mapping(request: ImportTasks, columns: tuple[str, ...]) -> dict[str, str]:
    """Return field -> column: the request's, and the other fields by name if it maps none but ``external_key``."""
    if request.mapping.keys() - {"external_key"}:
        return dict(request.mapping)
    by_name = {field: field for field in IMPORT_FIELDS if field in columns and field not in request.constants}
    return by_name | request.mapping


def _shortened(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 3] + "..."
