"""Where archived rows go: the archive table, files, or nowhere."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol
from uuid import UUID

from sqlalchemy import Table, func, insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from db.archives.lines import NotKept, read_lines
from db.archives.moving import delete_proved, move
from db.archives.rows import Chosen, Proof, Shape, Stamp
from db.connection import get_reading_session
from db.mixins import now
from db.models import ArchivePart
from jobs.archive_deleted.part_files import PartFile, make_folder, part_name, write_part


class Keeping(Protocol):
    """The keeping side of one batch."""

    async def take(self, session: AsyncSession, shape: Shape, chosen: Chosen) -> Proof:
        """Keep rows, and delete them; returns what was taken.

        Args:
            session: the batch's.
            shape: their table.
            chosen: the rows: locked, or chosen by their place.

        Raises:
            ProofFailed: what is kept is not what was deleted; roll back.
        """
        ...

    async def settle(self, session: AsyncSession) -> None:
        """Return when all is kept for good; the batch commits after it, and rolls back if it raises."""
        ...

    async def end(self, *, discard: bool) -> None:
        """Called once the transaction is over, in whatever way.

        Args:
            discard: it was rolled back on purpose.
        """
        ...

    @property
    def counters(self) -> dict[str, int]:
        """What the batch adds to the run's counters."""
        ...

    @property
    def last_number(self) -> int:
        """The number of the last file that it has; 0 where it has none."""
        ...


@dataclass(slots=True)
class KeepInTables:
    """Into ``<table>_archive``, in the same transaction."""

    stamp: Stamp
    counters: dict[str, int] = field(default_factory=dict)
    last_number: int = 0

    async def take(self, session: AsyncSession, shape: Shape, chosen: Chosen) -> Proof:
        """Move them."""
        return await move(session, shape, chosen, self.stamp)

    async def settle(self, session: AsyncSession) -> None:
        """The transaction is all."""

    async def end(self, *, discard: bool) -> None:
        """The transaction was all."""


@dataclass(slots=True)
class KeepNothing:
    """They are purged."""

    counters: dict[str, int] = field(default_factory=dict)
    last_number: int = 0

    async def take(self, session: AsyncSession, shape: Shape, chosen: Chosen) -> Proof:
        """Delete them."""
        return await delete_proved(session, shape, chosen, None)

    async def settle(self, session: AsyncSession) -> None:
        """There is nothing to wait for."""

    async def end(self, *, discard: bool) -> None:
        """There is nothing to leave behind."""


@dataclass(slots=True)
class KeepInFiles:
    """Into files, which are durable and read back before the transaction that deletes the rows commits.

    They are packed and written while the database deletes.

    Args:
        stamp: names the run.
        folder: the run's.
        fence: of this attempt.
        first_number: of the next part.
    """

    stamp: Stamp
    folder: Path
    fence: int
    first_number: int
    counters: dict[str, int] = field(default_factory=dict)
    _writing: list[tuple[Shape, Proof, asyncio.Task[PartFile]]] = field(default_factory=list)

    @property
    def last_number(self) -> int:
        """The number of its last file."""
        return self.first_number + len(self._writing) - 1

    async def take(self, session: AsyncSession, shape: Shape, chosen: Chosen) -> Proof:
        """Read them, begin to write them, and delete them meanwhile."""
        proof, lines = await read_lines(session, shape, chosen)
        if proof.rows:
            name = part_name(shape.table.fullname, self.first_number + len(self._writing), self.fence)
            self._writing.append((shape, proof, asyncio.create_task(self._write(name, lines))))
        return await delete_proved(session, shape, chosen, proof)

    async def _write(self, name: str, lines: bytes) -> PartFile:
        def write() -> PartFile:
            make_folder(self.folder)
            return write_part(self.folder, name, lines)

        return await asyncio.to_thread(write)

    async def settle(self, session: AsyncSession) -> None:
        """Wait for the files, and list them.

        Raises:
            OSError: the disk is full, or the folder cannot be written.
            PartUnreadable: what came back is not what was written.
            NotKept: it has not one line for each row.
        """
        parts = [
            KeptPart(self.first_number + place, shape.table, proof.rows, await writing)
            for place, (shape, proof, writing) in enumerate(self._writing)
        ]
        await list_parts(session, self.stamp, parts)
        self.counters = {"files": len(parts), "bytes": sum(part.file.bytes for part in parts)}

    async def end(self, *, discard: bool) -> None:
        """Leave no thread behind. A file stays, unless the batch was taken back on purpose: a commit whose answer was
        lost may have taken place, and then the file holds the only copy."""
        for _, _, writing in self._writing:
            with suppress(Exception):
                part = await writing
                if discard:
                    (self.folder / part.name).unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class KeptPart:
    """A file that rows are to be deleted for."""

    number: int
    table: Table
    rows: int
    file: PartFile


async def list_parts(session: AsyncSession, stamp: Stamp, parts: Sequence[KeptPart]) -> None:
    """Enter files into ``archive_parts``, in the transaction that deletes their rows.

    Args:
        session: the batch's.
        stamp: names the run.
        parts: the files.

    Raises:
        NotKept: one has not one line for each row.
    """
    for part in parts:
        if part.file.rows != part.rows:
            raise NotKept(part.table, f"{part.rows} rows have made {part.file.rows} lines")
    rows = [
        {
            "run_id": stamp.run_id,
            "number": part.number,
            "table_name": part.table.fullname,
            "file": part.file.name,
            "rows": part.file.rows,
            "bytes": part.file.bytes,
            "sha256": part.file.sha256,
            "written_at": now(),
        }
        for part in parts
    ]
    if rows:
        await session.execute(insert(ArchivePart), rows)


async def last_number(run_id: UUID) -> int:
    """Return the greatest number of a run's files; 0 where there is none."""
    async with get_reading_session() as session:
        parts = ArchivePart.__table__.c
        query = select(func.max(parts.number)).where(parts.run_id == run_id)
        return (await session.execute(query)).scalar_one() or 0
