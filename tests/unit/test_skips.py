"""A missing server: skipped with the reason, counted in the last lines, and a failure on CI."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers import MissingBinaryError
from tests.servers.binaries import POSTGRES, REDIS, find_server, find_tool, missing_packages

CHECKOUT = Path(__file__).parents[2]
PROBES = """
def test_plain(): pass
def test_redis(redis_url): pass
def test_redis_again(redis_url): pass
def test_each(database_url): pass
"""


def run_probes(folder: Path, *more: str, **environment: str) -> subprocess.CompletedProcess[str]:
    probes = folder / "test_probes.py"
    probes.write_text(PROBES)
    command = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-p", "no:cacheprovider"]
    options = [*more, "-c", str(CHECKOUT / "pyproject.toml"), f"--basetemp={folder / 'tmp'}", str(probes)]
    inherited = {name: value for name, value in os.environ.items() if name != "CI"}
    return subprocess.run(
        [*command, *options],
        cwd=CHECKOUT,
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("processes", ["0", "2"])
def test_missing_servers_are_counted_in_the_last_lines(tmp_path: Path, processes: str) -> None:
    result = run_probes(tmp_path, "-n", processes, TEST_SERVER_PATH="")
    assert result.returncode == 0, result.stdout
    *_, title, mariadb, postgres, redis, closing = result.stdout.splitlines()
    assert "skipped for what is not installed" in title
    assert mariadb == "1 test skipped: mariadbd is not on the PATH: apt-get install mariadb-server"
    assert postgres == "1 test skipped: postgres is not on the PATH: apt-get install postgresql"
    assert redis == "2 tests skipped: redis-server is not on the PATH: apt-get install redis-server"
    assert "2 passed, 4 skipped" in closing


def test_on_ci_a_missing_server_is_a_failure(tmp_path: Path) -> None:
    result = run_probes(tmp_path, TEST_SERVER_PATH="", CI="true")
    assert result.returncode == 1
    assert "redis-server is not on the PATH: apt-get install redis-server (CI=true" in result.stdout
    assert "2 passed, 4 errors" in result.stdout.splitlines()[-1]


def test_only_what_is_missing_is_skipped(tmp_path: Path, redis_binary: Path) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "redis-server").symlink_to(redis_binary)
    result = run_probes(tmp_path, TEST_SERVER_PATH=str(folder))
    assert "4 passed, 2 skipped" in result.stdout.splitlines()[-1], result.stdout
    assert "redis" not in result.stdout.partition("skipped for what is not installed")[2]


@pytest.fixture
def redis_binary(redis_server: object) -> Path:
    del redis_server  # skips the test where there is none
    return find_server(*REDIS)


def make_program(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def test_the_search_path_can_be_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = make_program(tmp_path / "bin" / "postgres")
    monkeypatch.setenv("TEST_SERVER_PATH", str(tmp_path / "bin"))
    assert find_server(*POSTGRES) == server
    assert missing_packages() == ["mariadb-server", "redis-server", "pgbouncer", "openssl"]


def test_tools_belong_to_the_server_a_link_leads_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = make_program(tmp_path / "15" / "bin" / "postgres")
    initdb = make_program(tmp_path / "15" / "bin" / "initdb")
    make_program(tmp_path / "path" / "initdb")
    (tmp_path / "path" / "postgres").symlink_to(real)
    monkeypatch.setenv("TEST_SERVER_PATH", str(tmp_path / "path"))
    server = find_server(*POSTGRES)
    assert find_tool(server, "initdb") == initdb
    with pytest.raises(MissingBinaryError, match=r"psql is not on the PATH, but .*postgres is"):
        find_tool(server, "psql")


def test_debians_newest_postgres_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TEST_SERVER_PATH", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("tests.servers.binaries.DEBIAN_POSTGRES", tmp_path)
    for version in ("9.6", "15", "17"):
        make_program(tmp_path / version / "bin" / "postgres")
    assert find_server(*POSTGRES) == tmp_path / "17" / "bin" / "postgres"


def test_the_environment_is_clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leaking = {"DATABASE_URL", "POSTGRES_HOST", "REDIS_URL", "HOLDFAST_ANYTHING", "IMPORT_ROOTS", "DEBUG"}
    probes = "import os\ndef test_environment(tmp_path):\n"
    probes += f"    assert not {leaking!r} & set(os.environ)\n"
    probes += "    assert os.environ['HOLDFAST_DATA_DIR'] == str(tmp_path / 'data')\n"
    monkeypatch.setattr(f"{__name__}.PROBES", probes)
    result = run_probes(tmp_path, **dict.fromkeys(leaking, "1"))
    assert result.returncode == 0, result.stdout
