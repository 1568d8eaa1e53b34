"""What goes wrong with a database, in the same few words on each engine.

    DatabaseNotInitialised          no pool is open
    NestedWriteSession              a batch of a run inside another one; SQLite: any writing session inside another
    DatabaseUnavailable     retry   no connection at all
    DatabaseBusy            retry   SQLite: the turn to write did not come
    DatabaseSilent          retry   no answer in time; what was to be committed may be committed or not
    DataLayerError                  what a repository met
      NotFoundError                 no such row
      InvalidInputError             refused before it reached the database, or a value that no engine can hold
        InvalidFilterError          an unknown field, operator, order or cursor
        ValueTooLongError
      ConstraintError               a rule of the table
        DuplicateKeyError           ... its unique key is taken, perhaps by a soft-deleted row
        ForeignKeyError
        CheckError
        NotNullError
      ReadOnlyError         retry   the transaction or the server takes no changes: a standby becomes a primary
      DeadlockError         retry
      LockTimeoutError      retry
      ConnectionLostError   retry

Repositories raise these; ``db.error_mapping`` makes them of what SQLAlchemy raises. "Retry" is ``can_retry``: the same
*transaction*, from its beginning, may succeed later. ``is_transient`` says the same of any exception.
"""

import socket
from typing import Any, ClassVar, Final

from sqlalchemy.exc import DBAPIError, IntegrityError, InterfaceError, SQLAlchemyError, StatementError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from db.any_errors import text_of


class DatabaseNotInitialised(RuntimeError):  # noqa: N818
    """A session was asked for before ``initialize_database`` or after ``close_database``."""


class DatabaseUnavailable(Exception):  # noqa: N818
    """The database did not take a connection; the message is one line and shows no password."""


class DatabaseBusy(SQLAlchemyError):  # noqa: N818
    """SQLite: the turn to write did not come in time."""


class DatabaseSilent(TimeoutError):  # noqa: N818
    """The database did not answer in time; what was to be committed may be committed or not."""


class NestedWriteSession(RuntimeError):  # noqa: N818
    """A session would wait for another one of its task: a second batch of a run, or on SQLite any that writes."""


class DataLayerError(Exception):
    """What a repository met; the message is one line and holds no value of a row.

    Args:
        message: subject, rule, next step.
        table: the table's name, where it is known.
        columns: the names of the columns, where they are known.
        constraint: the name of the broken rule, where it is known.
    """

    can_retry: ClassVar[bool] = False

    def __init__(
        self, message: str, *, table: str | None = None, columns: tuple[str, ...] = (), constraint: str | None = None
    ) -> None:
        super().__init__(message)
        self.table = table
        self.columns = columns
        self.constraint = constraint

    @property
    def column(self) -> str | None:
        """The one column, or the first of several."""
        return self.columns[0] if self.columns else None


class NotFoundError(DataLayerError):
    """No row has this primary key, or it is soft-deleted."""


class InvalidInputError(DataLayerError):
    """A field, a value or an argument is none that the model and every engine can take."""


class InvalidFilterError(InvalidInputError):
    """A filter, an order or a cursor does not fit the model."""


class ValueTooLongError(InvalidInputError):
    """A text is longer than its column."""


class ConstraintError(DataLayerError):
    """A rule of the table was broken."""


class DuplicateKeyError(ConstraintError):
    """A unique key is taken. ``deleted_id`` is the primary key of the soft-deleted row that has it, if that is so."""

    deleted_id: Any = None


class ForeignKeyError(ConstraintError):
    """The row points to one that is not there, or others still point to the row."""


class CheckError(ConstraintError):
    """A CHECK of the table was broken."""


class NotNullError(ConstraintError):
    """A column that must have a value has none."""


class ReadOnlyError(DataLayerError):
    """A change in a transaction, or on a server, that takes none."""

    can_retry = True


class DeadlockError(DataLayerError):
    """Two transactions waited for each other; the database ended this one."""

    can_retry = True


class LockTimeoutError(DataLayerError):
    """A lock did not come in time."""

    can_retry = True


class ConnectionLostError(DataLayerError):
    """The connection broke; whether a commit that was under way took place is not known."""

    can_retry = True


TRANSIENT_ERRORS: Final = (
    DatabaseUnavailable,
    DatabaseBusy,
    PoolTimeoutError,
    InterfaceError,
    ConnectionError,
    TimeoutError,
    socket.gaierror,
)
# PostgreSQL: https://www.postgresql.org/docs/current/errcodes-appendix.html
TRANSIENT_SQLSTATES: Final = ("08", "40001", "40P01", "53", "55P03", "57014", "57P", "25006", "58")
# MySQL and MariaDB: https://mariadb.com/kb/en/mariadb-error-code-reference/
TRANSIENT_MYSQL_CODES: Final = frozenset(
    {
        1021,  # disk full
        1040,  # too many connections
        1053,  # server shutdown
        1114,  # table full
        1205,  # lock wait timeout
        1213,  # deadlock
        1290,  # read-only
        1317,  # query interrupted
        1792,  # read-only transaction
        1836,  # read-only server (MySQL)
        1927,  # connection killed
        1969,  # statement time limit
        2002,
        2003,  # cannot connect
        2006,
        2013,  # connection lost
        3024,  # statement time limit (MySQL)
    }
)
TRANSIENT_SQLITE_TEXTS: Final = ("is locked", "disk I/O error", "disk is full", "readonly database", "unable to open")
DENIED_SQLSTATE: Final = "42501"
DENIED_MYSQL_CODES: Final = frozenset({1044, 1142, 1143, 1227, 1370})
UNSTORABLE_SQLSTATES: Final = ("22", "23514")
UNSTORABLE_MYSQL_CODES: Final = frozenset(
    {
        1264,  # number out of range
        1153,  # larger than max_allowed_packet, where the server comes to say so
        1366,  # not a character of the column's set
        1406,  # too long
        3140,  # invalid JSON (MySQL)
        3157,  # JSON nested too deep (MySQL)
        4025,  # a check failed; MariaDB checks JSON by one, which takes 31 levels
    }
)
UNSTORABLE_SQLITE_TEXTS: Final = ("Error binding parameter", "too big", "CHECK constraint failed")
DUPLICATE_MYSQL_CODES: Final = frozenset({1022, 1062, 1586})


def sqlstate(error: BaseException) -> str | None:
    """Return PostgreSQL's SQLSTATE, from the wrapped or the driver's own error."""
    for candidate in _causes(error):
        code = getattr(candidate, "sqlstate", None)
        # asyncmy's errors have one, too: a coarser one than MySQL's own number.
        if isinstance(code, str) and not _is_mysql(candidate):
            return code
    return None


def mysql_code(error: BaseException) -> int | None:
    """Return MySQL's error number."""
    for candidate in _causes(error):
        if _is_mysql(candidate):
            arguments = candidate.args
            if arguments and isinstance(arguments[0], int):
                return arguments[0]
    return None


def is_transient(error: BaseException) -> bool:
    """Whether the same work may succeed later: the connection, a lock, a full disk or pool stood in the way."""
    if isinstance(error, BaseExceptionGroup):
        return all(map(is_transient, error.exceptions))
    if isinstance(error, DataLayerError):
        return error.can_retry
    if isinstance(error, TRANSIENT_ERRORS) or _is_of_several_addresses(error):
        return True
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    return _is_transient_of_driver(error)


def _is_transient_of_driver(error: BaseException) -> bool:
    if (code := sqlstate(error)) is not None:
        return code.startswith(TRANSIENT_SQLSTATES)
    if (number := mysql_code(error)) is not None:
        return number in TRANSIENT_MYSQL_CODES
    if isinstance(error, DBAPIError):
        return any(text in str(error.orig) for text in TRANSIENT_SQLITE_TEXTS)
    return False


def _is_of_several_addresses(error: BaseException) -> bool:
    # asyncio's, where a host has more than one address and none of them takes the connection: it has no number.
    return isinstance(error, OSError) and error.errno is None and text_of(error).startswith("Multiple exceptions: ")


def is_denied(error: BaseException) -> bool:
    """Whether the database's user lacks a right."""
    return sqlstate(error) == DENIED_SQLSTATE or mysql_code(error) in DENIED_MYSQL_CODES


def is_unstorable(error: BaseException) -> bool:
    """Whether a value is not one that the database can keep: trying again cannot help."""
    if isinstance(error, InvalidInputError | CheckError):
        return True
    if not isinstance(error, StatementError):
        return False
    if not isinstance(error, DBAPIError):
        return True  # it could not even be handed to the driver
    if (code := sqlstate(error)) is not None:
        return code.startswith(UNSTORABLE_SQLSTATES)
    if (number := mysql_code(error)) is not None:
        return number in UNSTORABLE_MYSQL_CODES
    return any(text in str(error.orig) for text in UNSTORABLE_SQLITE_TEXTS)


def is_unique_violation(error: BaseException) -> bool:
    """Whether a unique key was taken already."""
    if isinstance(error, DuplicateKeyError):
        return True
    if not isinstance(error, IntegrityError):
        return False
    if (code := sqlstate(error)) is not None:
        return code == "23505"
    if (number := mysql_code(error)) is not None:
        return number in DUPLICATE_MYSQL_CODES
    return "UNIQUE constraint failed" in str(error.orig)


def first_line(error: BaseException) -> str:
    """Return the driver's own words in one line, without the statement and its parameters."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    text = text_of(cause).strip() or type(cause).__name__
    return text.splitlines()[0].removeprefix("<class ").strip()


def _is_mysql(error: BaseException) -> bool:
    return type(error).__module__.startswith(("asyncmy", "pymysql", "sqlalchemy.dialects.mysql"))


def _causes(error: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in found:
        found.append(current)
        current = (current.orig if isinstance(current, DBAPIError) else None) or current.__cause__
    return found
