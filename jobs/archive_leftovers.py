"""What runs have left in the folders of archives that ended while nobody performed them, or were cut off at their end.

A run that was cancelled while it waited, or that was quarantined, may have left files which no transaction has listed:
copies of rows that are in their tables, or were erased since. Archive runs write into folders of their own; those that
restore or erase write files of any archive run anew.
"""

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from db.archives.catalog import Catalog
from db.archives.drift import find_shape
from db.archives.erasing import mapped_tables
from db.archives.rows import Shape
from db.connection import get_reading_session
from db.models import ArchivePart
from db.repositories.installation import without_inherited
from holdfast.outbox import job_runs, job_runs_history
from holdfast.requests import ArchiveDeleted, EraseArchived, RestoreArchived
from holdfast.states import RunState
from jobs.archive_deleted.folders import MANIFEST, NOT_OURS, close_folder, remove_unlisted, unlisted
from jobs.archive_deleted.part_files import rewriter_of
from jobs.archive_manifests import Manifest
from jobs.archive_parts import remove_rewritten
from jobs.settings import JobSettings

RUNS_A_QUERY = 500
REWRITERS = (RestoreArchived.kind, EraseArchived.kind)
"""The kinds that write files of archive runs anew."""


@dataclass(frozen=True, slots=True)
class _Folder:
    """What lies in the folder of a run."""

    path: Path
    files: frozenset[str]
    told: frozenset[str]
    """The files that its manifest names."""

    def has_work(self, fence: int, listed: Collection[str]) -> bool:
        """Whether anything is to be removed, or the manifest to be written, of a run that is over.

        A file that the manifest names and the database does not list was listed once, by a database that an older
        backup has replaced: it may be the only copy of its rows, and ``archives adopt`` lists it again.
        """
        if self.told.intersection(self.files).difference(listed):
            return False
        return bool(unlisted(self.files, fence, listed)) or (bool(listed) and self.told != set(listed))


async def close_ended_runs(settings: JobSettings, catalog: Catalog) -> int:
    """Remove the files that runs have not listed which are over, and write the manifests that are missing.

    Nothing is touched of a run that is live or that neither the ledger nor the history knows, nor of an attempt later
    than the last one that they know. Of a run that was enqueued before this database was adopted no file is removed.

    Args:
        settings: where the folders are.
        catalog: the mapped tables.

    Returns:
        In how many folders there was something to do.

    Raises:
        FolderUnusable: one may not be written.
        OSError: one cannot be written now.
    """
    folders = await asyncio.to_thread(_odd_folders, settings.archives_dir)
    run_ids, closed = list(folders), set[Path]()
    for start in range(0, len(run_ids), RUNS_A_QUERY):
        async with get_reading_session() as session:
            # Before the list: from a run that is over, no batch can commit any more.
            fences = await _fences_of_ended(session, run_ids[start : start + RUNS_A_QUERY], [ArchiveDeleted.kind])
            for run_id, fence in fences.items():
                query = select(ArchivePart).where(ArchivePart.run_id == run_id).order_by(ArchivePart.number)
                parts, folder = list(await session.scalars(query)), folders[run_id]
                listed = {part.file for part in parts}
                if not folder.has_work(fence, listed):
                    continue
                closed.add(folder.path)
                if folder.told == listed:
                    await asyncio.to_thread(remove_unlisted, folder.path, fence, listed)
                else:
                    shapes = await _shapes(session, catalog, {part.table_name for part in parts})
                    await asyncio.to_thread(close_folder, folder.path, fence, parts=parts, shapes=shapes)
    return len(closed | await _remove_rewritten(folders.values()))


async def _remove_rewritten(folders: Collection[_Folder]) -> set[Path]:
    """Remove what runs that are over have written anew and not listed; returns in which folders."""
    untold = {folder.path / name: rewriter_of(name) for folder in folders for name in folder.files - folder.told}
    paths, removed = [path for path, rewriter in untold.items() if rewriter is not None], set[Path]()
    for start in range(0, len(paths), RUNS_A_QUERY):
        some = paths[start : start + RUNS_A_QUERY]
        run_ids = {rewriter[0] for path in some if (rewriter := untold[path]) is not None}
        async with get_reading_session() as session:
            fences = await _fences_of_ended(session, run_ids, REWRITERS)
            removed |= await remove_rewritten(session, some, fences)
    return removed


def _odd_folders(archives: Path) -> dict[UUID, _Folder]:
    """Return the folders of runs whose files are not just those that their manifest names."""
    found: dict[UUID, _Folder] = {}
    try:
        paths = list(archives.iterdir())
    except OSError:  # there is none, or it is another worker's
        return found
    for path in paths:
        folder = _read_folder(path)
        if folder is not None and folder.files != folder.told:
            found[UUID(path.name)] = folder
    return found


def _read_folder(path: Path) -> _Folder | None:
    """Return what lies in a folder; None: it is not a run's, or its manifest cannot be read."""
    try:
        if str(UUID(path.name)) != path.name or not path.is_dir():
            return None
        names = [one.name for one in path.iterdir()]
        told: frozenset[str] = frozenset()
        if MANIFEST in names:
            manifest = Manifest.model_validate_json((path / MANIFEST).read_bytes())
            if str(manifest.run_id) != path.name:
                return None
            told = frozenset(part.file for part in manifest.parts)
    except (ValueError, OSError):
        return None
    files = frozenset(name for name in names if name.endswith((".ndjson.zst", ".ndjson.zst.partial")))
    return _Folder(path, files, told)


async def _fences_of_ended(session: AsyncSession, run_ids: Collection[UUID], kinds: Collection[str]) -> dict[UUID, int]:
    """Return the runs of these kinds that are over, with the fence up to which their files may be removed."""
    found: dict[UUID, tuple[str, int]] = {}
    for table in (job_runs, job_runs_history):  # a run that is retried from the history at this moment is in both
        query = select(table.c.id, table.c.state, table.c.fence)
        rows = await session.execute(query.where(table.c.id.in_(run_ids), table.c.kind.in_(kinds)))
        found = {row.id: (row.state, row.fence) for row in rows} | found
    fences = {run_id: fence for run_id, (state, fence) in found.items() if RunState(state).is_over}
    return dict.fromkeys(fences, NOT_OURS) | await without_inherited(session, fences)


async def _shapes(session: AsyncSession, catalog: Catalog, names: Collection[str]) -> Mapping[str, Shape]:
    tables = mapped_tables(catalog)
    known = [tables[name] for name in names if name in tables]
    return {
        table.fullname: (await find_shape(session, catalog, table, archived=False, leaves=False)).shape
        for table in known
    }
