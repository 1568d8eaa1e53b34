"""The Dockerfile is lint-free, copies all of the application and nothing else, and runs without privileges."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "Dockerfile"
DATA_FOLDER = "/data"


def instructions() -> list[tuple[str, str]]:
    """Return the instructions and their arguments in order, without comments, continued lines joined."""
    lines = [line for line in DOCKERFILE.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    parted = [line.split(maxsplit=1) for line in joined.splitlines() if line.strip()]
    return [(word.upper(), " ".join(rest.split())) for word, rest in parted]


def arguments_of(instruction: str) -> list[str]:
    return [rest for word, rest in instructions() if word == instruction]


def copied() -> set[str]:
    return {source for rest in arguments_of("COPY") for source in rest.split()[:-1]}


def test_hadolint_finds_nothing() -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    found = subprocess.run(
        [hadolint, "--no-color", str(DOCKERFILE)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (found.returncode, found.stdout + found.stderr) == (0, "")


def test_everything_that_is_copied_exists() -> None:
    assert copied()
    assert {source for source in copied() if not (ROOT / source).exists()} == set()


def test_every_room_of_the_application_is_copied() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    rooms = set(project["tool"]["importlinter"]["root_packages"])
    assert copied() == rooms | {"alembic.ini", "requirements/worker.txt", "samples/tasks.csv"}


def test_the_build_sees_what_is_copied_and_nothing_else() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    assert patterns[0] == "*"
    assert {pattern[1:] for pattern in patterns if pattern.startswith("!")} == copied()


def test_the_locked_requirements_are_installed_by_their_hashes() -> None:
    installs = [rest for rest in arguments_of("RUN") if "pip install" in rest]
    assert len(installs) == 1
    assert "--require-hashes" in installs[0]
    assert "-r requirements/worker.txt" in installs[0]


def test_the_base_image_has_a_supported_python() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    supported = {entry.rsplit(" ", 1)[1] for entry in project["classifiers"] if re.search(r"Python :: 3\.\d+$", entry)}
    bases = [re.fullmatch(r"python:(3\.\d+)-slim", rest) for rest in arguments_of("FROM")]
    assert {base[1] for base in bases if base} <= supported
    assert all(bases)


def test_the_worker_runs_as_an_ordinary_user_on_its_data_volume() -> None:
    users = arguments_of("USER")
    assert users == ["10001:10001"]
    assert arguments_of("VOLUME") == [DATA_FOLDER]
    assert f"HOLDFAST_DATA_DIR={DATA_FOLDER}" in " ".join(arguments_of("ENV"))
    words = [word for word, _ in instructions()]
    assert words.index("USER") > max(index for index, word in enumerate(words) if word in {"RUN", "COPY"})


def test_the_container_is_the_command_line_and_stops_on_sigterm() -> None:
    assert arguments_of("ENTRYPOINT") == ['["python", "-m", "worker"]']
    assert arguments_of("CMD") == ['["run"]']
    assert arguments_of("STOPSIGNAL") == ["SIGTERM"]


def test_no_secret_is_built_in() -> None:
    settings = " ".join(arguments_of("ENV") + arguments_of("ARG"))
    assert re.search(r"PASSWORD|SECRET|TOKEN|_URL", settings, re.IGNORECASE) is None
