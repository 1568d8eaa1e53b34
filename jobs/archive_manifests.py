"""Files in the folder of archives that this database does not list, as after it was restored from a backup."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError
from sqlalchemy import Row, Table, delete, insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from db.archives.catalog import Catalog
from db.archives.erasing import mapped_tables
from db.archives.erasures import find_erasures
from db.archives.keys import Key, key_columns
from db.archives.reading import LineUnreadable, read_line
from db.models import ArchivePart, JobRun
from holdfast.requests import ArchiveDeleted, EraseArchived, RestoreArchived
from holdfast.states import LIVE_STATES
from jobs.archive_deleted.folders import MANIFEST
from jobs.archive_deleted.part_files import PartFile, PartUnreadable, read_part
from jobs.settings import JobSettings

CHANGERS = tuple(request.kind for request in (ArchiveDeleted, RestoreArchived, EraseArchived))
"""The kinds that change files and what is listed of them."""


class NotAdopted(Exception):  # noqa: N818
    """Files cannot be listed; the message is one line."""


class ListedPart(BaseModel):
    """A file, as a manifest names it."""

    model_config = ConfigDict(frozen=True)

    number: int = Field(ge=1)
    table: str = Field(max_length=255)
    file: str = Field(max_length=255, pattern=r"^\w[^/\\\x00]*\.ndjson\.zst$")
    rows: int = Field(ge=0)
    bytes: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    written_at: AwareDatetime


class Manifest(BaseModel):
    """What a run says of its files."""

    model_config = ConfigDict(frozen=True)

    format: Literal[1]
    run_id: UUID
    parts: tuple[ListedPart, ...]


@dataclass(frozen=True, slots=True)
class Unlisted:
    """The files of one run that the database does not list, or lists as they were before they were written anew."""

    folder: Path
    run_id: UUID
    parts: tuple[ListedPart, ...]
    former: tuple[int, ...] = ()
    """The numbers of those that are listed and gone: others have taken their place, or nothing was left of them."""
    emptied: tuple[str, ...] = ()
    """The tables of those of which nothing was left."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What lies in the folder."""

    unlisted: list[Unlisted]
    unreadable: list[str]
    """Manifests that are none, one line each."""


async def find_unlisted(session: AsyncSession, settings: JobSettings) -> Seen:
    """Return the files that lie in the folder of all archives, by their manifests, and are not listed."""
    manifests, unreadable = await asyncio.to_thread(_read_manifests, settings.archives_dir)
    found = []
    for manifest in manifests:
        query = select(ArchivePart.number, ArchivePart.table_name, ArchivePart.file)
        rows = (await session.execute(query.where(ArchivePart.run_id == manifest.run_id))).all()
        unlisted = await asyncio.to_thread(_compare, settings.archives_dir, manifest, rows)
        if unlisted.parts or unlisted.former:
            found.append(unlisted)
    return Seen(found, unreadable)


def _compare(folder: Path, manifest: Manifest, rows: Sequence[Row[int, str, str]]) -> Unlisted:
    folder /= str(manifest.run_id)
    named = {part.number: part.file for part in manifest.parts}
    # A listed file that is there is right, and the manifest late: it is written behind the commit that lists the file.
    gone = [row for row in rows if named.get(row.number) != row.file and not (folder / row.file).exists()]
    former = tuple(row.number for row in gone)
    listed = {row.number for row in rows}.difference(former)
    parts = tuple(part for part in manifest.parts if part.number not in listed)
    emptied = tuple(row.table_name for row in gone if row.number not in named)
    return Unlisted(folder, manifest.run_id, parts, former, emptied)


def _read_manifests(folder: Path) -> tuple[list[Manifest], list[str]]:
    manifests, unreadable = [], []
    for path in sorted(folder.glob(f"*/{MANIFEST}")):
        try:
            manifest = Manifest.model_validate_json(path.read_bytes())
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            place = ".".join(map(str, problem["loc"])) or "it"
            unreadable.append(f"{path} is no manifest: {place}: {problem['msg']}")
        except OSError as error:
            unreadable.append(f"{path} cannot be read: {error.strerror}")
        else:
            if str(manifest.run_id) == path.parent.name:
                manifests.append(manifest)
            else:
                unreadable.append(f"{path} is of the run {manifest.run_id}: give its folder that name")
    return manifests, unreadable


async def adopt(session: AsyncSession, catalog: Catalog, unlisted: Unlisted) -> int:
    """List the files of a run, after each was read and found to be what the manifest says.

    Args:
        session: a transaction.
        catalog: the mapped tables.
        unlisted: the files.

    Returns:
        How many of their rows are on the erasure list: they have come back, and are to be erased again.

    Raises:
        NotAdopted: one is missing or damaged, or of no mapped table, or a run is at work that changes files. Nothing is
            listed then.
    """
    states = [state.value for state in LIVE_STATES]
    query = select(JobRun.id, JobRun.kind).where(JobRun.kind.in_(CHANGERS), JobRun.state.in_(states)).limit(1)
    if (run := (await session.execute(query)).first()) is not None:
        raise NotAdopted(f"run {run.id} ({run.kind}) is not over and may change files: say it again after its end")
    tables, erased = mapped_tables(catalog), 0
    for part in unlisted.parts:
        if part.table not in tables:
            raise NotAdopted(f"{unlisted.folder / part.file} is of {part.table[:100]!r}, to which no model is mapped")
    try:
        for part in unlisted.parts:
            keys = await asyncio.to_thread(_checked_keys, unlisted.folder, part, tables[part.table])
            erased += len(await find_erasures(session, tables[part.table], keys))
    except (PartUnreadable, LineUnreadable) as error:
        raise NotAdopted(f"{error}; nothing of run {unlisted.run_id} is listed") from error
    former = (ArchivePart.run_id == unlisted.run_id, ArchivePart.number.in_(unlisted.former))
    await session.execute(delete(ArchivePart).where(*former))
    if unlisted.parts:
        await session.execute(insert(ArchivePart), [_row(unlisted.run_id, part) for part in unlisted.parts])
    return erased


def _checked_keys(folder: Path, part: ListedPart, table: Table) -> list[Key]:
    """Return the keys of a file, each line of which has been read."""
    packed = read_part(folder, PartFile(part.file, part.rows, part.bytes, part.sha256))
    lines: Sequence[str] = packed.decode().split("\n")[:-1]
    if len(lines) != part.rows:
        raise PartUnreadable(f"{folder / part.file} has {len(lines)} rows, its manifest says {part.rows}")
    columns = [column.name for column in key_columns(table)]
    rows = (read_line(table, line) for line in lines)
    return [tuple(row[name] for name in columns) for row in rows]


def _row(run_id: UUID, part: ListedPart) -> dict[str, object]:
    return {
        "run_id": run_id,
        "number": part.number,
        "table_name": part.table,
        "file": part.file,
        "rows": part.rows,
        "bytes": part.bytes,
        "sha256": part.sha256,
        "written_at": part.written_at,
    }
