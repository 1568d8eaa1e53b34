"""``archive``: rows that were soft-deleted long ago leave their tables."""

import re
from typing import Any

import click
from pydantic import ValidationError

from db.archives.catalog import UnknownTable
from holdfast.requests import ArchiveDeleted, ArchiveReport
from jobs.catalogs import open_catalog
from worker.cli.database import open_database
from worker.cli.enqueue import request_problem
from worker.cli.terminal import (
    async_command,
    configure_quiet_logs,
    json_option,
    load_settings,
    read_instant,
    wrong_usage,
)
from worker.cli.work import detach as detach_request
from worker.cli.work import document_of, print_end, work

DESTINATIONS = {"table": "tables", "files": "files", "purge": "purge"}
DAYS = {"w": 7.0, "d": 1.0, "h": 1 / 24, "m": 1 / 1440}
REPORT_KEYS = [name for name in ArchiveReport.model_fields if name not in {"checksums", "destination"}]


@click.command(epilog="Example: python -m worker archive tasks --older-than 90d --to files --max-rows 100000")
@click.argument("tables", nargs=-1, metavar="[TABLE]...")
@click.option("--older-than", metavar="90d", help="Rows deleted so long ago: w, d, h or m.  [default: the settings]")
@click.option(
    "--to",
    type=click.Choice(list(DESTINATIONS)),
    default="table",
    show_default=True,
    help="Where they go; purge: nowhere.",
)
@click.option("--until", metavar="TIME", help="Stop at this time, with what is done: ISO 8601 with an offset.")
@click.option("--max-rows", type=click.IntRange(1), metavar="N", help="Stop after so many due rows.")
@click.option(
    "--batch-rows", type=click.IntRange(1, 100_000), metavar="N", help="Rows a transaction.  [default: fitting 20 ms]"
)
@click.option(
    "--connections",
    type=click.IntRange(1, 8),
    metavar="N",
    help="Connections side by side; SQLite has one.  [default: 1]",
)
@click.option("--dry-run", is_flag=True, help="Count what is due and estimate the time.")
@click.option("--yes", is_flag=True, help="Purge; without it, --to purge only says what would go.")
@click.option("--detach", is_flag=True, help="Enqueue and return.")
@json_option
@async_command
async def archive(*, yes: bool, detach: bool, as_json: bool, **options: Any) -> None:
    """Archive rows that were soft-deleted long ago, with their children; all such TABLEs if none is named.

    They go into <table>_archive, or into compressed files under ARCHIVE_DIR, or nowhere. `archives restore` brings rows
    back from the first two.
    """
    settings = load_settings()
    configure_quiet_logs(settings)
    catalog = open_catalog(settings)
    request = build_archive(options)
    try:
        for name in request.tables:
            catalog.find(name)
    except UnknownTable as error:
        raise wrong_usage(str(error)) from None
    is_preview = request.destination == "purge" and not (yes or request.dry_run)
    if is_preview:
        request = request.model_copy(update={"dry_run": True})
    async with open_database(settings):
        if detach:
            await detach_request(settings, request, as_json=as_json)
            return
        run = await work(settings, request)
    print_end(run, document_of(run, REPORT_KEYS), as_json=as_json)
    if is_preview:
        click.echo("nothing was purged: say it again with --yes", err=True)


def build_archive(options: dict[str, Any]) -> ArchiveDeleted:
    """Make the request from the command line's options.

    Raises:
        Failure: an option is wrong (exit code 2).
    """
    values = {name: value for name, value in options.items() if value not in (None, False, ())}
    values["destination"] = DESTINATIONS[values.pop("to")]
    if (age := values.pop("older_than", None)) is not None:
        values["older_than_days"] = read_days("--older-than", age)
    if (until := values.get("until")) is not None:
        values["until"] = read_instant("--until", until)
    try:
        return ArchiveDeleted(**values)
    except ValidationError as error:
        raise wrong_usage(request_problem("archive", error)) from None


def read_days(option: str, text: str) -> float:
    """Read a length of time such as ``90d``; returns days.

    Raises:
        Failure: it is none.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([wdhm])", text)
    if found is None:
        raise wrong_usage(f"{option} {text!r} is no length of time: write it as 90d, 12w, 36h or 90m")
    return float(found[1]) * DAYS[found[2]]
