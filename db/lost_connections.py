"""Connections that broke while nobody used them: found before they are used again, or replaced at the first statement.

Asking each time whether a connection still works would cost up to three round trips. So one that was used a moment ago
is trusted. If it is broken all the same, the first statement of a transaction finds out, and goes to another
connection: nothing can have been committed by then. Later statements are never repeated, nor is a first one that may
have committed by itself.
"""

import re
import time
from typing import Any, Final

from sqlalchemy import Connection, event
from sqlalchemy.engine import Engine
from sqlalchemy.engine.interfaces import ExecuteStyle
from sqlalchemy.exc import InvalidatePoolError

from db.read_only import READING

TRUSTED_S: Final = 15.0
"""Seconds for which a connection that was used is taken again without asking."""

_UNTOUCHED: Final = "holdfast_untouched"
_USED_AT: Final = "holdfast_used_at"
# CALL may commit, and so does DDL on MySQL and MariaDB.
_REPEATABLE: Final = re.compile(
    r"\s*(?:SELECT|INSERT|UPDATE|DELETE|REPLACE|MERGE|WITH|SET SESSION TRANSACTION)\b", re.IGNORECASE
)
_CHARACTERISTICS: Final = ("isolation_level", "postgresql_readonly")


def replace_lost_connections(engine: Engine) -> None:
    """Attach the listeners."""
    watch = _Watch(engine)
    event.listen(engine, "connect", watch.note_use)
    event.listen(engine, "checkin", watch.note_use)
    event.listen(engine, "checkout", watch.ask)
    event.listen(engine, "do_execute", watch.execute)
    event.listen(engine, "do_executemany", watch.execute_many)
    event.listen(engine, "do_execute_no_params", watch.execute_without_parameters)


def note_first_use(connection: Connection) -> "_Watch | None":
    """Note that a transaction has sent a statement; returns who watches the connection if it was the first one."""
    known = connection.connection.record_info
    return None if known is None else known.pop(_UNTOUCHED, None)


def go_to_another(connection: Connection, statement: str, failure: BaseException) -> bool:
    """Replace a connection that broke before its first use, for a statement that the listeners do not hear of.

    Args:
        connection: in a transaction.
        statement: which failed on it.
        failure: what it has raised.

    Returns:
        Whether the statement is to be executed anew: it was the first one, and the connection is another now.
    """
    known = connection.connection.record_info
    watch: _Watch | None = None if known is None else known.get(_UNTOUCHED)
    return watch is not None and watch.replace(connection, statement, failure, None)


class _Watch:
    def __init__(self, engine: Engine) -> None:
        self._dialect = engine.dialect
        self._broke_at = 0.0

    def note_use(self, dbapi_connection: Any, record: Any) -> None:
        del dbapi_connection
        record.info[_USED_AT] = time.monotonic()

    def ask(self, dbapi_connection: Any, record: Any, proxy: object) -> None:
        del proxy
        record.record_info[_UNTOUCHED] = self
        used_at = record.info[_USED_AT]
        if time.monotonic() - used_at <= TRUSTED_S and used_at > self._broke_at:
            return
        try:
            self._dialect.do_ping(dbapi_connection)
        except self._dialect.loaded_dbapi.Error as error:
            raise InvalidatePoolError("the connection was lost while nobody used it") from error

    def execute(self, cursor: Any, statement: str, parameters: Any, context: Any) -> bool:
        connection: Connection = context.root_connection
        if note_first_use(connection) is None or context.execute_style is ExecuteStyle.INSERTMANYVALUES:
            return False  # of many rows at once SQLAlchemy reads the answers from the cursor that it has made
        try:
            self._dialect.do_execute(cursor, statement, parameters, context)
        except self._dialect.loaded_dbapi.Error as error:
            if not self.replace(connection, statement, error, cursor):
                raise
            context._dbapi_connection = connection.connection  # noqa: SLF001 - see _replace
            context.cursor = context.create_cursor()
            self._dialect.do_execute(context.cursor, statement, parameters, context)
        return True

    def execute_many(self, cursor: Any, statement: str, parameters: Any, context: Any) -> None:
        del cursor, statement, parameters
        note_first_use(context.root_connection)  # many executions are not repeated, nor is what follows them

    def execute_without_parameters(self, cursor: Any, statement: str, context: Any) -> None:
        self.execute_many(cursor, statement, (), context)

    def replace(self, connection: Connection, statement: str, failure: BaseException, cursor: Any) -> bool:
        """Go to another connection, if the first statement of a transaction has failed because this one is lost."""
        if not isinstance(failure, self._dialect.loaded_dbapi.Error):
            return False
        is_lost = self._dialect.is_disconnect(failure, connection.connection, cursor)
        if not is_lost or not _may_repeat(connection, statement):
            return False
        self._broke_at = time.monotonic()  # the others have probably broken with it
        _replace(connection, failure)
        note_first_use(connection)
        return True


def _may_repeat(connection: Connection, statement: str) -> bool:
    options = connection.get_execution_options()
    commits_by_itself = options.get("isolation_level") == "AUTOCOMMIT" and not options.get(READING, False)
    return not commits_by_itself and _REPEATABLE.match(statement) is not None


def _replace(connection: Connection, error: BaseException) -> None:
    # SQLAlchemy refuses to reconnect inside a transaction. This one has not done anything yet, and the session above
    # holds on to it: it is set aside for a moment. https://docs.sqlalchemy.org/en/21/faq/connections.html#faq-execute-retry
    transaction, connection._transaction = connection._transaction, None  # noqa: SLF001
    try:
        connection.invalidate(error)
        options = connection.get_execution_options()
        connection.execution_options(**{name: options[name] for name in _CHARACTERISTICS if name in options})
        assert connection.connection.is_valid  # noqa: S101 - connects anew, with or without options
    finally:
        connection._transaction = transaction  # noqa: SLF001
