"""The statements that are sent while a block runs."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import event

from db.connection import DatabaseManager


@contextmanager
def statements(manager: DatabaseManager) -> Iterator[list[str]]:
    """Yields a list that grows by each statement, but for those around transactions."""
    sent: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        del connection, cursor, rest
        if not statement.startswith(("BEGIN", "SAVEPOINT", "RELEASE", "ROLLBACK")):
            sent.append(statement)

    event.listen(manager.engine.sync_engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        event.remove(manager.engine.sync_engine, "before_cursor_execute", note)
