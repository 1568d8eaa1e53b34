"""Who may import whom, who may read the environment, and that importing does nothing."""

import ast
import json
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import CHECKOUT, clean_environment

PACKAGES = ("holdfast", "db", "services", "jobs", "worker", "migrations")
ENVIRONMENT = {"environ", "environb", "getenv", "getenvb", "putenv", "unsetenv"}
IMPORT_EVERYTHING = """
import gc, importlib, json, pkgutil, sys, threading
for package in sys.argv[1:]:
    root = importlib.import_module(package)
    for module in pkgutil.walk_packages(root.__path__, package + "."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
from pydantic_settings import BaseSettings
from redis.asyncio import Redis as AsyncRedis
from redis import Redis
from sqlalchemy.engine import Engine
from sqlalchemy.ext.asyncio import AsyncEngine
kinds = (AsyncEngine, Engine, AsyncRedis, Redis, BaseSettings)
made = [repr(one) for one in gc.get_objects() if isinstance(one, kinds)]
print(json.dumps({"made": made, "threads": threading.active_count()}))
"""


def python(*arguments: str, folder: Path = CHECKOUT, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run Python with the checkout on its path."""
    command = [sys.executable, *arguments]
    environment = clean_environment(**settings)
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def modules() -> Iterator[Path]:
    for package in PACKAGES:
        yield from (CHECKOUT / package).rglob("*.py")


def test_the_import_contracts_are_kept() -> None:
    tool = shutil.which("lint-imports", path=sysconfig.get_path("scripts"))
    assert tool is not None
    environment = clean_environment()
    result = subprocess.run(
        [tool, "--no-cache"], cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout
    assert " 0 broken" in result.stdout


def reads_environment(module: Path) -> bool:
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Attribute) and node.attr in ENVIRONMENT:
            return True
        if isinstance(node, ast.ImportFrom) and {alias.name for alias in node.names} & {*ENVIRONMENT, "BaseSettings"}:
            return True
    return False


def test_the_environment_is_read_by_the_settings_only() -> None:
    readers = {str(module.relative_to(CHECKOUT)) for module in modules() if reads_environment(module)}
    assert readers == {"db/settings.py", "worker/settings.py"}


@pytest.mark.parametrize("name", ["holdfast", "holdfast.client", "holdfast.wire", "holdfast.requests"])
def test_the_library_needs_neither_arq_nor_sqlalchemy(name: str) -> None:
    shown = python("-c", f"import json, sys, {name}; print(json.dumps(sorted(sys.modules)))")
    loaded = {module.partition(".")[0] for module in json.loads(shown.stdout)}
    assert {"redis", "pydantic", "holdfast"} <= loaded or name == "holdfast.requests"
    unwanted = {"arq", "sqlalchemy", "alembic", "pydantic_settings", "structlog", "click", "rich", "fakeredis"}
    assert not loaded & (unwanted | {"db", "jobs", "worker", "migrations"})


def test_the_outbox_needs_sqlalchemy_but_no_driver_and_no_arq() -> None:
    shown = python("-c", "import json, sys, holdfast.outbox; print(json.dumps(sorted(sys.modules)))")
    loaded = {module.partition(".")[0] for module in json.loads(shown.stdout)}
    assert "sqlalchemy" in loaded
    assert not loaded & {"arq", "asyncpg", "asyncmy", "aiosqlite", "db", "jobs", "worker"}


def test_importing_makes_no_engine_no_client_no_settings_and_no_thread(tmp_path: Path) -> None:
    """Wrong settings do not matter, and nothing is written."""
    result = python(
        "-c",
        IMPORT_EVERYTHING,
        *("holdfast", "db", "services", "jobs", "worker"),  # migrations/env.py runs when it is imported: Alembic's way
        folder=tmp_path,
        DATABASE_URL="nonsense",
        REDIS_URL="nonsense",
        MAX_JOBS="none",
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert json.loads(result.stdout) == {"made": [], "threads": 1}
    assert list(tmp_path.iterdir()) == []


def test_no_module_is_too_long() -> None:
    lengths = {str(path.relative_to(CHECKOUT)): len(path.read_text().splitlines()) for path in modules()}
    assert {path: lines for path, lines in lengths.items() if lines > 300} == {}
