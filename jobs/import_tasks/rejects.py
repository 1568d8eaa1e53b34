"""The file of the rows that an import rejected."""

import csv
import os
import secrets
import shutil
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import BinaryIO, TextIO
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from db.models import ImportReject

HEADER = ("line", "column", "code", "reason", "raw")
PAGE_ROWS = 1000
PAGE_CHARACTERS = 2 * 1024 * 1024
"""How much raw text is held at once; a row may have a whole megabyte."""


async def write_rejects(session: AsyncSession, run_id: UUID, path: Path) -> None:
    """Write a run's rejects as CSV, in the order of the file's lines: whole or not at all, for its owner only.

    Args:
        session: reads the rejects table.
        run_id: whose rejects.
        path: the file to write; its folder is made with mode 0700 if missing.

    Raises:
        OSError: the file cannot be written.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _private_file(path) as file:
        text = TextIOWrapper(file, encoding="utf-8", newline="")
        await _write_pages(session, run_id, text)
        text.detach()


def copy_rejects(written: Path, path: Path) -> None:
    """Copy a file that `write_rejects` wrote: whole or not at all, for its owner only.

    Raises:
        OSError: one cannot be read or the other cannot be written.
    """
    with written.open("rb") as source, _private_file(path) as file:
        shutil.copyfileobj(source, file)


@contextmanager
def _private_file(path: Path) -> Iterator[BinaryIO]:
    partial = path.with_name(f".{secrets.token_hex(8)}.partial")
    try:
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


async def _write_pages(session: AsyncSession, run_id: UUID, file: TextIO) -> None:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(HEADER)
    async for reject in _rejects(session, run_id):
        writer.writerow(reject)


async def _rejects(session: AsyncSession, run_id: UUID) -> AsyncIterator[Sequence[object]]:
    columns = (ImportReject.line, ImportReject.column, ImportReject.code, ImportReject.reason, ImportReject.raw)
    last_line = 0
    while True:
        after = (ImportReject.run_id == run_id, ImportReject.line > last_line)
        sizes = select(ImportReject.line, func.length(ImportReject.raw)).where(*after).order_by(ImportReject.line)
        lines = (await session.execute(sizes.limit(PAGE_ROWS))).all()
        for first, last in _pages(lines):
            page = select(*columns).where(ImportReject.run_id == run_id, ImportReject.line.between(first, last))
            for reject in await session.execute(page.order_by(ImportReject.line)):
                yield reject
        if len(lines) < PAGE_ROWS:
            return
        last_line = lines[-1][0]


def _pages(lines: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Split lines, given with the length of their raw rows, into ranges that are small enough to be held at once."""
    first, last, characters = 0, 0, 0
    for line, length in lines:
        if first and characters + length > PAGE_CHARACTERS:
            yield first, last
            first, characters = 0, 0
        first, last, characters = first or line, line, characters + length
    if first:
        yield first, last
