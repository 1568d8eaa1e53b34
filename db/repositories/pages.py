"""Order and pages: by offset, or by a cursor that stays right while rows come and go."""

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from typing import Any, Final, Generic, TypedDict
from uuid import UUID

from sqlalchemy import ColumnElement, and_, false, literal, or_
from sqlalchemy.orm.interfaces import ORMOption

from db.errors import InvalidFilterError
from db.fields import json_value
from db.repositories.shape import ModelT, Shape

MOST_ROWS: Final = 10_000
"""The largest page; ``stream`` reads more."""
READERS: Final[dict[type, Callable[[Any], Any]]] = {
    datetime: datetime.fromisoformat,
    date: date.fromisoformat,
    time: time.fromisoformat,
    UUID: UUID,
    Decimal: Decimal,
}


class Paging(TypedDict, total=False):
    """How to read a page; every key may be left out."""

    order_by: str | Sequence[str]
    """Fields, a ``-`` before those that descend; NULLs come last. The primary key decides between equals."""
    limit: int
    """The most rows, 1 to ``MOST_ROWS``; 100 if not given."""
    offset: int
    """How many rows to leave out. The database reads them all the same: use ``after`` for far pages."""
    after: str | None
    """The ``next_cursor`` of the page before, of the same order."""
    include_deleted: bool
    """Soft-deleted rows, too."""
    options: Sequence[ORMOption]
    """What to load with the rows, such as ``selectinload(Task.user)``."""


class Page(list[ModelT], Generic[ModelT]):
    """Rows in their order; ``next_cursor`` is what ``after`` takes for the next page, None on the last one."""

    next_cursor: str | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """One field of an order."""

    field: str
    descends: bool
    may_be_null: bool


class Order(Generic[ModelT]):
    """An order that tells every two rows apart.

    Args:
        shape: the model's.
        order_by: as ``Paging.order_by``.

    Raises:
        InvalidFilterError: the model has no such field, or it has no order.
    """

    def __init__(self, shape: Shape[ModelT], order_by: str | Sequence[str]) -> None:
        names = [order_by] if isinstance(order_by, str) else list(order_by)
        self._shape = shape
        self._steps = [self._step(name) for name in names]
        if all(step.field != shape.key_field for step in self._steps):
            descends = bool(self._steps) and self._steps[-1].descends
            self._steps.append(Step(shape.key_field, descends, may_be_null=False))

    def _step(self, name: Any) -> Step:
        field = str(name).removeprefix("-")
        if field not in self._shape.columns:
            raise InvalidFilterError(self._shape.unknown(field, purpose="order by"), table=self._shape.table.name)
        if self._shape.kinds[field] in {dict, list, bytes, object}:
            raise InvalidFilterError(f"order by {field!r}: it has no order that every engine knows")
        return Step(field, str(name).startswith("-"), bool(self._shape.columns[field].nullable))

    def clauses(self) -> list[ColumnElement[Any]]:
        """Return what ORDER BY takes."""
        clauses: list[ColumnElement[Any]] = []
        for step in self._steps:
            attribute = getattr(self._shape.model, step.field)
            if step.may_be_null:
                clauses.append(attribute.is_(None))  # the engines do not agree on where NULLs stand
            clauses.append(attribute.desc() if step.descends else attribute.asc())
        return clauses

    def cursor(self, row: ModelT) -> str:
        """Return the cursor behind a row."""
        values = [getattr(row, step.field) for step in self._steps]
        content = [self._names(), *(value.name if isinstance(value, Enum) else json_value(value) for value in values)]
        return urlsafe_b64encode(json.dumps(content, separators=(",", ":")).encode()).decode().rstrip("=")

    def after(self, cursor: str) -> ColumnElement[bool]:
        """Return the condition that a row comes behind a cursor.

        Raises:
            InvalidFilterError: the cursor was not made by this order.
        """
        values = self._read(cursor)
        behind: ColumnElement[bool] = false()
        for step, value in zip(reversed(self._steps), reversed(values), strict=True):
            behind = self._behind(step, value, behind)
        return behind

    def _behind(self, step: Step, value: Any, behind: ColumnElement[bool]) -> ColumnElement[bool]:
        attribute = getattr(self._shape.model, step.field)
        if value is None:
            return and_(attribute.is_(None), behind)
        value = literal(value, self._shape.columns[step.field].type)  # a plain True has no order for SQLAlchemy
        further = attribute < value if step.descends else attribute > value
        if step.may_be_null:
            return or_(further, attribute.is_(None), and_(attribute == value, behind))
        # The first comparison says nothing new: it is the bound at which an index can start.
        bound = attribute <= value if step.descends else attribute >= value
        return and_(bound, or_(further, and_(attribute == value, behind)))

    def _names(self) -> str:
        return ",".join(f"{'-' if step.descends else ''}{step.field}" for step in self._steps)

    def _read(self, cursor: Any) -> list[Any]:
        try:
            names, *values = json.loads(urlsafe_b64decode(str(cursor) + "=" * (-len(str(cursor)) % 4)))
            if names == self._names():
                return [self._value(step, value) for step, value in zip(self._steps, values, strict=True)]
            problem = "is one of another order"
        except (AttributeError, ValueError, TypeError, ArithmeticError, RecursionError):
            problem = "is no cursor"
        raise InvalidFilterError(
            f"after={str(cursor)[:60]!r} {problem}: pass the next_cursor of a page in the order {self._names()}"
        )

    def _value(self, step: Step, value: Any) -> Any:
        kind = self._shape.kinds[step.field]
        if value is None:
            if not step.may_be_null:
                raise ValueError(step.field)
            return None
        read = READERS.get(kind)
        found = read(value) if read is not None else value
        self._shape.check_value(step.field, found, purpose="after")
        if not isinstance(found, kind) and not issubclass(kind, Enum):  # an enum is compared by its name
            raise TypeError(step.field)
        return found
