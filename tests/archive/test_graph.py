"""Children go with their parent, and living rows keep theirs."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Table, insert

from db.connection import get_async_session
from holdfast.ids import uuid7
from jobs.settings import JobSettings
from tests.archive.models import (
    CATALOG,
    CITATIONS,
    DOCUMENTS,
    DOCUMENTS_ARCHIVE,
    FOLDERS,
    FOLDERS_ARCHIVE,
    REVISIONS,
    REVISIONS_ARCHIVE,
)
from tests.archive.runs import LONG_AGO, archive, rows_of

pytestmark = pytest.mark.usefixtures("graph")


async def put(table: Table, *, deleted: bool | None = None, at: datetime = LONG_AGO, **values: Any) -> UUID:
    """Put a row into a table of the graph; returns its id."""
    key = uuid7()
    marks = {} if deleted is None else {"is_deleted": deleted, "deleted_at": at if deleted else None}
    async with get_async_session() as session:
        await session.execute(insert(table).values(id=key, **marks, **values))
    return key


async def folder(*, deleted: bool = True, parent: UUID | None = None, at: datetime = LONG_AGO) -> UUID:
    return await put(FOLDERS, deleted=deleted, at=at, name=str(uuid7()), parent_id=parent)


async def document(place: UUID, *, deleted: bool = True, at: datetime = LONG_AGO) -> UUID:
    return await put(DOCUMENTS, deleted=deleted, at=at, title="t", folder_id=place)


async def keys(*tables: Table) -> set[UUID]:
    return {key for table in tables for key in await rows_of(table)}


async def test_children_follow_in_order_whether_they_are_due_or_not(job_settings: JobSettings) -> None:
    top = await folder()
    inner = await folder(parent=top, at=datetime.now(UTC))
    paper = await document(inner, at=datetime.now(UTC))
    revisions = {await put(REVISIONS, text=text, document_id=paper) for text in ("a", "b")}
    report = await archive(job_settings, catalog=CATALOG, tables=("folders",))
    assert report.moved == {"folders": 2, "documents": 1, "revisions": 2}
    assert report.due == {"folders": 1}
    assert await keys(FOLDERS, DOCUMENTS, REVISIONS) == set()
    assert await keys(FOLDERS_ARCHIVE) == {top, inner}
    assert await keys(DOCUMENTS_ARCHIVE) == {paper}
    assert await keys(REVISIONS_ARCHIVE) == revisions


@pytest.mark.parametrize("destination", ["tables", "files", "purge"])
async def test_what_living_rows_refer_to_stays_and_is_named(destination: str, job_settings: JobSettings) -> None:
    lonely, kept = await folder(), await folder()
    paper, cited = await document(kept), await document(kept)
    citation = await put(CITATIONS, document_id=cited)
    note = await put(REVISIONS, text="a", document_id=cited)
    report = await archive(job_settings, catalog=CATALOG, tables=("folders",), destination=destination)
    # The other document in the folder goes with nobody: its folder stays.
    assert await keys(FOLDERS, DOCUMENTS, REVISIONS) == {kept, paper, cited, note}
    assert (report.moved["folders"], report.kept, report.left) == (1, {"folders": 1}, {})
    (named,) = report.kept_rows
    assert named.model_dump() == {
        "table": "folders",
        "key": str(kept),
        "by_table": "citations",
        "by_key": str(citation),
    }
    assert lonely not in await keys(FOLDERS)


async def test_a_living_child_keeps_its_parent_even_where_the_database_would_cascade(job_settings: JobSettings) -> None:
    place = await folder()
    gone, living = await document(place), await document(place, deleted=False)
    report = await archive(job_settings, catalog=CATALOG)
    # The document that is due itself leaves by itself; documents are walked before folders.
    assert report.moved == {"documents": 1, "folders": 0}
    assert [(row.key, row.by_table, row.by_key) for row in report.kept_rows] == [(str(place), "documents", str(living))]
    assert await keys(DOCUMENTS) == {living}
    assert gone in await keys(DOCUMENTS_ARCHIVE)


async def test_a_deep_line_of_folders_leaves_from_its_end(job_settings: JobSettings) -> None:
    line = [await folder()]
    for _ in range(12):
        line.append(await folder(parent=line[-1]))
    report = await archive(job_settings, catalog=CATALOG, tables=("folders",))
    assert report.moved == {"folders": 13}
    assert await keys(FOLDERS_ARCHIVE) == set(line)


async def test_a_living_row_at_the_end_of_a_line_keeps_all_before_it(job_settings: JobSettings) -> None:
    line = [await folder()]
    for _ in range(4):
        line.append(await folder(parent=line[-1]))
    side = await folder(parent=line[1])
    living = await folder(parent=line[-1], deleted=False)
    report = await archive(job_settings, catalog=CATALOG, tables=("folders",))
    assert (report.moved, report.kept) == ({"folders": 1}, {"folders": 5})
    assert {row.by_key for row in report.kept_rows} == {str(living)}
    assert await keys(FOLDERS_ARCHIVE) == {side}


async def test_all_kept_rows_are_counted_and_a_hundred_named(job_settings: JobSettings) -> None:
    for _ in range(103):
        await document(await folder(), deleted=False)
    report = await archive(job_settings, catalog=CATALOG, tables=("folders",), batch_rows=10)
    assert (report.moved, report.kept, report.left) == ({"folders": 0}, {"folders": 103}, {})
    assert len({row.key for row in report.kept_rows}) == 100


async def test_a_dry_run_tells_who_would_follow_and_who_would_stay(job_settings: JobSettings) -> None:
    lonely, full, kept = await folder(), await folder(), await folder()
    paper = await document(full)
    await put(REVISIONS, text="a", document_id=paper)
    living = await document(kept, deleted=False)
    report = await archive(job_settings, catalog=CATALOG, tables=("folders",), dry_run=True)
    assert (report.due, report.tried) == ({"folders": 3}, {"folders": 3})
    assert (report.followed, report.kept) == ({"documents": 1, "revisions": 1}, {"folders": 1})
    assert [(row.key, row.by_key) for row in report.kept_rows] == [(str(kept), str(living))]
    assert await keys(FOLDERS) == {lonely, full, kept}
