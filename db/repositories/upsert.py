"""Insert a row, or change the one that has its key."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Column, Executable, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession

from db.errors import DuplicateKeyError, InvalidInputError
from db.repositories.duplicates import duplicate
from db.repositories.rows import Rows
from db.repositories.shape import ModelT, Shape

RACES: Final = 5
"""How often a row may appear or vanish between two statements before it is no race any more."""


async def upsert(session: AsyncSession, rows: Rows[ModelT], values: Mapping[str, Any], by: Sequence[str]) -> ModelT:
    """Insert a row, or change what ``values`` names in the row that has the key ``by``; returns it.

    Raises:
        DuplicateKeyError: the key is a soft-deleted row's, or another of the row's keys is taken.
        InvalidInputError: ``by`` is no unique key of the table, or ``values`` does not have it.
    """
    columns = _key(rows.shape, values, by)
    if session.get_bind().dialect.name in {"postgresql", "sqlite"}:
        return await _on_conflict(session, rows, values, columns)
    return await _in_steps(session, rows, values, columns)


def _key(shape: Shape[ModelT], values: Mapping[str, Any], by: Sequence[str]) -> tuple[Column[Any], ...]:
    names = (by,) if isinstance(by, str) else tuple(by)
    for columns in shape.unique_keys:
        if {shape.fields[column.name] for column in columns} == set(names):
            break
    else:
        keys = "; ".join(", ".join(shape.fields[c.name] for c in columns) for columns in shape.unique_keys)
        raise InvalidInputError(f"upsert by {', '.join(map(str, names))[:60]!r}: no unique key; there are {keys}")
    for name in names:
        if values.get(name) is None:
            raise InvalidInputError(f"upsert by {name}: the values must have it, and NULL is equal to nothing")
    return columns


async def _on_conflict(
    session: AsyncSession, rows: Rows[ModelT], values: Mapping[str, Any], columns: tuple[Column[Any], ...]
) -> ModelT:
    others = {name: value for name, value in values.items() if rows.shape.columns[name] not in columns}
    try:
        async with rows.kept(session, others):
            with rows.errors():
                result = await session.execute(_statement(session, rows.shape, values, columns))
                written: ModelT | None = result.scalar_one_or_none()
    except DuplicateKeyError as error:
        raise await duplicate(session, rows.shape, others, error.columns) or error from error
    if written is None:  # the WHERE of the conflict: the row is soft-deleted
        raise await duplicate(session, rows.shape, values) or rows.shape.taken(columns)
    return written


def _statement(
    session: AsyncSession, shape: Shape[ModelT], values: Mapping[str, Any], columns: tuple[Column[Any], ...]
) -> Executable:
    table, make = shape.table, sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    row = shape.row(values)
    insert = make(table).values(row)
    changes: dict[str, Any] = {name: insert.excluded[name] for name in row if name != shape.key.key}
    for column in table.columns:  # which ON CONFLICT leaves out
        if column.onupdate is not None and column.key not in row and column.onupdate.is_callable:
            changes[column.key] = column.onupdate.arg(None)  # type: ignore[attr-defined]
    changes = changes or {columns[0].key: insert.excluded[columns[0].key]}  # something, or nothing is returned
    living = table.c.is_deleted.is_(False) if shape.is_soft else None
    written = insert.on_conflict_do_update(index_elements=list(columns), set_=changes, where=living)
    found = select(shape.model).from_statement(written.returning(*table.c))
    return found.execution_options(populate_existing=True)


async def _in_steps(
    session: AsyncSession, rows: Rows[ModelT], values: Mapping[str, Any], columns: tuple[Column[Any], ...]
) -> ModelT:
    """As MySQL can: its ON DUPLICATE KEY would change a row that has *another* of the keys."""
    shape = rows.shape
    key = [column == values[shape.fields[column.name]] for column in columns]
    marks = [shape.table.c.is_deleted] if shape.is_soft else []
    query = select(shape.key, *marks).where(*key).with_for_update()
    changes = {name: value for name, value in values.items() if name != shape.key_field}
    for _ in range(RACES):
        found = (await session.execute(query)).one_or_none()
        if found is not None and marks and found[1]:
            raise shape.taken(columns, deleted_id=found[0])
        if found is not None:
            return await rows.update(session, found[0], changes)
        try:
            return await rows.create(session, values)
        except DuplicateKeyError as error:
            if set(error.columns) != {column.name for column in columns}:
                raise
    raise shape.taken(columns)
