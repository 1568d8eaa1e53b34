"""How Alembic reaches the database: one async connection, locked against concurrent runs."""

import asyncio
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from alembic import context
from sqlalchemy import Connection

from db.base import Base
from db.connection import create_engine
from db.drift import compared, our_tables
from db.migrate import VERSION_TABLE
from db.plugins import DatabasePlugin
from db.settings import DatabaseSettings

LOCK_NAME = "holdfast_migrations"
LOCK_KEY = 0x686F6C64666173  # "holdfas" in ASCII, for PostgreSQL's bigint
LOCK_WAIT_S = 120


class ForeignKeysViolated(RuntimeError):  # noqa: N818
    """A migration left rows without their parent; it was rolled back."""


def settings() -> DatabaseSettings:
    given = context.config.attributes.get("settings")
    return given if isinstance(given, DatabaseSettings) else DatabaseSettings()


def plugin() -> DatabasePlugin | None:
    given = context.config.attributes.get("plugin")
    return given if isinstance(given, DatabasePlugin) else None


def line() -> dict[str, Any]:
    """Say whose migrations are run: Holdfast's, or a plugin's with a version table of their own."""
    ours = plugin()
    if ours is not None:
        return {"version_table": ours.version_table, **compared(ours.metadata, ours.tables)}
    return {"version_table": VERSION_TABLE, **compared(Base.metadata, our_tables(settings()))}


def run_offline() -> None:
    context.configure(
        dialect_name=settings().url.get_backend_name(),
        literal_binds=True,
        **line(),
    )
    with context.begin_transaction():
        context.run_migrations()


def run_on(connection: Connection) -> None:
    lock = {"postgresql": postgresql_lock, "sqlite": sqlite_lock}.get(connection.dialect.name, mysql_lock)
    with lock(connection):
        context.configure(
            connection=connection,
            **line(),
            render_as_batch=connection.dialect.name == "sqlite",
            transactional_ddl=connection.dialect.name not in {"mysql", "mariadb"},
        )
        with context.begin_transaction():
            context.run_migrations()


@contextmanager
def postgresql_lock(connection: Connection) -> Iterator[None]:
    with connection.begin():
        # Freed with the transaction, so that it works through PgBouncer and can never be left behind.
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{LOCK_WAIT_S}s'")
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({LOCK_KEY})")
        connection.exec_driver_sql("SET LOCAL lock_timeout = 0")
        yield


@contextmanager
def mysql_lock(connection: Connection) -> Iterator[None]:
    # Its DDL commits by itself, hence a lock of the session and not of a transaction.
    taken = connection.exec_driver_sql(f"SELECT GET_LOCK('{LOCK_NAME}', {LOCK_WAIT_S})").scalar()
    if taken != 1:
        raise TimeoutError(f"another migration has been running for {LOCK_WAIT_S} s; wait for it, or end it")
    connection.commit()  # so that Alembic begins and commits each migration by itself
    try:
        with without_notes():
            yield
    finally:
        connection.exec_driver_sql(f"SELECT RELEASE_LOCK('{LOCK_NAME}')")


@contextmanager
def without_notes() -> Iterator[None]:
    # The server tells for every table that its primary key is called PRIMARY: aiomysql warns of it, asyncmy logs it.
    drivers_log = logging.getLogger("asyncmy")
    shown, drivers_log.disabled = drivers_log.disabled, True
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Name '.*' ignored for PRIMARY key")
            yield
    finally:
        drivers_log.disabled = shown


@contextmanager
def sqlite_lock(connection: Connection) -> Iterator[None]:
    # Inside a transaction this PRAGMA does nothing, and a batch migration that rebuilds a parent table would then
    # delete its children: it goes to the driver before SQLAlchemy begins, and on again after the commit.
    driver = connection.connection.cursor()
    driver.execute("PRAGMA foreign_keys = OFF")
    try:
        with connection.begin():  # BEGIN IMMEDIATE: the lock
            yield
            orphans = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
            if orphans:
                raise ForeignKeysViolated(f"{len(orphans)} rows lost their parent, the first in table {orphans[0][0]}")
    finally:
        driver.execute("PRAGMA foreign_keys = ON")
        driver.close()


async def run_online() -> None:
    engine = create_engine(settings(), pooled=False)
    try:
        async with engine.connect() as connection:
            await connection.run_sync(run_on)
    finally:
        await engine.dispose()


if context.is_offline_mode():
    run_offline()
else:
    asyncio.run(run_online())
