"""A column of a domain (PostgreSQL) is archived as one of the type that the domain is of."""

from collections.abc import AsyncIterator
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import text

from db.archives.catalog import Catalog
from db.connection import DatabaseManager
from jobs.outcomes import JobFailed
from jobs.settings import JobSettings
from tests.archive.returns import archive
from tests.archive.runs import count
from tests.archive.test_values import OF_ALL, SAMPLES, dialect, go_and_come_back, put
from tests.databases.engines import ON_POSTGRESQL

__all__ = ["dialect"]
DOMAINS = {
    "content": "bytea",
    "took": "interval",
    "amount": "numeric(30, 10)",
    "at": "timestamp with time zone",
    "hour": "time",
    "any_json": "json",
    "body": "text",
}
"""Column of ``samples`` -> what its domain is of."""
pytestmark = [ON_POSTGRESQL, pytest.mark.usefixtures("domains")]


@pytest.fixture
async def domains(dialect: str, manager: DatabaseManager) -> AsyncIterator[None]:
    """The samples, but not their archive, with columns of domains, each of them of another one."""
    assert dialect == "postgresql"
    async with manager.engine.begin() as connection:
        for column, kind in DOMAINS.items():
            await connection.execute(text(f"CREATE DOMAIN inner_{column} AS {kind}"))
            await connection.execute(text(f"CREATE DOMAIN outer_{column} AS inner_{column}"))
            await connection.execute(text(f"ALTER TABLE samples ALTER {column} TYPE outer_{column}"))
    yield
    async with manager.engine.begin() as connection:
        for column in DOMAINS:
            await connection.execute(text(f"DROP DOMAIN inner_{column} CASCADE"))


VALUES: list[dict[str, Any]] = [
    {"content": bytes(range(256))},
    {"took": timedelta(days=3, microseconds=7)},
    {"amount": Decimal("12345678901.0123456789")},
    {"any_json": text("'null'")},
    {"body": "infinity"},
]


@pytest.mark.parametrize("values", VALUES)
async def test_values_come_back_from_files(values: dict[str, Any], job_settings: JobSettings) -> None:
    await go_and_come_back(job_settings, SAMPLES, OF_ALL, values)


@pytest.mark.parametrize(("column", "value"), [("at", "infinity"), ("hour", "24:00"), ("took", "1 month")])
async def test_what_no_file_could_give_back_stays(column: str, value: str, job_settings: JobSettings) -> None:
    await put(SAMPLES, **{column: text(f"'{value}'")})
    with pytest.raises(JobFailed, match=rf"^samples: .*{column}: .*: archive to tables, or purge") as caught:
        await archive(job_settings, catalog=Catalog.of(OF_ALL), destination="files")
    assert (caught.value.code, await count(SAMPLES)) == ("unreadable_value", 1)
    assert (await archive(job_settings, catalog=Catalog.of(OF_ALL))).moved == {"samples": 1}
