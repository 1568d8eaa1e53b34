"""Workers without the second that their imports take: forked from a process that has imported all of the application.

Each is a process of its own that runs the same command, with its own environment, and is killed like any other. Run as
a module, this is the process that forks.
"""

import json
import os
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

from tests.processes import Process, clean_environment

LOOK_S = 0.002


class Forks(AbstractContextManager["Forks"]):
    """Starts ``python -m worker`` by forking, from the ``with`` block's beginning to its end."""

    def __init__(self) -> None:
        self._parent = subprocess.Popen(
            [sys.executable, "-m", "tests.forks"],
            env=clean_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._lock = Lock()

    def start(self, environment: Mapping[str, str], folder: Path, arguments: Sequence[str], output: Path) -> Process:
        """Start a worker; the arguments are those of `WorkerProcess`."""
        pid = self._ask(start=list(arguments), environment=dict(environment), folder=str(folder), output=str(output))
        return _Fork(self, pid)

    def code_of(self, pid: int) -> int | None:
        """Return a worker's exit code, minus a signal's number; None while it lives."""
        code: int | None = self._ask(poll=pid)
        return code

    def _ask(self, **words: Any) -> Any:
        assert self._parent.stdin is not None
        assert self._parent.stdout is not None
        with self._lock:
            self._parent.stdin.write(json.dumps(words).encode() + b"\n")
            self._parent.stdin.flush()
            return json.loads(self._parent.stdout.readline())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._parent.stdin is not None
        self._parent.stdin.close()
        self._parent.wait()
        if self._parent.stdout is not None:
            self._parent.stdout.close()


class _Fork:
    """A forked worker, with what is used of `subprocess.Popen`."""

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

    def _send(self, number: signal.Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)


def _serve() -> None:
    """Fork as asked, until there is nobody to ask; the workers that are left are killed."""
    living = set[int]()
    for line in sys.stdin.buffer:
        words = json.loads(line)
        if "start" in words:
            pid = os.fork()
            if pid == 0:
                _work(words)
            living.add(pid)
            answer: int | None = pid
        else:
            answer = None
            found, status = os.waitpid(words["poll"], os.WNOHANG)
            if found:
                living.discard(found)
                answer = os.waitstatus_to_exitcode(status)
        sys.stdout.write(f"{json.dumps(answer)}\n")
        sys.stdout.flush()
    for pid in living:
        os.kill(pid, signal.SIGKILL)


def _work(words: dict[str, Any]) -> None:
    """Become a worker; ends the process."""
    code = 1
    try:
        nothing = os.open(os.devnull, os.O_RDONLY)
        output = os.open(words["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        for descriptor, name in ((nothing, 0), (output, 1), (output, 2)):
            os.dup2(descriptor, name)
        os.environ.clear()
        os.environ.update(words["environment"])
        os.chdir(words["folder"])
        sys.argv = ["worker", *words["start"]]
        _main(prog_name="python -m worker")
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    from db.models import Task  # noqa: F401 - what a worker would import is imported here, once for all of them
    from worker.cli import main as _main

    _serve()
