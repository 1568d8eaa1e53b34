"""The look for new runs costs the same however many runs there are, and however old a snapshot somebody holds."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import Select, text
from sqlalchemy.dialects import postgresql

from db.connection import DatabaseManager
from db.repositories import due_runs
from db.repositories.glance import Glancer
from db.settings import DatabaseSettings
from tests.databases.conftest import empty_tables
from tests.databases.runs import QUEUE, wanted
from worker.dispatch import LOOK_BACK, PAGE_RUNS

FEW, MANY = 1_000, 20_000
MOST_PAGES = 12
"""Of 8 KiB: down the index, a leaf or two of it, and nothing of the table."""

OLD_RUNS = """
INSERT INTO job_runs (id, kind, queue, job_id, request, state, enqueued_at, due_at, dispatched_at)
SELECT (lpad(to_hex((extract(epoch FROM now() - interval '1 hour') * 1000)::bigint + number), 12, '0') || '7'
        || substr(md5(:salt || number), 1, 3) || '8' || substr(md5(:salt || number), 5, 15))::uuid,
       'import_tasks', 'arq:queue', :salt || number, '{}', 'waiting', now(), now(), now()
FROM generate_series(1, :count) AS number
"""


@pytest.fixture
async def database(migrated_postgresql: str) -> AsyncIterator[DatabaseManager]:
    manager = DatabaseManager(DatabaseSettings(database_url=migrated_postgresql, _env_file=None))
    await empty_tables(manager)
    yield manager
    await empty_tables(manager)
    await manager.close()


GLANCE = Glancer([QUEUE], ["import_tasks"]).query(undispatched=True, running=True)


async def pages_of_a_look(manager: DatabaseManager, query: Select[Any], plan_mode: str) -> int:
    """How many pages PostgreSQL touches for one look that finds nothing."""
    page = wanted().page(due_runs.watermark(datetime.now(UTC), LOOK_BACK), PAGE_RUNS)
    compiled = query.compile(dialect=postgresql.asyncpg.dialect())  # type: ignore[no-untyped-call]
    asked = page if query is due_runs.UNDISPATCHED else {name: page[name] for name in ("due_before", "after")}
    expanded = compiled.construct_expanded_state(asked)
    parameters = expanded.positional_parameters
    async with manager.engine.connect() as connection:
        await connection.execute(text(f"SET plan_cache_mode = {plan_mode}"))
        driver: Any = (await connection.get_raw_connection()).driver_connection
        (found,) = await driver.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {expanded.statement}", *parameters)
    assert found["Plan"]["Actual Rows"] == (query is GLANCE)  # one row, of no control, with its answers
    return int(found["Plan"]["Shared Hit Blocks"] + found["Plan"]["Shared Read Blocks"])


async def fill(manager: DatabaseManager, count: int, salt: str) -> None:
    """Waiting runs that are in Redis, and as many that have ended."""
    async with manager.session() as session:
        for part in ("waiting", "ended"):
            await session.execute(text(OLD_RUNS), {"count": count, "salt": f"{salt} {part} "})
    async with manager.session() as session:
        over = "UPDATE job_runs SET state = 'succeeded', finished_at = now() WHERE job_id LIKE :ended"
        await session.execute(text(over), {"ended": f"{salt} ended %"})
    async with manager.engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        await connection.execute(text("VACUUM ANALYZE job_runs"))


@pytest.mark.parametrize("query", [due_runs.UNDISPATCHED, GLANCE], ids=["dispatch", "glance"])
async def test_a_look_touches_no_more_pages_of_a_large_ledger_under_an_old_snapshot(
    database: DatabaseManager, query: Select[Any]
) -> None:
    await fill(database, FEW, "few")
    async with database.engine.connect() as snapshot:
        await snapshot.execution_options(isolation_level="REPEATABLE READ")
        assert (await snapshot.execute(text("SELECT count(*) FROM job_runs"))).scalar_one() == 2 * FEW
        modes = ("force_custom_plan", "force_generic_plan")
        before = {mode: await pages_of_a_look(database, query, mode) for mode in modes}
        await fill(database, MANY, "many")
        after = {mode: await pages_of_a_look(database, query, mode) for mode in modes}
        sizes = "SELECT pg_relation_size('ix_job_runs_live') / 8192, pg_relation_size('job_runs') / 8192"
        index_pages, table_pages = (await snapshot.execute(text(sizes))).one()
    print(f"pages touched: {before} then {after}, of {index_pages} of the index and {table_pages} of the table")
    assert index_pages > 100
    assert table_pages > 1000
    assert max(before.values()) <= MOST_PAGES
    assert max(after.values()) <= MOST_PAGES


async def test_looking_from_the_beginning_would_not_be_flat(database: DatabaseManager) -> None:
    """What the test above would see without a watermark: the measure measures."""
    await fill(database, MANY // 4, "some")
    query = "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT * FROM job_runs WHERE queue = 'arq:queue'"
    old = f"{query} AND state = 'waiting' AND dispatched_at IS NULL ORDER BY id LIMIT {PAGE_RUNS}"
    async with database.session(read_only=True) as session:
        (found,) = (await session.execute(text(old))).scalar_one()
    assert found["Plan"]["Shared Hit Blocks"] + found["Plan"]["Shared Read Blocks"] > 10 * MOST_PAGES
