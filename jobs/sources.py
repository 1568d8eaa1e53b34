"""Opening the files that jobs read: only regular files, only under the import roots, never through a link.

A producer's request may name any path. So the path is walked from its root one folder at a time, each opened
relative to the one before and without following links, and what is checked is the file that was opened.
"""

import errno
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, NoReturn

SHOWN_CHARACTERS = 200
"""How much of a value an error message repeats."""

# O_PATH needs no read permission on folders that are only passed through; macOS does not have it.
_FOLDER_FLAGS = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC
# O_NONBLOCK: opening a FIFO must not wait for its writer. It means nothing for regular files.
_FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class SourceError(Exception):
    """A source cannot be opened, understood or read to its end.

    Attributes:
        code: A stable name for programs: `not_found`, `is_a_directory`, `outside_roots`, `invalid_path`,
            `symbolic_link`, `not_a_regular_file`, `no_permission`, `unreadable` from `open_source`; `empty_file`,
            `no_header`, `invalid_header`, `cr_line_ends`, `unknown_encoding`, `invalid_encoding`, `unknown_format`,
            `invalid_delimiter`, `missing_column`, `duplicate_column`, `truncated`, `source_changed` from the readers.
        message: One line: subject, value, rule, next step.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return self.message


def shown(text: str) -> str:
    """A value for a message: unprintable characters escaped and the end cut off, so that it stays one short line."""
    cut = text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "..."
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in cut)


def open_source(source: str, roots: Sequence[Path]) -> BinaryIO:
    """Open a regular file under one of the roots for reading.

    Args:
        source: An absolute path without `..`, as this machine sees it.
        roots: The folders below which files may be read (`IMPORT_ROOTS`). A root may itself be reached through
            links, since its owner named it; below it links are refused, wherever they lead.

    Returns:
        The file at its first byte; its `name` is the source. The caller closes it.

    Raises:
        SourceError: The source may not be opened or is no regular file; the code says which.
    """
    _check_text(source)
    root, parts = _locate(source, roots)
    descriptor = _open_below(source, root, parts)
    try:
        _check_kind(source, os.fstat(descriptor).st_mode)
        return open(source, "rb", opener=lambda _path, _flags: descriptor)
    except BaseException:
        os.close(descriptor)
        raise


def _check_text(source: str) -> None:
    if not source:
        raise SourceError("invalid_path", "source is empty: it must be the absolute path of a file; name one")
    problem = None
    if "\0" in source:
        problem = "holds a NUL character, which no path can"
    elif not source.startswith("/"):
        problem = "is not absolute: a source is a path as the worker sees it, beginning with '/'"
    elif ".." in source.split("/"):
        problem = "holds '..': a source must not climb out of its folder"
    elif not _is_encodable(source):
        problem = "holds characters that no file name can have"
    if problem:
        raise SourceError("invalid_path", f"source '{shown(source)}' {problem}; give the file's full path")


def _is_encodable(source: str) -> bool:
    try:
        os.fsencode(source)
    except UnicodeEncodeError:
        return False
    return True


def _locate(source: str, roots: Sequence[Path]) -> tuple[Path, list[str]]:
    """The most specific root that the source lies under, and the parts of the path below it."""
    if not roots:
        raise SourceError(
            "outside_roots",
            f"source '{shown(source)}' cannot be read: IMPORT_ROOTS is not set, so no folder is open to imports;"
            " set IMPORT_ROOTS to the folder of the file",
        )
    parts = _split(source)
    best: tuple[int, Path] | None = None
    for root in roots:
        for spelling in (root.absolute(), root.resolve()):
            prefix = _split(str(spelling))
            if parts[: len(prefix)] == prefix and (best is None or len(prefix) > best[0]):
                best = len(prefix), spelling
    if best is None:
        listed = ", ".join(shown(str(root)) for root in roots)
        raise SourceError(
            "outside_roots",
            f"source '{shown(source)}' is outside the import roots ({listed}): only files below them are read;"
            " move the file there or add its folder to IMPORT_ROOTS",
        )
    depth, root = best
    if source.endswith("/") or len(parts) == depth:
        _refuse_directory(source)
    return root, parts[depth:]


def _split(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]


def _open_below(source: str, root: Path, parts: list[str]) -> int:
    try:
        folder = os.open(root, _FOLDER_FLAGS)
    except OSError as error:
        _refuse(f"import root '{shown(str(root))}'", error)
    try:
        for part in parts[:-1]:
            inner = _open_part(source, part, folder, _FOLDER_FLAGS | os.O_NOFOLLOW)
            os.close(folder)
            folder = inner
        return _open_part(source, parts[-1], folder, _FILE_FLAGS)
    finally:
        os.close(folder)


def _open_part(source: str, part: str, folder: int, flags: int) -> int:
    try:
        return os.open(part, flags, dir_fd=folder)
    except OSError as error:
        # Systems differ in the error number for a link, so what stands there is asked; only the message hangs on it.
        if _is_link(part, folder):
            raise SourceError(
                "symbolic_link",
                f"source '{shown(source)}' leads through the symbolic link '{shown(part)}': links below an import root"
                " are not followed; give the path of the file itself",
            ) from error
        _refuse(f"source '{shown(source)}'", error)


def _is_link(part: str, folder: int) -> bool:
    try:
        return stat.S_ISLNK(os.stat(part, dir_fd=folder, follow_symlinks=False).st_mode)
    except OSError:
        return False


def _refuse(subject: str, error: OSError) -> NoReturn:
    if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
        raise SourceError(
            "not_found", f"{subject} does not exist for the worker: check the path and the worker's mounts"
        ) from error
    if error.errno in (errno.EACCES, errno.EPERM):
        raise SourceError(
            "no_permission",
            f"{subject} may not be read by the worker's user (uid {os.geteuid()}): give it read permission",
        ) from error
    if error.errno in (errno.ENXIO, errno.EOPNOTSUPP, errno.ENODEV):
        raise SourceError(
            "not_a_regular_file", f"{subject} is a socket or a device: only regular files are read; give a file"
        ) from error
    reason = os.strerror(error.errno) if error.errno else str(error)
    raise SourceError(
        "unreadable", f"{subject} cannot be opened ({reason}): it must be readable; mend that and try again"
    ) from error


def _check_kind(source: str, mode: int) -> None:
    if stat.S_ISDIR(mode):
        _refuse_directory(source)
    if not stat.S_ISREG(mode):
        kinds = {stat.S_IFIFO: "a FIFO", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device", stat.S_IFSOCK: "a socket"}
        kind = kinds.get(stat.S_IFMT(mode), "no file")
        raise SourceError(
            "not_a_regular_file", f"source '{shown(source)}' is {kind}: only regular files are read; give a file"
        )


def _refuse_directory(source: str) -> NoReturn:
    raise SourceError("is_a_directory", f"source '{shown(source)}' is a directory: one file is read; name a file in it")
