"""The jobs that can be asked for: one frozen request model per kind, and the model of its report."""

import re
from typing import Annotated, Any, ClassVar, Generic, Literal, TypeVar, cast

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, field_validator, model_validator


class JobReport(BaseModel):
    """What a run that succeeded says about what it did; a producer of today reads that of tomorrow's worker."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)  # JSON has no such numbers


ReportT = TypeVar("ReportT", bound=JobReport)


class JobRequest(BaseModel, Generic[ReportT]):
    """What a producer asks for; ``kind`` is the stable name on the wire and in the ledger."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

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
    restore_deleted: bool = False
    """Bring a deleted task back whose ``external_key`` a row has, and count it as updated; otherwise it stays deleted
    and the row is skipped. Its fields change with ``on_conflict="update"`` only."""
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


TABLE_NAME = r"^[A-Za-z_][A-Za-z0-9_]{0,62}(\.[A-Za-z_][A-Za-z0-9_]{0,62})?$"
"""What a table's name looks like in a request: a word, or two with a dot between them for a schema."""
TableName = Annotated[str, Field(pattern=TABLE_NAME)]


class KeptRow(BaseModel):
    """A row that was due and stays, because living rows refer to it, or it belongs to a circle of references."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    table: str
    key: str
    """The primary key; as a JSON list where it has several columns."""
    by_table: str
    by_key: str
    """One of the rows that refer to it, or to a row that would have gone with it, and stay."""


class ArchiveReport(JobReport):
    """What an archive run did, or with ``dry_run`` would do. Dictionaries are by table."""

    destination: Literal["tables", "files", "purge"]
    moved: dict[str, int]
    """Rows that left, children that followed their parent included. All 0 in a dry run."""
    due: dict[str, int]
    """Rows that were due at the start."""
    kept: dict[str, int] = {}
    """Rows that were due and stay, because living rows refer to them; in a dry run: of those that were tried."""
    kept_rows: tuple[KeptRow, ...] = ()
    """The first of them by name; see ``KEPT_ROWS_NAMED``."""
    left: dict[str, int] = {}
    """Rows that are due and still there: others had them locked, or the run was to end before them."""
    checksums: dict[str, str] = {}
    """The sum of the moved rows' hashes, equal on both sides of the move; it can be computed again over the archive."""
    ended_by: Literal["done", "max_rows", "until"] = "done"
    batches: int = 0
    longest_batch_ms: float = 0.0
    """The longest transaction, from its first statement to its commit."""
    paused_s: float = 0.0
    """Seconds for which the throttle held the run up."""
    folder: str | None = None
    """Where the files and their ``manifest.json`` lie, on the worker's machine."""
    files: int = 0
    bytes: int = 0
    """Size of the files, compressed."""
    duration_s: float = 0.0
    rows_per_s: float = 0.0
    dry_run: bool = False
    tried: dict[str, int] = {}
    """In a dry run: due rows of a batch that was moved and taken back. What follows is about these, as is ``kept``."""
    followed: dict[str, int] = {}  # children that went with them; those that are due themselves are in ``due``, too
    estimated_s: float | None = None  # how long it may take, with ``max_rows`` looked at


KEPT_ROWS_NAMED = 100


class ArchiveDeleted(JobRequest[ArchiveReport]):
    """Move rows that were soft-deleted long ago to archive tables or files, or purge them."""

    kind: ClassVar[str] = "archive_deleted"
    report_type: ClassVar[type[JobReport]] = ArchiveReport

    tables: tuple[TableName, ...] = ()
    """Tables of mapped models with soft deletion; empty: all of them."""
    destination: Literal["tables", "files", "purge"] = "tables"
    """``<table>_archive`` in the same database, compressed NDJSON under ``ARCHIVE_DIR``, or nowhere."""
    older_than_days: float | None = Field(default=None, ge=0, le=36_500)
    """Days since their deletion; None: what ``ARCHIVE_RETENTION_DAYS`` says of the table."""
    deleted_before: AwareDatetime | None = None
    """Instead of days: the instant before which they were deleted."""
    until: AwareDatetime | None = None
    """The run ends at this instant, with what it has done by then."""
    max_rows: int | None = Field(default=None, ge=1)
    """The run ends after so many due rows (children that follow them come on top)."""
    batch_rows: int | None = Field(default=None, ge=1, le=100_000)
    """Rows for each transaction; None: as many as fit into ``batch_target_ms``."""
    batch_target_ms: float | None = Field(default=None, ge=1, le=10_000)
    """How long one transaction is to hold the rows that it moves; None: 20, on MySQL and MariaDB 80."""
    connections: int = Field(default=1, ge=1, le=8)
    """Connections that share a table which is walked in its own order; SQLite has one writer, and so one of them."""
    dry_run: bool = False
    """Count and estimate; nothing is changed."""

    @model_validator(mode="after")
    def _one_limit_of_age(self) -> "ArchiveDeleted":
        if self.older_than_days is not None and self.deleted_before is not None:
            raise ValueError("older_than_days and deleted_before are both given: give one of the two")
        return self

    @field_validator("tables")
    @classmethod
    def _each_table_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if twice := sorted({name for name in value if value.count(name) > 1}):
            raise ValueError(f"{twice[0]!r} is named twice: name it once")
        return value


RowKeys = Annotated[tuple[Annotated[str, Field(min_length=1, max_length=255)], ...], Field(max_length=1_000)]
"""Primary keys as text; a JSON list for each row whose key has several columns."""


class RefusedRow(BaseModel):
    """A row that was not restored or not erased."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    key: str
    code: str
    """For programs, such as ``unique``, ``exists``, ``parent_missing``, ``erased``, ``not_archived``, ``living``."""
    message: str
    """One line: what is in the way, and what to do."""


class RestoreReport(JobReport):
    """What came back, or with ``dry_run`` would. Dictionaries are by table."""

    restored: dict[str, int]
    """Rows, children that came with their parent included."""
    stayed: dict[str, int] = {}
    """Children that were deleted by themselves, not with their parent, and so stay in the archive."""
    refused: tuple[RefusedRow, ...] = ()
    duration_s: float = 0.0
    dry_run: bool = False


class RestoreArchived(JobRequest[RestoreReport]):
    """Bring rows back from the archives, with their children: each whole, in one transaction, or not at all."""

    kind: ClassVar[str] = "restore_archived"
    report_type: ClassVar[type[JobReport]] = RestoreReport

    table: TableName
    ids: RowKeys = Field(min_length=1)
    all_children: bool = False
    """Bring back the children, too, that were deleted by themselves and not within a minute of their parent."""
    dry_run: bool = False


class EraseReport(JobReport):
    """What is gone for good, or with ``dry_run`` would be."""

    erased: dict[str, int]
    """Rows that were deleted, by table, wherever they lay."""
    listed: int = 0
    """Keys that are new on the erasure list."""
    absent: tuple[str, ...] = ()
    """Keys that were found nowhere. They are on the list all the same, so that no backup brings them back."""
    files: int = 0
    """Files of archives that were written anew without these rows."""
    refused: tuple[RefusedRow, ...] = ()
    duration_s: float = 0.0
    dry_run: bool = False


class EraseArchived(JobRequest[EraseReport]):
    """Delete rows for good, with their children, wherever they lie; the erasure list keeps them from coming back."""

    kind: ClassVar[str] = "erase_archived"
    report_type: ClassVar[type[JobReport]] = EraseReport

    table: TableName | None = None
    ids: RowKeys = ()
    reason: str = Field(default="", max_length=500)
    erased_by: str | None = Field(default=None, max_length=150)
    again: bool = False
    """Instead of a table's rows: all that is on the list and has come back with a restored backup."""
    dry_run: bool = False

    @model_validator(mode="after")
    def _rows_or_the_list(self) -> "EraseArchived":
        if self.again and (self.table is not None or self.ids or self.reason):
            raise ValueError("again and rows are both given: give one of the two")
        if not self.again and (self.table is None or not self.ids or not self.reason.strip()):
            raise ValueError("table, ids and a reason are needed: give all three")
        return self


_KINDS: tuple[type[JobRequest[Any]], ...] = (ArchiveDeleted, EraseArchived, ImportTasks, RestoreArchived)
REQUEST_TYPES: dict[str, type[JobRequest[Any]]] = {kind.kind: kind for kind in _KINDS}
"""Every kind that this library knows, by its name."""
