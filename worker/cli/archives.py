"""``archives``: look into the archives, bring rows back, erase them for good."""

from collections.abc import Sequence
from typing import Any

import click
from pydantic import ValidationError
from sqlalchemy import Table

from db.archives.catalog import Catalog, UnknownTable
from db.archives.keys import KeyTextError, parse_key
from db.repositories.job_run import RunRow
from holdfast.requests import EraseArchived, EraseReport, RestoreArchived, RestoreReport
from jobs.catalogs import open_catalog
from worker.cli.archive_adopt import adopt_files
from worker.cli.archive_search import list_archives, search
from worker.cli.database import open_database
from worker.cli.enqueue import request_problem
from worker.cli.terminal import async_command, configure_quiet_logs, json_option, load_settings, wrong_usage
from worker.cli.work import document_of, print_end, work


@click.group()
def archives() -> None:
    """Look into the archives, bring rows back, erase them for good."""


archives.add_command(list_archives)
archives.add_command(search)
archives.add_command(adopt_files)


@archives.command(
    "restore", epilog="Example: python -m worker archives restore tasks 0198c0de-0000-7000-8000-000000000000"
)
@click.argument("table")
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@click.option(
    "--all-children", is_flag=True, help="Also children that were deleted by themselves, not with their parent."
)
@click.option("--dry-run", is_flag=True, help="Say what would come back, and what is in the way.")
@json_option
@async_command
async def restore(*, table: str, ids: tuple[str, ...], all_children: bool, dry_run: bool, as_json: bool) -> None:
    """Bring rows of TABLE back, alive and with their children: each whole, or not at all.

    A row that something is in the way of stays where it is; the conflicts are named, and the exit code is 1.
    """
    settings = load_settings()
    configure_quiet_logs(settings)
    check_names(open_catalog(settings), table, ids)
    try:
        request = RestoreArchived(table=table, ids=ids, all_children=all_children, dry_run=dry_run)
    except ValidationError as error:
        raise wrong_usage(request_problem("archives restore", error)) from None
    async with open_database(settings):
        run = await work(settings, request)
    print_refusing(run, list(RestoreReport.model_fields), as_json=as_json)


@archives.command(
    "erase", epilog='Example: python -m worker archives erase tasks 0198c0de-... --reason "ticket 4711" --yes'
)
@click.argument("table", required=False)
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--reason", metavar="TEXT", help="Why; it is kept on the erasure list.")
@click.option("--by", "erased_by", metavar="NAME", help="Who wants it; kept as well.")
@click.option("--again", is_flag=True, help="Instead: erase all of the list that a restored backup has brought back.")
@click.option("--yes", is_flag=True, help="Do it; without it the command only says what would go.")
@json_option
@async_command
async def erase(*, ids: tuple[str, ...], yes: bool, as_json: bool, **options: Any) -> None:
    """Delete rows of TABLE for good, with their children: from the table if they are soft-deleted there, from its
    archive, and from files.

    They are put on the erasure list, and nothing brings them back. Without --yes it is only said what would go.
    """
    settings = load_settings()
    configure_quiet_logs(settings)
    if options["table"] is not None:
        check_names(open_catalog(settings), options["table"], ids)
    request = build_erase(ids, options, dry_run=not yes)
    async with open_database(settings):
        run = await work(settings, request)
    print_refusing(run, list(EraseReport.model_fields), as_json=as_json)


def build_erase(ids: tuple[str, ...], options: dict[str, Any], *, dry_run: bool) -> EraseArchived:
    """Make the request from the command line's options.

    Raises:
        Failure: an option is wrong or missing (exit code 2).
    """
    if not options["again"] and not (options["table"] and ids):
        raise wrong_usage("TABLE and ID are missing: name the rows to erase, or say --again")
    if not options["again"] and not (options["reason"] or "").strip():
        raise wrong_usage('--reason is missing: say why, as in --reason "ticket 4711"')
    values = {name: value for name, value in options.items() if value is not None}
    try:
        return EraseArchived(ids=ids, dry_run=dry_run, **values)
    except ValidationError as error:
        raise wrong_usage(request_problem("archives erase", error)) from None


def check_names(catalog: Catalog, table: str, ids: Sequence[str]) -> Table:
    """Check what the user has typed before anything is enqueued; returns the table.

    Raises:
        Failure: there is no such table, or an id is no key of it (exit code 2).
    """
    try:
        found = catalog.find(table)
        for text in ids:
            parse_key(found, text)
    except (UnknownTable, KeyTextError) as error:
        raise wrong_usage(str(error)) from None
    return found


def print_refusing(run: RunRow, keys: list[str], *, as_json: bool) -> None:
    """Print how a run ended that may have refused rows.

    Raises:
        Exit: it has (exit code 1).
        Failure: it did not succeed.
    """
    document = document_of(run, keys)
    refused = document.get("refused") or []
    shown = document if as_json else {**document, "refused": len(refused)}
    print_end(run, shown, as_json=as_json)
    for row in () if as_json else refused:
        click.echo(f"refused: {row['message']}", err=True)
    if "erased" in keys and document["dry_run"]:
        click.echo("nothing was erased: say it again with --yes", err=True)
    if refused:
        raise click.exceptions.Exit(1)
