"""Primary keys as text, for cursors, reports and the erasure list."""

import json
from collections.abc import Sequence
from enum import Enum
from typing import Any

from sqlalchemy import Column, Table

from db.archives.values import form_of, read_value
from db.python_types import python_type

Key = tuple[Any, ...]
"""The values of a primary key, in the order of its columns."""


class KeyTextError(ValueError):
    """A text is not a key of the table; the message is one line."""


def key_columns(table: Table) -> list[Column[Any]]:
    """Return the columns of the primary key."""
    return list(table.primary_key)


def key_text(key: Sequence[Any]) -> str:
    """Return a key as text: the value, or a JSON list where it has several columns."""
    texts = [_text(value) for value in key]
    return texts[0] if len(texts) == 1 else json.dumps(texts, ensure_ascii=False)


def parse_key(table: Table, text: str) -> Key:
    """Return the key that ``key_text`` has written, or that somebody has typed.

    Raises:
        KeyTextError: it is not of the key's type.
    """
    columns = key_columns(table)
    try:
        texts = [text] if len(columns) == 1 else json.loads(text)
        if not isinstance(texts, list) or len(texts) != len(columns):
            raise ValueError  # noqa: TRY301 - told below, with the rest
        return tuple(_value(column, str(part)) for column, part in zip(columns, texts, strict=True))
    except (ValueError, TypeError, ArithmeticError):
        names = ", ".join(f"{column.name} {python_type(column.type).__name__}" for column in columns)
        form = "one value" if len(columns) == 1 else "a JSON list"
        raise KeyTextError(f"{text!r} is no key of {table.fullname}: it must be {form} ({names})") from None


def _text(value: Any) -> str:
    if isinstance(value, Enum):
        return value.name  # what the column stores of it is not known here
    form = form_of(type(value))
    written = value if form is None else form.write(value)
    return written if isinstance(written, str) else str(written)


def _value(column: Column[Any], text: str) -> Any:
    members = getattr(column.type, "enum_class", None)
    if members is not None and text in members.__members__:
        return members[text]
    return read_value(column.type, text)
