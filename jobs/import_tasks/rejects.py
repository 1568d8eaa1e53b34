"""The file of the rows that an import rejected."""

import csv
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TextIO
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from db.models import ImportReject

HEADER = ("line", "column", "code", "reason", "raw")
PAGE_ROWS = 1000


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
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        private = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(private, "w", encoding="utf-8", newline="") as file:
            await _write_pages(session, run_id, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


async def _write_pages(session: AsyncSession, run_id: UUID, file: TextIO) -> None:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(HEADER)
    async for reject in _pages(session, run_id):
        writer.writerow((reject.line, reject.column, reject.code, reject.reason, reject.raw))


async def _pages(session: AsyncSession, run_id: UUID) -> AsyncIterator[ImportReject]:
    last_line = 0
    while True:
        query = (
            select(ImportReject)
            .where(ImportReject.run_id == run_id, ImportReject.line > last_line)
            .order_by(ImportReject.line)
            .limit(PAGE_ROWS)
        )
        page = (await session.execute(query)).scalars().all()
        for reject in page:
            yield reject
        if len(page) < PAGE_ROWS:
            return
        last_line = page[-1].line
        session.expunge_all()
