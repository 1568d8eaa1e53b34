"""Statements of Core in a session, past the ORM, for what each run executes: it has no objects to keep in step."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Executable, Row
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session


async def execute_past_orm(
    session: AsyncSession, statement: Executable, values: Mapping[str, Any]
) -> Sequence[Row[Any]]:
    """Execute a statement in the transaction of a session; returns its rows, none where it gives none.

    Args:
        session: is not flushed before.
        statement: of tables and columns, not of mapped classes.
        values: of its parameters.
    """
    return await session.run_sync(_execute, statement, values)


def _execute(session: Session, statement: Executable, values: Mapping[str, Any]) -> Sequence[Row[Any]]:
    result = session.connection().execute(statement, values)
    return result.all() if result.returns_rows else ()
