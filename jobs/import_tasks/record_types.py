"""The values that readers of import files take and give: format, position, record, problem."""

from dataclasses import dataclass
from typing import Any, Literal, Self

FormatName = Literal["csv", "ndjson"]
Compression = Literal["none", "gzip", "zstd"]

RECORD_LIMIT_BYTES = 1024 * 1024
"""The longest record that is read; a longer one is rejected, so that no file can fill the memory."""

RAW_PREFIX_BYTES = 4096
"""How much of a line that is too long is kept as the raw text of its record."""


@dataclass(frozen=True, slots=True)
class FileFormat:
    """How a file's bytes become records.

    Attributes:
        format: `csv` or `ndjson`.
        compression: What the file's first bytes say, whatever its name is.
        encoding: Python's name of the text encoding.
        delimiter: One character; None for NDJSON.
        columns: The header of a CSV file, duplicates included; for NDJSON the keys seen in the sample, for show only.
    """

    format: FormatName
    compression: Compression
    encoding: str
    delimiter: str | None
    columns: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The format as a JSON object, for a cursor."""
        return {
            "format": self.format,
            "compression": self.compression,
            "encoding": self.encoding,
            "delimiter": self.delimiter,
            "columns": list(self.columns),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """The format that `to_json` wrote."""
        return cls(
            format=data["format"],
            compression=data["compression"],
            encoding=data["encoding"],
            delimiter=data["delimiter"],
            columns=tuple(data["columns"]),
        )


@dataclass(frozen=True, slots=True)
class Position:
    """Where the next record begins.

    Attributes:
        offset: In bytes of the decompressed stream; where the encoding is neither UTF-8 nor ASCII-compatible with one
            byte a character, in bytes of that stream as UTF-8.
        line: The physical line, counted from 1.
    """

    offset: int
    line: int

    def to_json(self) -> dict[str, Any]:
        """The position as a JSON object, for a cursor."""
        return {"offset": self.offset, "line": self.line}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """The position that `to_json` wrote."""
        return cls(offset=int(data["offset"]), line=int(data["line"]))


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a record is rejected: a stable code, one line for people, and the column where it is known."""

    code: str
    reason: str
    column: str | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """One record of a file, good or bad: exactly one of `values` and `problem` is set.

    Attributes:
        line: The physical line it begins in, counted from 1.
        raw: Its text without the final line end; undecodable bytes stand as `\\xNN`, a line over the limit is cut.
        values: By column (CSV: text) or key (NDJSON: any JSON value).
        problem: What is wrong with it.
        end: Where the next record begins: reading on from there gives the same records.
    """

    line: int
    raw: str
    values: dict[str, Any] | None
    problem: Problem | None
    end: Position
