"""The two halves of a move: keep rows in the archive, delete them; each says what it held, by count and checksum.

PostgreSQL hashes what it has inserted and what it has deleted, in the statements that do it, or in the one that does
both. MySQL, MariaDB and SQLite are asked first, on both sides, and delete afterwards: their rows are locked by then.
"""

from collections.abc import Iterable
from typing import Any, cast

from sqlalchemy import (
    CTE,
    Column,
    ColumnElement,
    CursorResult,
    Executable,
    Insert,
    Label,
    Select,
    Subquery,
    Table,
    bindparam,
    delete,
    func,
    insert,
    literal,
    select,
    text,
    true,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.ext.asyncio import AsyncSession

from db.archive_tables import ARCHIVE_RUN_ID, OWN_COLUMNS
from db.archives.hashing import row_hash
from db.archives.keys import key_columns
from db.archives.rows import AnySelect, ByKeys, Chosen, Proof, ProofFailed, Shape, Stamp, run_kept
from db.raw_sql import stand_in_text
from db.run_sessions import MYSQL_DIALECTS
from db.types import UtcDateTime, UUIDType


async def move(session: AsyncSession, shape: Shape, chosen: Chosen, stamp: Stamp) -> Proof:
    """Put rows into the archive and delete them; returns what was moved, the same on both sides.

    Args:
        session: the transaction.
        shape: the table; it has an archive.
        chosen: the rows. They are locked, or on PostgreSQL chosen by their place: then it waits for those that others
            have locked.
        stamp: what they are marked with.

    Raises:
        ProofFailed: the archive holds something else than what was deleted; roll back.
        DBAPIError: a row is in the archive already: if it was not locked, since then perhaps.
    """
    if _dialect(session) == "postgresql":
        return await _move_on_postgresql(session, shape, chosen, stamp)
    return await delete_proved(session, shape, chosen, await _copy(session, shape, chosen, stamp))


async def _move_on_postgresql(session: AsyncSession, shape: Shape, chosen: Chosen, stamp: Stamp) -> Proof:
    """Copy rows and delete them by one statement, whose two halves read the same. Of what others have changed since
    the DELETE takes what it is then, and the sums differ. (To hand the deleted rows to the INSERT costs a tenth more.)
    """

    def build() -> AnySelect:
        condition = chosen.of(shape.table, "postgresql")
        copying, copies = _copying(shape, stamp, select(*shape.table.columns).where(condition))
        kept = _summed_up(copying.returning(_hash(session, shape, copies)).cte("kept"))
        removing = delete(shape.table).where(condition)
        gone = _summed_up(removing.returning(_hash(session, shape, shape.table.columns)).cte("gone"))
        return select(*kept.c, *gone.c).join_from(kept, gone, true())

    found = (await run_kept(session, shape, chosen, what=("move", stamp), build=build)).one()
    kept_rows, kept_sum, gone_rows, gone_sum = found
    kept = Proof(kept_rows, int(kept_sum or 0))
    _compare(shape, kept, Proof(gone_rows, int(gone_sum or 0)))
    return kept


def _hash(session: AsyncSession, shape: Shape, columns: Iterable[Column[Any]]) -> Label[Any]:
    return row_hash(session, columns, shape.types).label("hash")


def _summed_up(half: CTE) -> Subquery:
    rows, checksum = func.count().label(f"{half.name}_rows"), func.sum(half.c.hash).label(f"{half.name}_sum")
    return select(rows, checksum).select_from(half).subquery()


async def _copy(session: AsyncSession, shape: Shape, chosen: Chosen, stamp: Stamp) -> Proof:
    """Copy locked rows into the archive; returns what the archive holds of them now."""
    source = select(*shape.table.columns).where(chosen.of(shape.table, _dialect(session)))
    copying, _ = _copying(shape, stamp, source)
    await session.execute(copying)
    archive = _archive_of(shape)
    of_this_run = archive.c[ARCHIVE_RUN_ID] == stamp.run_id
    return await _proof(session, _summed(session, archive, shape, chosen).where(of_this_run))


def _copying(shape: Shape, stamp: Stamp, source: AnySelect) -> tuple[Insert, list[Column[Any]]]:
    """Return the statement that puts rows into the archive, and their columns there."""
    archive = _archive_of(shape)
    marks: list[ColumnElement[Any]] = [literal(stamp.archived_at, UtcDateTime()), literal(stamp.run_id, UUIDType())]
    names = [*shape.names, *OWN_COLUMNS]
    copying = insert(archive).from_select(names, source.add_columns(*marks), include_defaults=False)
    return copying, [archive.c[name] for name in shape.names]


async def read_proof(session: AsyncSession, shape: Shape, chosen: Chosen) -> Proof:
    """Return what the table holds of these rows, which are locked."""
    return await _proof(session, _summed(session, shape.table, shape, chosen))


async def delete_proved(session: AsyncSession, shape: Shape, chosen: Chosen, kept: Proof | None) -> Proof:
    """Delete rows, and prove that they are those which were kept.

    Args:
        session: the transaction.
        shape: the table.
        chosen: the rows.
        kept: what was kept of them; None where nothing was to be.

    Raises:
        ProofFailed: they are not the same; roll back.
    """
    if _dialect(session) == "postgresql":
        gone = await _delete_on_postgresql(session, shape, chosen, hashed=kept is not None)
        if kept is not None:
            _compare(shape, kept, gone)
        return gone
    if kept is not None:
        _compare(shape, kept, await read_proof(session, shape, chosen))
    result = await session.execute(_removing(shape, chosen, _dialect(session)))
    deleted = cast("CursorResult[Any]", result).rowcount
    gone = Proof(deleted, 0 if kept is None else kept.checksum)
    if kept is not None:
        _compare(shape, kept, gone)
    return gone


def _removing(shape: Shape, chosen: Chosen, dialect: str) -> Executable:
    keys = key_columns(shape.table)
    is_simple = len(keys) == 1 and stand_in_text(shape.table.fullname, keys[0].name)
    if dialect not in MYSQL_DIALECTS or not isinstance(chosen, ByKeys) or not is_simple:
        return delete(shape.table).where(chosen.of(shape.table, dialect))
    # A range of keys is read on to the row behind it, and where most rows are to go even the whole table: it would wait
    # for rows that others have locked. So the keys are looked up without a lock, and then each row by its whole key.
    statement = "DELETE {t} FROM {t} AS found STRAIGHT_JOIN {t} ON {t}.{key} = found.{key} WHERE found.{key} IN :keys"
    names = mysql.dialect().identifier_preparer
    words = {"t": names.format_table(shape.table), "key": names.quote(keys[0].name)}
    values = bindparam("keys", [key[0] for key in chosen.keys], type_=keys[0].type, expanding=True)
    return text(statement.format(**words)).bindparams(values)


async def _delete_on_postgresql(session: AsyncSession, shape: Shape, chosen: Chosen, *, hashed: bool) -> Proof:
    def build() -> AnySelect:
        hash_of = _hash(session, shape, shape.table.columns) if hashed else literal(0).label("hash")
        removing = delete(shape.table).where(chosen.of(shape.table, "postgresql")).returning(hash_of)
        return select(*_summed_up(removing.cte("gone")).c)

    rows, checksum = (await run_kept(session, shape, chosen, what=("delete", hashed), build=build)).one()
    return Proof(rows, int(checksum or 0))


def _summed(session: AsyncSession, side: Table, shape: Shape, chosen: Chosen) -> Select[int, Any]:
    hash_of: ColumnElement[Any] = row_hash(session, [side.c[name] for name in shape.names], shape.types)
    return select(func.count(), func.sum(hash_of)).select_from(side).where(chosen.of(side, _dialect(session)))


async def _proof(session: AsyncSession, query: Select[int, Any]) -> Proof:
    rows, checksum = (await session.execute(query)).one()
    return Proof(rows, int(checksum or 0))


def _compare(shape: Shape, kept: Proof, gone: Proof) -> None:
    if kept != gone:
        raise ProofFailed(
            f"{shape.table.fullname}: {kept.rows} rows were archived (checksum {kept.checksum}) but {gone.rows} were "
            f"to be deleted (checksum {gone.checksum}): nothing was changed"
        )


def _archive_of(shape: Shape) -> Table:
    if shape.archive is None:
        raise ValueError(f"{shape.table.fullname} has no archive: declare archive_table() beside its model")
    return shape.archive


def _dialect(session: AsyncSession) -> str:
    return session.get_bind().dialect.name
