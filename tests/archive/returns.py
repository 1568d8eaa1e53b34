"""Runs that bring back and erase, within the test's own process, and a graph to do it with."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import insert

from db.archives.catalog import Catalog
from db.connection import get_async_session
from holdfast.ids import uuid7
from holdfast.requests import ArchiveDeleted, ArchiveReport, EraseArchived, EraseReport, RestoreArchived, RestoreReport
from jobs.archive_deleted import archive_deleted
from jobs.erase_archived import erase_archived
from jobs.restore_archived import restore_archived
from jobs.settings import JobSettings
from tests.archive.models import DOCUMENTS, FOLDERS, REVISIONS
from tests.archive.runs import LONG_AGO, context_of
from tests.databases.runs import admitted
from worker import ledger
from worker.retries import Outcome


async def archive(settings: JobSettings, *, catalog: Catalog | None = None, **fields: Any) -> ArchiveReport:
    """Archive, and end the run: its files are nobody's to change before that."""
    given = await admitted("ada")
    report = await archive_deleted(context_of(given, settings), ArchiveDeleted(**fields), catalog=catalog)
    await ledger.finish(given, Outcome("succeeded", report=report.model_dump(mode="json")))
    return report


async def restore(
    settings: JobSettings, *ids: object, table: str = "tasks", catalog: Catalog | None = None, **fields: Any
) -> RestoreReport:
    """Restore rows, in a run of its own."""
    context = context_of(await admitted("ada"), settings)
    request = RestoreArchived(table=table, ids=tuple(map(str, ids)), **fields)
    return await restore_archived(context, request, catalog=catalog)


async def erase(
    settings: JobSettings, *ids: object, table: str = "tasks", catalog: Catalog | None = None, **fields: Any
) -> EraseReport:
    """Erase rows, in a run of its own."""
    context = context_of(await admitted("ada"), settings)
    request = EraseArchived(table=table, ids=tuple(map(str, ids)), reason="asked for", **fields)
    return await erase_archived(context, request, catalog=catalog)


@dataclass(frozen=True)
class Graph:
    """A folder that lies in another one, with two documents of two revisions each; all of it deleted at once, but for
    the second document, which was deleted a year before."""

    outer: UUID
    folder: UUID
    document: UUID
    earlier: UUID
    revisions: tuple[UUID, ...]


async def make_graph(*, deleted_at: datetime | None = LONG_AGO) -> Graph:
    """Make it."""
    made = Graph(uuid7(), uuid7(), uuid7(), uuid7(), tuple(uuid7() for _ in range(4)))
    marks = {"is_deleted": deleted_at is not None, "deleted_at": deleted_at}
    early = marks if deleted_at is None else marks | {"deleted_at": deleted_at - timedelta(days=365)}
    folders = [
        {"id": made.outer, "name": f"outer {made.outer}", "parent_id": None, **marks},
        {"id": made.folder, "name": f"inner {made.folder}", "parent_id": made.outer, **marks},
    ]
    documents = [
        {"id": made.document, "title": "one", "folder_id": made.folder, **marks},
        {"id": made.earlier, "title": "two", "folder_id": made.folder, **early},
    ]
    owners = (made.document, made.document, made.earlier, made.earlier)
    revisions = [
        {"id": revision, "text": f"text {number} \u2028", "document_id": owner}
        for number, (revision, owner) in enumerate(zip(made.revisions, owners, strict=True))
    ]
    async with get_async_session() as session:
        for row in folders:
            await session.execute(insert(FOLDERS), row)
        await session.execute(insert(DOCUMENTS), documents)
        await session.execute(insert(REVISIONS), revisions)
    return made
