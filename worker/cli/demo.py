"""``demo``: the main job on embedded parts, from nothing to a printed report."""

import shutil
import subprocess
import sys
import time
from pathlib import Path

import click

from worker.cli.database import make_data_dir
from worker.cli.terminal import Failure, expected_errors, json_option, load_settings, shown_path, wrong_usage
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
    with expected_errors():
        _demo(as_json=as_json)


def _demo(*, as_json: bool) -> None:
    settings = load_settings()
    if not SAMPLE.is_file():
        raise Failure(f"{SAMPLE} is not there: run the demo in a checkout of the project, or import a file of your own")
    make_data_dir(settings)
    folder = settings.holdfast_data_dir.absolute() / "demo"
    _remove(folder)
    look_around = f"HOLDFAST_DATA_DIR={shown_path(folder)} python -m worker runs list"
    environment = {"LOG_LEVEL": "error"} | embedded_environment(folder)
    _step(f"an empty folder for the database and the queue: {shown_path(folder)}")
    _step("python -m worker run  (in the background)")
    worker = _python(environment, "run")
    try:
        _await_worker(worker, folder)
        words = [f"{field}={column}" for field, column in MAPPING.items()]
        arguments = ["import", shown_path(SAMPLE), *(part for word in words for part in ("--map", word))]
        _step(f"python -m worker {' '.join(arguments)}")
        code = _python(environment, *arguments, *(["--json"] if as_json else [])).wait()
    finally:
        worker.terminate()
        worker.wait()
    if code != 0:
        raise Failure(f"the import ended with exit code {code}; look at it with `{look_around}`")
    _step(f"done; look around with: {look_around}")


def _python(environment: dict[str, str], *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "worker", *arguments], env=environment)  # noqa: S603 - our own commands


def _remove(folder: Path) -> None:
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        pass
    except OSError as error:
        reason = "is a file" if folder.is_file() else f"cannot be removed ({error.strerror or error})"
        raise wrong_usage(
            f"HOLDFAST_DATA_DIR: {shown_path(folder)}, where an earlier demo lies, {reason}; "
            "remove it as its owner, or name another folder"
        ) from None


def _await_worker(worker: subprocess.Popen[bytes], folder: Path) -> None:
    deadline = time.monotonic() + WORKER_START_S
    while not is_listening(folder):
        if worker.poll() is not None or time.monotonic() > deadline:
            raise Failure("the worker did not start; its last lines say why")
        time.sleep(0.05)


def _step(text: str) -> None:
    click.echo(f"==> {text}", err=True)
