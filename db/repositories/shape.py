"""What a repository needs to know of its model, read from the mapping once."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from difflib import get_close_matches
from enum import Enum
from typing import Any, Final, Generic, TypeVar
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Column,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    UniqueConstraint,
    inspect,
)
from sqlalchemy.orm import Mapper

from db.base import Base
from db.errors import DuplicateKeyError, InvalidFilterError, InvalidInputError, ValueTooLongError
from db.mixins import SoftDeleteMixin
from db.python_types import python_type
from db.types import checked_text
from holdfast.outbox import EARLIEST_YEAR

ModelT = TypeVar("ModelT", bound=Base)

MARKS: Final = frozenset({"is_deleted", "deleted_at"})
"""What ``delete`` and ``restore`` write, and nothing else."""
EXACT_TYPES: Final = frozenset({bool, bytes})
"""Which must be what they are: drivers make something of the others, each in its own way."""


class Shape(Generic[ModelT]):
    """A model's table, its fields and its keys.

    Args:
        model: mapped to one table, with a primary key of one column.

    Raises:
        TypeError: the primary key has several columns.
    """

    def __init__(self, model: type[ModelT]) -> None:
        mapper: Mapper[ModelT] = inspect(model)
        if not isinstance(mapper.local_table, Table) or len(mapper.primary_key) != 1:
            raise TypeError(f"{model.__name__} has no primary key of one column: a repository finds rows by one value")
        self.model = model
        self.table: Table = mapper.local_table
        self.columns: dict[str, Column[Any]] = {
            name: attribute.columns[0]
            for name, attribute in mapper.column_attrs.items()
            if isinstance(attribute.columns[0], Column)
        }
        self.fields = {column.name: name for name, column in self.columns.items()}
        self.key: Column[Any] = mapper.primary_key[0]  # type: ignore[assignment]
        self.key_field = self.fields[self.key.name]
        self.is_soft = issubclass(model, SoftDeleteMixin)
        self.is_renamed = any(name != column.key for name, column in self.columns.items())
        keys = dict(_unique_keys(self.table))
        self.unique_keys = tuple(keys)
        self._rules = {frozenset(columns): name for columns, name in keys.items()}
        self.unique_fields = frozenset(self.fields[column.name] for key in self.unique_keys for column in key)
        self.not_changed = {self.key_field} | (MARKS if self.is_soft else set())
        self.kinds = {name: python_type(column.type) for name, column in self.columns.items()}
        self._checks = {name: _check_of(column, self.kinds[name]) for name, column in self.columns.items()}

    def unknown(self, field: object, *, purpose: str) -> str:
        """Return what to say of a field that the model does not have."""
        near = get_close_matches(str(field), self.columns, n=1)
        advice = f"did you mean {near[0]!r}?" if near else f"its fields are {', '.join(sorted(self.columns))}"
        return f"{purpose} {str(field)[:60]!r}: {self.model.__name__} has no such field; {advice}"

    def check(self, values: Mapping[str, Any], *, refused: Iterable[str] = ()) -> None:
        """Refuse what is no field or does not fit it, before anything is sent.

        Args:
            values: by field; None always fits here, the table knows better.
            refused: fields that this caller may not write.

        Raises:
            ValueTooLongError: a text is longer than its column.
            InvalidInputError: another value does not fit, or there is no such field.
        """
        checks = self._checks
        for field, value in values.items():
            check = checks.get(field, _unknown)
            if check is None or (value is None and check is not _unknown):
                continue
            if (rule := check(value)) is not None:
                self._refuse(field, rule)
        for field in refused:
            if field in values:
                self._refuse(field, "is not written here: leave it out")

    def check_value(self, field: str, value: Any, *, purpose: str) -> None:
        """Refuse a value that nothing in this field can equal, as a text for a number; any length is right.

        Raises:
            InvalidFilterError: it does not fit.
        """
        check = self._checks[field]
        rule = check(value) if check is not None and value is not None else None
        if rule is not None and not isinstance(rule, _TooLong):
            message = f"{purpose}: {self.table.name}.{field} {rule}"
            raise InvalidFilterError(message, table=self.table.name, columns=(self.columns[field].name,))

    def check_key(self, value: Any) -> None:
        """Refuse what no primary key can be.

        Raises:
            InvalidInputError: None, or a value of another type.
        """
        check = self._checks[self.key_field]
        rule = "is never NULL" if value is None else check(value) if check is not None else None
        if rule is not None and not isinstance(rule, _TooLong):
            self._refuse(self.key_field, rule)

    def row(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return values by field as values by column, as statements of Core take them."""
        if not self.is_renamed:
            return values if isinstance(values, dict) else dict(values)
        return {self.columns[field].key: value for field, value in values.items()}

    def by_field(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return values by column as values by field."""
        return {self.fields[name]: value for name, value in row.items() if name in self.fields}

    def taken(self, columns: Sequence[Column[Any]] = (), *, deleted_id: Any = None) -> DuplicateKeyError:
        """Return the error for a unique key that is taken.

        Args:
            columns: the key's; none if it is not known which it is.
            deleted_id: the primary key of the soft-deleted row that has it.
        """
        rule = self._rules.get(frozenset(columns))
        subject = f"{self.table.name}.{', '.join(column.name for column in columns)}" if columns else self.table.name
        if deleted_id is None:
            advice = "is taken; choose another one, or change the row that has it"
        else:
            advice = (
                "is taken by a soft-deleted row; bring that back with restore(session, error.deleted_id), or remove it "
                "with hard_delete"
            )
        message = f"{subject}{f' ({rule})' if rule else ''}: this key {advice}"
        names = tuple(column.name for column in columns)
        error = DuplicateKeyError(message, table=self.table.name, columns=names, constraint=rule)
        error.deleted_id = deleted_id
        return error

    def _refuse(self, field: str, rule: str) -> None:
        if field not in self.columns:
            raise InvalidInputError(self.unknown(field, purpose="value for"), table=self.table.name)
        kind = ValueTooLongError if isinstance(rule, _TooLong) else InvalidInputError
        columns = (self.columns[field].name,)
        raise kind(f"{self.table.name}.{field} {rule}", table=self.table.name, columns=columns)


class _TooLong(str):
    """A rule about the length of a text."""

    __slots__ = ()


Check = Callable[[Any], str | None]


def _unknown(value: object) -> str:
    del value
    return "is no field"


def _unique_keys(table: Table) -> Iterable[tuple[tuple[Column[Any], ...], str]]:
    rules = [rule for rule in table.constraints if isinstance(rule, PrimaryKeyConstraint | UniqueConstraint)]
    indexes = [index for index in table.indexes if index.unique]
    for rule in sorted(
        [*rules, *indexes], key=lambda rule: (not isinstance(rule, PrimaryKeyConstraint), str(rule.name))
    ):
        if all(isinstance(column, Column) for column in rule.columns):
            yield tuple(rule.columns), str(rule.name)


def _check_of(column: Column[Any], kind: type) -> Check | None:
    if issubclass(kind, Enum):
        return _enum_check(kind, getattr(column.type, "enums", [member.name for member in kind]))
    if kind is str:
        return _text_check(getattr(column.type, "length", None))
    if kind is int:
        return _integer_check(column)
    if kind is datetime:
        return _instant_check
    if kind is UUID:
        return _uuid_check
    return _kind_check(kind) if kind in EXACT_TYPES else None


def _text_check(length: int | None) -> Check:
    limit = length if length is not None else 2**30

    def check(value: Any) -> str | None:
        if not isinstance(value, str):
            return f"takes text, not {type(value).__name__}"
        try:
            checked_text(value)
        except ValueError as error:
            return str(error)
        if len(value) <= limit:
            return None
        return _TooLong(f"takes at most {limit} characters, not {len(value)}: shorten it")

    return check


def _integer_check(column: Column[Any]) -> Check:
    bits = 63 if isinstance(column.type, BigInteger) else 15 if isinstance(column.type, SmallInteger) else 31

    def check(value: Any) -> str | None:
        if not isinstance(value, int) or isinstance(value, bool):
            return f"takes an integer, not {type(value).__name__}"
        return None if -(2**bits) <= value < 2**bits else f"takes integers of {bits + 1} bits: this one is too large"

    return check


def _enum_check(kind: type[Enum], names: list[str]) -> Check:
    def check(value: Any) -> str | None:
        if isinstance(value, kind) or (isinstance(value, str) and value in names):
            return None
        return f"is one of {', '.join(names)}"

    return check


def _instant_check(value: Any) -> str | None:
    if not isinstance(value, datetime):
        return f"takes a datetime, not {type(value).__name__}"
    if value.tzinfo is None:
        return "takes a datetime with a time zone, such as datetime.now(UTC)"
    try:
        fits = value.astimezone(UTC).year >= EARLIEST_YEAR
    except OverflowError:
        fits = False
    return None if fits else f"takes the years {EARLIEST_YEAR} to 9999 (UTC)"


def _uuid_check(value: Any) -> str | None:
    if isinstance(value, UUID):
        return None
    try:
        UUID(value)
    except (AttributeError, TypeError, ValueError):
        return "takes a UUID or its text"
    return None


def _kind_check(kind: type) -> Check:
    def check(value: Any) -> str | None:
        return None if isinstance(value, kind) else f"takes {kind.__name__}, not {type(value).__name__}"

    return check
