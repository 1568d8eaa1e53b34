"""What kind of file an import reads, found out from a bounded sample of it."""

import codecs
import re
from collections.abc import Iterable
from dataclasses import replace
from difflib import get_close_matches
from itertools import islice
from pathlib import PurePosixPath
from typing import BinaryIO

from jobs.import_tasks.compression import DamageError, RawFile, detect_compression, read_chunks
from jobs.import_tasks.csv_records import CsvRecords
from jobs.import_tasks.ndjson_records import NdjsonRecords
from jobs.import_tasks.record_types import Compression, FileFormat, FormatName
from jobs.import_tasks.streams import cr_line_ends
from jobs.import_tasks.text_encoding import decode_chunks, detect_encoding, resolve_encoding
from jobs.sources import SourceError, shown

SAMPLE_BYTES = 256 * 1024
"""How much of the unpacked file is looked at."""

_DELIMITERS = (",", ";", "\t", "|")
_FORMATS: tuple[FormatName, ...] = ("csv", "ndjson")
_FORMAT_BY_SUFFIX: dict[str, FormatName] = {".csv": "csv", ".tsv": "csv", ".ndjson": "ndjson", ".jsonl": "ndjson"}
_COMPRESSED_SUFFIXES = (".gz", ".zst", ".zstd")
_SAMPLE_RECORDS = 100
_LISTED_COLUMNS = 30
_JSON_ARRAY = re.compile(r"\[\s*[\[{\]]")
_OTHER_KINDS = {
    b"PK\x03\x04": "a ZIP archive or an Excel workbook",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook",
    b"%PDF-": "a PDF document",
    b"SQLite format 3\0": "an SQLite database",
    b"PAR1": "a Parquet file",
    b"BZh": "compressed with bzip2",
    b"\xfd7zXZ\0": "compressed with xz",
}


def detect_format(
    file: BinaryIO,
    name: str,
    *,
    format: str | None = None,  # noqa: A002 - the word that people know from --format
    encoding: str | None = None,
    delimiter: str | None = None,
) -> FileFormat:
    """Find out how to read a file; whatever is given is taken, once it is checked.

    Args:
        file: A seekable file; it is left at its first byte.
        name: Its name: the endings tell CSV from NDJSON (`.csv.gz`), never whether it is compressed.
        format: `csv` or `ndjson`.
        encoding: Any text encoding that Python knows.
        delimiter: One character, for CSV.

    Raises:
        SourceError: `empty_file`, `no_header`, `invalid_header`, `cr_line_ends`, `truncated`, `unknown_encoding`,
            `invalid_encoding`, `unknown_format`, `invalid_delimiter`.
    """
    if format is not None and format not in _FORMATS:
        raise SourceError("unknown_format", f"format '{shown(format)}' is not known: it is csv or ndjson; give one")
    given_encoding = resolve_encoding(encoding) if encoding is not None else None
    try:
        compression, sample = _read_sample(file, name)
        found = FileFormat("csv", compression, _choose_encoding(sample, given_encoding), None, ())
        text = _decode_sample(sample, found.encoding)
        kind = _choose_format(format, name, text)
        if kind == "ndjson":
            _check_ndjson(name, text, delimiter)
            return _with_keys(file, replace(found, format=kind))
        if not text:
            raise SourceError(
                "no_header",
                f"source '{shown(name)}' has no header: a CSV file begins with the names of its columns, within its"
                f" first {SAMPLE_BYTES:,} bytes; put them there",
            )
        return _detect_csv(file, found, name, delimiter)
    finally:
        file.seek(0)


def check_columns(file_format: FileFormat, wanted: Iterable[str]) -> list[SourceError]:
    """What stands against reading these columns: one error for each that is missing or stands twice.

    NDJSON has no header, so there any key may come.
    """
    if file_format.format != "csv":
        return []
    columns = file_format.columns
    return [_column_problem(columns, name) for name in dict.fromkeys(wanted) if columns.count(name) != 1]


def _column_problem(columns: tuple[str, ...], name: str) -> SourceError:
    subject = f"column '{shown(name)}'"
    if name in columns:
        return SourceError(
            "duplicate_column",
            f"{subject} stands {columns.count(name)} times in the header: a mapped column must stand there once;"
            " rename the others in the file",
        )
    near = get_close_matches(name, columns[:1000], n=1)
    hint = f"did you mean '{shown(near[0])}'?" if near else "map one of those"
    listed = ", ".join(f"'{shown(column)}'" for column in columns[:_LISTED_COLUMNS])
    more = len(columns) - _LISTED_COLUMNS
    listed += f" and {more} more" if more > 0 else ""
    return SourceError("missing_column", f"{subject} is not in the file: its columns are {listed}; {hint}")


def _read_sample(file: BinaryIO, name: str) -> tuple[Compression, bytes]:
    raw = RawFile(file)
    compression = detect_compression(raw.read(4))
    sample = b""
    try:
        for chunk in read_chunks(RawFile(file), compression):
            sample += chunk
            if len(sample) >= SAMPLE_BYTES:
                break
    except DamageError as damage:
        if not sample:
            raise SourceError(
                "truncated", f"source '{shown(name)}' holds no data that can be read: {damage}; fetch it again"
            ) from damage
    if not sample:
        raise SourceError(
            "empty_file", f"source '{shown(name)}' is empty: it must hold records; check how it was written"
        )
    for magic, kind in _OTHER_KINDS.items():
        if sample.startswith(magic):
            raise SourceError(
                "unknown_format",
                f"source '{shown(name)}' is {kind}: CSV and NDJSON are read, plain, gzip or zstd; convert it",
            )
    return compression, sample[:SAMPLE_BYTES]


def _choose_encoding(sample: bytes, given: str | None) -> str:
    if given == "utf-8" and sample.startswith(codecs.BOM_UTF8):
        return "utf-8-sig"
    return given or detect_encoding(sample)


def _decode_sample(sample: bytes, encoding: str) -> str:
    text = next(decode_chunks(iter([sample]), encoding))
    return text.removeprefix("\ufeff").lstrip()


def _choose_format(given: str | None, name: str, text: str) -> FormatName:
    for known in _FORMATS:
        if given == known:
            return known
    suffixes = [suffix.lower() for suffix in PurePosixPath(name).suffixes]
    while suffixes and suffixes[-1] in _COMPRESSED_SUFFIXES:
        suffixes.pop()
    if suffixes and suffixes[-1] in _FORMAT_BY_SUFFIX:
        return _FORMAT_BY_SUFFIX[suffixes[-1]]
    if _JSON_ARRAY.match(text):
        raise SourceError(
            "unknown_format",
            f"source '{shown(name)}' is one JSON array: NDJSON has one object a line; convert it with: jq -c '.[]'",
        )
    return "ndjson" if text.startswith("{") else "csv"


def _check_ndjson(name: str, text: str, delimiter: str | None) -> None:
    if delimiter is not None:
        raise SourceError(
            "invalid_delimiter", f"delimiter '{shown(delimiter)}' is given for NDJSON, which has none: leave it out"
        )
    if "\r" in text.strip() and "\n" not in text:
        raise cr_line_ends(f"source '{shown(name)}'")


def _with_keys(file: BinaryIO, found: FileFormat) -> FileFormat:
    keys: dict[str, None] = {}
    try:
        for record in islice(NdjsonRecords(file, found), _SAMPLE_RECORDS):
            keys.update(dict.fromkeys(record.values or ()))
    except SourceError:
        pass  # the reading of the records will meet it again, after those that are whole
    return replace(found, columns=tuple(keys))


def _detect_csv(file: BinaryIO, found: FileFormat, name: str, delimiter: str | None) -> FileFormat:
    if delimiter is not None:
        _check_delimiter(delimiter)
        return _with_header(file, replace(found, delimiter=delimiter))
    tabs_first = ".tsv" in name.lower()
    candidates = sorted(_DELIMITERS, key=lambda character: character != "\t") if tabs_first else _DELIMITERS
    found_with: list[FileFormat] = []
    failures: list[SourceError] = []
    for candidate in candidates:
        try:
            found_with.append(_with_header(file, replace(found, delimiter=candidate)))
        except SourceError as error:
            failures.append(error)
    if not found_with:
        raise failures[0]
    return max(found_with, key=lambda tried: len(tried.columns))


def _with_header(file: BinaryIO, file_format: FileFormat) -> FileFormat:
    return replace(file_format, columns=CsvRecords(file, file_format).read_header())


def _check_delimiter(delimiter: str) -> None:
    printable = len(delimiter) == 1 and (delimiter.isprintable() or delimiter == "\t")
    if not printable or delimiter == '"':
        raise SourceError(
            "invalid_delimiter",
            f"delimiter '{shown(delimiter)}' is not one character that may stand between fields (no quote, no line"
            " end): give one, such as ';'",
        )
