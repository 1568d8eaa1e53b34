"""Reading an import file record by record: the one door to the readers of the formats, and their shared types."""

from typing import BinaryIO

from jobs.import_tasks.csv_records import CsvRecords
from jobs.import_tasks.ndjson_records import NdjsonRecords
from jobs.import_tasks.reader import RecordReader
from jobs.import_tasks.record_types import (
    RAW_PREFIX_BYTES,
    RECORD_LIMIT_BYTES,
    Compression,
    FileFormat,
    FormatName,
    Position,
    Problem,
    Record,
)

__all__ = [
    "RAW_PREFIX_BYTES",
    "RECORD_LIMIT_BYTES",
    "Compression",
    "FileFormat",
    "FormatName",
    "Position",
    "Problem",
    "Record",
    "RecordReader",
    "open_records",
]


def open_records(file: BinaryIO, file_format: FileFormat, start: Position | None) -> RecordReader:
    """Read the records of a file, good and bad, in its order.

    Args:
        file: A seekable file; it stays the caller's to close, after the reading.
        file_format: What `detect_format` found in this file.
        start: The `end` of the last record that was dealt with; None to begin with the first.

    Returns:
        An iterator; its `bytes_read` counts the bytes of the file itself, for a progress bar.

    Raises:
        SourceError: `source_changed`, if the file ends before `start`. The iterator raises it too: at once if the
            header is no longer that of the format, and `truncated` after the last complete record of a compressed
            file that is cut off or corrupt.
    """
    readers: dict[FormatName, type[RecordReader]] = {"csv": CsvRecords, "ndjson": NdjsonRecords}
    return readers[file_format.format](file, file_format, start)
