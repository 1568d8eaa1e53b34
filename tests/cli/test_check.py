"""`check`: every problem at once."""

from pathlib import Path

import pytest

from tests.cli.command import invoke
from tests.guarded_redis import connect, denied, guarded_redis, url_of
from tests.servers import PostgresServer, RedisServer, free_port
from tests.skips import made_or_skipped

KEYS = ["setting", "value", "rule", "advice"]


def test_nothing_is_wrong(tmp_path: Path) -> None:
    ended = invoke("check", "--json")
    assert (ended.code, ended.document) == (0, {"problems": []})
    ended = invoke("check")
    assert (ended.code, ended.out, ended.err) == (0, "", "no problems\n")
    assert not (tmp_path / "data").exists()


def test_wrong_settings_are_named_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "oracle://u:canary@h/x")
    monkeypatch.setenv("MAX_JOBS", "0")
    monkeypatch.setenv("LOG_FORMAT", "xml")
    ended = invoke("check", "--json")
    problems = ended.document["problems"]
    assert ended.code == 2
    assert [list(problem) for problem in problems] == [KEYS] * 3
    assert {problem["setting"]: problem["value"] for problem in problems} == {
        "DATABASE_URL": "***",
        "MAX_JOBS": "0",
        "LOG_FORMAT": "xml",
    }
    assert "canary" not in ended.out + ended.err
    lines = invoke("check").out.splitlines()
    rule, advice = "should be greater than or equal to 1", "correct MAX_JOBS in the environment or in .env"
    assert f"MAX_JOBS=0: {rule}; {advice}" in lines
    assert len(lines) == 3


def test_other_problems_are_named_all_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    redis_port, database_port = free_port(), free_port()
    (tmp_path / "file").touch()
    settings = {
        "MAX_JOBS": "100",
        "HEARTBEAT_TIMEOUT_S": "3",
        "HOLDFAST_DATA_DIR": f"{tmp_path}/file/data",
        "IMPORT_ROOTS": f"{tmp_path}:{tmp_path}/nothing",
        "ARCHIVE_RETENTION_DAYS_BY_TABLE": '{"taskss": 365, "tasks": 365}',
        "DATABASE_URL": f"postgresql://u:canary@127.0.0.1:{database_port}/x",
        "REDIS_URL": f"redis://:canary@127.0.0.1:{redis_port}/0",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    ended = invoke("check", "--json")
    found = {problem["setting"]: problem for problem in ended.document["problems"]}
    assert ended.code == 1
    assert set(found) == set(settings)
    assert found["IMPORT_ROOTS"]["value"] == f"{tmp_path}/nothing"
    assert found["MAX_JOBS"]["advice"] == "raise the pool or lower MAX_JOBS"
    retention = found["ARCHIVE_RETENTION_DAYS_BY_TABLE"]
    assert (retention["value"], retention["advice"]) == ("taskss", "did you mean tasks?")
    assert "canary" not in ended.out + ended.err
    ended = invoke("check")
    assert ended.code == 1
    assert len(ended.out.splitlines()) == 7
    assert ended.err == "7 problems\n"


def test_sentinels_that_are_away(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    monkeypatch.setenv("REDIS_URL", f"redis+sentinel://ada:canary@127.0.0.1:{port}/0?sentinel_password=canary")
    ended = invoke("check", "--json")
    (problem,) = ended.document["problems"]
    assert (ended.code, problem["setting"]) == (1, "REDIS_URL")
    assert problem["value"] == f"redis+sentinel://127.0.0.1:{port}/0?service=mymaster"
    assert "no sentinel names a master 'mymaster' that is up" in problem["rule"]
    assert "canary" not in ended.out + ended.err


def test_an_embedded_queue_that_nobody_would_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUEUES", "high=5,low")
    (problem,) = invoke("check", "--json").document["problems"]
    assert (problem["setting"], problem["value"], problem["advice"]) == ("QUEUES", "high,low", "add arq:queue to it")
    monkeypatch.setenv("QUEUES", "high=5,arq:queue")
    assert invoke("check", "--json").document == {"problems": []}


def test_a_database_that_is_not_migrated(monkeypatch: pytest.MonkeyPatch, database_url: str) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)
    ended = invoke("check", "--json")
    (problem,) = ended.document["problems"]
    assert ended.code == 1
    assert (problem["setting"], problem["advice"]) == ("DATABASE_URL", "run `python -m worker db upgrade`")
    assert invoke("db", "upgrade").code == 0
    assert invoke("check", "--json").document == {"problems": []}


@pytest.mark.parametrize("granted", ["", "SELECT", "SELECT, INSERT"])
def test_a_user_of_the_database_who_may_not_write(
    granted: str, monkeypatch: pytest.MonkeyPatch, postgres_url: str, postgres_server: PostgresServer
) -> None:
    monkeypatch.setenv("LOG_LEVEL", "error")
    monkeypatch.setenv("DATABASE_URL", postgres_url)
    assert invoke("db", "upgrade").code == 0
    postgres_server.execute("DROP ROLE IF EXISTS weak; CREATE ROLE weak LOGIN")
    if granted:
        postgres_server.execute(f"GRANT {granted} ON ALL TABLES IN SCHEMA public TO weak", postgres_url)
    monkeypatch.setenv("DATABASE_URL", postgres_url.replace("postgres@", "weak@"))
    checked, listed, started = invoke("check", "--json"), invoke("queues", "pause", "x"), invoke("run")
    postgres_server.execute("DROP OWNED BY weak", postgres_url)
    (problem,) = checked.document["problems"]
    assert (checked.code, problem["setting"]) == (1, "DATABASE_URL")
    assert problem["rule"].startswith("permission denied for table ")
    for ended in (listed, started):
        assert ended.code == 1
        assert ended.line.startswith(f"DATABASE_URL {problem['value']}: permission denied for table ")
        assert ended.line.endswith(f"; {problem['advice']}")


def test_a_redis_that_may_throw_runs_away(monkeypatch: pytest.MonkeyPatch, pytestconfig: pytest.Config) -> None:
    with made_or_skipped(lambda: RedisServer(extra_args=["--maxmemory-policy", "allkeys-lru"]), pytestconfig) as server:
        monkeypatch.setenv("REDIS_URL", server.url)
        ended = invoke("check", "--json")
    (problem,) = ended.document["problems"]
    assert (ended.code, problem["setting"]) == (1, "REDIS_URL")
    assert problem["rule"].startswith("its maxmemory-policy is allkeys-lru")


def test_a_redis_cluster(monkeypatch: pytest.MonkeyPatch, pytestconfig: pytest.Config) -> None:
    with made_or_skipped(lambda: RedisServer(extra_args=["--cluster-enabled", "yes"]), pytestconfig) as server:
        monkeypatch.setenv("REDIS_URL", server.url)
        monkeypatch.setenv("LOG_LEVEL", "error")
        checked, started = invoke("check", "--json"), invoke("run")
    (problem,) = checked.document["problems"]
    assert (checked.code, problem["setting"]) == (1, "REDIS_URL")
    assert problem["rule"].startswith("it is a Redis Cluster, where the keys of a queue and its runs are on different")
    assert started.code == 1
    assert started.line == f"REDIS_URL {server.url}: {problem['rule']}; {problem['advice']}"


def test_a_redis_that_does_not_let_its_configuration_be_read(
    monkeypatch: pytest.MonkeyPatch, pytestconfig: pytest.Config
) -> None:
    guest = ["--user", "guest", "on", ">right", "~*", "+@all", "-config"]
    for arguments in (["--rename-command", "CONFIG", ""], guest):
        with made_or_skipped(lambda words=arguments: RedisServer(extra_args=words), pytestconfig) as server:  # type: ignore[misc]
            user = "guest:right@" if arguments is guest else ""
            monkeypatch.setenv("REDIS_URL", f"redis://{user}127.0.0.1:{server.port}/0")
            assert invoke("check", "--json").document == {"problems": []}


@pytest.mark.parametrize("user", ["producer", "operator"])
def test_a_user_of_redis_who_may_not_do_a_workers_work(
    user: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pytestconfig: pytest.Config
) -> None:
    monkeypatch.setenv("LOG_LEVEL", "error")
    with guarded_redis(tmp_path, pytestconfig) as server:
        monkeypatch.setenv("REDIS_URL", url_of(server, "worker"))
        assert invoke("check", "--json").document == {"problems": []}
        assert denied(connect(server, "admin")) == []
        monkeypatch.setenv("REDIS_URL", url_of(server, user))
        checked, started = invoke("check", "--json"), invoke("run")
    (problem,) = checked.document["problems"]
    assert (checked.code, problem["setting"]) == (1, "REDIS_URL")
    assert "no permissions" in problem["rule"] or "can't" in problem["rule"]
    assert problem["advice"] == "give this user the rights of the worker in deploy/redis-users.acl, or name another one"
    assert started.code == 1
    assert started.line == f"REDIS_URL redis://127.0.0.1:{server.port}/0: {problem['rule']}; {problem['advice']}"
