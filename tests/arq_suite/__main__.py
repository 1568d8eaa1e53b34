"""``python -m tests.arq_suite [--stock] [pytest's arguments]``: run arq's own tests with our worker.

pip downloads the source distribution of arq and what its tests need, at the versions of ``requirements.txt``, into a
temporary folder that is removed afterwards.
"""

import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.arq_suite.use_our_worker import REDIS_PORT_VARIABLE, STOCK_VARIABLE
from tests.processes import CHECKOUT, clean_environment
from tests.servers import RedisServer

HERE = Path(__file__).resolve().parent
REQUIREMENTS = HERE / "requirements.txt"
SOURCE = HERE / "source.txt"
PIP = ("-m", "pip", "--disable-pip-version-check", "--quiet")
# redis-py warns of calls in arq that it will remove one day; arq has errors made of warnings.
PYTEST_ARGUMENTS = (
    "-W",
    "ignore::DeprecationWarning",
    "-p",
    "use_our_worker",
    "-p",
    "no:cacheprovider",
    "-q",
    "--no-header",
)


def main(arguments: Sequence[str]) -> int:
    """Run the suite; returns pytest's exit code."""
    stock = "--stock" in arguments
    more = [argument for argument in arguments if argument != "--stock"]
    with tempfile.TemporaryDirectory(prefix="arq-suite-") as scratch:
        python = _make_environment(Path(scratch))
        tree = _unpack_source(Path(scratch))
        with RedisServer() as redis:
            environment = clean_environment(
                PYTHONPATH=f"{HERE}:{CHECKOUT}",
                **{REDIS_PORT_VARIABLE: str(redis.port), STOCK_VARIABLE: "1" if stock else ""},
            )
            return _run([python, "-m", "pytest", *PYTEST_ARGUMENTS, *more], cwd=tree, environment=environment)


def _make_environment(scratch: Path) -> str:
    _succeed([sys.executable, "-m", "venv", str(scratch / "venv")])
    python = str(scratch / "venv" / "bin" / "python")
    _succeed([python, *PIP, "install", "--requirement", str(REQUIREMENTS)])
    return python


def _unpack_source(scratch: Path) -> Path:
    folder = scratch / "source"
    words = ["download", "--no-deps", "--no-binary", ":all:", "--dest", str(folder), "--requirement", str(SOURCE)]
    _succeed([sys.executable, *PIP, *words])
    (archive,) = folder.glob("arq-*.tar.gz")
    with tarfile.open(archive) as opened:
        opened.extractall(folder, filter="data")
    return folder / archive.name.removesuffix(".tar.gz")


def _succeed(command: Sequence[str]) -> None:
    code = _run(command)
    if code:
        sys.exit(f"{' '.join(command[1:4])} failed with exit code {code}: see above")


def _run(command: Sequence[str], *, cwd: Path | None = None, environment: Mapping[str, str] | None = None) -> int:
    return subprocess.run(command, cwd=cwd, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
