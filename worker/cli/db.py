"""``db``: migrations, and data for development."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import click

from db import migrate
from db.connection import DatabaseManager
from db.drift import find_drift
from db.reset import reset as reset_tables
from db.schema import ResetRefused
from db.seed import AlreadySeeded
from db.seed import seed as add_rows
from db.urls import is_local, masked
from worker.cli.database import make_data_dir
from worker.cli.terminal import Failure, async_command, json_option, load_settings, print_json, wrong_usage
from worker.settings import Settings

yes_option = click.option("--yes", is_flag=True, help="Also where the database is elsewhere, or holds rows.")


@click.group()
def db() -> None:
    """Migrate the database, tell which version it has, and fill one for development."""


@db.command(epilog="Example: DATABASE_URL=postgresql://localhost/app python -m worker db upgrade")
@click.option("--sql", is_flag=True, help="Print the statements from an empty database on, and execute none.")
@json_option
@async_command
async def upgrade(*, sql: bool, as_json: bool) -> None:
    """Bring the tables to this version, those of plugins too. Concurrent calls wait for each other."""
    settings = load_settings()
    if sql:
        click.echo(_printed(settings, as_json=as_json), nl=False)
        return
    async with _open(settings) as manager:
        before = await migrate.current_revision(manager)
        await migrate.upgrade(settings)
        await _report(manager, as_json=as_json, was=before)


@db.command(epilog="Example: python -m worker db downgrade 0003")
@click.argument("revision")
@click.option("--plugin", metavar="NAME", help="Take back the migrations of this module of HOLDFAST_PLUGINS instead.")
@json_option
@async_command
async def downgrade(*, revision: str, plugin: str | None, as_json: bool) -> None:
    """Take migrations back, down to REVISION (base: all of them). What only newer tables hold is lost."""
    settings = load_settings()
    async with _open(settings) as manager:
        before = await migrate.current_revision(manager)
        try:
            await migrate.downgrade(settings, revision, plugin=plugin)
        except migrate.UnknownRevision as error:
            raise wrong_usage(str(error)) from None
        await _report(manager, as_json=as_json, was=before)


@db.command(epilog="Example: python -m worker db current --json")
@json_option
@async_command
async def current(*, as_json: bool) -> None:
    """Show the database's revision and the newest one; exits 1 when they differ."""
    async with _open(load_settings()) as manager:
        if not await _report(manager, as_json=as_json):
            raise click.exceptions.Exit(1)


@db.command(epilog="Example: python -m worker db check --json")
@json_option
@async_command
async def check(*, as_json: bool) -> None:
    """Compare the tables with the models: columns, keys, indexes, checks; exits 1 when they differ."""
    async with _open(load_settings()) as manager:
        is_current = await migrate.is_current(manager)
        differences = await find_drift(manager)
        if as_json:
            await _report(manager, as_json=True, differences=differences)
        else:
            for line in differences or ["the tables are what the models say"]:
                click.echo(line)
        if differences or not is_current:
            raise click.exceptions.Exit(1)


@db.command(epilog="Example: python -m worker db reset --yes")
@yes_option
@json_option
@async_command
async def reset(*, yes: bool, as_json: bool) -> None:
    """Drop all tables and make them anew, empty. Refused without --yes where something may be lost."""
    async with _open(load_settings()) as manager:
        try:
            lost = await reset_tables(manager, force=yes)
        except ResetRefused as error:
            raise wrong_usage(f"{error.reason}; say --yes if all of it may be lost") from None
        await _report(manager, as_json=as_json, rows_lost=lost)


@db.command(epilog="Example: python -m worker db seed --users 20 --tasks 5000")
@click.option("--users", type=click.IntRange(0), default=10, show_default=True, help="How many people.")
@click.option("--tasks", type=click.IntRange(0), default=200, show_default=True, help="How many tasks they own.")
@click.option(
    "--seed", "number", type=click.IntRange(0), default=1, show_default=True, help="Makes the same rows again."
)
@yes_option
@json_option
@async_command
async def seed(*, users: int, tasks: int, number: int, yes: bool, as_json: bool) -> None:
    """Add realistic data for development. Nobody of it can sign in."""
    async with _open(load_settings()) as manager:
        if not yes:
            _refuse_elsewhere(manager)
        await migrate.require_current(manager)
        try:
            async with manager.session() as session:
                await add_rows(session, users=users, tasks=tasks, number=number)
        except AlreadySeeded as error:
            raise Failure(str(error)) from None
        except ValueError as error:
            raise wrong_usage(str(error)) from None
    document = {"database": masked(manager.settings.url), "users": users, "tasks": tasks, "seed": number}
    if as_json:
        print_json(document)
    else:
        click.echo(f"{document['database']}: {users:,} users and {tasks:,} tasks of seed {number}")


@asynccontextmanager
async def _open(settings: Settings) -> AsyncIterator[DatabaseManager]:
    if settings.database_is_embedded:
        make_data_dir(settings)
    manager = DatabaseManager(settings)
    try:
        await manager.connect()
        yield manager
    finally:
        await manager.close()


def _refuse_elsewhere(manager: DatabaseManager) -> None:
    if not is_local(manager.settings.url):
        shown = masked(manager.settings.url)
        raise wrong_usage(
            f"DATABASE_URL {shown} is not on this machine: no development data is added; say --yes if that is meant"
        )


def _printed(settings: Settings, *, as_json: bool) -> str:
    if as_json:
        raise wrong_usage("--sql and --json exclude each other: the statements are no JSON")
    try:
        return migrate.upgrade_sql(settings)
    except migrate.UnknownRevision as error:
        raise wrong_usage(f"{error}; --sql works for PostgreSQL and MySQL/MariaDB") from None


async def _report(manager: DatabaseManager, *, as_json: bool, **more: Any) -> bool:
    """Print where the migrations stand; returns whether none is left to be run."""
    ours, *plugins = await migrate.positions(manager)
    is_current = all(one.is_newest for one in (ours, *plugins))
    shown = masked(manager.settings.url)
    if as_json:
        theirs = [{"plugin": one.plugin, "revision": one.revision, "newest": one.newest} for one in plugins]
        print_json(
            {"database": shown, "revision": ours.revision, "newest": ours.newest, "up_to_date": is_current}
            | {"plugins": theirs, **more}
        )
    else:
        click.echo(f"{shown}: revision {ours.revision or 'none'} (newest: {ours.newest})")
        for one in plugins:
            click.echo(f"{one.plugin}: revision {one.revision or 'none'} (newest: {one.newest})")
    return is_current
