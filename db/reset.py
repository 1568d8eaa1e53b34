"""Drop all tables of the application and its plugins, and make them anew by their migrations."""

from sqlalchemy import Connection, MetaData, Table

from db.connection import DatabaseManager
from db.drift import our_tables
from db.migrate import VERSION_TABLE, upgrade
from db.plugins import database_plugins
from db.schema import check_losses


async def reset(manager: DatabaseManager, *, force: bool = False) -> dict[str, int]:
    """Drop the tables and run all migrations; returns how many rows were lost, by table.

    Args:
        manager: of the database.
        force: also where the database is elsewhere or holds rows.

    Raises:
        ResetRefused: without ``force``.
    """
    tables = _tables(manager)
    versions = [VERSION_TABLE, *(one.version_table for one in database_plugins(manager.settings.holdfast_plugins))]

    def drop(connection: Connection) -> dict[str, int]:
        lost = check_losses(connection, manager.settings.url, tables, force=force)
        for table in reversed(tables):  # plugins stand on ours, and not the other way round
            table.drop(connection, checkfirst=True)
        for name in versions:
            Table(name, MetaData()).drop(connection, checkfirst=True)
        return lost

    async with manager.engine.begin() as connection:
        lost = await connection.run_sync(drop)
    await upgrade(manager.settings)
    return lost


def _tables(manager: DatabaseManager) -> list[Table]:
    """All tables, parents before their children."""
    plugins = database_plugins(manager.settings.holdfast_plugins)
    ours = our_tables(manager.settings)
    theirs = [table for one in plugins for table in one.metadata.sorted_tables if table in one.tables]
    return [*ours, *theirs]
