"""A worker that is as talkative as it can be does not tell its passwords."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from db import migrate
from db.settings import DatabaseSettings
from tests.processes import WorkerProcess, clean_environment

SECRET = "canary-84"


@pytest.fixture
def redis_url_with_password(redis_url: str) -> Iterator[str]:
    """An empty Redis, as a user who has a password."""
    with redis.Redis.from_url(redis_url) as client:
        client.execute_command("ACL", "SETUSER", "ada", "on", f">{SECRET}", "~*", "&*", "+@all")
        yield redis_url.replace("redis://", f"redis://ada:{SECRET}@")
        client.execute_command("ACL", "DELUSER", "ada")


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_no_log_line_holds_a_password(
    log_format: str, postgres_url: str, redis_url_with_password: str, tmp_path: Path
) -> None:
    database_url = postgres_url.replace("postgres@", f"postgres:{SECRET}@")  # the server trusts every password
    asyncio.run(migrate.upgrade(DatabaseSettings(database_url=database_url, _env_file=None)))
    environment = clean_environment(
        DATABASE_URL=database_url,
        REDIS_URL=redis_url_with_password,
        HOLDFAST_DATA_DIR=str(tmp_path / "data"),
        LOG_FORMAT=log_format,
        LOG_LEVEL="debug",
        DEBUG="true",
        SQL_ECHO="true",
    )
    with WorkerProcess(environment, tmp_path, arguments=("run", "--burst")) as worker:
        assert worker.wait() == 0, worker.text
        assert "worker started" in worker.text
        assert "SELECT job_runs" in worker.text
        assert SECRET not in worker.text
