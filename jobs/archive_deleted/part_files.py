"""The files of an archive: written whole, made durable, read back, and only then relied on.

``ARCHIVE_DIR/<run>/<table>-<number>.<fence>.ndjson.zst``, one for each batch and table. The fence is in the name, so
that a worker which was overtaken, and wakes up, cannot write into a file of its successor. What the table
``archive_parts`` does not list was never relied on.
"""

import errno
import hashlib
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import zstandard

LEVEL = 3
MOST_WINDOW_BYTES = 1 << 27
UNUSABLE = frozenset(
    {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG}
)


class FolderUnusable(Exception):  # noqa: N818
    """Files cannot be written where they have to go, and time will not change that; the message is one line."""


class PartUnreadable(Exception):  # noqa: N818
    """A file does not hold what was written to it; the message is one line."""


@dataclass(frozen=True, slots=True)
class PartFile:
    """One file, as it lies there."""

    name: str
    rows: int
    bytes: int
    sha256: str


def part_name(table: str, number: int, fence: int) -> str:
    """Return the name of a part's file."""
    return f"{table}-{number:06d}.{fence}.ndjson.zst"


def fence_of(name: str) -> int | None:
    """Return the fence in the name of a part's file, finished or not; None where it is none."""
    found = re.search(r"\.(\d+)\.ndjson\.zst(\.partial)?$", name)
    return None if found is None else int(found[1])


def rewritten_name(table: str, number: int, run_id: UUID, fence: int) -> str:
    """Return a new name for a part that another run writes anew, so that its archive run does not take it for its own.

    Args:
        table: whose rows it holds.
        number: the part's.
        run_id: the run that writes it.
        fence: of that run.
    """
    return f"{table}-{number:06d}.{run_id.hex}-{fence}-{secrets.token_hex(4)}.ndjson.zst"


def rewriter_of(name: str) -> tuple[UUID, int] | None:
    """Return the run and the fence in a name of ``rewritten_name``, finished or not; None where it is none."""
    found = re.search(r"\.([0-9a-f]{32})-(\d+)-[0-9a-f]+\.ndjson\.zst(\.partial)?$", name)
    return None if found is None else (UUID(found[1]), int(found[2]))


def make_folder(folder: Path) -> None:
    """Make a run's folder and what it lies in, with mode 0700, so that a crash of the machine keeps it.

    Raises:
        FolderUnusable: it may not be made, or there is something else.
        OSError: it cannot be made now.
    """
    with usable(folder):
        _make_folder(folder)


def _make_folder(folder: Path) -> None:
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    for place in reversed(missing):
        place.mkdir(mode=0o700, exist_ok=True)
        sync_folder(place.parent)


def write_part(folder: Path, name: str, lines: bytes) -> PartFile:
    """Write lines into a new file, make it durable and read it back.

    Raises:
        FolderUnusable: the folder may not be written, or is not there.
        OSError: the disk is full, say. Nothing but a file without a name is left behind.
        PartUnreadable: what came back is not what was written.
    """
    with usable(folder):
        return _write_part(folder, name, lines)


@contextmanager
def usable(folder: Path) -> Iterator[None]:
    """Tell it where the block may not change a folder.

    Raises:
        FolderUnusable: it may not, and time will not change that.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in UNUSABLE:
            raise
        raise FolderUnusable(f"{folder} cannot be written ({error.strerror})") from error


def _write_part(folder: Path, name: str, lines: bytes) -> PartFile:
    packed = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True).compress(lines)
    partial = folder / f".{name}.partial"
    try:
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(packed)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(folder / name)
    finally:
        partial.unlink(missing_ok=True)
    sync_folder(folder)
    part = PartFile(name, lines.count(b"\n"), len(packed), hashlib.sha256(packed).hexdigest())
    if read_part(folder, part) != lines:
        raise PartUnreadable(f"{folder / name} holds other rows than were written to it: look at the disk")
    return part


def read_part(folder: Path, part: PartFile) -> bytes:
    """Return the lines of a file.

    Raises:
        PartUnreadable: it is missing, or not what was written.
    """
    path = folder / part.name
    try:
        packed = path.read_bytes()
    except OSError as error:
        raise PartUnreadable(f"{path} cannot be read ({error.strerror}): bring it back from a backup") from error
    if (found := hashlib.sha256(packed).hexdigest()) != part.sha256:
        raise PartUnreadable(f"{path} has the SHA-256 {found} but {part.sha256} was written: bring it back")
    try:
        return zstandard.ZstdDecompressor(max_window_size=MOST_WINDOW_BYTES).decompress(packed)
    except zstandard.ZstdError as error:
        raise PartUnreadable(f"{path} cannot be unpacked ({error}): bring it back from a backup") from error


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
