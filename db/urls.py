"""Database URLs: which are supported, and the async driver of each."""

import importlib
import inspect
from collections.abc import Set

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

ASYNC_DRIVERS = {
    "postgresql": "postgresql+asyncpg",
    "postgres": "postgresql+asyncpg",
    "mysql": "mysql+asyncmy",
    "mariadb": "mariadb+asyncmy",
    "sqlite": "sqlite+aiosqlite",
}
"""What is put in for a URL that names no driver."""

SUPPORTED_DRIVERS = {*ASYNC_DRIVERS.values(), "mysql+aiomysql", "mariadb+aiomysql"}

OPTIONS_OF_SQLALCHEMY = frozenset({"prepared_statement_cache_size"})
OPTIONS_OF_SQLITE = frozenset({"timeout", "isolation_level", "detect_types", "check_same_thread", "cached_statements"})

# A plain :memory: is a database for each connection; one of SQLite's memdb file system is shared by the whole process.
MEMORY_URL = URL.create("sqlite+aiosqlite", database="file:/holdfast", query={"vfs": "memdb", "uri": "true"})
"""What ``:memory:``, ``sqlite://`` and ``sqlite:///:memory:`` stand for."""


_LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})


def normalise_url(text: str) -> URL:
    """Return the URL with its async driver.

    Args:
        text: for example ``postgresql://user:password@host/database``; ``:memory:`` is an SQLite database in memory.

    Raises:
        ValueError: no URL, or of a database or driver that is not supported. The text never appears in the message
            because it may hold a password.
    """
    if text.strip() == ":memory:":
        return MEMORY_URL
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise ValueError("is not a database URL: it reads like postgresql://user:password@host:5432/name") from None
    driver = ASYNC_DRIVERS.get(url.drivername, url.drivername)
    if driver not in SUPPORTED_DRIVERS:
        known = ", ".join(f"{scheme}://" for scheme in ASYNC_DRIVERS if scheme != "postgres")
        raise ValueError(f"begins with {url.drivername}:// but must begin with one of {known}")
    if url.get_backend_name() != "sqlite" and not url.database:
        raise ValueError("names no database: add it behind the host, as in postgresql://host:5432/name")
    if url.get_backend_name() == "sqlite" and url.database in {None, "", ":memory:"}:
        return MEMORY_URL
    return url.set(drivername=driver)


def has_usable_options(url: URL) -> bool:
    """Whether the driver of a normalised URL knows what stands behind the ``?``; nothing is connected."""
    is_sqlite = url.get_backend_name() == "sqlite"
    # What stands behind a file: URL is SQLite's own. Otherwise SQLAlchemy would leave out what it does not know.
    if is_sqlite and url.query.get("uri") != "true" and not url.query.keys() <= OPTIONS_OF_SQLITE:
        return False
    try:
        _, options = url.get_dialect()().create_connect_args(url)
    except ValueError:
        return False
    return is_sqlite or options.keys() <= _options_of_driver(url.get_driver_name())


def _options_of_driver(name: str) -> Set[str]:
    connect = importlib.import_module(name).connect
    return inspect.signature(connect).parameters.keys() | OPTIONS_OF_SQLALCHEMY


def engine_family(url: URL) -> str:
    """Return ``postgresql``, ``mysql`` (MariaDB too) or ``sqlite``."""
    backend = url.get_backend_name()
    return "mysql" if backend == "mariadb" else backend


def is_local(url: URL) -> bool:
    """Whether the database is on this machine, as far as its URL tells."""
    if engine_family(url) == "sqlite":
        return True
    # Drivers also take the host, or several with their ports, from behind the "?", and those win.
    hosts = ",".join(url.normalized_query.get("host", (url.host or "localhost",))).split(",")
    return all(host.startswith("/") or host in _LOCAL or host.rpartition(":")[0] in _LOCAL for host in hosts)


def is_in_memory(url: URL) -> bool:
    """Whether it is the SQLite database that lives in this process and dies with its last connection."""
    return url == MEMORY_URL


def masked(url: URL) -> str:
    """Return the URL as text without its password, which drivers also take as a parameter behind the ``?``."""
    query = {name: "hidden" if "pass" in name.lower() else value for name, value in url.query.items()}
    return url.set(query=query).render_as_string(hide_password=True)
