"""Wrong settings, and servers that are not there: each command says in one line which setting it is."""

from pathlib import Path

import pytest

from tests.cli.command import Ended, invoke
from tests.cli.tables import Tables
from tests.servers import MariaDBServer, PostgresServer, RedisServer, free_port
from tests.skips import made_or_skipped

CANARY = "canary-4711"
CORRECT = "correct {0} in the environment or in .env"
WRONG = {
    ("DATABASE_URL", f"oracle://u:{CANARY}@h/x"): "*** begins with oracle:// but must begin with one of"
    " postgresql://, mysql://, mariadb://, sqlite://",
    ("DATABASE_URL", f"postgresql://u:{CANARY}@h"): "*** names no database: add it behind the host, as in"
    " postgresql://host:5432/name",
    ("DATABASE_URL", CANARY): "*** is not a database URL: it reads like postgresql://user:password@host:5432/name",
    ("REDIS_URL", f"http://u:{CANARY}@h"): "*** must begin with redis://, rediss://, unix://, redis+sentinel://"
    " or rediss+sentinel://, as redis://localhost:6379/0",
    ("DATABASE_URL", f"postgresql://u:{CANARY}@h/x?{CANARY}=1"): "*** has an option behind its ? that asyncpg does not"
    " know or cannot read: correct or remove it (special characters of the password are written as %3F and the like)",
    ("DATABASE_POOL_SIZE", "0"): "0 should be greater than or equal to 1",
    ("DATABASE_POOL_SIZE", "few"): "few should be a valid integer, unable to parse string as an integer",
    ("LOG_LEVEL", "loud"): "loud should be 'debug', 'info', 'warning' or 'error'",
    ("IMPORT_ROOTS", "imports"): "imports 'imports' is relative but must be absolute: write the folder's whole path",
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "tasks.csv"
    file.write_text("title\none\n")
    return file


def assert_hidden(ended: Ended) -> None:
    assert CANARY not in ended.out + ended.err


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_a_wrong_setting(tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    for words in (["import", path], ["run"], ["db", "current"]):
        ended = invoke(*words)
        assert (ended.code, ended.line) == (2, f"{name}={WRONG[name, value]}; {CORRECT.format(name)}")
        assert_hidden(ended)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("content", [b"LOG_LEVEL=\xff\n", None], ids=["no UTF-8", "a folder"])
def test_an_env_file_that_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None
) -> None:
    monkeypatch.chdir(tmp_path)
    if content is None:
        (tmp_path / ".env").mkdir()
        assert invoke("runs", "list").code == 0
        return
    (tmp_path / ".env").write_bytes(content)
    ended = invoke("runs", "list")
    assert ended.code == 2
    assert ended.line.startswith(".env cannot be read: ")
    assert ended.line.endswith("; make it UTF-8 text that this user may read")
    checked = invoke("check", "--json")
    (problem,) = checked.document["problems"]
    assert (checked.code, problem["setting"], problem["value"]) == (2, ".env", f"{tmp_path}/.env")
    assert ended.line == f".env {problem['rule']}; {problem['advice']}"


def test_a_data_folder_that_is_a_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLDFAST_DATA_DIR", str(path))
    for words in (["runs", "list"], ["db", "upgrade"], ["enqueue", "import_tasks", "source=/x"], ["run"]):
        ended = invoke(*words)
        assert (ended.code, ended.line) == (
            2,
            f"HOLDFAST_DATA_DIR={path} is a file; name a folder that this user may write to",
        )


@pytest.mark.parametrize("scheme", ["postgresql", "mariadb"])
def test_no_database_server(tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    port = free_port()
    monkeypatch.setenv("DATABASE_URL", f"{scheme}://u:{CANARY}@127.0.0.1:{port}/x")
    for words in (["import", path, "--json"], ["runs", "list"], ["db", "upgrade"]):
        ended = invoke(*words)
        assert ended.code == 1
        assert ended.line.startswith("DATABASE_URL ")
        assert f"u:***@127.0.0.1:{port}/x: no connection (" in ended.line
        assert ended.line.endswith("); start the server or correct the URL")
        assert_hidden(ended)
    assert list((tmp_path / "data" / "spool").iterdir()) == []


def test_a_host_that_does_not_exist(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", f"postgresql://u:{CANARY}@no-such-host.invalid/x")
    ended = invoke("import", path)
    assert ended.code == 1
    assert "@no-such-host.invalid/x: no connection (" in ended.line
    assert_hidden(ended)


def test_a_database_that_does_not_exist(path: Path, monkeypatch: pytest.MonkeyPatch, database_url: str) -> None:
    wrong = database_url.rpartition("/")[0] + "/no_such_place/no_such_database"
    if not database_url.startswith("sqlite"):
        wrong = database_url.rpartition("/")[0] + "/no_such_database"
    monkeypatch.setenv("DATABASE_URL", wrong)
    ended = invoke("import", path)
    assert ended.code == 1
    assert "no_such_database: no connection (" in ended.line
    advice = "; start the server or correct the URL"
    if database_url.startswith("sqlite"):
        advice = "; make its folder, where this user may write, or correct the URL"
    assert ended.line.endswith(advice)


def test_a_wrong_password(
    path: Path, monkeypatch: pytest.MonkeyPatch, postgres_server: PostgresServer, mariadb_server: MariaDBServer
) -> None:
    mariadb_server.execute("CREATE USER IF NOT EXISTS 'guarded'@'127.0.0.1' IDENTIFIED BY 'right'")
    postgres_server.execute("DROP ROLE IF EXISTS nobody_here")
    for server, user in ((mariadb_server, "guarded"), (postgres_server, "nobody_here")):
        scheme, _, place = server.url.partition("://")
        monkeypatch.setenv("DATABASE_URL", f"{scheme}://{user}:{CANARY}@{place.partition('@')[2]}")
        ended = invoke("import", path)
        assert ended.code == 1
        assert f"{user}:***@" in ended.line
        assert ("Access denied" if user == "guarded" else "does not exist") in ended.line
        assert_hidden(ended)


def test_no_redis(tables: Tables, tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    monkeypatch.setenv("DATABASE_URL", tables.url)
    monkeypatch.setenv("REDIS_URL", f"redis://:{CANARY}@127.0.0.1:{port}/0")
    monkeypatch.setenv("STARTUP_PATIENCE_S", "0")
    for words in (["import", path], ["import", path, "--detach"], ["enqueue", "import_tasks", "source=/x"], ["run"]):
        ended = invoke(*words)
        assert ended.code == 1
        assert ended.line.startswith("REDIS_URL")
        assert f"127.0.0.1:{port}" in ended.line
        assert ended.line.endswith(("; start the server or correct the URL", "; start Redis or correct the URL"))
        assert_hidden(ended)
    assert tables.runs() == []
    assert list((tmp_path / "data" / "spool").iterdir()) == []


def test_a_redis_that_wants_another_password(
    tables: Tables, path: Path, monkeypatch: pytest.MonkeyPatch, pytestconfig: pytest.Config
) -> None:
    with made_or_skipped(
        lambda: RedisServer(extra_args=["--user", "guest", "on", ">right", "~*", "+@all"]), pytestconfig
    ) as server:
        monkeypatch.setenv("DATABASE_URL", tables.url)
        monkeypatch.setenv("REDIS_URL", f"redis://guest:{CANARY}@127.0.0.1:{server.port}/0")
        ended = invoke("import", path)
    assert ended.code == 1
    assert ended.line.startswith("REDIS_URL: ")
    assert "password" in ended.line
    assert_hidden(ended)
