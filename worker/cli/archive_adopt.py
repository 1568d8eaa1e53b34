"""``archives adopt``: list files again that a restored database knows nothing of."""

from typing import Any
from uuid import UUID

import click

from db.connection import get_async_session, get_reading_session
from jobs.archive_manifests import NotAdopted, Unlisted, adopt, find_unlisted
from jobs.catalogs import open_catalog
from worker.cli.database import open_database
from worker.cli.terminal import Failure, async_command, json_option, load_settings, print_json, wrong_usage

ARE_ERASED = "are entered and on the erasure list: erase them again with: archives erase --again --yes"


@click.command("adopt", epilog="Example: python -m worker archives adopt 0198c0de-0000-7000-8000-000000000000")
@click.argument("run_ids", nargs=-1, type=click.UUID, metavar="[RUN_ID]...")
@json_option
@async_command
async def adopt_files(*, run_ids: tuple[UUID, ...], as_json: bool) -> None:
    """Enter files of archives that this database does not know, as after it was restored from an older backup.

    Those that were written anew since that backup take the place of the ones that it lists and that are gone.

    All that lie in ARCHIVE_DIR, or those of the runs that are named. Each file is read and compared with its manifest;
    of a run all are entered, or none. Where rows of them were erased for good, that is told, and the exit code is 1.
    """
    settings = load_settings()
    catalog = open_catalog(settings)
    adopted, problems = list[dict[str, Any]](), list[str]()
    async with open_database(settings):
        async with get_reading_session() as session:
            seen = await find_unlisted(session, settings)
        problems += seen.unreadable
        found = {one.run_id: one for one in seen.unlisted}
        if unknown := [run_id for run_id in run_ids if run_id not in found]:
            raise wrong_usage(f"{unknown[0]} is no run whose files are not known here: look with: archives list")
        for one in [found[run_id] for run_id in dict.fromkeys(run_ids)] or seen.unlisted:
            try:
                async with get_async_session() as session:
                    erased = await adopt(session, catalog, one)
                adopted += unlisted_documents(one)
                problems += [f"{erased} rows of run {one.run_id} {ARE_ERASED}"] if erased else []
            except NotAdopted as error:
                problems.append(str(error))
    if as_json:
        print_json({"adopted": adopted, "problems": problems})
    for document in () if as_json else adopted:
        click.echo(
            f"{document['table']:<20}{document['rows']:>12,} rows  {document['files']} files, run {document['run_id']}"
        )
    if problems:
        raise Failure(f"{problems[0]}" + (f" ({len(problems)} problems)" if len(problems) > 1 else ""))


def unlisted_documents(unlisted: Unlisted) -> list[dict[str, Any]]:
    """Return files that are not known, as ``--json`` shows them: one document for each table."""
    documents = []
    for table in dict.fromkeys([*(part.table for part in unlisted.parts), *unlisted.emptied]):
        own = [part for part in unlisted.parts if part.table == table]
        document: dict[str, Any] = {"table": table, "run_id": str(unlisted.run_id), "files": len(own)}
        documents.append(document | {"rows": sum(part.rows for part in own), "bytes": sum(part.bytes for part in own)})
    return documents
