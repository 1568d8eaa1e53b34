"""From an archive back into the table: each row is there once, and proved to be the one that was archived."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Any, cast

from sqlalchemy import (
    Column,
    ColumnElement,
    CursorResult,
    Insert,
    String,
    Table,
    bindparam,
    delete,
    func,
    insert,
    literal,
    literal_column,
    select,
)
from sqlalchemy import cast as sql_cast
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.ext.compiler import compiles

from db.archive_tables import existing_archive
from db.archives.catalog import Catalog
from db.archives.conflicts import by_table
from db.archives.contents import KEYS_A_QUERY, ArchivedRow, Record
from db.archives.documents import WrittenJson, as_text, document_columns, read_documents, same_json
from db.archives.hashing import row_hash
from db.archives.keys import Key, key_columns, key_text
from db.archives.rows import ByKeys, Proof, ProofFailed
from db.archives.values import same_value
from db.python_types import python_type

Types = Mapping[str, Mapping[str, str]]
"""Table -> column -> type, in the database's own words."""


async def bring_back(
    session: AsyncSession, catalog: Catalog, record: Record, *, now: datetime, types: Types
) -> dict[str, int]:
    """Move a record from the archives into its tables, alive.

    Rows of files are copied: the files stay as they are.

    Args:
        session: in a transaction that has seen no conflict; on SQLite after ``hashing.prepare``.
        catalog: the mapped tables.
        record: what comes back.
        now: what is written into ``updated_at`` of the rows that are revived.
        types: of the archive tables, for their checksums.

    Returns:
        The rows that came back, by table.

    Raises:
        ProofFailed: what is in the table is not what was in the archive; roll back.
        sqlalchemy.exc.IntegrityError: a conflict that only the database can see.
    """
    counts: dict[str, int] = {}
    for generation in record.generations:
        for table, rows in by_table(generation).items():
            changed = _revived(table, now) if catalog.is_soft_deleted(table) else {}
            for some in _pages([row for row in rows if row.part is None]):
                await _move(
                    session, table, [row.key for row in some], changed=changed, types=types.get(table.fullname, {})
                )
            for some in _pages([row for row in rows if row.part is not None]):
                await _copy(session, table, some, changed)
            counts[table.fullname] = counts.get(table.fullname, 0) + len(rows)
    return counts


def _pages(rows: Sequence[ArchivedRow]) -> Iterable[Sequence[ArchivedRow]]:
    return (rows[start : start + KEYS_A_QUERY] for start in range(0, len(rows), KEYS_A_QUERY))


def _revived(table: Table, now: datetime) -> dict[str, Any]:
    """Return what differs in a row that is alive again, as ``SoftDeleteMixin.restore`` leaves it."""
    changed: dict[str, Any] = {"is_deleted": False, "deleted_at": None}
    return changed | ({"updated_at": now} if "updated_at" in table.c else {})


async def _move(
    session: AsyncSession, table: Table, keys: list[Key], *, changed: Mapping[str, Any], types: Mapping[str, str]
) -> None:
    archive = existing_archive(table)
    if archive is None:
        raise ValueError(f"{table.fullname} has no archive: declare archive_table() beside its model")
    dialect, chosen = session.get_bind().dialect.name, ByKeys(keys)
    there, left = chosen.of(table, dialect), chosen.of(archive, dialect)
    columns = _written(table)
    source = [
        literal(changed[column.name], column.type) if column.name in changed else _filled(column, archive, dialect)
        for column in columns
    ]
    names = [column.name for column in columns]
    copying = _into(table).from_select(names, select(*source).where(left), include_defaults=False)
    await session.execute(copying)
    kept = [column for column in columns if column.name not in changed]
    before = await _proof(
        session, archive, [_filled(column, archive, dialect) for column in kept], chosen=left, types=types
    )
    after = await _proof(session, table, kept, chosen=there, types=types)
    removed = await session.execute(delete(archive).where(left))
    gone = cast("CursorResult[Any]", removed).rowcount
    if before != after or gone != after.rows or gone != len(keys):
        raise ProofFailed(
            f"{table.fullname}: {before.rows} rows were to come back (checksum {before.checksum}), {after.rows} came "
            f"(checksum {after.checksum}) and {gone} left the archive: nothing was changed"
        )


def _written(table: Table) -> list[Column[Any]]:
    """Return the columns that take a value; the others the database computes from these."""
    return [column for column in table.columns if column.computed is None]


class _OverridingInsert(Insert):
    """An INSERT that may write into columns which are ``GENERATED ALWAYS AS IDENTITY``."""

    inherit_cache = True


@compiles(_OverridingInsert, "postgresql")
def _overriding(statement: _OverridingInsert, compiler: Any, **kw: Any) -> str:
    source = " SELECT " if statement.select is not None else " VALUES "
    written = str(compiler.visit_insert(statement, **kw))
    return written.replace(f"){source}", f") OVERRIDING SYSTEM VALUE{source}", 1)


def _into(table: Table) -> Insert:
    is_generated = any(column.identity is not None and column.identity.always for column in table.columns)
    return _OverridingInsert(table) if is_generated else insert(table)


def _filled(column: Column[Any], archive: Table, dialect: str) -> ColumnElement[Any]:
    """Return an archived value, or the default where the column came later and may not be NULL."""
    value: ColumnElement[Any] = archive.c[column.name]
    if column.nullable:
        return value
    default: ColumnElement[Any] | None = None
    if column.default is not None and column.default.is_scalar:
        default = literal(column.default.arg, column.type)  # type: ignore[attr-defined]
    elif (own := getattr(column.server_default, "arg", None)) is not None:
        default = _literal(column, own, dialect) if isinstance(own, str) else own
    return value if default is None else func.coalesce(value, default).label(column.name)


def _literal(column: Column[Any], text: str, dialect: str) -> ColumnElement[Any]:
    """Return what ``DEFAULT 'text'`` puts into a column, in the form in which the database sums it up."""
    is_number = python_type(column.type) in {bool, int, float, Decimal}
    if dialect == "postgresql" or (dialect == "sqlite" and is_number):
        return sql_cast(literal(text, String()), column.type)
    return literal_column(text) if is_number else literal(text, String())


async def _proof(
    session: AsyncSession,
    side: Table,
    columns: Sequence[ColumnElement[Any]],
    *,
    chosen: ColumnElement[bool],
    types: Mapping[str, str],
) -> Proof:
    hash_of = row_hash(session, cast("Sequence[Column[Any]]", columns), types)
    query = select(func.count(), func.sum(hash_of)).select_from(side).where(chosen)
    rows, checksum = (await session.execute(query)).one()
    return Proof(rows, int(checksum or 0))


async def _copy(session: AsyncSession, table: Table, rows: Sequence[ArchivedRow], changed: Mapping[str, Any]) -> None:
    documents = document_columns(table, session.get_bind().dialect)
    written = [_as_written(row, documents, changed) for row in rows]
    by_columns: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in written:
        by_columns.setdefault(tuple(row.values), []).append({f"{name}_": value for name, value in row.values.items()})
    for names, alike in by_columns.items():
        types = {name: WrittenJson() if name in documents else table.c[name].type for name in names}
        values = {name: bindparam(f"{name}_", type_=kind) for name, kind in types.items()}
        await session.execute(_into(table).values(values), alike)
    await _compare(session, table, written, documents)


def _as_written(row: ArchivedRow, documents: Collection[str], changed: Mapping[str, Any]) -> ArchivedRow:
    """Return a row of a file as it is to stand in its table, without what the database computes."""
    names = {column.name for column in _written(row.table)}
    values = {**row.values, **read_documents(row.line, set(documents)), **changed}
    return replace(row, values={name: value for name, value in values.items() if name in names})


async def _compare(
    session: AsyncSession, table: Table, rows: Sequence[ArchivedRow], documents: Mapping[str, Column[Any]]
) -> None:
    dialect, keys = session.get_bind().dialect, key_columns(table)
    condition = ByKeys([row.key for row in rows]).of(table, dialect.name)
    shown = [as_text(column, dialect) if column.name in documents else column for column in table.columns]
    query = select(*keys, *shown).where(condition)
    came = {tuple(row[: len(keys)]): row for row in await session.execute(query)}
    names = [column.name for column in table.columns]
    for row in rows:
        found = came.get(row.key)
        there = {} if found is None else dict(zip(names, found[len(keys) :], strict=True))
        same = {name: same_json if name in documents else same_value for name in names}
        if different := sorted(name for name, value in row.values.items() if not same[name](there.get(name), value)):
            raise ProofFailed(
                f"{table.fullname} {key_text(row.key)}: {different[0]} is not what the file says: nothing was changed"
            )
