"""Where the embedded queue of a data folder is found, and who owns it."""

import errno
import fcntl
import hashlib
import os
import socket
import stat
import sys
import tempfile
from pathlib import Path

# The kernel's sun_path, less its closing NUL.
_MAX_PATH_BYTES = (108 if sys.platform == "linux" else 104) - 1
_BACKLOG = 512


class EmbeddedQueueInUse(Exception):  # noqa: N818 - names the state, not a fault
    """Another process (or another part of this one) already owns the embedded queue of this data folder."""

    def __init__(self, data_dir: Path, pid: str) -> None:
        super().__init__(
            f"the embedded queue in {data_dir} is held by process {pid or 'unknown'}, and a data folder has one owner: "
            f"enqueue through that process, stop it, or set HOLDFAST_DATA_DIR to another folder or REDIS_URL to a Redis"
        )


def socket_path(data_dir: Path) -> Path:
    """Return where the embedded queue of `data_dir` listens, whether or not one is running.

    It is `queue.sock` in the folder, or, where that is longer than a unix socket's name may be, a short name that
    every process of this user derives alike, in a folder of the temporary directory that only the user can enter.
    """
    resolved = data_dir.resolve()
    path = resolved / "queue.sock"
    if len(os.fsencode(path)) <= _MAX_PATH_BYTES:
        return path
    name = hashlib.sha256(b"%d:%b" % (os.getuid(), os.fsencode(resolved))).hexdigest()[:24] + ".sock"
    folder = f"holdfast-{os.getuid()}"
    short = Path(tempfile.gettempdir()).resolve() / folder / name
    return short if len(os.fsencode(short)) <= _MAX_PATH_BYTES else Path("/tmp", folder, name)  # noqa: S108 - checked by is_trusted


def is_trusted(data_dir: Path, path: Path) -> bool:
    """Tell whether nobody but this user can have put a socket at `path`; anybody may make a name in a shared /tmp."""
    if path.parent == data_dir.resolve():
        return True
    try:
        found = path.parent.lstat()
    except FileNotFoundError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and stat.S_IMODE(found.st_mode) & 0o077 == 0


class QueueLock:
    """The exclusive lock on `queue.lock`; the kernel frees it when the process ends, however it ends."""

    def __init__(self, data_dir: Path) -> None:
        """Take the lock, making the folder (0700) if it is missing.

        Raises:
            EmbeddedQueueInUse: somebody else has it.
        """
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._file = os.open(data_dir / "queue.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(self._file, 32, 0).decode("ascii", "replace").strip()
            os.close(self._file)
            if error.errno in {errno.EAGAIN, errno.EACCES}:
                raise EmbeddedQueueInUse(data_dir, holder) from None
            raise
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, b"%d\n" % os.getpid(), 0)

    def release(self) -> None:
        """Free the lock; the file stays, because removing it would let two owners lock two files of one name."""
        os.ftruncate(self._file, 0)
        os.close(self._file)


def open_listener(data_dir: Path) -> socket.socket:
    """Bind the socket of `data_dir`, mode 0600, in place of a stale one. The caller holds the lock.

    Raises:
        OSError: the folder is not private, its file system has no unix sockets, or another file has the name.
    """
    path = socket_path(data_dir)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    if not is_trusted(data_dir, path):
        raise PermissionError(f"{path.parent} is not this user's own folder with mode 0700: remove it, or set TMPDIR")
    if path.is_socket():
        path.unlink()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(os.fspath(path))
        # Nobody can connect before listen(), so the socket is never open to others.
        path.chmod(0o600)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise OSError(
            error.errno,
            f"cannot listen on {path} ({error.strerror}): the embedded queue needs a folder on a local disk; "
            f"set HOLDFAST_DATA_DIR to one, or REDIS_URL to a Redis",
        ) from error
    return listener
