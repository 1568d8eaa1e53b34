"""The folder of a run: its manifest, and the files in it that do not count."""

import json
import os
import secrets
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from db.archives.rows import Shape
from db.models import ArchivePart
from jobs.archive_deleted.part_files import fence_of, sync_folder, usable

MANIFEST = "manifest.json"
FORMAT = 1
NOT_OURS = 0
"""The fence of a run of which nothing may be removed: before that of any attempt."""


def close_folder(folder: Path, fence: int, *, parts: Sequence[ArchivePart], shapes: Mapping[str, Shape]) -> None:
    """Remove what an archive run has written and not listed, and write its manifest where all that is listed is there.

    A manifest that names other files that are there, too, is left as it is: another database has listed them.

    Args:
        folder: the run's; it may be missing.
        fence: of its last attempt, from which no batch can commit any more; ``NOT_OURS``: nothing is to be removed.
        parts: all that it has listed, by number.
        shapes: of the tables, as far as they are known.

    Raises:
        FolderUnusable: it may not be written.
        OSError: it cannot be written now.
    """
    listed = {part.file for part in parts}
    remove_unlisted(folder, fence, listed)
    if parts and all(is_there(folder, part) for part in parts) and not _tells_of_others(folder, listed):
        with usable(folder):
            _write_manifest(folder, shapes, parts)


def remove_unlisted(folder: Path, fence: int, listed: Collection[str]) -> None:
    """Remove the files of a run's folder that ``unlisted`` names; the folder may be missing.

    Raises:
        FolderUnusable: it may not be written.
        OSError: it cannot be written now.
    """
    if folder.is_dir():
        with usable(folder):
            for name in unlisted([path.name for path in folder.iterdir()], fence, listed):
                (folder / name).unlink(missing_ok=True)


def unlisted(names: Iterable[str], fence: int, listed: Collection[str]) -> list[str]:
    """Return the files of archive runs, finished or not, that no transaction has listed.

    Args:
        names: of files.
        fence: of the last attempt that counts. A later one's would be of somebody who has overtaken this one.
        listed: the names that are.
    """
    return [name for name in names if name not in listed and (of := fence_of(name)) is not None and of <= fence]


def told_files(folder: Path) -> set[str]:
    """Return the files that a run's manifest names; none where there is no manifest, or it is none."""
    try:
        return {part["file"] for part in json.loads((folder / MANIFEST).read_bytes())["parts"]}
    except (FileNotFoundError, ValueError, LookupError, TypeError):
        return set()


def _tells_of_others(folder: Path, listed: Collection[str]) -> bool:
    return any((folder / name).is_file() for name in told_files(folder).difference(listed))


def is_there(folder: Path, part: ArchivePart) -> bool:
    """Whether a listed file is there and has its length."""
    path = folder / part.file
    return path.is_file() and path.stat().st_size == part.bytes


def _write_manifest(folder: Path, shapes: Mapping[str, Shape], parts: Sequence[ArchivePart]) -> None:
    tables = sorted({part.table_name for part in parts} & shapes.keys())
    described = {
        name: {
            "key": [column.name for column in shapes[name].table.primary_key.columns],
            "columns": shapes[name].types,
            **_sums(name, parts),
        }
        for name in tables
    }
    _store(folder, {"format": FORMAT, "run_id": folder.name, "tables": described, "parts": list(map(_told, parts))})


def rewrite_manifest(folder: Path, parts: Sequence[ArchivePart]) -> None:
    """Write the manifest of a run anew, if it has one, behind a change of its files.

    Args:
        folder: the run's.
        parts: all that are listed of it, by number.
    """
    path = folder / MANIFEST
    if not path.is_file():
        return
    document: dict[str, Any] = json.loads(path.read_bytes())
    document["parts"] = list(map(_told, parts))
    for name, described in document["tables"].items():
        described.update(_sums(name, parts))
    _store(folder, document)


def _told(part: ArchivePart) -> dict[str, Any]:
    return {
        "number": part.number,
        "table": part.table_name,
        "file": part.file,
        "rows": part.rows,
        "bytes": part.bytes,
        "sha256": part.sha256,
        "written_at": part.written_at.isoformat(),
    }


def _sums(table: str, parts: Sequence[ArchivePart]) -> dict[str, int]:
    own = [part for part in parts if part.table_name == table]
    return {"rows": sum(part.rows for part in own), "bytes": sum(part.bytes for part in own)}


def _store(folder: Path, document: dict[str, Any]) -> None:
    # A name of its own: two workers may write it at the same moment.
    partial = folder / f".{MANIFEST}.{secrets.token_hex(4)}.partial"
    for is_last in (False, True):
        try:
            _write(partial, document)
            partial.replace(folder / MANIFEST)
            break
        except FileNotFoundError:  # another worker has taken it for that of a dead one
            if is_last:
                raise
        finally:
            partial.unlink(missing_ok=True)
    for of_dead in folder.glob(f".{MANIFEST}.*partial"):
        of_dead.unlink(missing_ok=True)
    sync_folder(folder)


def _write(partial: Path, document: dict[str, Any]) -> None:
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        json.dump(document, file, ensure_ascii=False, indent=1)
        file.flush()
        os.fsync(file.fileno())
