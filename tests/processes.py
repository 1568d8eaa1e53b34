"""Processes of the application that the tests start, watch and end."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Protocol, Self

from tests.servers import wait_until

CHECKOUT = Path(__file__).resolve().parent.parent
START_TIMEOUT_S = 30.0
END_TIMEOUT_S = 30.0
# What a process needs of the developer's shell; no setting of Holdfast is among it.
KEPT_VARIABLES = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH")
FORKED = {("-m", "worker"), ("-m", "tests.queue.engine.worker_script"), ("-m", "tests.faults.producer")}
"""What a `Starter` may start: it gets by with what that has imported."""


def clean_environment(**settings: str) -> dict[str, str]:
    """Returns an environment that holds these settings and none of the developer's own."""
    kept = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
    return {**kept, "PYTHONPATH": str(CHECKOUT), "PYTHONUNBUFFERED": "1", **settings}


class Process(Protocol):
    """What a worker's process can be asked: of a fork, and of a new Python."""

    pid: int

    def poll(self) -> int | None:
        """Return its exit code; None while it lives."""
        ...

    def wait(self, timeout: float | None = None) -> int:
        """Return its exit code when it has ended."""
        ...

    def kill(self) -> None:
        """Send SIGKILL."""
        ...

    def terminate(self) -> None:
        """Send SIGTERM."""
        ...

    def pause(self) -> None:
        """Send SIGSTOP, and return when it stands still."""
        ...


class NewPython(subprocess.Popen[bytes]):
    """A process that is not forked from one of the tests'."""

    def pause(self) -> None:
        """Send SIGSTOP, and return when it stands still."""
        os.kill(self.pid, signal.SIGSTOP)
        os.waitpid(self.pid, os.WUNTRACED)


class Starter(Protocol):
    """Starts Python's modules in a quicker way (`tests.forks`)."""

    def start(
        self,
        environment: Mapping[str, str],
        folder: Path,
        words: Sequence[str],
        output: Path,
        errors: Path | None = None,
    ) -> Process:
        """Start one, with its arguments; the output goes to a file, or to two."""
        ...


class WorkerProcess:
    """`python -m worker ...` from now on; leaving the `with` block kills it if it still lives.

    Args:
        environment: all of its variables, as `clean_environment` makes them.
        folder: where it runs (and finds no `.env`); its output goes to a file there.
        arguments: the command and its options.
        program: what Python runs instead of `-m worker`, as `("-c", "...")`.
        name: of the output's file.
        starter: starts it, if it is one of `FORKED`, in a quicker way than a new Python; `quick_start` when not given.
    """

    quick_start: ClassVar[Starter | None] = None

    def __init__(
        self,
        environment: Mapping[str, str],
        folder: Path,
        *,
        arguments: Sequence[str] = ("run",),
        program: Sequence[str] = ("-m", "worker"),
        name: str = "worker",
        starter: Starter | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.output = folder / f"{name}.log"
        words, starter = [*program, *arguments], starter or self.quick_start
        if starter is not None and tuple(words[:2]) in FORKED:
            self._process: Process = starter.start(environment, folder, words[1:], self.output)
            return
        with self.output.open("wb") as output:
            self._process = NewPython(
                [sys.executable, *words],
                cwd=folder,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it has not ended; a paused one has not."""
        return self._process.poll() is None

    @property
    def text(self) -> str:
        """Everything that it has printed."""
        return self.output.read_text(errors="replace")

    def wait_for(self, words: str, timeout_s: float = START_TIMEOUT_S) -> None:
        """Returns when it has printed these words.

        Raises:
            AssertionError: it ended without them, or has not printed them in time.
        """
        wait_until(lambda: words in self.text or not self.alive, timeout_s)
        assert words in self.text, f"no {words!r} from the worker, which printed:\n{self.text}"

    def wait(self, timeout_s: float = END_TIMEOUT_S) -> int:
        """Returns the exit code when it has ended; minus the signal's number when a signal ended it."""
        return self._process.wait(timeout_s)

    def kill(self) -> None:
        """Ends it by SIGKILL, as a crash would."""
        self._process.kill()
        self._process.wait(END_TIMEOUT_S)

    def terminate(self, timeout_s: float = END_TIMEOUT_S) -> int:
        """Asks it to end by SIGTERM; returns its exit code."""
        self._process.terminate()
        return self._process.wait(timeout_s)

    def pause(self) -> None:
        """Freezes it by SIGSTOP, and returns when it stands still."""
        self._process.pause()

    def resume(self) -> None:
        """Lets it go on after `pause`."""
        os.kill(self.pid, signal.SIGCONT)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.alive:
            self.kill()
