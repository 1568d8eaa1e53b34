"""Files that are written ahead of the transaction that deletes their rows (PostgreSQL, page by page).

While one batch deletes, the rows of the next ones are read, packed, written, made durable and read back, without a
lock. The deletion then proves by count and checksum that it takes the very rows of the file; where others have changed
one meanwhile it takes back what it did, and the pages are taken row by row. What was written in vain is not listed, and
is removed when the attempt ends, or the run.
"""

import asyncio
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from sqlalchemy import Table
from sqlalchemy.ext.asyncio import AsyncSession

from db.archives.lines import read_lines
from db.archives.moving import delete_proved
from db.archives.rows import Chosen, Proof, Shape, Stamp
from db.archives.walks import Stretch
from db.connection import get_reading_session
from jobs.archive_deleted.destinations import KeptPart, list_parts
from jobs.archive_deleted.part_files import PartFile, make_folder, part_name, write_part

DEPTH = 2
"""So many batches are written ahead; each waits in memory for its turn."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the files of an attempt go."""

    stamp: Stamp
    folder: Path
    fence: int


class KeptAhead:
    """The keeping side of a batch whose rows stand in a file already."""

    def __init__(self, place: Place, table: Table, number: int, written: tuple[Proof, PartFile | None]) -> None:
        self._place = place
        self._table = table
        self.last_number = number
        self._proof, self._part = written
        self.counters: dict[str, int] = {}

    async def take(self, session: AsyncSession, shape: Shape, chosen: Chosen) -> Proof:
        """Delete the rows of the file."""
        return await delete_proved(session, shape, chosen, self._proof)

    async def settle(self, session: AsyncSession) -> None:
        """List the file."""
        if self._part is not None:
            part = KeptPart(self.last_number, self._table, self._proof.rows, self._part)
            await list_parts(session, self._place.stamp, [part])
            self.counters = {"files": 1, "bytes": self._part.bytes}

    async def end(self, *, discard: bool) -> None:
        """The file stays: a commit whose answer was lost may have taken place."""


@dataclass(slots=True)
class _Written:
    stretch: Stretch
    number: int
    task: asyncio.Task[tuple[Proof, PartFile | None]]


class Ahead:
    """Writes the files of a walk by pages ahead of its batches."""

    def __init__(self, place: Place, shape: Shape) -> None:
        self._place = place
        self._shape = shape
        self._coming: deque[_Written] = deque()

    async def next(self, stretch: Stretch, first_number: int) -> tuple[Stretch, KeptAhead]:
        """Return the next stretch as it was written, and its keeping side.

        Args:
            stretch: where the walk stands; its count is for those that are not begun yet.
            first_number: of the next part, if none is begun.
        """
        while len(self._coming) < DEPTH:
            last = self._coming[-1] if self._coming else None
            walk = stretch.walk if last is None else last.stretch.pages()[1]
            if walk.is_over:
                break
            number = first_number if last is None else last.number + 1
            self._begin(replace(stretch, walk=walk), number)
        written = self._coming.popleft()
        kept = KeptAhead(self._place, self._shape.table, written.number, await written.task)
        return written.stretch, kept

    async def end(self) -> None:
        """Leave no task behind, and no file that was written for a batch which has not begun."""
        while self._coming:
            with suppress(Exception):
                _, part = await self._coming.popleft().task
                if part is not None:
                    (self._place.folder / part.name).unlink(missing_ok=True)

    def _begin(self, stretch: Stretch, number: int) -> None:
        self._coming.append(_Written(stretch, number, asyncio.create_task(self._write(stretch, number))))

    async def _write(self, stretch: Stretch, number: int) -> tuple[Proof, PartFile | None]:
        chosen, _ = stretch.pages()
        async with get_reading_session() as session:
            proof, lines = await read_lines(session, self._shape, chosen)
        if not proof.rows:
            return proof, None
        name = part_name(self._shape.table.fullname, number, self._place.fence)

        def write() -> PartFile:
            make_folder(self._place.folder)
            return write_part(self._place.folder, name, lines)

        return proof, await asyncio.to_thread(write)
