"""What the readers of all formats share: their place in the file, and rejecting a line."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import BinaryIO, Self

from jobs.import_tasks.compression import DamageError
from jobs.import_tasks.record_types import (
    RAW_PREFIX_BYTES,
    RECORD_LIMIT_BYTES,
    FileFormat,
    Position,
    Problem,
    Record,
)
from jobs.import_tasks.streams import ByteStream, line_size, split_lines
from jobs.import_tasks.text_encoding import find_kept_byte, show_kept_bytes
from jobs.sources import SourceError


class RecordReader(ABC):
    """An iterator over the records of a file; blank lines are none.

    Args:
        file: A seekable file.
        file_format: What `detect_format` found.
        start: Where to begin: the `end` of an earlier record; None for the first record.
        record_limit: The longest record in bytes of the stream.

    Raises:
        SourceError: While iterating, after the last complete record: `truncated`, `source_changed`. Asking on raises
            it again.
    """

    def __init__(
        self,
        file: BinaryIO,
        file_format: FileFormat,
        start: Position | None = None,
        *,
        record_limit: int = RECORD_LIMIT_BYTES,
    ) -> None:
        self._format = file_format
        self._limit = record_limit
        self._kept_bytes = min(RAW_PREFIX_BYTES, record_limit)
        self._from_top = start is None or start.offset == 0
        offset = 0 if start is None else start.offset
        self._stream = ByteStream(file, file_format.compression, file_format.encoding, offset)
        self._lines = split_lines(iter(self._stream), record_limit)
        self._offset = self._stream.offset
        self._line = 1 if start is None else start.line
        self._has_bad_bytes = False
        self._records = self._read()
        self._failure: SourceError | None = None

    @property
    def bytes_read(self) -> int:
        """How much of the file itself was read, in bytes: with the file's size it gives the progress."""
        return self._stream.bytes_read

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Record:
        if self._failure is not None:
            raise self._failure
        try:
            return next(self._records)
        except DamageError as damage:
            self._failure = self._truncated(damage)
            raise self._failure from damage
        except SourceError as failure:
            self._failure = failure
            raise

    @abstractmethod
    def _read(self) -> Iterator[Record]: ...

    def _truncated(self, damage: DamageError) -> SourceError:
        return SourceError(
            "truncated",
            f"{self._stream.name} ends in the middle of its data after line {self._line - 1}: {damage};"
            " fetch it again and import it anew",
        )

    def _decode(self, line: bytes) -> str:
        try:
            return self._stream.decode_strictly(line)
        except UnicodeDecodeError:
            self._has_bad_bytes = True
            return self._stream.decode(line)

    def _advance(self, size: int, lines: int) -> Position:
        self._offset += size
        self._line += lines
        return Position(self._offset, self._line)

    def _reject(self, line: bytes, problem: Problem) -> Record:
        began = self._line
        if len(line) > self._limit:
            text = self._stream.decode_start(line[: self._kept_bytes])
        else:
            text = self._stream.decode(line)
        raw = show_kept_bytes(text.rstrip("\r\n"))
        return Record(began, raw, None, problem, self._advance(line_size(line), 1))

    def _line_too_long(self, line: bytes) -> Problem:
        return Problem(
            "line_too_long",
            f"the line has {line_size(line):,} bytes: a record may have {self._limit:,};"
            f" shorten it (its first {self._kept_bytes:,} bytes are kept here)",
        )

    def _invalid_encoding(self, text: str, column: str | None) -> Problem:
        at, byte = find_kept_byte(text) or (0, 0)
        return Problem(
            "invalid_encoding",
            f"byte 0x{byte:02x} (character {at + 1} of the record) is not valid {self._format.encoding}:"
            " mend the row, or give the file's encoding with --encoding",
            column,
        )
