"""The jobs that can be asked for: one frozen request model per kind, and the model of its report."""

import re
from typing import Annotated, Any, ClassVar, Generic, Literal, TypeVar, cast

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

# A producer of today must read the report of tomorrow's worker, hence extra="ignore" there; a request with an unknown
# field is a mistake and is refused.


class JobReport(BaseModel):
    """What a run that succeeded says about what it did."""

    model_config = ConfigDict(frozen=True, extra="ignore")


ReportT = TypeVar("ReportT", bound=JobReport)


class JobRequest(BaseModel, Generic[ReportT]):
    """What a producer asks for; ``kind`` is the stable name on the wire and in the ledger."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)  # JSON has no such numbers

    kind: ClassVar[str]
    report_type: ClassVar[type[JobReport]]
    ledger: ClassVar[bool] = True
    """False for a kind that changes nothing in the database: its runs have no row, and are as safe as their Redis."""

    def payload(self) -> dict[str, Any]:
        """Return the request as JSON values, without the fields that were left at their default."""
        return self.model_dump(mode="json", exclude_defaults=True)

    def payload_json(self) -> bytes:
        """Return ``payload()`` as JSON, several times as fast."""
        return self.__pydantic_serializer__.to_json(self, exclude_defaults=True)

    def typed_report(self) -> type[ReportT]:
        """Return ``report_type``, typed as this request's report."""
        return cast("type[ReportT]", self.report_type)


IMPORT_FIELDS = ("external_key", "title", "description", "status", "completed_at", "created_at", "user")
"""The fields of a task that a column can be mapped onto, besides ``metadata.NAME``."""

_METADATA_FIELD = re.compile(r"metadata\.[^\s.\x00][^\x00]{0,99}")


class ImportReport(JobReport):
    """What an import did. ``rows_read`` is the sum of the five counts below it."""

    rows_read: int
    inserted: int
    updated: int
    unchanged: int
    skipped: int
    rejected: int
    rejects_file: str | None
    """A file on the worker's machine; None when nothing was rejected."""
    duration_s: float
    """Seconds of wall time, over all attempts."""
    rows_per_s: float
    encoding: str = "utf-8"
    dry_run: bool = False


class ImportTasks(JobRequest[ImportReport]):
    """Import tasks from a CSV or NDJSON file, plain, gzip or zstandard."""

    kind: ClassVar[str] = "import_tasks"
    report_type: ClassVar[type[JobReport]] = ImportReport

    source: str = Field(min_length=1, max_length=4096)
    """An absolute path as the worker sees it, under one of its ``IMPORT_ROOTS``."""
    mapping: dict[str, str] = {}
    """Field of the task -> column of the file. Empty, or with ``external_key`` alone: each other column that has a
    field's name is that field."""
    constants: dict[str, str] = {}
    """Field of the task -> the same value for every row."""
    user: str = Field(default="importer", min_length=1, max_length=150)
    """Who owns the tasks where no column is mapped onto ``user``; made if missing, and cannot sign in."""
    create_users: bool = False
    """Make the users that a column names and the database lacks; otherwise their rows are rejected."""
    on_conflict: Literal["skip", "update", "fail"] = "skip"
    """What to do with a row whose ``external_key`` is taken."""
    format: Literal["csv", "ndjson"] | None = None
    encoding: str | None = None
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] | None = None
    batch_rows: int = Field(default=1000, ge=1, le=10_000)
    """Rows for each transaction. More is faster up to about 2,000 and repeats more after a crash."""
    max_rejects: int | None = Field(default=None, ge=0)
    """The run fails when more rows than this are rejected. None: no limit."""
    max_rejects_percent: float | None = Field(default=None, ge=0, le=100)
    """The same in percent of the rows read; looked at from 1,000 rows on, and at the end."""
    dry_run: bool = False
    """Do everything but commit; nothing is changed."""
    atomic: bool = False
    """All rows in one transaction: a run that fails leaves nothing, and an interrupted one begins anew."""

    @field_validator("mapping", "constants")
    @classmethod
    def _fields_exist(cls, value: dict[str, str]) -> dict[str, str]:
        for field, text in value.items():
            if "\x00" in text:
                raise ValueError(f"the value for {field!r} holds a NUL character: take it out")
            if field not in IMPORT_FIELDS and not _METADATA_FIELD.fullmatch(field):
                known = ", ".join(IMPORT_FIELDS)
                raise ValueError(f"{field!r} is not a field of a task: use one of {known} or metadata.NAME")
        return value

    @model_validator(mode="after")
    def _each_field_once(self) -> "ImportTasks":
        if twice := sorted(self.mapping.keys() & self.constants.keys()):
            raise ValueError(f"{twice[0]!r} is both mapped and set: give it one of the two")
        return self


REQUEST_TYPES: dict[str, type[JobRequest[Any]]] = {ImportTasks.kind: ImportTasks}
"""Every kind that this library knows, by its name."""
