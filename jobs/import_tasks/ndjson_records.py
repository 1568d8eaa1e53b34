"""NDJSON files: one JSON object a line, held to what any JSON reader and any database agrees on."""

import json
import math
import re
from collections.abc import Iterable, Iterator
from typing import Any, NoReturn

from jobs.import_tasks.reader import RecordReader
from jobs.import_tasks.record_types import Problem, Record
from jobs.import_tasks.text_encoding import find_kept_byte, show_kept_bytes
from jobs.sources import shown

DEPTH_LIMIT = 100
"""How deep arrays and objects may be nested."""

_BLANKS = " \t\r\n"
# The escapes of NUL and of surrogates; whether a surrogate stands alone is seen in the parsed text only.
_SUSPICIOUS_ESCAPE = re.compile(r"\\u(?:0000|[dD][89a-fA-F])")
_SURROGATE = re.compile("[\ud800-\udfff]")


class _RefusedError(ValueError):
    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self.problem = problem


class NdjsonRecords(RecordReader):
    """The records of an NDJSON file; see `RecordReader`."""

    def _read(self) -> Iterator[Record]:
        for line in self._lines:
            if len(line) > self._limit:
                yield self._reject(line, self._line_too_long(line))
                continue
            text = self._decode(line)
            if not text.strip(_BLANKS):
                self._advance(len(line), 1)
                continue
            began, outcome = self._line, self._parse(text)
            values, problem = (None, outcome) if isinstance(outcome, Problem) else (outcome, None)
            raw = show_kept_bytes(text) if problem else text
            yield Record(began, raw.rstrip("\r\n"), values, problem, self._advance(len(line), 1))

    def _parse(self, text: str) -> dict[str, Any] | Problem:
        if self._has_bad_bytes and find_kept_byte(text):
            return self._invalid_encoding(text, None)
        return parse_object(text)


def parse_object(text: str) -> dict[str, Any] | Problem:
    """The object that a line holds, or why the line is rejected.

    Integers keep all their digits (Python reads up to 4,300), other numbers become floats; one that a float cannot
    hold, such as 1e400, is refused, because Python would make it an infinity.
    """
    if "\0" in text:
        return _nul(None)
    try:
        value = _DECODER.decode(text)
    except (ValueError, RecursionError) as error:
        return _refusal(error)
    if not isinstance(value, dict):
        return Problem("not_an_object", f"the line holds {_kind(value)}: each line must hold one JSON object; wrap it")
    return _inspect(value, text) or value


def _refusal(error: ValueError | RecursionError) -> Problem:
    if isinstance(error, _RefusedError):
        return error.problem
    if isinstance(error, RecursionError):
        return _too_deep(None)
    if isinstance(error, json.JSONDecodeError):
        finding = f"not JSON ({error.msg.removesuffix(' at')}) at character {error.colno}"
        return Problem("malformed_json", f"{finding}: each line must hold one whole JSON object; mend the line")
    return Problem("malformed_json", "a number has more than 4,300 digits, the most that are read: write it as text")


def _inspect(value: dict[str, Any], text: str) -> Problem | None:
    """What the parser lets pass but databases do not; most lines show at a glance that they need no closer look."""
    may_be_deep = text.count("{") + text.count("[") > DEPTH_LIMIT
    if not may_be_deep and not ("\\u" in text and _SUSPICIOUS_ESCAPE.search(text)):
        return None
    for key, member in value.items():
        if problem := _inspect_member(key, member):
            return problem
    return None


def _inspect_member(column: str, member: Any) -> Problem | None:
    pending = [(column, 1), (member, 2)]
    while pending:
        value, depth = pending.pop()
        if isinstance(value, str):
            if "\0" in value:
                return _nul(shown(column))
            if lone := _SURROGATE.search(value):
                reason = (
                    f"the text holds half a character (\\u{ord(lone[0]):04x} alone): it needs its other half; mend it"
                )
                return Problem("malformed_json", reason, shown(column))
        elif isinstance(value, dict | list):
            if depth > DEPTH_LIMIT:
                return _too_deep(shown(column))
            inner = value.values() if isinstance(value, dict) else value
            pending.extend((item, depth + 1) for item in inner)
            if isinstance(value, dict):
                pending.extend((key, depth + 1) for key in value)
    return None


def _nul(column: str | None) -> Problem:
    return Problem("nul_character", "the line holds a NUL character, which no text may hold: take it out", column)


def _too_deep(column: str | None) -> Problem:
    reason = f"arrays and objects are nested deeper than {DEPTH_LIMIT}, the limit: flatten them"
    return Problem("too_deep", reason, column)


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    kinds = {bool: "true or false", int: "a number", float: "a number", str: "a string", list: "an array"}
    return kinds[type(value)]


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        twice = shown(_first_repeated(name for name, _ in pairs))
        reason = f"the key '{twice}' stands twice in one object, so one value would be lost: keep one"
        raise _RefusedError(Problem("duplicate_json_key", reason, twice))
    return members


def _first_repeated(names: Iterable[str]) -> str:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return ""


def _constant(name: str) -> NoReturn:
    reason = f"{name} is no JSON: write null, or the number as text"
    raise _RefusedError(Problem("malformed_json", reason))


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        reason = f"the number {digits[:40]} is beyond a double's range (1.8e308): write it as text"
        raise _RefusedError(Problem("malformed_json", reason))
    return number


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant, parse_float=_finite)
