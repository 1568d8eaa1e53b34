"""A model's fields as JSON values, and back; what may be said about a column in its ``info``.

- ``translatable``: its text is shown to people and may be translated; listed by ``translatable_fields``.
- ``protected``: ``update_from_dict`` refuses it, for something else is in charge of it (primary keys are, too).
- ``private``: ``to_dict`` leaves it out unless it is asked for by name.
"""

from base64 import b64encode
from collections.abc import Callable, Iterable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from difflib import get_close_matches
from enum import Enum
from types import NoneType, UnionType
from typing import Any
from uuid import UUID

from sqlalchemy import inspect
from sqlalchemy.orm import ColumnProperty, DeclarativeBase, Mapper

SHOWN_CHARACTERS = 60
"""How much of a value is shown in an error or a ``repr``."""


class FieldError(ValueError):
    """A field that a model does not have, or that refuses its value; the message is one line.

    Args:
        model: the model's name.
        field: the field's name.
        value: what it was given; shown in part.
        rule: what is wrong, and what to do.
    """

    def __init__(self, model: str, field: str, value: object, rule: str) -> None:
        super().__init__(f"{model}.{field}={shortened(value)} {rule}")
        self.model = model
        self.field = field
        self.value = value
        self.rule = rule


def shortened(value: object) -> str:
    """Return the value's ``repr`` on one line, cut to ``SHOWN_CHARACTERS``."""
    text = repr(value)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[: SHOWN_CHARACTERS - 3]}..."


def column_fields(model: type[DeclarativeBase]) -> dict[str, ColumnProperty[Any]]:
    """Return the model's column attributes by name."""
    mapper: Mapper[Any] = inspect(model)
    return dict(mapper.column_attrs.items())


def unknown_field(model: type[DeclarativeBase], name: str, value: object, known: Iterable[str]) -> FieldError:
    """Return the error for a field that the model does not have; a near name is suggested."""
    near = get_close_matches(name, known, n=1)
    advice = f"did you mean {near[0]!r}?" if near else f"its fields are {', '.join(sorted(known))}"
    return FieldError(model.__name__, name, value, f"is no field of {model.__name__}: {advice}")


_TO_JSON: tuple[tuple[type | UnionType, Callable[[Any], Any]], ...] = (
    (Enum, lambda value: json_value(value.value)),
    (NoneType | bool | int | float | str, lambda value: value),
    (datetime | date | time, lambda value: value.isoformat()),
    (UUID | Decimal, str),
    (dict, lambda value: {str(key): json_value(inner) for key, inner in value.items()}),
    (list | tuple | set | frozenset, lambda value: [json_value(inner) for inner in value]),
    (timedelta, lambda value: value.total_seconds()),
    (bytes | bytearray | memoryview, lambda value: b64encode(value).decode()),
)


def json_value(value: object) -> Any:
    """Return a column's value as JSON has it: ISO 8601 for times, text for UUIDs and decimals, an enum's value,
    seconds for durations, base 64 for bytes.

    Raises:
        TypeError: JSON has nothing for it.
    """
    for types, convert in _TO_JSON:
        if isinstance(value, types):
            return convert(value)
    raise TypeError(f"a {type(value).__name__} has no form in JSON: exclude the field")


def json_columns(item: DeclarativeBase, *, include: Iterable[str] = (), exclude: Iterable[str] = ()) -> dict[str, Any]:
    """Return an object's loaded columns as JSON values; nothing is queried.

    Args:
        item: the object. What is not loaded (deferred, expired, never set) is left out.
        include: private fields that are wanted all the same.
        exclude: fields to leave out.
    """
    wanted, unwanted, loaded = set(include), set(exclude), inspect(item).dict
    shown = {}
    for name, column in column_fields(type(item)).items():
        private = column.columns[0].info.get("private", False) and name not in wanted
        if name in loaded and name not in unwanted and not private:
            shown[name] = json_value(loaded[name])
    return shown


def translatable_fields(model: type[DeclarativeBase]) -> tuple[str, ...]:
    """Return the names of the model's fields whose column has ``info={"translatable": True}``, in their order."""
    return tuple(
        name for name, column in column_fields(model).items() if column.columns[0].info.get("translatable", False)
    )
