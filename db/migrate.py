"""Bring a database to this version of the tables, and tell which version it has."""

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection

from db.plugins import DatabasePlugin, PluginError, database_plugins
from db.settings import DatabaseSettings

if TYPE_CHECKING:
    from db.connection import DatabaseManager

SCRIPTS = Path(__file__).resolve().parent.parent / "migrations"
VERSION_TABLE = "holdfast_alembic_version"


class SchemaOutdated(Exception):  # noqa: N818
    """The database's tables are not of this version; the message says what to run."""


class UnknownRevision(Exception):  # noqa: N818
    """There is no such revision, or no way to it; the message is one line."""


@dataclass(frozen=True, slots=True)
class Position:
    """Where one line of migrations stands: Holdfast's own, or a plugin's."""

    plugin: str | None
    revision: str | None
    """None: never migrated."""
    newest: str | None

    @property
    def is_newest(self) -> bool:
        """Whether nothing is left to be run."""
        return self.revision == self.newest


_one_at_a_time = threading.Lock()  # Alembic's context is a global of the process


def _run(operation: Callable[[Config, str], None], config: Config, revision: str) -> None:
    # In a thread, because Alembic's env.py runs an event loop of its own.
    with _one_at_a_time:
        try:
            operation(config, revision)
        except CommandError as error:
            raise UnknownRevision(f"revision {revision!r}: {str(error).splitlines()[0]}") from error


def _config(settings: DatabaseSettings, plugin: DatabasePlugin | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    if plugin is not None:
        config.set_main_option("version_locations", str(plugin.migrations).replace("%", "%%"))
        config.set_main_option("path_separator", "newline")
    config.attributes["settings"] = settings
    config.attributes["plugin"] = plugin
    return config


def head_revision() -> str:
    """Return the newest revision that this checkout knows."""
    head = ScriptDirectory(str(SCRIPTS)).get_current_head()
    assert head is not None  # noqa: S101 - the checkout has a first migration
    return head


async def upgrade(settings: DatabaseSettings, revision: str = "head") -> None:
    """Run the migrations up to ``revision``, and to the newest one those of the plugins as well; concurrent calls wait
    for each other.

    Raises:
        UnknownRevision: there is no such revision.
        PluginError: a plugin cannot be used.
    """
    await asyncio.to_thread(_run, command.upgrade, _config(settings), revision)
    if revision == "head":
        for plugin in _with_migrations(settings):
            await asyncio.to_thread(_run, command.upgrade, _config(settings, plugin), "head")


async def downgrade(settings: DatabaseSettings, revision: str, *, plugin: str | None = None) -> None:
    """Take migrations back, down to ``revision`` (``base`` for all of them: first those of the plugins).

    Args:
        settings: the database.
        revision: where to stop.
        plugin: take back those of this plugin only.

    Raises:
        UnknownRevision: there is no such revision below the database's.
        PluginError: the plugin is none, or has no migrations.
    """
    plugins = _with_migrations(settings)
    if plugin is not None:
        if plugin not in {one.name for one in plugins}:
            raise PluginError(f"{plugin} has no migrations: name a module of HOLDFAST_PLUGINS that has MIGRATIONS")
        plugins = [one for one in plugins if one.name == plugin]
    if plugin is not None or revision == "base":
        for one in reversed(plugins):
            await asyncio.to_thread(_run, command.downgrade, _config(settings, one), revision)
    if plugin is None:
        await asyncio.to_thread(_run, command.downgrade, _config(settings), revision)


def upgrade_sql(settings: DatabaseSettings, revision: str = "head") -> str:
    """Return the statements of an upgrade from nothing, for a database administrator; nothing is connected.

    Raises:
        UnknownRevision: there is no such revision, or the statements depend on what is in the database (SQLite).
    """
    text = StringIO()
    for plugin in [None, *(_with_migrations(settings) if revision == "head" else [])]:
        config = _config(settings, plugin)
        config.output_buffer = text
        _run(lambda config, revision: command.upgrade(config, revision, sql=True), config, revision)
    return text.getvalue()


async def positions(manager: "DatabaseManager") -> list[Position]:
    """Return where Holdfast's migrations stand in the database, and then those of each plugin."""
    plugins = _with_migrations(manager.settings)
    tables = [VERSION_TABLE, *(plugin.version_table for plugin in plugins)]
    newest = [head_revision(), *map(_head_of, plugins)]

    def read(connection: Connection) -> list[str | None]:
        return [
            MigrationContext.configure(connection, opts={"version_table": table}).get_current_revision()
            for table in tables
        ]

    async with manager.reader() as connection:
        found = await connection.run_sync(read)
    names = [None, *(plugin.name for plugin in plugins)]
    return [Position(*one) for one in zip(names, found, newest, strict=True)]


async def current_revision(manager: "DatabaseManager") -> str | None:
    """Return the revision that the database has; None when it was never migrated."""
    return (await positions(manager))[0].revision


async def is_current(manager: "DatabaseManager") -> bool:
    """Whether the database has this checkout's tables, and those of the plugins."""
    return all(one.is_newest for one in await positions(manager))


async def require_current(manager: "DatabaseManager") -> None:
    """Check that the database has this checkout's tables, and those of the plugins.

    Raises:
        SchemaOutdated: it has others, or none.
    """
    for one in await positions(manager):
        if not one.is_newest:
            whose = "this version" if one.plugin is None else one.plugin
            raise SchemaOutdated(
                f"the database is at revision {one.revision or 'none'} but {whose} needs {one.newest}: "
                "run `python -m worker db upgrade`"
            )


def _with_migrations(settings: DatabaseSettings) -> list[DatabasePlugin]:
    return [plugin for plugin in database_plugins(settings.holdfast_plugins) if plugin.migrations is not None]


def _head_of(plugin: DatabasePlugin) -> str | None:
    try:
        return ScriptDirectory.from_config(_config(DatabaseSettings.model_construct(), plugin)).get_current_head()
    except CommandError as error:
        raise PluginError(f"HOLDFAST_PLUGINS={plugin.name}: {str(error).splitlines()[0]}") from error
