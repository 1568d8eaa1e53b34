"""``demo``: the main job on embedded parts, from nothing to a printed report."""

import shutil
import subprocess
import sys
import time
from pathlib import Path

import click

from worker.cli.terminal import Failure, json_option, load_settings
from worker.embedded import is_listening
from worker.settings import embedded_environment

CHECKOUT = Path(__file__).resolve().parent.parent.parent
SAMPLE = CHECKOUT / "samples" / "tasks.csv"
MAPPING = {
    "external_key": "key",
    "title": "summary",
    "description": "details",
    "status": "state",
    "completed_at": "done_at",
    "metadata.points": "points",
}
WORKER_START_S = 30.0


@click.command(epilog="Example: python -m worker demo")
@json_option
def demo(*, as_json: bool) -> None:
    """Start a worker on an embedded database and queue, and import the sample from another process."""
    folder = load_settings().holdfast_data_dir.absolute() / "demo"
    if folder.exists():
        shutil.rmtree(folder)
    environment = embedded_environment(folder)
    _step(f"an empty folder for the database and the queue: {folder}")
    _step("python -m worker run  (in the background)")
    worker = _python(environment, "run")
    try:
        _await_worker(worker, folder)
        words = [f"{field}={column}" for field, column in MAPPING.items()]
        arguments = ["import", str(SAMPLE), *(part for word in words for part in ("--map", word))]
        _step(f"python -m worker import samples/tasks.csv {' '.join('--map ' + word for word in words)}")
        code = _python(environment, *arguments, *(["--json"] if as_json else [])).wait()
    finally:
        worker.terminate()
        worker.wait()
    if code != 0:
        raise Failure(f"the import ended with exit code {code}; look at it with `python -m worker runs list`")
    _step(f"done; look around with: HOLDFAST_DATA_DIR={folder} python -m worker runs list")


def _python(environment: dict[str, str], *arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "worker", *arguments]
    return subprocess.Popen(command, cwd=CHECKOUT, env=environment)  # noqa: S603 - our own commands


def _await_worker(worker: subprocess.Popen[bytes], folder: Path) -> None:
    deadline = time.monotonic() + WORKER_START_S
    while not is_listening(folder):
        if worker.poll() is not None or time.monotonic() > deadline:
            raise Failure("the worker did not start; its last lines say why")
        time.sleep(0.05)


def _step(text: str) -> None:
    click.echo(f"==> {text}", err=True)
