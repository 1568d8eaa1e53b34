"""Reading import files in tests."""

import gzip
import io
from collections.abc import Callable

import pytest
import zstandard

from jobs.import_tasks.file_format import detect_format
from jobs.import_tasks.record_types import FileFormat, Record
from jobs.import_tasks.records import open_records
from jobs.sources import SourceError

PACKERS: dict[str, Callable[[bytes], bytes]] = {"none": bytes, "gzip": gzip.compress, "zstd": zstandard.compress}


def plain(*columns: str, delimiter: str = ",", encoding: str = "utf-8") -> FileFormat:
    return FileFormat("csv", "none", encoding, delimiter, columns)


def read(data: bytes, *, encoding: str | None = None, delimiter: str | None = None) -> list[Record]:
    file = io.BytesIO(data)
    found = detect_format(file, "tasks.csv", encoding=encoding, delimiter=delimiter)
    records = list(open_records(file, found, None))
    for record in records:
        assert (record.values is None) != (record.problem is None)
        record.raw.encode()
    return records


def rows(data: bytes) -> list[list[str]]:
    """The values of a file without bad rows."""
    return [list(record.values.values()) for record in read(data) if record.values is not None]


def outcome(record: Record) -> str | dict[str, str]:
    return record.problem.code if record.problem else record.values or {}


def read_until_failure(data: bytes) -> tuple[list[Record], SourceError]:
    file = io.BytesIO(data)
    reader = open_records(file, detect_format(file, "tasks.csv"), None)
    records: list[Record] = []
    with pytest.raises(SourceError) as caught:
        records.extend(reader)
    with pytest.raises(SourceError):
        next(reader)
    return records, caught.value
