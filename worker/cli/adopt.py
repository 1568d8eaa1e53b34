"""``adopt``: take over a restored or cloned database."""

import click

from db.connection import get_async_session
from db.repositories import installation
from worker.cli.database import open_database
from worker.cli.terminal import async_command, json_option, load_settings, print_json


@click.command(epilog="Example: DATABASE_URL=postgresql://staging/app python -m worker adopt")
@json_option
@async_command
async def adopt(*, as_json: bool) -> None:
    """Say that this copy of a database is the one whose runs are to be run.

    A database that was restored or cloned starts held: nothing is dispatched, so that a staging copy never runs
    production's queue. So does one that is reached under an address that no worker has used before: run it with the
    settings of the worker that is held.
    """
    async with open_database(load_settings()), get_async_session() as session:
        row = await installation.adopt(session)
        addresses = row.addresses or []
        document = {"installation": str(row.installation_id), "server": row.server, "addresses": addresses}
    if as_json:
        print_json(document)
    else:
        click.echo(f"installation {row.installation_id} belongs to: {row.server} at {', '.join(addresses)}")
