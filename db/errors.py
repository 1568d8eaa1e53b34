"""What the drivers raise, put into the few words that the rest of Holdfast needs."""

import socket
from typing import Final

from sqlalchemy.exc import DBAPIError, IntegrityError, InterfaceError, SQLAlchemyError, StatementError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError


class DatabaseNotInitialised(RuntimeError):  # noqa: N818
    """A session was asked for before ``initialize_database`` or after ``close_database``."""


class DatabaseUnavailable(Exception):  # noqa: N818
    """The database did not take a connection; the message is one line and shows no password."""


class DatabaseBusy(SQLAlchemyError):  # noqa: N818
    """SQLite: the turn to write did not come in time."""


class NestedWriteSession(RuntimeError):  # noqa: N818
    """SQLite: a writing session was opened inside another one of the same task."""


TRANSIENT_ERRORS: Final = (
    DatabaseUnavailable,
    DatabaseBusy,
    PoolTimeoutError,
    InterfaceError,
    ConnectionError,
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
UNSTORABLE_SQLSTATES: Final = ("22", "23514")
UNSTORABLE_MYSQL_CODES: Final = frozenset(
    {
        1264,  # number out of range
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
    if isinstance(error, TRANSIENT_ERRORS) or _is_of_several_addresses(error):
        return True
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    if (code := sqlstate(error)) is not None:
        return code.startswith(TRANSIENT_SQLSTATES)
    if (number := mysql_code(error)) is not None:
        return number in TRANSIENT_MYSQL_CODES
    if isinstance(error, DBAPIError):
        return any(text in str(error.orig) for text in TRANSIENT_SQLITE_TEXTS)
    return False


def _is_of_several_addresses(error: BaseException) -> bool:
    # asyncio's, where a host has more than one address and none of them takes the connection: it has no number.
    return isinstance(error, OSError) and error.errno is None and str(error).startswith("Multiple exceptions: ")


def is_unstorable(error: BaseException) -> bool:
    """Whether a value is not one that the database can keep: trying again cannot help."""
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
    text = str(cause).strip() or type(cause).__name__
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
