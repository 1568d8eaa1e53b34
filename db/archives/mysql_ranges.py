"""MySQL and MariaDB: move the next due rows of the key's order, in three statements that name no single row.

The rows are locked on the way into the archive (``INSERT ... SELECT ... FOR UPDATE SKIP LOCKED``), counted and summed
there, and deleted by their copies' keys where each column is the same as the copy's: a range of the table itself would
be read on to rows that others have locked, and would wait for them.
"""

from dataclasses import replace
from functools import partial
from typing import Any

from sqlalchemy import BindParameter, Dialect, Integer, bindparam, text
from sqlalchemy.ext.asyncio import AsyncSession

from db.archive_tables import ARCHIVE_RUN_ID, ARCHIVED_AT
from db.archives.hashing import row_hash
from db.archives.keys import key_columns, key_text, parse_key
from db.archives.rows import Proof, ProofFailed, Shape, Stamp
from db.archives.walks import Stretch, Walk
from db.past_orm import DriverStatement, as_python
from db.raw_sql import stand_in_text
from db.types import UtcDateTime, UUIDType

_COPY = (
    "INSERT INTO {a} ({names}, {own}) SELECT {columns}, :archived_at, :run_id FROM {t} FORCE INDEX (PRIMARY) "
    "WHERE {t}.is_deleted AND {t}.deleted_at < :before{behind_t}{until_t} "
    "ORDER BY {t}.{key} LIMIT :most FOR UPDATE SKIP LOCKED"
)
_SUM = (
    "SELECT count(*), sum(hash), max(place) AS last FROM (SELECT {a}.{key} AS place, {hash} AS hash "
    "FROM {a} FORCE INDEX (PRIMARY) WHERE {a}.{run} = :run_id{behind_a} ORDER BY {a}.{key} LIMIT :most) AS copies"
)
_DELETE = (
    "DELETE {t} FROM {a} STRAIGHT_JOIN {t} ON {t}.{key} = {a}.{key} "
    "WHERE {a}.{run} = :run_id{behind_a} AND {a}.{key} <= :upper AND {same}"
)
"""In the words of ``_words``: mapped names. An archive holds the rows of other runs as well, in all places; the limit
keeps the sum from reading them all. Where several connections share a table, those of the others lie behind the end of
this one's walk: in the order of the key its own come first, and neither sum nor deletion goes beyond them."""


def has_ranges(shape: Shape, walk: Walk, dialect: str) -> bool:
    """Whether a walk of this table can be moved by ranges: by its key, of one plain column, into its archive."""
    is_simple = len(shape.table.primary_key) == 1 and stand_in_text(shape.table.fullname, *shape.names)
    return dialect in {"mysql", "mariadb"} and walk.kind == "keys" and shape.archive is not None and is_simple


async def move_range(session: AsyncSession, shape: Shape, stretch: Stretch, stamp: Stamp) -> tuple[Proof, Walk]:
    """Move the next due rows, without those that others have locked; returns what was moved, and the walk behind it.

    Args:
        session: the transaction.
        shape: the table; this run has archived none of its rows behind the stretch's begin.
        stretch: where the walk stands.
        stamp: what they are marked with.

    Raises:
        ProofFailed: a row and its copy are not the same; roll back.
    """
    walk, key_of = stretch.walk, partial(parse_key, shape.table)
    values: dict[str, Any] = {"before": stretch.before, "archived_at": stamp.archived_at, "run_id": stamp.run_id}
    values |= {name: key_of(place[0])[0] for name, place in (("lower", walk.position), ("end", walk.end)) if place}

    async def run(template: str, **more: Any) -> Any:
        form = (template, bool(walk.position), bool(walk.end))
        if form not in shape.statements:
            shape.statements[form] = _statement(session, shape, template, walk)
        return await shape.statements[form].execute(session, values | more)

    copied = await run(_COPY, most=stretch.count)
    if not copied.rowcount:
        return Proof(0, 0), replace(walk, is_over=True)
    kept, checksum, last = (await run(_SUM, most=copied.rowcount)).one()
    upper = as_python(key_columns(shape.table)[0].type, last, session.get_bind().dialect)
    deleted = await run(_DELETE, upper=upper)
    if not copied.rowcount == kept == deleted.rowcount:
        raise ProofFailed(
            f"{shape.table.fullname}: {copied.rowcount} rows were archived but {deleted.rowcount} of them as they are "
            "in the table: nothing was changed"
        )
    behind = replace(walk, position=(key_text((upper,)),), is_over=kept < stretch.count)
    return Proof(kept, int(checksum)), behind


def _statement(session: AsyncSession, shape: Shape, template: str, walk: Walk) -> DriverStatement:
    words = _words(session, shape)
    words |= {f"behind_{side}": f" AND {words[side]}.{words['key']} > :lower" if walk.position else "" for side in "ta"}
    words["until_t"] = f" AND {words['t']}.{words['key']} <= :end" if walk.end else ""
    written = template.format(**words)
    named = [one for one in _parameters(shape) if f":{one.key}" in written]
    return DriverStatement.of(text(written).bindparams(*named), session.get_bind().dialect)


def _words(session: AsyncSession, shape: Shape) -> dict[str, str]:
    """Return the names that the statements are made of: mapped ones, quoted where they have to be."""
    assert shape.archive is not None  # noqa: S101 - has_ranges
    dialect = session.get_bind().dialect
    quote, table = dialect.identifier_preparer, quote_table(dialect, shape.table)
    archive = quote_table(dialect, shape.archive)
    names = [quote.quote(name) for name in shape.names]
    pairs = [(f"{table}.{name}", f"{archive}.{name}") for name in names]
    hash_of = row_hash(session, [shape.archive.c[name] for name in shape.names], shape.types)
    return {
        "t": table,
        "a": archive,
        "key": quote.quote(key_columns(shape.table)[0].name),
        "names": ", ".join(names),
        "columns": ", ".join(original for original, _ in pairs),
        "own": f"{ARCHIVED_AT}, {ARCHIVE_RUN_ID}",
        "run": ARCHIVE_RUN_ID,
        "same": " AND ".join(f"{original} <=> {copy}" for original, copy in pairs),
        "hash": str(hash_of.compile(dialect=dialect)),
    }


def quote_table(dialect: Dialect, table: Any) -> str:
    """Return a table's name as it stands in SQL."""
    return str(dialect.identifier_preparer.format_table(table))


def _parameters(shape: Shape) -> list[BindParameter[Any]]:
    key = key_columns(shape.table)[0].type
    types: dict[str, Any] = {
        "lower": key,
        "upper": key,
        "end": key,
        "before": UtcDateTime(),
        "archived_at": UtcDateTime(),
    }
    types |= {"run_id": UUIDType(), "most": Integer()}
    return [bindparam(name, type_=kind) for name, kind in types.items()]
