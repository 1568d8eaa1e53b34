"""Whether a database's tables are what the models say, before the first row leaves one of them."""

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import Table, text
from sqlalchemy.ext.asyncio import AsyncSession

from db.archive_tables import OWN_COLUMNS, existing_archive
from db.archives.catalog import Catalog
from db.archives.rows import Shape
from db.archives.values import no_way_back

_COLUMNS = {
    "postgresql": (  # a domain has the values of the type that it is of, and is shown and hashed as that
        "WITH RECURSIVE columns (name, number, kind, modifier) AS ("
        "SELECT attname, attnum, atttypid, atttypmod FROM pg_attribute "
        "WHERE attrelid = to_regclass(:name) AND attnum > 0 AND NOT attisdropped UNION ALL "
        "SELECT name, number, typbasetype, typtypmod FROM columns JOIN pg_type t ON t.oid = kind WHERE typtype = 'd') "
        "SELECT name, format_type(kind, modifier) FROM columns JOIN pg_type t ON t.oid = kind "
        "WHERE typtype <> 'd' ORDER BY number"
    ),
    "mysql": (
        "SELECT column_name, concat_ws(' ', column_type, collation_name) FROM information_schema.columns "
        "WHERE table_schema = coalesce(:schema, database()) AND table_name = :name ORDER BY ordinal_position"
    ),
    "sqlite": "SELECT name, type FROM pragma_table_xinfo(:name) ORDER BY cid",
}
_REFERENCES = {
    "postgresql": (
        "SELECT r.relname, c.conname FROM pg_constraint c JOIN pg_class r ON r.oid = c.conrelid "
        "WHERE c.contype = 'f' AND c.confrelid = to_regclass(:name) AND c.conparentid = 0"
    ),
    "mysql": (
        "SELECT table_name, constraint_name FROM information_schema.referential_constraints "
        "WHERE unique_constraint_schema = coalesce(:schema, database()) AND referenced_table_name = :name"
    ),
    "sqlite": (
        "SELECT m.name, 'its foreign key ' || f.id FROM sqlite_master m, pragma_foreign_key_list(m.name) f "
        "WHERE m.type = 'table' AND lower(f.\"table\") = lower(:name) AND f.seq = 0"
    ),
}


@dataclass(frozen=True, slots=True)
class Found:
    """A table with its archive, and what is wrong with them: one line each."""

    shape: Shape
    problems: tuple[str, ...]


async def find_shape(
    session: AsyncSession,
    catalog: Catalog,
    table: Table,
    *,
    archived: bool,
    leaves: bool = True,
    to_files: bool = False,
) -> Found:
    """Compare a table and its archive in the database with the models, types included.

    Args:
        session: nothing is written.
        catalog: the foreign keys that are known to point at the table.
        table: a mapped one.
        archived: whether rows are to go into its archive.
        leaves: whether rows may leave at all; otherwise it only has to be there.
        to_files: whether they are to go into files, which have to give them back.
    """
    types = await _column_types(session, table)
    if not types:
        return Found(Shape(table, None), (f"{table.fullname} is not in the database: run its migrations",))
    if not leaves:
        return Found(Shape(table, None, types), ())
    problems = [*_unlike_the_model(table, types), *await _unknown_references(session, catalog, table)]
    problems += _without_a_way_back(table) if to_files else ()
    archive = existing_archive(table) if archived else None
    if archived:
        problems += await _unlike_the_archive(session, table, types, archive)
    return Found(Shape(table, archive, types), tuple(problems))


def _unlike_the_model(table: Table, types: dict[str, str]) -> Iterable[str]:
    mapped = {column.name for column in table.columns}
    for name in sorted(types.keys() - mapped):
        yield f"{table.fullname}.{name} is in the database but not in the model: its content would be lost; map it"
    for name in sorted(mapped - types.keys()):
        yield f"{table.fullname}.{name} is in the model but not in the database: run its migrations"


def _without_a_way_back(table: Table) -> Iterable[str]:
    for column in table.columns:
        if (reason := no_way_back(column.type)) is not None:
            yield (
                f"{table.fullname}.{column.name}: files could not give back its values ({reason}): "
                "archive to tables, or purge"
            )


async def _unknown_references(session: AsyncSession, catalog: Catalog, table: Table) -> list[str]:
    known = [reference.child.name for reference in catalog.references_to(table)]
    problems = []
    for child, name in await _rows(session, _REFERENCES, table):
        if child in known:
            known.remove(child)
        else:
            problems.append(
                f"{child} refers to {table.fullname} ({name}) but no model says so: its rows would be deleted or in "
                "the way unseen; map the foreign key"
            )
    return problems


async def _unlike_the_archive(
    session: AsyncSession, table: Table, types: dict[str, str], archive: Table | None
) -> list[str]:
    if archive is None:
        return [f"{table.fullname} has no archive: declare archive_table() beside its model, or archive to files"]
    theirs = await _column_types(session, archive)
    if not theirs:
        return [f"{archive.fullname} is not in the database: make it by a migration (db.archive_tables)"]
    problems = []
    for name, kind in types.items():
        if name not in theirs:
            problems.append(f"{archive.fullname} lacks the column {name} of {table.fullname}: add it by a migration")
        elif theirs[name] != kind:
            problems.append(
                f"{archive.fullname}.{name} is {theirs[name]} but {table.fullname}.{name} is {kind}: "
                "change the archive by a migration"
            )
    problems += [f"{archive.fullname} lacks its column {name}" for name in OWN_COLUMNS if name not in theirs]
    return problems


async def _column_types(session: AsyncSession, table: Table) -> dict[str, str]:
    return {str(name): str(kind).lower() for name, kind in await _rows(session, _COLUMNS, table)}


async def _rows(session: AsyncSession, queries: dict[str, str], table: Table) -> list[tuple[str, str]]:
    dialect = session.get_bind().dialect
    is_server = dialect.name in {"mysql", "mariadb"}
    query = text(queries["mysql" if is_server else dialect.name])
    parameters: dict[str, str | None] = {"name": table.name}
    if is_server:
        parameters["schema"] = table.schema
    elif dialect.name == "postgresql":
        parameters["name"] = dialect.identifier_preparer.format_table(table)
    return [(str(first), str(second)) for first, second in await session.execute(query, parameters)]
