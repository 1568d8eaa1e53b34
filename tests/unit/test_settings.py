"""The settings: defaults, what wins over what, and what a wrong value is answered."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError
from sqlalchemy.engine import URL

from db.settings import DatabaseSettings
from jobs.settings import JobSettings
from tests.processes import CHECKOUT, clean_environment
from worker.served_queues import ServedQueue
from worker.settings import Settings, embedded_environment

Environment = pytest.MonkeyPatch


@pytest.fixture(autouse=True)
def no_env_file(monkeypatch: Environment, tmp_path: Path) -> Path:
    """The developer's `.env` is out of sight; returns where a test can write one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HOLDFAST_DATA_DIR")
    return tmp_path / ".env"


def problem_of(name: str, value: str, monkeypatch: Environment) -> str:
    """Return what is said about one wrong setting: its name, and the rule."""
    monkeypatch.setenv(name, value)
    with pytest.raises(ValidationError) as caught:
        Settings()
    (error,) = caught.value.errors()
    assert str(error["loc"][0]).upper() == name
    return error["msg"]


def test_the_pools_defaults() -> None:
    settings = DatabaseSettings()
    assert settings.database_pool_size == 5
    assert settings.database_max_overflow == 10
    assert settings.database_pool_timeout == 30
    assert settings.database_pool_recycle == 3600
    assert (settings.sql_echo, settings.debug) == (False, False)


def test_with_nothing_configured_database_and_queue_are_in_the_data_folder(tmp_path: Path) -> None:
    settings = Settings()
    assert settings.url == URL.create("sqlite+aiosqlite", database=str(tmp_path / "data" / "holdfast.db"))
    assert settings.redis_address == f"unix://{tmp_path / 'data' / 'queue.sock'}"
    assert settings.database_is_embedded
    assert settings.database_migrates_itself
    assert settings.queue_is_embedded
    assert settings.import_roots == ()


def test_database_and_queue_default_independently(monkeypatch: Environment) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://localhost:6379/0")
    settings = Settings()
    assert (settings.database_is_embedded, settings.queue_is_embedded) == (True, False)
    monkeypatch.delenv("REDIS_URL")
    monkeypatch.setenv("DATABASE_URL", "postgresql://localhost/tasks")
    settings = Settings()
    assert (settings.database_is_embedded, settings.queue_is_embedded) == (False, True)
    assert not settings.database_migrates_itself


def test_postgresql_in_parts(monkeypatch: Environment) -> None:
    monkeypatch.setenv("POSTGRES_HOST", "db.example")
    assert DatabaseSettings().url == URL.create("postgresql+asyncpg", "postgres", None, "db.example", 5432, "postgres")
    for name, value in {"PORT": "6000", "USER": "ada", "PASSWORD": "p@:/% ", "DB": "tasks"}.items():
        monkeypatch.setenv(f"POSTGRES_{name}", value)
    assert DatabaseSettings().url == URL.create("postgresql+asyncpg", "ada", "p@:/% ", "db.example", 6000, "tasks")
    assert not DatabaseSettings().database_is_embedded


def test_database_url_wins_over_the_parts(monkeypatch: Environment) -> None:
    monkeypatch.setenv("POSTGRES_HOST", "elsewhere")
    monkeypatch.setenv("DATABASE_URL", "mysql://ada@db.example/tasks")
    assert DatabaseSettings().url == URL.create("mysql+asyncmy", "ada", None, "db.example", None, "tasks")


def test_a_database_in_memory_migrates_itself(monkeypatch: Environment) -> None:
    monkeypatch.setenv("DATABASE_URL", ":memory:")
    assert DatabaseSettings().database_migrates_itself
    assert not DatabaseSettings().database_is_embedded


def test_env_file_is_read_and_the_environment_wins(no_env_file: Path, monkeypatch: Environment) -> None:
    no_env_file.write_text("MAX_JOBS=7\nDATABASE_POOL_SIZE=3\nREDIS_URL=redis://there\nUNKNOWN_TO_US=1\n")
    monkeypatch.setenv("DATABASE_POOL_SIZE", "4")
    settings = Settings()
    assert (settings.max_jobs, settings.database_pool_size) == (7, 4)
    assert settings.redis_address == "redis://there"


def test_an_empty_variable_means_the_default_whatever_env_file_says(
    no_env_file: Path, monkeypatch: Environment
) -> None:
    no_env_file.write_text("DATABASE_URL=postgresql://production/tasks\nREDIS_URL=redis://production\nMAX_JOBS=7\n")
    for name in ("DATABASE_URL", "POSTGRES_HOST", "REDIS_URL", "MAX_JOBS", "IMPORT_ROOTS"):
        monkeypatch.setenv(name, "")
    settings = Settings()
    assert (settings.database_is_embedded, settings.queue_is_embedded, settings.max_jobs) == (True, True, 10)


def test_the_demos_environment_reaches_no_configured_server(
    no_env_file: Path, monkeypatch: Environment, tmp_path: Path
) -> None:
    no_env_file.write_text(
        "DATABASE_URL=postgresql://production/tasks\nREDIS_URL=redis://production\nPOSTGRES_HOST=x\n"
    )
    monkeypatch.setenv("DATABASE_URL", "postgresql://production/tasks")
    monkeypatch.setenv("MAX_JOBS", "3")
    for name, value in embedded_environment(tmp_path / "demo").items():
        monkeypatch.setenv(name, value)
    settings = Settings()
    assert (settings.database_is_embedded, settings.queue_is_embedded, settings.max_jobs) == (True, True, 3)
    assert settings.url.database == str(tmp_path / "demo" / "holdfast.db")


def test_queues_are_served_in_their_order_with_their_slots(monkeypatch: Environment) -> None:
    assert Settings().served_queues == (ServedQueue("arq:queue"),)
    monkeypatch.setenv("QUEUE_NAME", "mine")
    assert Settings().served_queues == (ServedQueue("mine"),)
    monkeypatch.setenv("QUEUES", "app:high=5, mine,a=b=1")
    assert Settings().served_queues == (ServedQueue("app:high", 5), ServedQueue("mine"), ServedQueue("a=b", 1))


def test_the_namespace_stands_before_every_queue_once(monkeypatch: Environment) -> None:
    monkeypatch.setenv("HOLDFAST_NAMESPACE", "staging")
    assert Settings().queue_key == "staging:arq:queue"
    assert Settings().key_of("staging:arq:queue") == "staging:arq:queue"
    monkeypatch.setenv("QUEUES", "high=5,staging:low")
    assert Settings().served_queues == (ServedQueue("staging:high", 5), ServedQueue("staging:low"))


@pytest.mark.parametrize("name", ["QUEUE_NAME", "QUEUES"])
def test_a_queue_with_its_namespace_fits_into_the_ledger(name: str, monkeypatch: Environment) -> None:
    monkeypatch.setenv("HOLDFAST_NAMESPACE", "staging")
    monkeypatch.setenv(name, "q" * 92)
    assert len(Settings().served_queues[0].name) == 100
    rule = "has a name of more than 100 characters with HOLDFAST_NAMESPACE before it"
    assert rule in problem_of(name, "q" * 93, monkeypatch)


def test_import_roots_are_separated_by_colons(monkeypatch: Environment) -> None:
    monkeypatch.setenv("IMPORT_ROOTS", "/imports:/srv/with blanks::/\u00e4")
    assert JobSettings().import_roots == (Path("/imports"), Path("/srv/with blanks"), Path("/\u00e4"))


def test_a_relative_import_root_is_refused(monkeypatch: Environment) -> None:
    rule = "Value error, 'imports' is relative but must be absolute: write the folder's whole path"
    assert problem_of("IMPORT_ROOTS", "/srv:imports", monkeypatch) == rule


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("DATABASE_POOL_SIZE", "0", "greater than or equal to 1"),
        ("DATABASE_POOL_SIZE", "many", "valid integer"),
        ("DATABASE_MAX_OVERFLOW", "-1", "greater than or equal to 0"),
        ("DATABASE_POOL_TIMEOUT", "0", "greater than 0"),
        ("DATABASE_POOL_RECYCLE", "-2", "greater than or equal to -1"),
        ("POSTGRES_PORT", "65536", "less than or equal to 65535"),
        ("SQL_ECHO", "perhaps", "valid boolean"),
        ("DATABASE_STATEMENT_TIMEOUT_S", "-1", "greater than or equal to 0"),
        ("DATABASE_IDLE_TRANSACTION_TIMEOUT_S", "soon", "valid number"),
        ("DATABASE_SLOW_QUERY_S", "-1", "greater than or equal to 0"),
        ("DATABASE_TLS", "perhaps", "'disable', 'require', 'verify-ca' or 'verify-full'"),
        ("DATABASE_TLS_CA", "/ca.pem", "does nothing without encryption: set DATABASE_TLS, best to verify-full"),
        ("DATABASE_POOLER", "session", "'none' or 'transaction'"),
        ("DATABASE_POOLER", "transaction", "is for PostgreSQL but DATABASE_URL is sqlite: remove it"),
        ("DATABASE_REPLICA_URL", "postgresql://db/x", "must be of the same engine as DATABASE_URL (sqlite)"),
        ("DATABASE_DIRECT_URL", "mysql://db/x", "must be of the same engine as DATABASE_URL (sqlite)"),
        ("DATABASE_DIRECT_URL", "oracle://localhost/tasks", "begins with oracle:// but must begin with one of"),
        ("MAX_JOBS", "0", "greater than or equal to 1"),
        ("SHUTDOWN_GRACE_S", "-1", "greater than or equal to 0"),
        ("HEARTBEAT_INTERVAL_S", "0", "greater than 0"),
        ("QUEUE_NAME", "q" * 101, "at most 100 characters"),
        ("HOLDFAST_NAMESPACE", "a b", "namespace 'a b': use at most 40 letters, digits, - and _, but not arq"),
        ("HOLDFAST_NAMESPACE", "arq", "namespace 'arq': use"),
        ("HOLDFAST_NAMESPACE", "n" * 41, "use at most 40 letters"),
        ("QUEUES", "high=0,low", "gives high 0 slots: write a number from 1 to 10000, as in high=5"),
        ("QUEUES", "high=,low", "gives high no slots: write a number"),
        ("QUEUES", "high=five", "gives high five slots: write a number"),
        ("QUEUES", "high,,low", "a queue's name of 0 characters: write 1 to 100, as in high=5,low"),
        ("QUEUES", "q" * 101, "a queue's name of 101 characters"),
        ("QUEUES", "high=5,low, high", "names high twice: name each queue once, the most urgent one first"),
        ("LOG_FORMAT", "xml", "'console' or 'json'"),
        ("LOG_LEVEL", "loud", "'debug', 'info', 'warning' or 'error'"),
        ("DATABASE_URL", "oracle://localhost/tasks", "begins with oracle:// but must begin with one of"),
        ("DATABASE_URL", "postgresql://localhost/x?bogus=1", "has an option behind its ? that asyncpg does not know"),
        ("DATABASE_URL", "mysql://localhost/tasks?bogus=1", "has an option behind its ? that asyncmy does not know"),
        ("DATABASE_URL", "sqlite:////tasks.db?bogus=1", "has an option behind its ? that aiosqlite does not know"),
        ("DATABASE_URL", "sqlite:////tasks.db?timeout=abc", "has an option behind its ? that aiosqlite does not know"),
        ("REDIS_URL", "http://localhost", "must begin with redis://, rediss://, unix://, redis+sentinel:// or rediss+"),
        ("REDIS_URL", "redis+sentinel://one,,two/0", "names a sentinel that is no host:port: write redis+sentinel://"),
        ("REDIS_URL", "redis+sentinel://one/0?sokcet_timeout=5", "has an option behind its ? that redis-py does not"),
        ("REDIS_URL", "localhost:6379", "must begin with redis://"),
        ("REDIS_URL", "redis://:half/other@localhost:6379/0", "no port from 0 to 65535 behind the host"),
        ("REDIS_URL", "redis://localhost?socket_timeout=abc", "has an option behind its ? that redis-py does not know"),
        ("REDIS_URL", "redis://localhost?sokcet_timeout=5", "has an option behind its ? that redis-py does not know"),
        ("REDIS_URL", "rediss://localhost?ssl_cert_reqs=abc", "has an option behind its ? that redis-py does not know"),
    ],
)
def test_a_wrong_value_is_refused_with_its_rule(name: str, value: str, rule: str, monkeypatch: Environment) -> None:
    assert rule in problem_of(name, value, monkeypatch)


def test_a_key_needs_its_certificate(monkeypatch: Environment) -> None:
    monkeypatch.setenv("DATABASE_TLS", "verify-full")
    assert "needs its certificate: name that in DATABASE_TLS_CERT" in problem_of(
        "DATABASE_TLS_KEY", "/client.key", monkeypatch
    )


def test_a_replica_may_be_called_by_the_other_name_of_its_engine(monkeypatch: Environment) -> None:
    monkeypatch.setenv("DATABASE_URL", "mysql://db.example/tasks")
    monkeypatch.setenv("DATABASE_REPLICA_URL", "mariadb://replica.example/tasks")
    assert DatabaseSettings().replica_url == URL.create("mariadb+asyncmy", host="replica.example", database="tasks")


def test_migrations_go_to_the_direct_url(monkeypatch: Environment) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://pooler.example/tasks")
    assert DatabaseSettings().direct_url == DatabaseSettings().url
    monkeypatch.setenv("DATABASE_DIRECT_URL", "postgresql://db.example/tasks")
    assert DatabaseSettings().direct_url.host == "db.example"


@pytest.mark.parametrize("name", ["DATABASE_URL", "REDIS_URL", "POSTGRES_PASSWORD"])
def test_a_secret_is_in_no_text_of_the_settings(name: str, monkeypatch: Environment) -> None:
    secret = {"DATABASE_URL": "postgresql://ada:canary-81@db/x", "REDIS_URL": "redis://:canary-81@db:1/0"}
    monkeypatch.setenv("POSTGRES_HOST", "db")
    monkeypatch.setenv(name, secret.get(name, "canary-81"))
    settings = Settings()
    texts = [repr(settings), str(settings), str(settings.model_dump()), settings.model_dump_json(), settings.queue_home]
    texts += [repr(settings.url), str(settings.url)]
    assert "canary" not in " ".join(texts)
    assert "canary" in settings.redis_address + settings.url.render_as_string(hide_password=False)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE_URL", "canary-82"),
        ("DATABASE_URL", "oracle://ada:canary-82@db/x"),
        ("DATABASE_URL", "postgresql://ada:canary-82@db"),
        ("DATABASE_URL", "postgresql://db/x?canary-82@db=canary-82"),
        ("DATABASE_REPLICA_URL", "postgresql://ada:canary-82@db/x"),
        ("DATABASE_DIRECT_URL", "sqlite:///x?canary-82=canary-82"),
        ("REDIS_URL", "canary-82"),
        ("REDIS_URL", "redis://:canary-82/canary-82@db"),
        ("REDIS_URL", "redis://:canary-82@db?canary-82=1"),
        ("REDIS_URL", "redis+sentinel://:canary-82@db?canary-82=1"),
        ("REDIS_URL", "redis+sentinel://:canary-82@canary-82@db:x/0"),
    ],
)
def test_a_secret_is_in_no_error_of_the_settings(name: str, value: str, monkeypatch: Environment) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ValidationError) as caught:
        Settings()
    assert "canary" not in f"{caught.value} {caught.value!r}"


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().max_jobs = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("url", "home"),
    [
        ("redis://ada:secret@db.example:7000/3?socket_timeout=1", "redis://db.example:7000/3"),
        ("rediss://db.example", "rediss://db.example:6379"),
        ("unix:///run/redis.sock?password=secret", "unix:///run/redis.sock"),
        (
            "redis+sentinel://ada:secret@one,two:7000/3?service=main&sentinel_password=secret",
            "redis+sentinel://one:26379,two:7000/3?service=main",
        ),
    ],
)
def test_the_queues_home_names_the_place(url: str, home: str, monkeypatch: Environment) -> None:
    monkeypatch.setenv("REDIS_URL", url)
    assert Settings().queue_home == home


def test_embedded_queues_of_different_folders_have_different_homes(monkeypatch: Environment) -> None:
    homes = set()
    for folder in ("one", "two", "t" * 200):
        monkeypatch.setenv("HOLDFAST_DATA_DIR", folder)
        homes.add(Settings().queue_home)
    assert len(homes) == 3
    assert max(map(len, homes)) <= 255


@pytest.mark.parametrize("debug", ["false", "true"])
def test_check_shows_no_secret(tmp_path: Path, debug: str) -> None:
    secrets = {
        "DATABASE_URL": "postgresql://ada:canary-83@127.0.0.1:1/x?password=canary-83",
        "REDIS_URL": "redis://:canary-83@127.0.0.1:1/0",
        "POSTGRES_PASSWORD": "canary-83",
    }
    (tmp_path / ".env").write_text("".join(f"{name}={value}\n" for name, value in secrets.items()))
    words = [sys.executable, "-m", "worker", "check"]
    environment = clean_environment(DEBUG=debug, HOLDFAST_DATA_DIR=str(tmp_path))
    result = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "canary" not in result.stdout + result.stderr
    lines = result.stdout.splitlines()
    assert [line.split("=")[0] for line in lines] == ["DATABASE_URL", "REDIS_URL"]
    assert "ada:***@127.0.0.1:1" in lines[0]


def test_by_default_the_runs_of_a_killed_worker_go_on_within_15_seconds() -> None:
    settings = Settings()
    # Missed, looked for at the heartbeat's pace, put into Redis and claimed; a claim of its own is over before.
    assert settings.heartbeat_timeout_s + 2 * settings.heartbeat_interval_s + settings.dispatch_interval_s <= 15
    assert settings.lease_s <= settings.heartbeat_timeout_s


def test_each_setting_says_what_it_means() -> None:
    for model in (DatabaseSettings, JobSettings, Settings):
        source = (CHECKOUT / f"{model.__module__.replace('.', '/')}.py").read_text()
        undocumented = {"postgres_port", "postgres_user", "postgres_password", "postgres_db"}  # told with the host
        for name in set(model.__annotations__) - undocumented - {"model_config"}:
            field, _, rest = source.partition(f"\n    {name}: ")
            assert field
            assert rest.partition("\n")[2].lstrip().startswith('"""'), f"{name} has no docstring"


EXAMPLES = {
    "database_url",
    "postgres_host",
    "postgres_password",
    "redis_url",
    "import_roots",
    "queues",
    "archive_dir",
} | {f"database_{name}" for name in ("replica_url", "direct_url", "tls", "tls_ca", "tls_cert", "tls_key")}
"""Settings whose default is to be unset, so that the file shows an example."""
OF_COMPOSE = {"PUBLISHED_POSTGRES_PORT", "PUBLISHED_REDIS_PORT"}


def test_the_example_file_names_every_setting_with_its_default(no_env_file: Path) -> None:
    lines = (CHECKOUT / ".env.example").read_text(encoding="utf-8").splitlines()
    shown = [re.fullmatch(r"# ([A-Z_]+)=(.*)", line) for line in lines]
    values = {match[1]: match[2] for match in shown if match}
    assert set(values) - OF_COMPOSE == {name.upper() for name in Settings.model_fields}
    defaults = Settings(_env_file=None)
    no_env_file.write_text("".join(f"{name}={value}\n" for name, value in values.items()))
    for name in Settings.model_fields:
        example, default = getattr(Settings(), name), getattr(defaults, name)
        assert (example != default) if name in EXAMPLES else (example == default), name
