"""Where the tables of a database differ from what the models say."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import CheckConstraint, Connection, MetaData, Table, inspect

import db.models  # noqa: F401 - registers the tables
from db.base import Base
from db.plugins import database_plugins
from db.settings import DatabaseSettings

if TYPE_CHECKING:
    from db.connection import DatabaseManager


def our_tables(settings: DatabaseSettings) -> list[Table]:
    """Return the application's own tables; models of the plugins may stand in the same metadata."""
    theirs = {table.name for plugin in database_plugins(settings.holdfast_plugins) for table in plugin.tables}
    return [table for table in Base.metadata.sorted_tables if table.name not in theirs]


def compared(metadata: MetaData, tables: Iterable[Table]) -> dict[str, Any]:
    """Return Alembic's options for comparing these tables and no others: a team's own stand beside them."""
    names = {table.name for table in tables}

    def include_name(name: str | None, kind: str, parents: object) -> bool:
        del parents
        return kind != "table" or name in names

    def include_object(item: object, name: str | None, kind: str, *others: object) -> bool:
        del item, others
        return kind != "table" or name in names

    return {"target_metadata": metadata, "include_name": include_name, "include_object": include_object}


async def find_drift(manager: "DatabaseManager") -> list[str]:
    """Return one line for each difference: columns, keys, indexes, CHECK constraints; empty when there is none."""
    groups = [(Base.metadata, our_tables(manager.settings))]
    groups += [(one.metadata, list(one.tables)) for one in database_plugins(manager.settings.holdfast_plugins)]

    def compare(connection: Connection) -> list[str]:
        found = []
        for metadata, tables in groups:
            options = compared(metadata, tables)
            context = MigrationContext.configure(connection, opts={**options, "compare_type": True})
            found += [line for change in compare_metadata(context, metadata) for line in _lines(change)]
            found += _missing_checks(connection, tables)
        return found

    async with manager.reader() as connection:
        return await connection.run_sync(compare)


def _missing_checks(connection: Connection, tables: Iterable[Table]) -> list[str]:
    """Alembic compares tables, columns, keys and indexes, but no CHECK constraints."""
    inspector, found = inspect(connection), []
    there = set(inspector.get_table_names())
    for table in tables:
        if table.name not in there:
            continue
        real = {str(check["name"]) for check in inspector.get_check_constraints(table.name)}
        wanted = check_names(table, connection.dialect.name)
        found += [f"{table.name} lacks the check {name}" for name in sorted(wanted - real)]
        # MariaDB names its own check of a JSON column after the column.
        unknown = real - wanted - set(table.columns.keys())
        found += [f"{table.name} has the unknown check {name}" for name in sorted(unknown)]
    return found


def check_names(table: Table, dialect: str) -> set[str]:
    """Return the names of the CHECK constraints that the table has on this engine."""
    checks = (one for one in table.constraints if isinstance(one, CheckConstraint))
    return {str(one.name) for one in checks if one.info.get("dialect", dialect) == dialect}


def _lines(change: Any) -> list[str]:
    """What Alembic found, in words: ``add`` is what the models have and the database lacks."""
    if isinstance(change, list):
        return [line for one in change for line in _lines(one)]
    words = _WORDS.get(change[0])
    return [words(*change[1:]) if words else f"{change[0]} {change[1:]}"]


_WORDS: dict[str, Callable[..., str]] = {
    "add_table": lambda table: f"the table {table.name} is missing",
    "add_column": lambda _, table, column: f"{table} lacks the column {column.name}",
    "remove_column": lambda _, table, column: f"{table} has the unknown column {column.name}",
    "add_index": lambda index: f"{index.table.name} lacks the index {index.name}",
    "remove_index": lambda index: f"{index.table.name} has the unknown index {index.name}",
    "add_constraint": lambda rule: f"{rule.table.name} lacks the constraint {rule.name}",
    "remove_constraint": lambda rule: f"{rule.table.name} has the unknown constraint {rule.name}",
    "add_fk": lambda key: f"{key.table.name} lacks the foreign key {key.name}",
    "remove_fk": lambda key: f"{key.table.name} has the unknown foreign key {key.name}",
    "modify_type": lambda _, table, column, __, old, new: f"{table}.{column} is {old!r} but should be {new!r}",
    "modify_nullable": lambda _, table, column, __, old, new: (
        f"{table}.{column} may {'' if old else 'not '}be NULL but should {'' if new else 'not '}"
    ),
}
