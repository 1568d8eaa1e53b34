"""Taking rows out of the files of archives: a file is written anew without them, and replaces the old one.

The new file is durable before the transaction commits that lists it; the old one is removed after that. What a killed
worker leaves behind is removed by whoever goes on with its run, or by ``close_ended_runs``.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from sqlalchemy import Table, delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from db.archives.contents import PartName
from db.archives.keys import Key
from db.archives.reading import LineUnreadable, read_key
from db.models import ArchivePart, JobRun
from db.repositories.installation import without_inherited
from holdfast.states import LIVE_STATES
from jobs.archive_deleted.folders import NOT_OURS, rewrite_manifest, told_files
from jobs.archive_deleted.part_files import (
    PartFile,
    PartUnreadable,
    rewriter_of,
    rewritten_name,
    sync_folder,
    usable,
    write_part,
)
from jobs.archive_files import FoundInFiles, Part, lines_of, part_of
from jobs.context import RunContext
from jobs.outcomes import JobCancelled, JobFailed, JobSnoozed

RUN_IS_LIVE_S = 2.0
"""Seconds after which files are looked at again whose archive run is not over."""


class PartsChanged(Exception):  # noqa: N818
    """Somebody else has changed a file since it was read: read it again."""


Taken = Mapping[PartName, Mapping[str, set[Key]]]
"""What is to be taken out: file -> table -> keys."""


@dataclass(frozen=True, slots=True)
class TakenOut:
    """What ``take_out`` has done."""

    taken: Taken
    old: list[str]
    """The old files, below the folder of all archives: to be removed when it is committed (``settle``)."""
    read: dict[PartName, str | None]
    """The SHA-256 of the new ones; None where nothing was left."""


async def lock_parts(
    session: AsyncSession, context: RunContext, names: Iterable[PartName], found: FoundInFiles
) -> list[Part]:
    """Lock files in the list, so that nobody else changes them before this transaction ends.

    Call it when the rows in tables are locked, or known to be in none: whoever archives them has listed his file by
    then, or cannot any more.

    Args:
        session: the transaction.
        context: the run.
        names: which files.
        found: what was read from files before.

    Raises:
        PartsChanged: one has been changed or removed since, or is new.
        JobSnoozed: the archive run that writes them is not over.
    """
    listed = select(ArchivePart.run_id, ArchivePart.number).where(ArchivePart.table_name.in_(found.tables))
    new = {(row.run_id, row.number) for row in await session.execute(listed)} - found.read.keys()
    if new:
        raise PartsChanged(f"{len(new)} files are new")
    parts = []
    for run_id, number in sorted(names):
        query = select(ArchivePart).where(ArchivePart.run_id == run_id, ArchivePart.number == number)
        if session.get_bind().dialect.name != "sqlite":
            query = query.with_for_update()
        row = (await session.scalars(query)).one_or_none()
        if row is None or row.sha256 != found.read[run_id, number]:
            raise PartsChanged(f"part {number} of run {run_id}")
        parts.append(part_of(context.settings, row))
    runs = {part.run_id for part in parts}
    states = [state.value for state in LIVE_STATES]
    live = select(JobRun.id).where(JobRun.id.in_(runs), JobRun.state.in_(states))
    if runs and (await session.execute(live)).first() is not None:
        raise JobSnoozed(RUN_IS_LIVE_S)
    return parts


async def take_out(
    session: AsyncSession, context: RunContext, parts: Sequence[Part], *, taken: Taken, tables: Mapping[str, Table]
) -> TakenOut:
    """Write files anew without some of their rows, and list the new ones.

    Args:
        session: the transaction that has the parts locked.
        context: the run, whose name the new files bear.
        parts: the files.
        taken: what is to be taken out.
        tables: the mapped tables by their name.

    Returns:
        What has become of the files, once this is committed.
    """
    done = TakenOut(taken, [], {})
    for part in parts:
        table, keys = tables[part.table], taken[part.run_id, part.number].get(part.table, set())
        rewritten = await asyncio.to_thread(_rewrite, part, table, keys, context)
        this = (ArchivePart.run_id == part.run_id, ArchivePart.number == part.number)
        if rewritten is None:
            await session.execute(delete(ArchivePart).where(*this))
        else:
            values = {"rows": rewritten.rows, "bytes": rewritten.bytes, "sha256": rewritten.sha256}
            await session.execute(update(ArchivePart).where(*this).values(file=rewritten.name, **values))
        done.old.append(f"{part.run_id}/{part.file.name}")
        done.read[part.run_id, part.number] = None if rewritten is None else rewritten.sha256
    return done


def _rewrite(part: Part, table: Table, keys: set[Key], context: RunContext) -> PartFile | None:
    try:
        kept = [f"{line}\n" for line in lines_of(part) if read_key(table, line) not in keys]
    except LineUnreadable as error:
        raise PartUnreadable(f"{part.folder / part.file.name}: {error}") from error
    if not kept:
        return None
    # Not named as its archive run names files: that one removes those which it has not listed.
    name = rewritten_name(part.table, part.number, context.run_id, context.fence)
    return write_part(part.folder, name, "".join(kept).encode())


async def settle(context: RunContext, old: Sequence[str]) -> None:
    """Remove files that were replaced, and write the manifests of their runs anew. It may be called again.

    Args:
        context: the run that has replaced them.
        old: what ``take_out`` has replaced.
    """
    by_run: dict[str, list[str]] = {}
    for place in old:
        run, _, name = place.partition("/")
        by_run.setdefault(run, []).append(name)
    for run, names in by_run.items():
        # Whoever cancels the run meanwhile comes too late: what was taken out must not stay in the old file.
        async with context.batch(although_cancelled=True) as batch:
            query = select(ArchivePart).where(ArchivePart.run_id == UUID(run)).order_by(ArchivePart.number)
            if batch.session.get_bind().dialect.name != "sqlite":
                query = query.with_for_update()
            rows = list(await batch.session.scalars(query))
            await asyncio.to_thread(_settle, context.settings.archives_dir / run, names, rows)


def _settle(folder: Path, old: Sequence[str], rows: Sequence[ArchivePart]) -> None:
    listed = {row.file for row in rows}
    rewrite_manifest(folder, rows)
    for name in old:
        if name not in listed:
            (folder / name).unlink(missing_ok=True)
    if folder.is_dir():
        sync_folder(folder)


async def begin_again(context: RunContext, old: Sequence[str]) -> None:
    """Tidy up behind an attempt that died, before its run goes on.

    Args:
        context: the run.
        old: what its last committed step has replaced.
    """
    if old:
        await settle(context, old)
    if context.fence > 1:
        await remove_leftovers(context)


@asynccontextmanager
async def tidying(context: RunContext) -> AsyncIterator[None]:
    """Remove at the end of a run what it has written and never listed; also where it fails or is cancelled.

    Args:
        context: the run.
    """
    try:
        yield
    except (JobCancelled, JobFailed):
        # What cannot be done now is left to ``close_ended_runs``: the error that ends the run is the one to be told.
        with suppress(Exception):
            await remove_leftovers(context, although_cancelled=True)
        raise
    await remove_leftovers(context)


async def remove_leftovers(context: RunContext, *, although_cancelled: bool = False) -> None:
    """Remove files that this run has written and never listed, in whichever attempt.

    Args:
        context: the run; none of its batches is open.
        although_cancelled: as for ``RunContext.batch``.

    Raises:
        FolderUnusable: one may not be removed.
        OSError: one cannot be removed now.
    """
    folder = context.settings.archives_dir
    async with context.batch(although_cancelled=although_cancelled) as batch:
        written = await asyncio.to_thread(lambda: list(folder.glob(f"*/*.{context.run_id.hex}-*")))
        fences = await without_inherited(batch.session, {context.run_id: context.fence})
        await remove_rewritten(batch.session, written, fences)


async def remove_rewritten(session: AsyncSession, paths: Iterable[Path], fences: Mapping[UUID, int]) -> set[Path]:
    """Remove files that runs have written anew, and that neither the list nor a manifest names.

    Args:
        session: where the list is read.
        paths: files of archives, whoever has written them.
        fences: the runs whose files may go, with the last fence that counts: no batch of it can commit meanwhile.

    Returns:
        The folders in which there were any.

    Raises:
        FolderUnusable: one may not be removed.
        OSError: one cannot be removed now.
    """
    written = []
    for path in paths:
        rewriter = rewriter_of(path.name)
        if rewriter is not None and rewriter[1] <= fences.get(rewriter[0], NOT_OURS):
            written.append(path)
    if not written:
        return set()
    query = select(ArchivePart.file).where(ArchivePart.file.in_([path.name for path in written]))
    listed = set(await session.scalars(query))
    return await asyncio.to_thread(_remove, [path for path in written if path.name not in listed])


def _remove(paths: Sequence[Path]) -> set[Path]:
    told = {folder: told_files(folder) for folder in {path.parent for path in paths}}
    unlisted = [path for path in paths if path.name not in told[path.parent]]
    for path in unlisted:
        with usable(path.parent):
            path.unlink(missing_ok=True)
    return {path.parent for path in unlisted}
