"""Filters as data: ``{"status": "PENDING", "created_at__ge": since, "title__contains": "50%"}``.

A name is a field, or a field and an operator with two underscores between them. All must hold.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic

from sqlalchemy import ColumnElement, String, literal, not_
from sqlalchemy.ext.asyncio import AsyncSession

from db.errors import InvalidFilterError
from db.repositories.arrays import among
from db.repositories.shape import ModelT, Shape

Filters = Mapping[str, Any]

MANY: Final = 10_000
"""How many values ``in`` and ``not_in`` take: more are read in pages, and written by the bulk methods."""

COMPARISONS: Final[dict[str, Callable[[Any, Any], ColumnElement[bool]]]] = {
    "eq": lambda column, value: column.is_(None) if value is None else column == value,
    "ne": lambda column, value: column.is_not(None) if value is None else column != value,
    "lt": lambda column, value: column < value,
    "le": lambda column, value: column <= value,
    "gt": lambda column, value: column > value,
    "ge": lambda column, value: column >= value,
}
TEXT_MATCHES: Final = {
    "contains": ("*", "*"),
    "starts_with": ("", "*"),
    "ends_with": ("*", ""),
    "icontains": ("*", "*"),
}
OPERATORS: Final = (*COMPARISONS, "in", "not_in", "is_null", *TEXT_MATCHES)
"""``eq`` and ``ne`` take None, as NULL. The matches of text take every character as it is; they tell capitals from
small letters, but ``icontains``, which compares what the database's ``lower()`` makes of both (SQLite: of ASCII)."""


def conditions(session: AsyncSession, shape: Shape[ModelT], filters: Filters | None) -> list[ColumnElement[bool]]:
    """Return filters as conditions.

    Args:
        session: on the engine that will be asked.
        shape: the model's.
        filters: by field and operator; None: no condition.

    Raises:
        InvalidFilterError: an unknown field or operator, or a value that does not fit.
    """
    if filters is None:
        return []
    if not isinstance(filters, Mapping):
        raise InvalidFilterError(f"filters are a mapping of names to values, not {type(filters).__name__}")
    return [_Filter.read(session, shape, name, value).condition() for name, value in filters.items()]


@dataclass(frozen=True, slots=True)
class _Filter(Generic[ModelT]):
    session: AsyncSession
    shape: Shape[ModelT]
    field: str
    operator: str
    value: Any

    @classmethod
    def read(cls, session: AsyncSession, shape: Shape[ModelT], name: Any, value: Any) -> "_Filter[ModelT]":
        field, _, operator = str(name).partition("__")
        if field not in shape.columns:
            raise InvalidFilterError(shape.unknown(field, purpose="filter"), table=shape.table.name)
        if operator and operator not in OPERATORS:
            known = ", ".join(OPERATORS)
            raise InvalidFilterError(f"filter {field}: no operator {operator[:60]!r}; there are {known}")
        return cls(session, shape, field, operator or "eq", value)

    def condition(self) -> ColumnElement[bool]:
        column: Any = self.shape.columns[self.field]
        if self.operator == "is_null":
            return self._null(column)
        if self.shape.kinds[self.field] is dict:
            raise self._wrong(f"{self.field} is JSON: only is_null asks for it, db.json_paths looks inside")
        if self.operator in {"in", "not_in"}:
            found = self._among()
            return not_(found) if self.operator == "not_in" else found
        if self.value is None and self.operator not in {"eq", "ne"}:
            raise self._wrong(f"None compares with nothing; use {self.field}__is_null")
        self._check(self.value)
        return (
            self._text_match(column)
            if self.operator in TEXT_MATCHES
            else COMPARISONS[self.operator](column, self.value)
        )

    def _wrong(self, rule: str) -> InvalidFilterError:
        column = self.shape.columns[self.field].name
        message = f"filter {self.field}__{self.operator}: {rule}"
        return InvalidFilterError(message, table=self.shape.table.name, columns=(column,))

    def _check(self, value: Any) -> None:
        self.shape.check_value(self.field, value, purpose=f"filter {self.field}__{self.operator}")

    def _null(self, column: Any) -> ColumnElement[bool]:
        if not isinstance(self.value, bool):
            raise self._wrong(f"takes True or False, not {type(self.value).__name__}")
        condition: ColumnElement[bool] = column.is_(None) if self.value else column.is_not(None)
        return condition

    def _among(self) -> ColumnElement[bool]:
        values = self.value
        if not isinstance(values, Collection) or isinstance(values, str | bytes | Mapping):
            raise self._wrong(f"takes a list of values, not {type(values).__name__}")
        if len(values) > MANY:
            raise self._wrong(f"takes at most {MANY} values, not {len(values)}; ask in several calls")
        for value in values:
            if value is None:
                raise self._wrong(f"None is equal to nothing; use {self.field}__is_null")
            self._check(value)
        return among(self.session, self.shape.columns[self.field], values)

    def _text_match(self, column: Any) -> ColumnElement[bool]:
        if not isinstance(self.value, str) or self.shape.kinds[self.field] is not str:
            raise self._wrong("matches text in a column of text")
        if self.operator == "icontains":
            condition: ColumnElement[bool] = column.icontains(self.value, autoescape=True)
        elif self.session.get_bind().dialect.name == "sqlite":
            # LIKE takes small letters for capitals there, whatever one does; GLOB does not.
            before, after = TEXT_MATCHES[self.operator]
            pattern = literal(before + _glob_escaped(self.value) + after, String())
            condition = column.op("GLOB", is_comparison=True)(pattern)
        else:
            match = {"contains": column.contains, "starts_with": column.startswith, "ends_with": column.endswith}
            condition = match[self.operator](self.value, autoescape=True)
        return condition


def _glob_escaped(text: str) -> str:
    return "".join(f"[{character}]" if character in "*?[" else character for character in text)
