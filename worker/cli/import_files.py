"""The files at both ends of an import: the one that the user names, and the one for the rows that were rejected."""

import os
import stat
import sys
from contextlib import suppress
from errno import EACCES, EPERM, EROFS
from pathlib import Path
from typing import BinaryIO

from db.connection import get_reading_session
from db.repositories.job_run import RunRow
from holdfast.requests import ImportTasks
from jobs.import_tasks.rejects import copy_rejects, write_rejects
from jobs.import_tasks.source import inspect_source
from jobs.import_tasks.spool import spool
from jobs.settings import JobSettings
from jobs.sources import SourceError, open_source
from worker.cli.terminal import Failure, wrong_usage

STANDARD_INPUT = "standard input"


def hand_over(request: ImportTasks, file: str, settings: JobSettings) -> tuple[ImportTasks, Path | None]:
    """Check the file against the request and bring it to where the worker may read it.

    Returns:
        The request with its source, and the spooled copy if one was made.

    Raises:
        SourceError: the file is missing, unreadable, or does not fit.
        Failure: the spool cannot be written.
    """
    if file == "-":
        copy = _spool(sys.stdin.buffer, STANDARD_INPUT, settings)
        try:
            with copy.open("rb") as spooled:
                inspect_source(request.model_copy(update={"source": STANDARD_INPUT}), spooled)
        except SourceError as error:
            copy.unlink(missing_ok=True)
            raise SourceError(error.code, error.message.replace(str(copy), STANDARD_INPUT)) from None
        except BaseException:
            copy.unlink(missing_ok=True)
            raise
        return request.model_copy(update={"source": str(copy)}), copy
    with _open_for_user(file) as source:
        inspect_source(request, source)
        path = Path(file).absolute()
        with suppress(SourceError), open_source(str(path), settings.import_roots):
            return request.model_copy(update={"source": str(path)}), None
        source.seek(0)
        copy = _spool(source, file, settings)
    return request.model_copy(update={"source": str(copy)}), copy


def check_rejects_path(path: Path) -> None:
    """Check, before anything is enqueued, that a file can be written there.

    Raises:
        Failure: it cannot.
    """
    folder = path.absolute().parent
    if not folder.is_dir():
        raise wrong_usage(f"--rejects {path}: the folder {folder} does not exist; make it, or name another file")
    with suppress(FileNotFoundError):
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise wrong_usage(f"--rejects {path} is a directory; name a file in it")
        if not stat.S_ISREG(mode):
            raise wrong_usage(f"--rejects {path} is not a regular file, so it cannot be replaced; name another one")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise wrong_usage(f"--rejects {path}: the folder {folder} cannot be written to; name a file in another one")


async def save_rejects(run: RunRow, settings: JobSettings, path: Path) -> None:
    """Write a run's rejects to the user's file.

    The worker's own file is taken where it can be reached: of a dry run, or of an atomic one that failed, the table
    holds nothing.

    Raises:
        Failure: the file cannot be written.
    """
    written_by_worker = settings.rejects_dir / f"{run.id}.csv"
    try:
        if written_by_worker.is_file():
            copy_rejects(written_by_worker, path)
        else:
            async with get_reading_session() as session:
                await write_rejects(session, run.id, path)
    except OSError as error:
        advice = f"; they are in {written_by_worker}" if written_by_worker.is_file() else ""
        reason = f"the rejected rows cannot be written ({error.strerror}){advice}"
        raise Failure(f"run {run.id} {run.state}, but --rejects {path}: {reason}") from None


def _spool(source: BinaryIO, name: str, settings: JobSettings) -> Path:
    try:
        return spool(source, settings.spool_dir)
    except OSError as error:
        wrong_folder = isinstance(error, FileExistsError | NotADirectoryError) or error.errno in {EACCES, EPERM, EROFS}
        advice = "give its folder room" if not wrong_folder else "let this user write there"
        raise Failure(
            f"{name} cannot be copied into the spool {settings.spool_dir}: {error.strerror}; {advice}, "
            "set HOLDFAST_DATA_DIR to another folder, or set IMPORT_ROOTS to the file's folder",
            exit_code=2 if wrong_folder else 1,
        ) from None


def _open_for_user(file: str) -> BinaryIO:
    """Open a file that the user named; it is the user's own right to name it, links included."""
    path = Path(file)
    try:
        if path.is_dir():
            raise wrong_usage(f"{file} is a directory: name a file")
        if path.exists() and not path.is_file():
            raise wrong_usage(f"{file} is not a regular file: read it through standard input, with -")
        return path.open("rb")
    except FileNotFoundError:
        raise wrong_usage(f"{file} does not exist: check the path") from None
    except PermissionError:
        raise wrong_usage(
            f"{file} may not be read by this user (uid {os.geteuid()}): give it read permission"
        ) from None
    except (OSError, ValueError) as error:
        raise wrong_usage(f"{file} cannot be read: {error}") from None
