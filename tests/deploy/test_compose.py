"""docker-compose.yml keeps to the compose specification and to what the composition promises."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
COMPOSE_FILE = ROOT / "docker-compose.yml"
WORKER_GRACE_S = 30

Service = dict[str, Any]


@pytest.fixture(scope="module")
def services() -> dict[str, Service]:
    loaded: dict[str, dict[str, Service]] = YAML(typ="safe").load(COMPOSE_FILE)
    return loaded["services"]


def test_the_file_follows_the_compose_specification() -> None:
    checked = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(COMPOSE_FILE)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_ports_are_published_on_the_loopback_address_only(services: dict[str, Service]) -> None:
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert ports
    assert [port for port in ports if not str(port).startswith("127.0.0.1:")] == []


def test_whoever_waits_for_a_healthy_service_waits_for_one_that_has_a_check(services: dict[str, Service]) -> None:
    waits = [
        (needed, wait["condition"])
        for service in services.values()
        for needed, wait in service.get("depends_on", {}).items()
    ]
    assert waits
    for needed, condition in waits:
        assert condition in {"service_healthy", "service_completed_successfully"}
        assert ("healthcheck" in services[needed]) == (condition == "service_healthy")


def test_the_worker_starts_after_the_migration_and_the_migration_runs_once(services: dict[str, Service]) -> None:
    assert services["migrate"]["command"] == ["db", "upgrade"]
    assert services["migrate"]["restart"] == "no"
    assert services["migrate"]["depends_on"]["postgres"]["condition"] == "service_healthy"
    assert services["worker"]["depends_on"]["migrate"]["condition"] == "service_completed_successfully"
    assert services["worker"]["depends_on"]["redis"]["condition"] == "service_healthy"


def test_the_worker_and_the_migration_use_the_same_image_and_the_same_servers(services: dict[str, Service]) -> None:
    assert services["migrate"]["build"] == services["worker"]["build"]
    assert services["migrate"]["environment"].items() <= services["worker"]["environment"].items()


def test_the_worker_has_longer_to_stop_than_it_takes(services: dict[str, Service]) -> None:
    grace = re.fullmatch(r"(\d+)s", services["worker"]["stop_grace_period"])
    assert grace is not None
    assert WORKER_GRACE_S + 5 <= int(grace[1]) <= 2 * WORKER_GRACE_S
    assert services["worker"]["restart"] == "unless-stopped"


def test_redis_keeps_what_it_is_told(services: dict[str, Service]) -> None:
    command = " ".join(services["redis"]["command"])
    assert "--appendonly yes" in command
    assert "--maxmemory-policy noeviction" in command
    assert "redis-data:/data" in services["redis"]["volumes"]
    assert "postgres-data:/var/lib/postgresql/data" in services["postgres"]["volumes"]


def test_passwords_come_from_the_environment(services: dict[str, Service]) -> None:
    passwords = {
        value
        for service in services.values()
        for name, value in service.get("environment", {}).items()
        if "PASSWORD" in name or "SECRET" in name or "TOKEN" in name
    }
    assert passwords == {"${POSTGRES_PASSWORD:-holdfast}"}


def test_imports_are_read_from_the_samples_and_never_written(services: dict[str, Service]) -> None:
    worker = services["worker"]
    binds = [volume for volume in worker["volumes"] if isinstance(volume, dict)]
    assert [(bind["target"], bind["read_only"]) for bind in binds] == [(worker["environment"]["IMPORT_ROOTS"], True)]
    assert (ROOT / binds[0]["source"] / "tasks.csv").is_file()
