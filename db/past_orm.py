"""Statements of Core in a session, past the ORM, for what each run executes: it has no objects to keep in step."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import CursorResult, Executable
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session


async def execute_past_orm(
    session: AsyncSession, statement: Executable, values: Mapping[str, Any]
) -> CursorResult[Any]:
    """Execute a statement in the transaction of a session, which is not flushed before.

    Args:
        session: of the caller.
        statement: of tables and columns, not of mapped classes.
        values: of its parameters.
    """
    return await session.run_sync(_execute, statement, values)


def _execute(session: Session, statement: Executable, values: Mapping[str, Any]) -> CursorResult[Any]:
    return session.connection().execute(statement, values)
