"""The spool: copies of files that the command line hands over to a worker."""

import hashlib
import os
import secrets
import time
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from holdfast.requests import ImportTasks
from jobs.settings import JobSettings

CHUNK_BYTES = 1024 * 1024
ABANDONED_AFTER_S = 24 * 3600.0
"""A spooled file that no run needs is removed after so many seconds: its enqueueing must have had its time."""


def spool(file: BinaryIO, spool_dir: Path) -> Path:
    """Copy a file into the spool.

    Args:
        file: read to its end from where it stands.
        spool_dir: made with mode 0700 if missing, as is the data folder that it lies in.

    Returns:
        The copy, named by its SHA-256 and a few random digits: each run has a copy of its own to remove.

    Raises:
        OSError: the spool cannot be written, for example because the disk is full. Nothing is left behind then.
    """
    for folder in (spool_dir.parent, spool_dir):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # parents=True gives the mode to the last one only
    digest, suffix = hashlib.sha256(), secrets.token_hex(4)
    partial = spool_dir / f".{suffix}.partial"
    try:
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as copy:
            while chunk := file.read(CHUNK_BYTES):
                digest.update(chunk)
                copy.write(chunk)
            copy.flush()
            os.fsync(copy.fileno())
        return partial.replace(spool_dir / f"{digest.hexdigest()}-{suffix}")
    finally:
        partial.unlink(missing_ok=True)


def clean_up(settings: JobSettings, request: ImportTasks) -> None:
    """Remove a run's spooled copy. A file that was not spooled is nobody's to remove."""
    source = Path(request.source)
    if source.parent == settings.spool_dir:
        source.unlink(missing_ok=True)


def sweep(spool_dir: Path, needed: set[str]) -> int:
    """Remove copies that no run needs any more, such as those of runs whose worker died at their very end.

    Args:
        spool_dir: the spool; it may be missing.
        needed: the sources of every run that may still read its file.

    Returns:
        How many were removed.
    """
    removed = 0
    for path in spool_dir.glob("*") if spool_dir.is_dir() else ():
        with suppress(FileNotFoundError):  # its run ended at this moment
            if str(path) not in needed and path.stat().st_mtime < time.time() - ABANDONED_AFTER_S:
                path.unlink()
                removed += 1
    return removed
