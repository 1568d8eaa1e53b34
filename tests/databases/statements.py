"""The statements that are sent while a block runs."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import event

from db.connection import DatabaseManager

AROUND = ("BEGIN", "SAVEPOINT", "RELEASE", "ROLLBACK", "PRAGMA query_only", "SET SESSION TRANSACTION")


@contextmanager
def statements(manager: DatabaseManager, *, all_of_them: bool = False) -> Iterator[list[str]]:
    """Yields a list that grows by each statement, but for those around transactions unless all are asked for."""
    sent: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        del connection, cursor, rest
        if all_of_them or not statement.startswith(AROUND):
            sent.append(statement)

    event.listen(manager.engine.sync_engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        event.remove(manager.engine.sync_engine, "before_cursor_execute", note)
