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


def note_first_use(connection: Connection) -> None:
    """Note that a statement of a transaction was executed, past the listeners."""
    known = connection.connection.record_info
    if known is not None and known.get(_UNTOUCHED, False):
        known[_UNTOUCHED] = False


def has_lost_it_before_its_first_use(connection: Connection, failure: BaseException) -> bool:
    """Whether the first statement of a transaction, executed past the listeners, failed because its connection broke.

    Then nothing has happened yet: executed anew, with the listeners, it goes to another connection.
    """
    proxied, dialect = connection.connection, connection.dialect
    known = proxied.record_info
    if known is None or not known.get(_UNTOUCHED, False) or not isinstance(failure, dialect.loaded_dbapi.Error):
        return False
    return dialect.is_disconnect(failure, proxied, None)


class _Watch:
    def __init__(self, engine: Engine) -> None:
        self._dialect = engine.dialect
        self._broke_at = 0.0

    def note_use(self, dbapi_connection: Any, record: Any) -> None:
        del dbapi_connection
        record.info[_USED_AT] = time.monotonic()

    def ask(self, dbapi_connection: Any, record: Any, proxy: object) -> None:
        del proxy
        record.record_info[_UNTOUCHED] = True
        used_at = record.info[_USED_AT]
        if time.monotonic() - used_at <= TRUSTED_S and used_at > self._broke_at:
            return
        try:
            self._dialect.do_ping(dbapi_connection)
        except self._dialect.loaded_dbapi.Error as error:
            raise InvalidatePoolError("the connection was lost while nobody used it") from error

    def execute(self, cursor: Any, statement: str, parameters: Any, context: Any) -> bool:
        connection: Connection = context.root_connection
        known = connection.connection.record_info
        if known is None or not known.get(_UNTOUCHED, False):
            return False
        known[_UNTOUCHED] = False
        try:
            self._dialect.do_execute(cursor, statement, parameters, context)
        except self._dialect.loaded_dbapi.Error as error:
            proxied = connection.connection
            if not self._dialect.is_disconnect(error, proxied, cursor) or not _may_repeat(connection, statement):
                raise
            self._broke_at = time.monotonic()  # the others have probably broken with it
            _replace(connection, error)
            proxied = connection.connection
            if proxied.record_info is not None:
                proxied.record_info[_UNTOUCHED] = False
            context._dbapi_connection = proxied  # noqa: SLF001 - see _replace
            context.cursor = context.create_cursor()
            self._dialect.do_execute(context.cursor, statement, parameters, context)
        return True


def _may_repeat(connection: Connection, statement: str) -> bool:
    options = connection.get_execution_options()
    commits_by_itself = options.get("isolation_level") == "AUTOCOMMIT" and not options.get(READING, False)
    return not commits_by_itself and _REPEATABLE.match(statement) is not None


def _replace(connection: Connection, error: Exception) -> None:
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
