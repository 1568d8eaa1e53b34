"""Running a command and looking at what it printed: in this process, or in one of its own where that matters."""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from tests.logging_restored import logging_restored
from tests.processes import END_TIMEOUT_S, WorkerProcess, clean_environment
from worker.cli import main

PROGRAM = "python -m worker"


@dataclass(frozen=True)
class Ended:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        """The one JSON document that it printed; fails when there is anything else on stdout."""
        assert len(self.out.splitlines()) == 1, f"not one document: {self.out!r}; stderr: {self.err}"
        document: dict[str, Any] = json.loads(self.out)
        return document

    @property
    def line(self) -> str:
        """The one line of stderr, without its `error: `; fails when there are others, or anything on stdout."""
        assert self.out == ""
        return self.error

    @property
    def error(self) -> str:
        """As `line`, but something may stand on stdout."""
        lines = self.err.splitlines()
        assert len(lines) == 1, f"not one line: {self.err!r}"
        assert lines[0].startswith("error: ")
        return lines[0].removeprefix("error: ")


def invoke(*arguments: str | Path, stdin: bytes | None = None) -> Ended:
    """Runs a command in this process; the environment is the test's own."""
    with logging_restored():
        result = CliRunner().invoke(main, [str(word) for word in arguments], input=stdin, prog_name=PROGRAM)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Ended(result.exit_code, result.stdout, result.stderr)


def start(
    *arguments: str | Path,
    folder: Path,
    settings: Mapping[str, str] | None = None,
    stdin: int = subprocess.DEVNULL,
    program: Sequence[str] = ("-m", "worker"),
) -> subprocess.Popen[str]:
    """Starts a command in a process of its own, with these settings and none of the developer's.

    Args:
        arguments: the command.
        folder: where it runs; its data folder is `data` in it unless the settings say otherwise.
        settings: environment variables.
        stdin: as `subprocess.Popen` takes it.
        program: what Python runs, as `("-c", "...")`.
    """
    return subprocess.Popen(
        [sys.executable, *program, *(str(word) for word in arguments)],
        cwd=folder,
        env=clean_environment(**{"HOLDFAST_DATA_DIR": str(folder / "data"), **(settings or {})}),
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> Ended:
    """Waits for the end of a process that `start` made."""
    try:
        out, err = process.communicate(timeout=END_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise AssertionError(f"no end after {END_TIMEOUT_S} s; stdout: {out}\nstderr: {err}") from None
    return Ended(process.returncode, out, err)


def run(*arguments: str | Path, folder: Path, **settings: str) -> Ended:
    """Runs a command in a process of its own, from start to end."""
    return finish(start(*arguments, folder=folder, settings=settings))


def run_quickly(*arguments: str | Path, folder: Path, **settings: str) -> Ended:
    """As `run`, without the second that a new Python takes to import everything, where workers start so, too."""
    starter = WorkerProcess.quick_start
    if starter is None:
        return run(*arguments, folder=folder, **settings)
    environment = clean_environment(**{"HOLDFAST_DATA_DIR": str(folder / "data"), **settings})
    output, errors = folder / "stdout", folder / "stderr"
    process = starter.start(environment, folder, ["worker", *map(str, arguments)], output, errors)
    try:
        code = process.wait(END_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return Ended(code, output.read_text(), errors.read_text())
