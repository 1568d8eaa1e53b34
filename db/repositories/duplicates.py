"""Who has the key that was taken: a living row, or a soft-deleted one that could be restored."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import Column, ColumnElement, and_, select
from sqlalchemy.ext.asyncio import AsyncSession

from db.errors import DuplicateKeyError
from db.repositories.shape import ModelT, Shape


async def duplicate(
    session: AsyncSession,
    shape: Shape[ModelT],
    values: Mapping[str, Any],
    suspected: Collection[str] = (),
    *,
    besides: Any = None,
) -> DuplicateKeyError | None:
    """Return the error that tells who has a key of these values.

    Args:
        session: in a transaction that is not aborted.
        shape: the model's.
        values: of one row, by field.
        suspected: the names of the key's columns, where the engine has told them.
        besides: the primary key of the row that may have it.

    Returns:
        None if nobody has it, which is so when it was given up meanwhile.
    """
    for columns in shape.unique_keys:
        if suspected and {column.name for column in columns} != set(suspected):
            continue
        wanted = [(column, values.get(shape.fields[column.name])) for column in columns]
        if all(value is not None for _, value in wanted):
            matches = and_(*(column == value for column, value in wanted))
            if besides is not None:
                matches = and_(matches, shape.key != besides)
            if (found := await taken_by(session, shape, columns, matches)) is not None:
                return found
    return None


async def taken_by(
    session: AsyncSession, shape: Shape[ModelT], columns: Sequence[Column[Any]], matches: ColumnElement[bool]
) -> DuplicateKeyError | None:
    """Return the error for a key if rows match; a soft-deleted one is told of first."""
    marks = [shape.table.c.is_deleted] if shape.is_soft else []
    query = select(shape.key, *marks).where(matches).order_by(*(mark.desc() for mark in marks)).limit(1)
    row = (await session.execute(query)).one_or_none()
    if row is None:
        return None
    return shape.taken(columns, deleted_id=row[0] if marks and row[1] else None)
