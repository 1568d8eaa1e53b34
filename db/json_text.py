"""From a Python value to JSON text that every engine keeps exactly, or an error that says where it cannot."""

import json
from math import isfinite
from typing import Any

DEPTH_LIMIT = 31
"""How deep a value may be nested, its outermost object or list counted: what MariaDB takes (MySQL 100)."""
SMALLEST_INTEGER, LARGEST_INTEGER = -(2**63), 2**64 - 1
"""MySQL makes a double of any other; MariaDB, PostgreSQL and SQLite keep all digits."""
EXACT_FLOAT = 2.0**53
"""PostgreSQL keeps the decimal digits of a number and not whether it was a float: from here on those that Python
writes are fewer than those that it means."""
_LARGE_FLOAT, _WIDE_INTEGER = 1, 2
SHOWN_CHARACTERS = 200
"""How much of a place an error shows."""

_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":")).encode


class UnfitJSONError(ValueError):
    """A value that some engine could not give back as it is; the message names the place and the reason."""

    def __init__(self, rule: str) -> None:
        super().__init__(rule)
        self._rule = rule
        self._place = ""

    def inside(self, step: str) -> "UnfitJSONError":
        """Return itself, with the step in front of its place."""
        self._place = step + self._place
        return self

    def __str__(self) -> str:
        place = ("$" + self._place).encode("unicode_escape").decode()
        return f"{place if len(place) <= SHOWN_CHARACTERS else place[: SHOWN_CHARACTERS - 3] + '...'} {self._rule}"


def to_json_text(value: Any, *, wide_integers: bool = True) -> str:
    """Return a value as JSON text.

    Args:
        value: of dict, list, str, int, float, bool and None.
        wide_integers: whether the engine keeps integers of more than 64 bits.

    Raises:
        UnfitJSONError: some engine could not give it back as it is.
    """
    found = _check(value, 0)
    if found & _WIDE_INTEGER and not wide_integers:
        raise UnfitJSONError("holds an integer of more than 64 bits, which MySQL cannot hold: store it as text")
    return _exact_text(value) if found & _LARGE_FLOAT else _encode(value)


def _check(value: Any, depth: int) -> int:
    """Refuse what some engine cannot keep; returns which numbers need care."""
    if isinstance(value, str):
        _check_text(value)
    elif isinstance(value, float):
        if not isfinite(value):
            raise UnfitJSONError(f"is {value!r}, which JSON does not have: store None or text")
        return 0 if abs(value) < EXACT_FLOAT else _LARGE_FLOAT
    elif isinstance(value, int):
        return 0 if SMALLEST_INTEGER <= value <= LARGEST_INTEGER else _WIDE_INTEGER
    elif value is not None:
        return _check_container(value, depth + 1)
    return 0


def _check_container(value: Any, depth: int) -> int:
    if not isinstance(value, dict | list):
        raise UnfitJSONError(f"is a {type(value).__name__}, which JSON does not have: convert it to text or a list")
    if depth > DEPTH_LIMIT:
        raise UnfitJSONError(f"is nested deeper than {DEPTH_LIMIT} levels, which MariaDB cannot hold: flatten it")
    found, step = 0, ""
    try:
        if isinstance(value, list):
            for index, inner in enumerate(value):
                step = f"[{index}]"
                found |= _check(inner, depth)
        else:
            for key, inner in value.items():
                step = f".{key}"
                _check_key(key)
                found |= _check(inner, depth)
    except UnfitJSONError as error:
        raise error.inside(step) from None
    return found


def _check_key(key: Any) -> None:
    if not isinstance(key, str):
        raise UnfitJSONError(f"has a {type(key).__name__} for its key, but JSON's keys are text: write {str(key)!r}")
    _check_text(key)


def _check_text(value: str) -> None:
    if "\x00" in value:
        raise UnfitJSONError("holds a NUL character, which PostgreSQL cannot store: take it out")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            found = f"\\u{ord(value[error.start]):04x}"
            raise UnfitJSONError(f"holds half a surrogate pair ({found}), which is no text: take it out") from None


def _exact_text(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ",".join(f"{_encode(key)}:{_exact_text(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_exact_text, value)) + "]"
    if isinstance(value, float) and abs(value) >= EXACT_FLOAT:
        return f"{int(value)}.0"  # all its digits, and a point, so that it comes back as a float
    return _encode(value)
