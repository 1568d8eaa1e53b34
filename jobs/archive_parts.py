"""Taking rows out of the files of archives: a file is written anew without them, and replaces the old one.

The new file is durable before the transaction commits that lists it; the old one is removed after that. What a killed
worker leaves behind is removed by whoever goes on with its run.
"""

import asyncio
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from sqlalchemy import Table, delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from db.archives.contents import PartName
from db.archives.keys import Key
from db.archives.reading import LineUnreadable, read_key
from db.models import ArchivePart, JobRun
from holdfast.states import LIVE_STATES
from jobs.archive_deleted.folders import rewrite_manifest
from jobs.archive_deleted.part_files import PartFile, PartUnreadable, sync_folder, write_part
from jobs.archive_files import FoundInFiles, Part, lines_of, part_of
from jobs.context import RunContext
from jobs.outcomes import JobSnoozed

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
    mark = f"{context.run_id.hex}-{context.fence}-{secrets.token_hex(4)}"
    name = f"{part.table}-{part.number:06d}.{mark}.ndjson.zst"
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
        async with context.batch() as batch:
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
        async with context.batch() as batch:
            await _remove_leftovers(batch.session, context)


async def _remove_leftovers(session: AsyncSession, context: RunContext) -> None:
    """Remove files that earlier attempts of this run have written and never listed; the session has the run locked."""
    folder = context.settings.archives_dir
    written = await asyncio.to_thread(lambda: list(folder.glob(f"*/*.{context.run_id.hex}-*")))
    if not written:
        return
    query = select(ArchivePart.file).where(ArchivePart.file.in_([path.name for path in written]))
    listed = set(await session.scalars(query))
    for path in written:
        if path.name not in listed:
            await asyncio.to_thread(path.unlink, missing_ok=True)
