"""Workers without the second that their imports take: forked from a process that has imported all of the application.

Each is a process of its own that runs the same module, with its own environment, folder and output, and ends as any
Python does. Run as a module, this is the process that forks.
"""

import gc
import json
import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Any, Self

from tests.processes import CHECKOUT, Process, clean_environment

LOOK_S = 0.005


class Forks(AbstractContextManager["Forks"]):
    """Starts `python -m ...` by forking, to the end of the `with` block; its own process starts with the first one."""

    def __init__(self) -> None:
        self._parent: subprocess.Popen[bytes] | None = None
        self._lock = Lock()

    def start(
        self,
        environment: Mapping[str, str],
        folder: Path,
        words: Sequence[str],
        output: Path,
        errors: Path | None = None,
    ) -> Process:
        """Start a module; the output goes to a file.

        Args:
            environment: all of its variables. What Python itself reads at its start, as `PYTHONHASHSEED`, is as in
                `clean_environment`.
            folder: where it runs.
            words: the module and its arguments.
            output: the file.
            errors: the file for what goes to stderr, when it is another one.
        """
        files = [str(output), str(errors or output)]
        for file in files:
            Path(file).write_bytes(b"")  # it is there before the process has come to it
        pid = self._ask(start=list(words), environment=dict(environment), folder=str(folder), files=files)
        return _Fork(self, pid)

    def code_of(self, pid: int) -> int | None:
        """Return a process's exit code, minus a signal's number; None while it lives."""
        code: int | None = self._ask(pid=pid, pause=False)
        return code

    def pause(self, pid: int) -> None:
        """Freeze a process, and return when it stands still."""
        self._ask(pid=pid, pause=True)

    def _ask(self, **words: Any) -> Any:
        with self._lock:
            if self._parent is None:
                self._parent = _parent()
            assert self._parent.stdin is not None
            assert self._parent.stdout is not None
            self._parent.stdin.write(json.dumps(words).encode() + b"\n")
            self._parent.stdin.flush()
            answer = self._parent.stdout.readline()
        assert answer, "the process that forks the workers has died; what it wrote to stderr tells why"
        return json.loads(answer)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._parent is None:
            return
        with self._parent:  # closes its pipes, which ends it
            self._parent = None


def _parent() -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "tests.forks"],
        cwd=CHECKOUT,
        env=clean_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


class _Fork:
    """A forked process, with what is used of `subprocess.Popen`."""

    def __init__(self, forks: Forks, pid: int) -> None:
        self.pid = pid
        self._forks = forks
        self._code: int | None = None

    def poll(self) -> int | None:
        if self._code is None:
            self._code = self._forks.code_of(self.pid)
        return self._code

    def wait(self, timeout: float | None = None) -> int:
        began = time.monotonic()
        while (code := self.poll()) is None:
            if timeout is not None and time.monotonic() - began > timeout:
                raise subprocess.TimeoutExpired("a forked worker", timeout)
            time.sleep(LOOK_S)
        return code

    def kill(self) -> None:
        self._send(signal.SIGKILL)

    def terminate(self) -> None:
        self._send(signal.SIGTERM)

    def pause(self) -> None:
        self._forks.pause(self.pid)

    def _send(self, number: signal.Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)


def _serve() -> list[str]:
    """Fork as asked, until there is nobody to ask; the processes that are left are killed.

    Returns:
        In a forked process what it is to run; nothing in the one that forks.
    """
    living = dict[int, int | None]()
    for line in sys.stdin.buffer:
        words = json.loads(line)
        if "start" in words:
            pid = os.fork()
            if pid == 0:
                return _made_ready(words)
            living[pid] = None
            answer: int | None = pid
        else:
            pid, options = words["pid"], os.WNOHANG
            if words["pause"] and living[pid] is None:
                os.kill(pid, signal.SIGSTOP)
                options = os.WUNTRACED
            if living[pid] is None:
                living[pid] = _code(pid, options)
            answer = living[pid]
        sys.stdout.write(f"{json.dumps(answer)}\n")
        sys.stdout.flush()
    for pid in (pid for pid, code in living.items() if code is None):
        os.kill(pid, signal.SIGKILL)
    return []


def _code(pid: int, options: int) -> int | None:
    """The exit code of a process that has ended; None when it has not."""
    found, status = os.waitpid(pid, options)
    return None if found == 0 or os.WIFSTOPPED(status) else os.waitstatus_to_exitcode(status)


def _made_ready(words: dict[str, Any]) -> list[str]:
    """Make this process like a new Python, where its module can tell; returns the module and its arguments."""
    opened = [os.open(os.devnull, os.O_RDONLY), *(os.open(file, os.O_WRONLY | os.O_APPEND) for file in words["files"])]
    for name, descriptor in enumerate(opened):
        os.dup2(descriptor, name)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(words["environment"])
    os.chdir(words["folder"])
    sys.path[:2] = [words["folder"], *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    return list(words["start"])


if __name__ == "__main__":
    gc.disable()
    from db.models import Task  # noqa: F401 - what a worker would import is imported here, once for all of them
    from worker import cli, main  # noqa: F401

    gc.freeze()
    gc.enable()
    if module := _serve():
        sys.argv = module
        runpy.run_module(module[0], run_name="__main__", alter_sys=True)
