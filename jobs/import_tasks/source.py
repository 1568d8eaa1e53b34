"""An import's file while it is being read."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Self

from holdfast.requests import IMPORT_FIELDS, ImportTasks
from jobs.import_tasks.file_format import check_columns, detect_format
from jobs.import_tasks.record_types import FileFormat, Position
from jobs.import_tasks.records import open_records
from jobs.import_tasks.rows import Reject, Row, RowReader, effective_mapping, find_bad_constant
from jobs.settings import JobSettings
from jobs.sources import SourceError, open_source, shown

BATCH_BYTES = 8 * 1024 * 1024
"""A batch ends after so much raw text as it lies in memory, where one rare character makes a text four times as long,
whatever ``batch_rows`` says."""


def inspect_source(request: ImportTasks, file: BinaryIO) -> FileFormat:
    """Find out a file's format and check the request's columns against it; the file is rewound.

    Raises:
        SourceError: the file is empty, has no header, or lacks a column; or no task can have one of the constants.
    """
    if problem := find_bad_constant(request.constants):
        raise SourceError("invalid_constant", f"{problem}; no row could be loaded with it, so set another value")
    file_format = detect_format(
        file, request.source, format=request.format, encoding=request.encoding, delimiter=request.delimiter
    )
    mapping = effective_mapping(request, mappable_columns(file_format))
    if problems := check_columns(file_format, mapping.values()):
        raise problems[0]
    if "title" not in mapping and "title" not in request.constants:
        listed = ", ".join(f"'{shown(column)}'" for column in file_format.columns[:30])
        raise SourceError(
            "missing_column",
            f"no column is mapped onto title, which every task must have: the file has {listed}; "
            "name one with --map title=COLUMN",
        )
    return file_format


def mappable_columns(file_format: FileFormat) -> tuple[str, ...]:
    """Return the columns that a record may have: a CSV file's header; for NDJSON any, whatever its first lines have."""
    return file_format.columns if file_format.format == "csv" else IMPORT_FIELDS


class Source:
    """A file that is open, at a position; ``cursor`` says how to come back to it."""

    def __init__(self, file: BinaryIO, request: ImportTasks, cursor: dict[str, Any]) -> None:
        status = os.fstat(file.fileno())
        self.total_bytes = status.st_size
        self._fingerprint = {"bytes": status.st_size, "modified_ns": status.st_mtime_ns}
        if cursor and cursor["file"] != self._fingerprint:
            raise SourceError(
                "source_changed",
                f"{request.source} was changed while it was being imported; enqueue it once more as a new run",
            )
        self.format = FileFormat.from_json(cursor["format"]) if cursor else inspect_source(request, file)
        self._position = Position.from_json(cursor["position"]) if cursor else None
        self._records = open_records(file, self.format, self._position)
        self.rows = RowReader(request, mappable_columns(self.format))

    @classmethod
    @contextmanager
    def open(cls, request: ImportTasks, settings: JobSettings, cursor: dict[str, Any]) -> Iterator[Self]:
        """Open a request's file at a cursor, ``{}`` for its beginning.

        Raises:
            SourceError: it cannot be opened or does not fit the request.
        """
        is_spooled = Path(request.source).parent == settings.spool_dir
        with open_source(request.source, (settings.spool_dir,) if is_spooled else settings.import_roots) as file:
            yield cls(file, request, cursor)

    @property
    def cursor(self) -> dict[str, Any]:
        """Where the next batch begins, as JSON values."""
        position = self._position.to_json() if self._position else None
        return {"file": self._fingerprint, "format": self.format.to_json(), "position": position}

    @property
    def bytes_read(self) -> int:
        """How much of the file, as it lies on the disk, was consumed."""
        return self._records.bytes_read

    async def batches(self, max_rows: Callable[[], int]) -> AsyncIterator[list[Row | Reject]]:
        """Yield the rest of the file in batches, validated; reading happens in a thread.

        Args:
            max_rows: asked for the size of each batch before it is read.

        Raises:
            SourceError: the file ends in the middle; everything before has been yielded.
        """
        while True:
            batch, failure = await asyncio.to_thread(self._next_batch, max_rows())
            if batch:
                yield batch
            if failure is not None:
                raise failure
            if not batch:
                return

    def _next_batch(self, max_rows: int) -> tuple[list[Row | Reject], SourceError | None]:
        batch: list[Row | Reject] = []
        size = 0
        try:
            for record in self._records:
                batch.append(self.rows.read(record))
                self._position = record.end
                size += sys.getsizeof(record.raw)
                if len(batch) >= max_rows or size >= BATCH_BYTES:
                    break
        except SourceError as error:
            return batch, error
        return batch, None
