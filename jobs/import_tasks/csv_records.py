"""CSV files (RFC 4180), record by record; a stray quote costs its own line and not the rest of the file.

Python's csv module parses. It is fed line by line, so that after each record exactly its lines are taken. Where it
fails, only the first of the lines taken is rejected and the others are read again.
"""

import csv
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from jobs.import_tasks.compression import DamageError
from jobs.import_tasks.reader import RecordReader
from jobs.import_tasks.record_types import RECORD_LIMIT_BYTES, FileFormat, Position, Problem, Record
from jobs.import_tasks.streams import cr_line_ends, line_size
from jobs.import_tasks.text_encoding import find_kept_byte, show_kept_bytes
from jobs.sources import SourceError, shown


class _RecordTooLongError(Exception):
    """The lines of one record exceed the limit."""


class _StillOpenError(Exception):
    """A quote stays open at the end of a line that an earlier one has run over."""

    def __init__(self, overrun: "_Overrun") -> None:
        super().__init__(overrun)
        self.overrun = overrun


@dataclass(slots=True)
class _Overrun:
    """What is known of the lines that a quote ran over which nobody closed.

    All of them were entered and left inside quotes. So a record that begins in one of them and leaves it inside quotes
    also arrives at `end`, and need not be followed there line by line; without this, a file whose lines all open a
    quote would be read once for each of its lines.

    Attributes:
        end: The offset of the first line of which this is not known: the last one in the backlog, or the file's end.
        problem: What the parser meets there; None if it was only too far away.
    """

    end: int
    problem: Problem | None


class CsvRecords(RecordReader):
    """The records of a CSV file; see `RecordReader`."""

    def __init__(
        self,
        file: BinaryIO,
        file_format: FileFormat,
        start: Position | None = None,
        *,
        record_limit: int = RECORD_LIMIT_BYTES,
    ) -> None:
        super().__init__(file, file_format, start, record_limit=record_limit)
        if csv.field_size_limit() < record_limit:  # a setting of the whole process; raised, never lowered
            csv.field_size_limit(record_limit)
        self._taken: list[bytes] = []  # the lines of the record being parsed, and their texts
        self._texts: list[str] = []
        self._backlog: deque[bytes] = deque()  # lines to be read again
        self._overrun: _Overrun | None = None
        self._restart()

    def read_header(self) -> tuple[str, ...]:
        """Take the first record as the names of the columns.

        Raises:
            SourceError: `no_header`, `invalid_header`, `invalid_encoding`, `cr_line_ends` or `truncated`.
        """
        try:
            for fields in self._rows:
                if fields:
                    break
                self._finish_record()
            else:
                raise self._header_error(
                    "no_header", "has no header: its lines are all blank", "put the columns' names"
                )
        except DamageError as damage:
            raise self._truncated(damage) from damage
        except (csv.Error, _RecordTooLongError) as error:
            raise self._broken_header(error) from error
        text = "".join(self._texts)
        if bad := find_kept_byte(text):
            raise SourceError(
                "invalid_encoding",
                f"{self._stream.name} has the byte 0x{bad[1]:02x} in its header, which is not valid"
                f" {self._format.encoding}: give the file's encoding with --encoding",
            )
        if "\0" in text:
            raise self._header_error("invalid_header", "has a NUL character in its header", "save it as UTF-8 text")
        self._finish_record()
        return tuple(fields)

    def _header_error(self, code: str, finding: str, advice: str) -> SourceError:
        return SourceError(
            code, f"{self._stream.name} {finding}: a CSV file begins with the names of its columns; {advice} there"
        )

    def _broken_header(self, error: Exception) -> SourceError:
        if b"\r" in self._taken[0].rstrip(b"\r\n"):
            return cr_line_ends(self._stream.name)
        finding = f"has a header in line {self._line} that is not CSV ({self._problem(error, self._line).reason})"
        return self._header_error("invalid_header", finding, "mend it")

    def _read(self) -> Iterator[Record]:
        if self._from_top and (header := self.read_header()) != self._format.columns:
            raise SourceError(
                "source_changed",
                f"{self._stream.name} has a header of {len(header)} columns that is not the one it had when its format"
                " was detected: a source must not change during its import; import it anew",
            )
        while True:
            try:
                fields = next(self._rows)
            except StopIteration:
                return
            except _StillOpenError as still_open:
                outcome = self._follow_open_quote(still_open.overrun)
                if isinstance(outcome, Problem):
                    yield self._reject_first_line(outcome)
                    continue
                fields = outcome
            except (csv.Error, _RecordTooLongError) as error:
                yield self._give_up(error)
                continue
            if fields:
                yield self._record(fields)
            else:
                self._finish_record()

    def _restart(self) -> None:
        self._ended = False
        self._rows = self._parse(self._take())

    def _parse(self, lines: Iterable[str]) -> Iterator[list[str]]:
        return csv.reader(lines, delimiter=self._format.delimiter or ",", strict=True)

    def _take(self) -> Iterator[str]:
        """The lines for the parser, noting which it has taken since the last record."""
        taken, texts, backlog, lines = self._taken, self._texts, self._backlog, self._lines
        size = 0
        while True:
            if self._overrun is not None:
                if taken:
                    raise _StillOpenError(self._overrun)
                if self._offset >= self._overrun.end:
                    self._overrun = None
            line = backlog.popleft() if backlog else next(lines, None)
            if line is None:
                self._ended = True
                return
            size = size + len(line) if taken else len(line)
            taken.append(line)
            if size > self._limit:
                raise _RecordTooLongError
            text = self._decode(line)
            texts.append(text)
            yield text

    def _finish_record(self) -> Position:
        taken = self._taken
        end = self._advance(len(taken[0]) if len(taken) == 1 else sum(map(len, taken)), len(taken))
        taken.clear()
        self._texts.clear()
        return end

    def _record(self, fields: list[str]) -> Record:
        began = self._line
        texts = self._texts
        raw = (texts[0] if len(texts) == 1 else "".join(texts)).rstrip("\r\n")
        columns = self._format.columns
        if len(fields) == len(columns) and not self._has_bad_bytes and "\0" not in raw:
            return Record(began, raw, dict(zip(columns, fields, strict=True)), None, self._finish_record())
        problem = self._problem_in(fields, raw)
        values = None if problem else dict(zip(columns, fields, strict=True))
        return Record(began, show_kept_bytes(raw), values, problem, self._finish_record())

    def _problem_in(self, fields: list[str], raw: str) -> Problem | None:
        columns = self._format.columns
        named = list(zip(columns, fields, strict=False))
        if self._has_bad_bytes and find_kept_byte(raw):
            column = next((name for name, field in named if find_kept_byte(field)), None)
            return self._invalid_encoding(raw, column)
        if "\0" in raw:
            column = next((name for name, field in named if "\0" in field), None)
            reason = f"character {raw.index(chr(0)) + 1} of the record is NUL, which no text may hold: take it out"
            return Problem("nul_character", reason, column)
        if len(fields) == len(columns):
            return None
        code = "too_many_fields" if len(fields) > len(columns) else "too_few_fields"
        return Problem(
            code,
            f"the record has {len(fields)} fields, the header has {len(columns)}: both must be equal;"
            f" mend the row (a field that holds '{shown(self._format.delimiter or ',')}' must stand in quotes)",
        )

    def _problem(self, error: Exception, line: int) -> Problem:
        """Why the lines read are no record; it does not say where that began, so it holds for all lines run over."""
        if isinstance(error, _RecordTooLongError):
            finding = f"a quoted field is not closed within {self._limit:,} bytes, the most that a record may have"
        elif self._ended:
            finding = "a quoted field is not closed before the end of the file"
        else:
            finding = f"line {line} is not CSV ({shown(str(error).split(' - ')[0])})"
        return Problem(
            "malformed_csv", f"{finding}: a field that holds a quote must stand in quotes, doubling it inside"
        )

    def _give_up(self, error: Exception) -> Record:
        taken = self._taken
        if len(taken) == 1 and isinstance(error, _RecordTooLongError):
            return self._reject_first_line(self._line_too_long(taken[0]))
        problem = self._problem(error, self._line + len(taken) - 1)
        if len(taken) > 1:
            end = self._offset + sum(map(len, taken if self._ended else taken[:-1]))
            self._overrun = _Overrun(end, None if isinstance(error, _RecordTooLongError) else problem)
        return self._reject_first_line(problem)

    def _reject_first_line(self, problem: Problem) -> Record:
        first, *others = self._taken
        self._backlog.extendleft(reversed(others))
        self._taken.clear()
        self._texts.clear()
        self._restart()
        return self._reject(first, problem)

    def _follow_open_quote(self, overrun: _Overrun) -> list[str] | Problem:
        """The fields of the record whose first line is taken and left inside quotes, or why it is none."""
        if overrun.problem is not None:
            return overrun.problem
        try:
            next(self._parse(self._look_further(overrun)))
        except _RecordTooLongError as error:
            return self._problem(error, self._line)
        except csv.Error as error:
            overrun.problem = self._problem(error, self._line + len(self._backlog))
            return overrun.problem
        self._taken.extend(self._backlog)
        self._backlog.clear()
        self._overrun = None
        self._texts[:] = map(self._decode, self._taken)
        self._restart()
        return next(self._parse(self._texts))

    def _look_further(self, overrun: _Overrun) -> Iterator[str]:
        """The text from `overrun.end` on, as if a quote had just been opened; `end` moves with it."""
        size = overrun.end - self._offset
        line: bytes | None = self._backlog[-1]
        opening = '"'
        while line is not None:
            size += line_size(line)
            if size > self._limit:
                raise _RecordTooLongError
            yield opening + self._decode(line)
            opening = ""
            overrun.end += len(line)
            line = next(self._lines, None)
            if line is not None:
                self._backlog.append(line)
        self._ended = True
