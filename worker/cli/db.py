"""``db``: migrations."""

import click

from db import migrate
from db.connection import DatabaseManager
from db.urls import masked
from worker.cli.database import make_data_dir
from worker.cli.terminal import async_command, json_option, load_settings, print_json


@click.group()
def db() -> None:
    """Migrate the database, and tell which version it has."""


@db.command(epilog="Example: DATABASE_URL=postgresql://localhost/app python -m worker db upgrade")
@json_option
@async_command
async def upgrade(*, as_json: bool) -> None:
    """Bring the tables to this version. Concurrent calls wait for each other."""
    await _report(as_json=as_json, upgrade_first=True)


@db.command(epilog="Example: python -m worker db current --json")
@json_option
@async_command
async def current(*, as_json: bool) -> None:
    """Show the database's revision and the newest one; exits 1 when they differ."""
    if not await _report(as_json=as_json, upgrade_first=False):
        raise click.exceptions.Exit(1)


async def _report(*, as_json: bool, upgrade_first: bool) -> bool:
    settings = load_settings()
    if settings.database_is_embedded:
        make_data_dir(settings)
    manager = DatabaseManager(settings)
    try:
        await manager.connect()
        before = await migrate.current_revision(manager)
        if upgrade_first:
            await migrate.upgrade(settings)
        found, newest = await migrate.current_revision(manager), migrate.head_revision()
    finally:
        await manager.close()
    document = {"database": masked(settings.url), "revision": found, "newest": newest, "up_to_date": found == newest}
    if upgrade_first:
        document["was"] = before
    if as_json:
        print_json(document)
    else:
        click.echo(f"{document['database']}: revision {found or 'none'} (newest: {newest})")
    return found == newest
