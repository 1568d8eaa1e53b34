"""The archive of a table: ``<table>_archive`` in the same schema, derived from the mapped one.

An archive has the table's columns under the same names and types, its key, and two columns of its own. It has no other
unique constraint, no foreign key and no default, and everything but the key may be NULL: what was archived before the
table gained a column has nothing to put there.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Column, Enum, PrimaryKeyConstraint, String, Table, Uuid
from sqlalchemy.dialects import postgresql
from sqlalchemy.types import TypeEngine

from db.types import UtcDateTime

SUFFIX = "_archive"
ARCHIVED_AT = "archived_at"
ARCHIVE_RUN_ID = "archive_run_id"
OWN_COLUMNS = (ARCHIVED_AT, ARCHIVE_RUN_ID)
_SOURCE = "archive_of"


def archive_table(source: Table) -> Table:
    """Return the archive of a mapped table, in the table's own metadata; made by the first call.

    Call it in the module of the model, as ``TASKS_ARCHIVE = archive_table(Task.__table__)``, so that Alembic sees it.

    Raises:
        ValueError: the table has a column whose name an archive needs, or no primary key.
    """
    name = f"{source.name}{SUFFIX}"
    known = source.metadata.tables.get(f"{source.schema}.{name}" if source.schema else name)
    if known is not None and known.info.get(_SOURCE) == source.fullname:
        return known
    parts = archive_parts(name, source.columns, key=source.primary_key.columns.keys())
    return Table(name, source.metadata, *parts, schema=source.schema, info={_SOURCE: source.fullname})


def existing_archive(source: Table) -> Table | None:
    """Return the archive of a mapped table; None where its module declares none."""
    name = f"{source.name}{SUFFIX}"
    known = source.metadata.tables.get(f"{source.schema}.{name}" if source.schema else name)
    return known if known is not None and known.info.get(_SOURCE) == source.fullname else None


def archive_parts(
    name: str, columns: Iterable[Column[Any]], *, key: Sequence[str]
) -> tuple[Column[Any] | PrimaryKeyConstraint, ...]:
    """Return the columns and the key of an archive, for ``op.create_table`` of a migration or for a ``Table``.

    A migration must say which columns the table has at that revision, and not ask the model of today::

        op.create_table("notes_archive", *archive_parts("notes_archive", note_columns(), key=("id",)))

    Args:
        name: the archive's.
        columns: the table's, in its order; only their names and types count.
        key: the names of the primary key's columns.

    Raises:
        ValueError: a column has a name that an archive needs, or there is no key.
    """
    copies = [_copy(column, is_key=column.name in key) for column in columns]
    names = [column.name for column in copies]
    if taken := sorted(set(names) & set(OWN_COLUMNS)):
        raise ValueError(f"{name}: the table has a column {taken[0]}, which is the archive's own: rename it")
    if not key or not set(key) <= set(names):
        raise ValueError(f"{name}: the key is ({', '.join(key)}) but must be columns of the table: name them")
    copies.append(Column(ARCHIVED_AT, UtcDateTime(), nullable=False))
    copies.append(Column(ARCHIVE_RUN_ID, Uuid(), nullable=False))
    return *copies, PrimaryKeyConstraint(*key, name=f"pk_{name}")


def _copy(column: Column[Any], *, is_key: bool) -> Column[Any]:
    # What is looked for by a row's own values has to take the same ones; of all else the text will do, for a label may
    # have gone from the model.
    members = is_key or bool(column.foreign_keys)
    return Column(column.name, _bare(column.type, members=members), nullable=not is_key, autoincrement=False)


def _bare(kind: TypeEngine[Any], *, members: bool) -> TypeEngine[Any]:
    """Return the type without what it brings along: a CHECK constraint, or a type that is to be created.

    Args:
        kind: the type.
        members: whether the values of an enum are its members and not their texts.
    """
    if not isinstance(kind, Enum):
        return kind
    members = members and kind.enum_class is not None
    if not (kind.native_enum or members):
        return String(kind.length)
    values: tuple[Any, ...] = (kind.enum_class,) if members else tuple(map(str, kind.enums))
    more: dict[str, Any] = {"name": kind.name, "values_callable": kind.values_callable if members else None}
    if not kind.native_enum:
        return Enum(*values, native_enum=False, length=kind.length, **more)
    of_postgresql: TypeEngine[Any] = postgresql.ENUM(*values, create_type=False, **more)
    return Enum(*values, native_enum=True, **more).with_variant(of_postgresql, "postgresql")
