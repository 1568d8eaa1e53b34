"""Drop all tables of the application and its plugins, and make them anew by their migrations."""

from sqlalchemy import Connection, MetaData, Table, func, inspect, select

from db.connection import DatabaseManager
from db.drift import our_tables
from db.migrate import VERSION_TABLE, upgrade
from db.plugins import database_plugins


async def rows_at_stake(manager: DatabaseManager) -> dict[str, int]:
    """Return how many rows a reset would delete, by table; tables without any are left out."""
    tables = _tables(manager)

    def count(connection: Connection) -> dict[str, int]:
        there = set(inspect(connection).get_table_names())
        counts = {
            table.name: connection.execute(select(func.count()).select_from(table)).scalar_one()
            for table in tables
            if table.name in there
        }
        return {name: rows for name, rows in counts.items() if rows}

    async with manager.reader() as connection:
        return await connection.run_sync(count)


async def reset(manager: DatabaseManager) -> None:
    """Drop the tables, whatever they hold, and run all migrations. Ask ``rows_at_stake`` and the user first."""
    tables = _tables(manager)
    versions = [VERSION_TABLE, *(one.version_table for one in database_plugins(manager.settings.holdfast_plugins))]

    def drop(connection: Connection) -> None:
        for table in reversed(tables):  # plugins stand on ours, and not the other way round
            table.drop(connection, checkfirst=True)
        for name in versions:
            Table(name, MetaData()).drop(connection, checkfirst=True)

    async with manager.engine.begin() as connection:
        await connection.run_sync(drop)
    await upgrade(manager.settings)


def _tables(manager: DatabaseManager) -> list[Table]:
    """All tables, parents before their children."""
    plugins = database_plugins(manager.settings.holdfast_plugins)
    ours = our_tables(manager.settings)
    theirs = [table for one in plugins for table in one.metadata.sorted_tables if table in one.tables]
    return [*ours, *theirs]
