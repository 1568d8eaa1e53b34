"""What other packages bring to the database: models, and migrations of their own in a folder of their own.

A module of ``HOLDFAST_PLUGINS`` may have, besides its ``JOBS``:

- ``MODELS``: its models, on ``db.base.BaseModel`` or another base. ``db check`` compares their tables.
- ``MIGRATIONS``: the folder of its revisions (a path, or text relative to the module's file). They are a line of their
  own with a version table of their own, ``<name>_alembic_version``, and are run after Holdfast's.
"""

import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from sqlalchemy import MetaData, Table

from db.errors import first_line


class PluginError(ValueError):
    """A module of ``HOLDFAST_PLUGINS`` cannot be used; the message is one line."""


@dataclass(frozen=True, slots=True)
class DatabasePlugin:
    """A package's part of the database."""

    name: str
    """The module's, as in ``HOLDFAST_PLUGINS``."""
    migrations: Path | None
    tables: tuple[Table, ...]

    @property
    def version_table(self) -> str:
        """Where its revision is noted; at most 63 characters, which is PostgreSQL's limit."""
        return f"{self.name.replace('.', '_')[-40:]}_alembic_version"

    @property
    def metadata(self) -> MetaData:
        """Of its tables."""
        return self.tables[0].metadata if self.tables else MetaData()


def import_plugin(name: str) -> ModuleType:
    """Return the module.

    Raises:
        PluginError: it cannot be imported.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise PluginError(f"HOLDFAST_PLUGINS={name}: {error}; put it on PYTHONPATH") from error
    except Exception as error:
        what = f"{type(error).__name__}: {first_line(error)}{_place(error)}"
        raise PluginError(f"HOLDFAST_PLUGINS={name}: cannot be imported: {what}; mend it") from error


def _place(error: Exception) -> str:
    if isinstance(error, SyntaxError) or error.__traceback__ is None:  # the first tells its place itself
        return ""
    *_, (frame, line) = traceback.walk_tb(error.__traceback__)
    return f" (line {line} of {Path(frame.f_code.co_filename).name})"


def database_plugins(names: Sequence[str]) -> list[DatabasePlugin]:
    """Return what the plugins bring to the database, in their order; those that bring nothing are left out.

    Raises:
        PluginError: a plugin cannot be imported, its models are none, or its folder does not exist.
    """
    plugins = [_plugin(name, import_plugin(name)) for name in names]
    return [plugin for plugin in plugins if plugin.migrations is not None or plugin.tables]


def _plugin(name: str, module: ModuleType) -> DatabasePlugin:
    folder: Path | None = None
    if (given := getattr(module, "MIGRATIONS", None)) is not None:
        folder = Path(str(module.__file__)).parent / given
        if not folder.is_dir():
            raise PluginError(f"HOLDFAST_PLUGINS={name}: MIGRATIONS={given} is no folder; name that of its revisions")
    return DatabasePlugin(name, folder, tuple(_table(name, model) for model in getattr(module, "MODELS", ())))


def _table(name: str, model: Any) -> Table:
    table = model if isinstance(model, Table) else getattr(model, "__table__", None)
    if not isinstance(table, Table):
        raise PluginError(f"HOLDFAST_PLUGINS={name}: {model!r} in MODELS is no model; list the classes with a table")
    return table
