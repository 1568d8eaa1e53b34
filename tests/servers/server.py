"""One server process of the tests: its folder, its port, its life; what it serves is told by the subclasses."""

import contextlib
import json
import os
import pwd
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from tests.servers import guard
from tests.servers.guard import signal_tree

READY_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0
PORT_ATTEMPTS = 5
# A Unix socket's path may have 104 bytes on macOS.
LONGEST_BASE = 60


class ServerError(RuntimeError):
    """A server of the tests did not start, stop or answer; the text ends with its log."""


class Server(ABC):
    """A server of its own on a free port of 127.0.0.1, in a temporary folder; it dies with the test process.

    `stop`, `kill` and `restart` keep data and port; `close` (or leaving the `with` block) removes everything. Read
    `url` after `start`: a port that was taken in between is replaced at the first start.
    """

    name: ClassVar[str]
    # Who runs it when the tests run as root and the server refuses to; empty when it does not mind.
    accounts: ClassVar[tuple[str, ...]] = ()
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM

    def __init__(self, extra_args: Sequence[str] = ()) -> None:
        self._extra_args = list(extra_args)
        self._account = _account(self.accounts)
        self.folder = _make_folder(self.name, self._account)
        self._remove_folder = weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)
        self.port = free_port()
        self._guard: subprocess.Popen[bytes] | None = None
        self._pid = 0
        self._prepared = False
        self._started = False

    @property
    @abstractmethod
    def url(self) -> str:
        """The server's own URL."""

    @property
    def log(self) -> Path:
        """The file with everything that the server printed."""
        return self.folder / "log"

    @property
    def running(self) -> bool:
        """Whether the process lives; a paused one does."""
        return self._guard is not None and self._guard.poll() is None

    @property
    def pid(self) -> int:
        """The server's process id.

        Raises:
            ServerError: when it does not run.
        """
        if not self.running:
            raise ServerError(f"{self.name} has no process id: it does not run; call start() first")
        return self._pid

    def start(self) -> None:
        """Starts the server and returns when it answers; does nothing when it runs.

        Raises:
            ServerError: when it ends at once or does not answer within `READY_TIMEOUT_S`.
        """
        if self.running:
            return
        self.kill()  # one that ended by itself has left its pipe
        if not self._prepared:
            for command in self._preparation():
                self._run_to_end(command)
            self._prepared = True
        for _ in range(PORT_ATTEMPTS):
            printed_before = self.log.stat().st_size if self.log.exists() else 0
            self._spawn(self._command())
            if self._answers_in_time():
                self._started = True
                return
            self.kill()
            if self._started or "address already in use" not in self._printed_since(printed_before).lower():
                break
            self.port = free_port()
        raise ServerError(f"{self.name} did not start on port {self.port}; its log ends with:\n{self._log_tail()}")

    def stop(self) -> None:
        """Asks the server to shut down and waits for its end; data and port are kept.

        Raises:
            ServerError: when it had to be killed after `STOP_TIMEOUT_S`.
        """
        if not self.running:
            return
        self.resume()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, self.stop_signal)
        try:
            self._wait_for_end()
        except subprocess.TimeoutExpired:
            self.kill()
            raise ServerError(
                f"{self.name} did not stop within {STOP_TIMEOUT_S} s; its log ends with:\n{self._log_tail()}"
            ) from None

    def kill(self) -> None:
        """Ends the server and its children by SIGKILL, as a crash would, and waits for their end."""
        if self.running:
            signal_tree(self._pid, signal.SIGKILL)
        if self._guard is not None:
            self._wait_for_end()

    def restart(self) -> None:
        """Stops the server if it runs and starts it with the same data on the same port."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Freezes the server and its children by SIGSTOP: connections stay open and nothing answers."""
        signal_tree(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Lets a paused server go on; does nothing to one that is not paused."""
        signal_tree(self.pid, signal.SIGCONT)

    def close(self) -> None:
        """Kills the server and removes its folder."""
        self.kill()
        self._remove_folder()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @abstractmethod
    def _command(self) -> list[str]:
        """The command line that runs the server in the foreground."""

    @abstractmethod
    def _answers(self) -> bool:
        """Whether this very server, not another on the same port, serves clients."""

    def _preparation(self) -> list[list[str]]:
        """The command lines to run before the first start."""
        return []

    def _run_to_end(self, command: list[str]) -> None:
        self._spawn(command)
        assert self._guard is not None
        self._wait_for_end(READY_TIMEOUT_S)
        if self._guard.returncode != 0:
            raise ServerError(f"{command[0]} failed; its output ends with:\n{self._log_tail()}")

    def _spawn(self, command: list[str]) -> None:
        user, group = (self._account.pw_uid, self._account.pw_gid) if self._account else (None, None)
        spec = {"command": command, "folder": str(self.folder), "user": user, "group": group}
        with self.log.open("ab") as log:
            self._guard = subprocess.Popen(
                [sys.executable, "-I", guard.__file__, json.dumps(spec)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=self._environment(),
                start_new_session=True,  # an interrupt from the terminal is for the tests alone
            )
        assert self._guard.stdout is not None
        with self._guard.stdout as announcement:
            pid = announcement.readline()
        if not pid:
            self._wait_for_end()
            raise ServerError(f"{command[0]} cannot be run; the log ends with:\n{self._log_tail()}")
        self._pid = int(pid)

    def _environment(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
        return {**kept, "LC_ALL": "C", "HOME": str(self.folder), "TMPDIR": str(self.folder)}

    def _wait_for_end(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        assert self._guard is not None
        self._guard.wait(timeout_s)
        if self._guard.stdin is not None:
            self._guard.stdin.close()

    def _answers_in_time(self) -> bool:
        return wait_until(lambda: not self.running or self._answers(), READY_TIMEOUT_S) and self.running

    def _printed_since(self, position: int) -> str:
        return self.log.read_bytes()[position:].decode(errors="replace")

    def _log_tail(self) -> str:
        return "\n".join(self._printed_since(0).splitlines()[-20:])


def wait_until(condition: Callable[[], bool], timeout_s: float) -> bool:
    """Asks a condition 50 times a second; returns whether it became true within the time (seconds)."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def free_port() -> int:
    """Returns a port of 127.0.0.1 that nobody listens on.

    It lies below the ports that the kernel gives to outgoing connections: a client that keeps calling a stopped
    server on one of those is connected to itself sooner or later, and then the server cannot have it back.
    """
    while True:
        port = 15_000 + secrets.randbelow(17_000)
        with socket.socket() as candidate, contextlib.suppress(OSError):
            candidate.bind(("127.0.0.1", port))
            return port


def _account(names: tuple[str, ...]) -> pwd.struct_passwd | None:
    if os.geteuid() != 0 or not names:
        return None
    for name in names:
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise ServerError(f"none of the users {', '.join(names)} exists: the server does not run as root; add one of them")


def _make_folder(name: str, account: pwd.struct_passwd | None) -> Path:
    """A folder that the account owns and can reach; pytest's own are closed to all but their user."""
    base = Path(tempfile.gettempdir()).resolve()
    closed = account and not all(place.stat().st_mode & stat.S_IXOTH for place in (base, *base.parents))
    if closed or len(str(base)) > LONGEST_BASE:
        base = Path("/tmp")  # noqa: S108 - the folder in it gets a random name and is closed to others
    folder = Path(tempfile.mkdtemp(prefix=f"holdfast-{name}-", dir=base))
    if account:
        os.chown(folder, account.pw_uid, account.pw_gid)
    return folder
