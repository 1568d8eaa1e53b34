"""MySQL and MariaDB: move the due rows of a range of the key, in four statements that name no single row.

The rows are locked on the way into the archive (``INSERT ... SELECT ... FOR UPDATE SKIP LOCKED``), then each is
compared with its copy, column by column, and deleted by its copy's key: a range of the table itself would be read on to
rows that others have locked, and would wait for them.
"""

from typing import Any

from sqlalchemy import BindParameter, Dialect, TextClause, bindparam, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from db.archive_tables import ARCHIVE_RUN_ID, ARCHIVED_AT
from db.archives.keys import key_columns, key_text, parse_key
from db.archives.rows import DUE_BEFORE, Proof, ProofFailed, Shape, Stamp, is_due
from db.archives.walks import Stretch, Walk
from db.types import UtcDateTime, UUIDType


def has_ranges(shape: Shape, walk: Walk, dialect: str) -> bool:
    """Whether a walk of this table can be moved by ranges: by its key, of one column, into its archive."""
    is_simple = len(shape.table.primary_key) == 1 and shape.archive is not None
    return dialect in {"mysql", "mariadb"} and walk.kind == "keys" and is_simple


async def move_range(session: AsyncSession, shape: Shape, stretch: Stretch, stamp: Stamp) -> tuple[Proof, Walk]:
    """Move the next due rows, without those that others have locked; returns what was moved, and the walk behind it.

    Raises:
        ProofFailed: a row and its copy are not the same; roll back.
    """
    assert shape.archive is not None  # noqa: S101 - has_ranges
    upper = await _upper_key(session, shape, stretch)
    lower = None if not stretch.walk.position else parse_key(shape.table, stretch.walk.position[0])[0]
    bounds = [bound for bound, value in (("lower", lower), ("upper", upper)) if value is not None]
    values: dict[str, Any] = {"lower": lower, "upper": upper, "before": stretch.before}
    values |= {"archived_at": stamp.archived_at, "run_id": stamp.run_id}

    async def run(template: str) -> Any:
        if template not in shape.statements:
            shape.statements[template] = _statement(session.get_bind().dialect, shape, template)
        statement, names = shape.statements[template]
        return await session.execute(statement, {name: values[name] for name in names})

    signs = {"lower": ">", "upper": "<="}
    of_table = "".join(f" AND {{t}}.{{key}} {signs[bound]} :{bound}" for bound in bounds)
    of_copies = "".join(f" AND {{a}}.{{key}} {signs[bound]} :{bound}" for bound in bounds)
    copied = await run(
        "INSERT INTO {a} ({names}, {own}) SELECT {columns}, :archived_at, :run_id FROM {t} "  # noqa: S608 - mapped names
        "WHERE {t}.is_deleted AND {t}.deleted_at < :before" + of_table + " FOR UPDATE SKIP LOCKED"
    )
    joined = " FROM {a} STRAIGHT_JOIN {t} ON {t}.{key} = {a}.{key} WHERE {a}.{run} = :run_id" + of_copies
    count, same, checksum = (await run("SELECT count(*), sum({same}), sum({hash})" + joined)).one()
    if len({copied.rowcount, count, int(same or 0)}) > 1:
        raise ProofFailed(
            f"{shape.table.fullname}: {copied.rowcount} rows were archived but {int(same or 0)} of them as they are in "
            "the table: nothing was changed"
        )
    deleted = await run("DELETE {t}" + joined)
    if deleted.rowcount != count:
        raise ProofFailed(
            f"{shape.table.fullname}: {count} rows were archived but {deleted.rowcount} deleted: nothing was changed"
        )
    if upper is None:
        return Proof(count, int(checksum or 0)), Walk("keys", stretch.walk.position, is_over=True)
    return Proof(count, int(checksum or 0)), Walk("keys", (key_text((upper,)),))


async def _upper_key(session: AsyncSession, shape: Shape, stretch: Stretch) -> Any:
    """Return the key at the end of the stretch; None where it has fewer rows than it may."""
    position = stretch.walk.position
    values: dict[str, Any] = {DUE_BEFORE: stretch.before, "skipped": stretch.count - 1}
    if position:
        values["lower"] = parse_key(stretch.table, position[0])[0]
    form = ("upper key", bool(position))
    if form not in shape.statements:
        (key,) = key_columns(stretch.table)
        query = select(key).where(is_due(stretch.table, stretch.before)).order_by(key)
        query = query.where(key > bindparam("lower", type_=key.type)) if position else query
        shape.statements[form] = query.limit(1).offset(bindparam("skipped"))
    return (await session.execute(shape.statements[form], values)).scalar_one_or_none()


def _statement(dialect: Dialect, shape: Shape, template: str) -> tuple[TextClause, list[str]]:
    """Return a statement, and the names of its parameters."""
    named = [one for one in _parameters(shape) if f":{one.key}" in template]
    return text(template.format(**_words(dialect, shape))).bindparams(*named), [str(one.key) for one in named]


def _words(dialect: Dialect, shape: Shape) -> dict[str, str]:
    """Return the names that the statements are made of: mapped ones, quoted where they have to be."""
    assert shape.archive is not None  # noqa: S101 - has_ranges
    quote, table = dialect.identifier_preparer, quote_table(dialect, shape.table)
    archive = quote_table(dialect, shape.archive)
    names = [quote.quote(name) for name in shape.names]
    pairs = [(f"{table}.{name}", f"{archive}.{name}") for name in names]
    hashed = ", ".join(f"CAST(quote({copy}) AS BINARY)" for _, copy in pairs)
    return {
        "t": table,
        "a": archive,
        "key": quote.quote(key_columns(shape.table)[0].name),
        "names": ", ".join(names),
        "columns": ", ".join(original for original, _ in pairs),
        "own": f"{ARCHIVED_AT}, {ARCHIVE_RUN_ID}",
        "run": ARCHIVE_RUN_ID,
        "same": " AND ".join(f"{original} <=> {copy}" for original, copy in pairs),
        "hash": f"crc32(concat_ws(',', {hashed}))",
    }


def quote_table(dialect: Dialect, table: Any) -> str:
    """Return a table's name as it stands in SQL."""
    return str(dialect.identifier_preparer.format_table(table))


def _parameters(shape: Shape) -> list[BindParameter[Any]]:
    key = key_columns(shape.table)[0].type
    types: dict[str, Any] = {"lower": key, "upper": key, "before": UtcDateTime(), "archived_at": UtcDateTime()}
    return [bindparam(name, type_=kind) for name, kind in (types | {"run_id": UUIDType()}).items()]
