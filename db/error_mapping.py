"""From what the drivers raise to the classes of ``db.errors``: the same class on each engine.

Sources: https://www.postgresql.org/docs/current/errcodes-appendix.html,
https://mariadb.com/kb/en/mariadb-error-code-reference/, https://www.sqlite.org/rescode.html#extrc
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Constraint, Index, MetaData, PrimaryKeyConstraint, Table, UniqueConstraint
from sqlalchemy.exc import DBAPIError, SQLAlchemyError, StatementError

from db.errors import (
    CheckError,
    ConnectionLostError,
    DatabaseBusy,
    DataLayerError,
    DeadlockError,
    DuplicateKeyError,
    ForeignKeyError,
    InvalidInputError,
    LockTimeoutError,
    NotNullError,
    ReadOnlyError,
    ValueTooLongError,
    first_line,
    mysql_code,
    sqlstate,
)

Kind = type[DataLayerError]
PRIMARY: Final = "PRIMARY"
"""MySQL's name of every primary key."""

SQLSTATES: Final[dict[str, Kind]] = {
    "23505": DuplicateKeyError,
    "23503": ForeignKeyError,
    "23001": ForeignKeyError,  # RESTRICT
    "23514": CheckError,
    "23502": NotNullError,
    "22001": ValueTooLongError,
    "25006": ReadOnlyError,
    "40P01": DeadlockError,
    "40001": DeadlockError,  # a serialization failure: the same remedy
    "55P03": LockTimeoutError,
    "22": InvalidInputError,
    "08": ConnectionLostError,
    "57P": ConnectionLostError,
}
MYSQL_CODES: Final[dict[int, Kind]] = {
    1022: DuplicateKeyError,
    1062: DuplicateKeyError,
    1586: DuplicateKeyError,
    1216: ForeignKeyError,
    1217: ForeignKeyError,
    1451: ForeignKeyError,
    1452: ForeignKeyError,
    3819: CheckError,
    4025: CheckError,
    1048: NotNullError,
    1364: NotNullError,
    1406: ValueTooLongError,
    1264: InvalidInputError,
    1292: InvalidInputError,
    1366: InvalidInputError,
    3140: InvalidInputError,
    3157: InvalidInputError,
    1290: ReadOnlyError,
    1792: ReadOnlyError,
    1836: ReadOnlyError,
    1213: DeadlockError,
    1205: LockTimeoutError,
    1927: ConnectionLostError,
    2006: ConnectionLostError,
    2013: ConnectionLostError,
}
SQLITE_TEXTS: Final[dict[str, Kind]] = {
    "UNIQUE constraint failed": DuplicateKeyError,
    "FOREIGN KEY constraint failed": ForeignKeyError,
    "CHECK constraint failed": CheckError,
    "NOT NULL constraint failed": NotNullError,
    "readonly database": ReadOnlyError,
    "is locked": LockTimeoutError,
    "Error binding parameter": InvalidInputError,
    "too big": InvalidInputError,
}
_SQLITE_RULE: Final = re.compile(r"^CHECK constraint failed: ck_.+_(?P<what>length|json)$")
"""What the other engines check by themselves, and ``db.base`` has SQLite check by a rule of the table."""
SENTENCES: Final[dict[Kind, str]] = {
    DuplicateKeyError: "this key is taken; choose another one, or change the row that has it",
    ForeignKeyError: "the row points to one that is not there, or others still point to it; write the parent first, "
    "delete the children first",
    CheckError: "a value breaks this rule of the table; see its CHECK",
    NotNullError: "must have a value",
    ValueTooLongError: "the text is longer than the column; shorten it",
    InvalidInputError: "a value does not fit its column; see the column's type",
    ReadOnlyError: "the transaction or the server takes no changes; open a writing session, or try again once the "
    "server is a primary",
    DeadlockError: "the database ended this transaction, which waited in a circle with another; run it again",
    LockTimeoutError: "a lock did not come in time; run the transaction again",
    ConnectionLostError: "the connection to the database broke; run the transaction again if it is safe to repeat",
}


@dataclass(slots=True)
class _Place:
    """Where an error happened, as far as the engine tells."""

    table: str | None = None
    columns: tuple[str, ...] = ()
    constraint: str | None = None
    is_json_check: bool = False
    """MariaDB checks JSON by a constraint of the column, which is named after it."""


def translate(error: BaseException, metadata: MetaData | None = None, *, table: str | None = None) -> BaseException:
    """Return the class of ``db.errors`` that stands for an error, or the error itself where none does.

    Args:
        error: what SQLAlchemy or a driver raised; its text is not repeated, for it may hold values.
        metadata: of the models; tells what the engine leaves out (the columns of a constraint, a constraint's table).
        table: the table that was written, for engines that do not tell.
    """
    kind = _kind(error)
    if kind is None:
        return error
    place = _place(error)
    if place.is_json_check:
        kind, place.constraint = InvalidInputError, None
    _complete(place, kind, metadata, table)
    return kind(_sentence(kind, place, error), table=place.table, columns=place.columns, constraint=place.constraint)


@contextmanager
def errors_named(metadata: MetaData | None = None, *, table: str | None = None) -> Iterator[None]:
    """Raise what ``translate`` returns in place of what the block raises. Arguments as there."""
    try:
        yield
    except (SQLAlchemyError, UnicodeError, OverflowError) as error:
        named = translate(error, metadata, table=table)
        if named is error:
            raise
        raise named from error


def _kind(error: BaseException) -> Kind | None:
    if isinstance(error, DatabaseBusy):
        return LockTimeoutError
    if isinstance(error, UnicodeError | OverflowError):
        return InvalidInputError  # the drivers of MariaDB and SQLite, unwrapped
    if not isinstance(error, StatementError):
        return None
    if not isinstance(error, DBAPIError):
        return InvalidInputError  # a type refused the value before it reached the driver
    return ConnectionLostError if error.connection_invalidated else _kind_of_driver(error)


def _kind_of_driver(error: DBAPIError) -> Kind | None:
    if (code := sqlstate(error)) is not None:
        return SQLSTATES.get(code) or SQLSTATES.get(code[:3]) or SQLSTATES.get(code[:2])
    if (number := mysql_code(error)) is not None:
        return MYSQL_CODES.get(number)
    told = str(error.orig)
    if (rule := _SQLITE_RULE.search(told)) is not None:
        return ValueTooLongError if rule["what"] == "length" else InvalidInputError
    return next((kind for text, kind in SQLITE_TEXTS.items() if text in told), None)


def _place(error: BaseException) -> _Place:
    if sqlstate(error) is not None:
        return _postgresql_place(error)
    text = str(error.orig) if isinstance(error, DBAPIError) else ""
    return _mysql_place(text) if mysql_code(error) is not None else _sqlite_place(text)


def _postgresql_place(error: BaseException) -> _Place:
    cause: Any = error.orig.__cause__ if isinstance(error, DBAPIError) and error.orig is not None else error
    column = getattr(cause, "column_name", None)
    columns = (column,) if column else ()
    return _Place(getattr(cause, "table_name", None), columns, getattr(cause, "constraint_name", None))


# 1062 "Duplicate entry 'x' for key 'uq_users_username'", in MySQL 'users.uq_users_username'; the entry may hold quotes.
_MYSQL_KEY = re.compile(r"for key '(?:(?P<table>[^'.]+)\.)?(?P<constraint>[^'.]+)'")
# 1451, 1452: "... (`database`.`tasks`, CONSTRAINT `fk_...` ..."; 4025: "CONSTRAINT `ck_...` failed for `db`.`tasks`"
_MYSQL_CONSTRAINT = re.compile(r"CONSTRAINT `(?P<constraint>[^`]+)`")
_MYSQL_TABLE = re.compile(r"`[^`]+`\.`(?P<table>[^`]+)`")
_MYSQL_CHECK = re.compile(r"Check constraint '(?P<constraint>[^']+)' is violated")  # MySQL's 3819
_MYSQL_COLUMN = re.compile(r"(?:Column|Field|for column) [`'](?:[^`']+`\.`){0,2}(?P<column>[^`']+)[`']")


def _mysql_place(text: str) -> _Place:
    found: dict[str, str] = {}
    for pattern in (_MYSQL_KEY, _MYSQL_CONSTRAINT, _MYSQL_TABLE, _MYSQL_CHECK, _MYSQL_COLUMN):
        *_, last = [None, *pattern.finditer(text)]
        if last is not None:
            found |= {name: value for name, value in last.groupdict().items() if value is not None}
    table, dot, column = found.get("constraint", "").rpartition(".")
    if dot:
        return _Place(table, (column,), is_json_check=True)
    columns = (found["column"],) if "column" in found else ()
    return _Place(found.get("table"), columns, found.get("constraint"))


def _sqlite_place(text: str) -> _Place:
    _, separator, rest = text.partition(" constraint failed: ")
    if not separator:
        return _Place()
    if rest.startswith("index '"):  # an index on expressions
        return _Place(constraint=rest.removeprefix("index '").rstrip("'"))
    if text.startswith("CHECK"):
        return _Place(constraint=rest)
    names = [name.partition(".") for name in rest.split(", ")]
    return _Place(names[0][0], tuple(column for _, _, column in names))


def _complete(place: _Place, kind: Kind, metadata: MetaData | None, written: str | None) -> None:
    """Fill in from the models what the engine left out."""
    tables = {} if metadata is None else dict(metadata.tables)
    if place.table is None and place.constraint is not None and place.constraint != PRIMARY:
        owners = [name for name, table in tables.items() if place.constraint in {rule.name for rule in _rules(table)}]
        place.table = owners[0] if len(owners) == 1 else None
    place.table = place.table or written
    table = tables.get(place.table or "")
    if table is None:
        return
    for rule in _rules(table):
        names = tuple(column.name for column in getattr(rule, "columns", ()))
        is_key = kind is DuplicateKeyError and isinstance(rule, Index | PrimaryKeyConstraint | UniqueConstraint)
        is_primary = place.constraint == PRIMARY and isinstance(rule, PrimaryKeyConstraint)
        if is_primary or rule.name == place.constraint or (is_key and names and set(names) == set(place.columns)):
            place.constraint = str(rule.name)
            place.columns = place.columns or names
            return


def _rules(table: Table) -> list[Constraint | Index]:
    return [*table.constraints, *(index for index in table.indexes if index.unique)]


def _sentence(kind: Kind, place: _Place, error: BaseException) -> str:
    if isinstance(error, StatementError) and not isinstance(error, DBAPIError) and error.orig is not None:
        reason = first_line(error.orig)  # the type's own words
        return f"{place.table or 'a value'}: {reason}"
    subject = ".".join(name for name in (place.table, ", ".join(place.columns)) if name)
    rule = f" ({place.constraint})" if place.constraint else ""
    return f"{subject or 'the database'}{rule}: {SENTENCES[kind]}"
