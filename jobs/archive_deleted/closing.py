"""The end of a run: the manifest of its files, and the report."""

import asyncio
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.engine import Row

from db.archives.rows import Shape
from db.models import ArchivePart
from holdfast.requests import ArchiveDeleted, ArchiveReport, KeptRow
from jobs.archive_deleted.part_files import PartUnreadable, fence_of, sync_folder
from jobs.archive_deleted.plan import Plan
from jobs.archive_deleted.state import EndedBy, Progressed
from jobs.context import RunContext

MANIFEST = "manifest.json"
FORMAT = 1


@dataclass(frozen=True, slots=True)
class Files:
    """What a run has written."""

    folder: Path
    count: int
    bytes: int


async def close_files(context: RunContext, plan: Plan) -> Files | None:
    """Check that every listed file is there, remove those of dead attempts, and write the manifest.

    Returns:
        None where nothing was written.

    Raises:
        PartUnreadable: a file is missing or has another length.
    """
    folder = context.settings.archives_dir / str(context.run_id)
    async with context.batch() as batch:  # nobody else has the run meanwhile
        query = select(ArchivePart.__table__).where(ArchivePart.run_id == context.run_id).order_by(ArchivePart.number)
        parts = (await batch.session.execute(query)).all()
        if not parts:
            return None
        await asyncio.to_thread(_close, folder, context, plan, parts)
    return Files(folder, len(parts), sum(part.byte_count for part in parts))


def _close(folder: Path, context: RunContext, plan: Plan, parts: Sequence[Row[Any]]) -> None:
    for part in parts:
        path = folder / part.file
        if not path.is_file() or path.stat().st_size != part.byte_count:
            raise PartUnreadable(f"{path} is missing or cut off, though its rows were archived: bring it back")
    listed = {part.file for part in parts}
    for path in folder.iterdir():
        fence = fence_of(path.name)
        # An attempt died before it could commit. A later one's would be of somebody who has overtaken this one.
        if path.name not in listed and fence is not None and fence <= context.fence:
            path.unlink()
    _write_manifest(folder, context.run_id, plan, parts)


def _write_manifest(folder: Path, run_id: UUID, plan: Plan, parts: Sequence[Row[Any]]) -> None:
    tables = {part.table_name for part in parts}
    document = {
        "format": FORMAT,
        "run_id": str(run_id),
        "tables": {name: _described(plan.shapes[name], parts) for name in sorted(tables)},
        "parts": [
            {
                "number": part.number,
                "table": part.table_name,
                "file": part.file,
                "rows": part.row_count,
                "bytes": part.byte_count,
                "sha256": part.sha256,
                "written_at": part.written_at.isoformat(),
            }
            for part in parts
        ],
    }
    partial = folder / f".{MANIFEST}.partial"
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        json.dump(document, file, ensure_ascii=False, indent=1)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(folder / MANIFEST)
    sync_folder(folder)


def _described(shape: Shape, parts: Sequence[Row[Any]]) -> dict[str, Any]:
    own = [part for part in parts if part.table_name == shape.table.fullname]
    return {
        "key": [column.name for column in shape.table.primary_key.columns],
        "columns": shape.types,
        "rows": sum(part.row_count for part in own),
        "bytes": sum(part.byte_count for part in own),
    }


def make_report(request: ArchiveDeleted, done: Progressed, ended_by: EndedBy, files: Files | None) -> ArchiveReport:
    """Return the report of a run that is over."""
    state, counters = done.state, done.counters
    moved = {share.name: 0 for share in state.tables}
    moved |= {name.removeprefix("moved:"): rows for name, rows in counters.items() if name.startswith("moved:")}
    elapsed_s = max(state.elapsed_s, 0.001)
    return ArchiveReport(
        destination=request.destination,
        moved=moved,
        due={share.name: share.due for share in state.tables},
        kept={share.name: share.kept for share in state.tables if share.kept},
        kept_rows=tuple(KeptRow(**row) for row in state.kept_rows),
        left={share.name: share.left for share in state.tables if share.left},
        checksums={name: str(checksum) for name, checksum in state.checksums.items()},
        ended_by=ended_by,
        batches=counters.get("batches", 0),
        longest_batch_ms=round(state.longest_s * 1000, 1),
        paused_s=round(state.paused_s, 3),
        folder=None if files is None else str(files.folder),
        files=0 if files is None else files.count,
        bytes=0 if files is None else files.bytes,
        duration_s=round(elapsed_s, 3),
        rows_per_s=round(sum(moved.values()) / elapsed_s, 1),
    )
