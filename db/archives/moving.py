"""The two halves of a move: keep rows in the archive, delete them; each says what it held, by count and checksum.

PostgreSQL hashes what it has inserted and what it has deleted, in the same two statements. MySQL, MariaDB and SQLite
are asked first, on both sides, and delete afterwards: their rows are locked by then.
"""

from typing import Any, cast

from sqlalchemy import (
    ColumnElement,
    CursorResult,
    Executable,
    Select,
    Table,
    bindparam,
    delete,
    func,
    insert,
    literal,
    select,
    text,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.ext.asyncio import AsyncSession

from db.archive_tables import ARCHIVE_RUN_ID, OWN_COLUMNS
from db.archives.hashing import row_hash
from db.archives.keys import key_columns
from db.archives.rows import ByKeys, Chosen, Proof, ProofFailed, Shape, Stamp
from db.run_sessions import MYSQL_DIALECTS
from db.types import UtcDateTime, UUIDType


async def keep(session: AsyncSession, shape: Shape, chosen: Chosen, stamp: Stamp, *, lock: bool = False) -> Proof:
    """Copy rows into the archive; returns what the archive holds of them now.

    Args:
        session: in the transaction that will delete them.
        shape: the table; it has an archive.
        chosen: the rows.
        stamp: what they are marked with.
        lock: lock them on the way, and leave out those that others have locked; they must be locked otherwise.
    """
    archive, dialect = _archive_of(shape), _dialect(session)
    marks = [literal(stamp.archived_at, UtcDateTime()), literal(stamp.run_id, UUIDType())]
    source = select(*shape.table.columns, *marks).where(chosen.of(shape.table, dialect))
    if lock:
        source = source.with_for_update(skip_locked=True)
    copying = insert(archive).from_select([*shape.names, *OWN_COLUMNS], source, include_defaults=False)
    copies = [archive.c[name] for name in shape.names]
    if dialect == "postgresql":
        kept = copying.returning(row_hash(session, copies, shape.types).label("hash")).cte("kept")
        return await _proof(session, select(func.count(), func.sum(kept.c.hash)).select_from(kept))
    await session.execute(copying)
    of_this_run = archive.c[ARCHIVE_RUN_ID] == stamp.run_id
    return await _proof(session, _summed(session, archive, shape, chosen).where(of_this_run))


async def read_proof(session: AsyncSession, shape: Shape, chosen: Chosen) -> Proof:
    """Return what the table holds of these rows, which are locked."""
    return await _proof(session, _summed(session, shape.table, shape, chosen))


async def delete_proved(session: AsyncSession, shape: Shape, chosen: Chosen, kept: Proof | None) -> Proof:
    """Delete rows, and prove that they are those which were kept.

    Args:
        session: in the transaction that kept them.
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
    if dialect not in MYSQL_DIALECTS or not isinstance(chosen, ByKeys) or len(keys) > 1:
        return delete(shape.table).where(chosen.of(shape.table, dialect))
    # A range of keys is read on to the row behind it, and where most rows are to go even the whole table: it would wait
    # for rows that others have locked. So the keys are looked up without a lock, and then each row by its whole key.
    statement = "DELETE {t} FROM {t} AS found STRAIGHT_JOIN {t} ON {t}.{key} = found.{key} WHERE found.{key} IN :keys"
    names = mysql.dialect().identifier_preparer
    words = {"t": names.format_table(shape.table), "key": names.quote(keys[0].name)}
    values = bindparam("keys", [key[0] for key in chosen.keys], type_=keys[0].type, expanding=True)
    return text(statement.format(**words)).bindparams(values)


async def _delete_on_postgresql(session: AsyncSession, shape: Shape, chosen: Chosen, *, hashed: bool) -> Proof:
    hash_of = row_hash(session, shape.table.columns, shape.types) if hashed else literal(0)
    removing = delete(shape.table).where(chosen.of(shape.table, "postgresql")).returning(hash_of.label("hash"))
    gone = removing.cte("gone")
    return await _proof(session, select(func.count(), func.sum(gone.c.hash)).select_from(gone))


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
