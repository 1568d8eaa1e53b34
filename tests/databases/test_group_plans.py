"""A group looks up its own runs and no others, however many wait and whatever the planner believes (PostgreSQL)."""

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from db.connection import DatabaseManager
from db.repositories import run_groups_postgresql
from holdfast.ids import uuid7
from tests.databases.engines import ON_POSTGRESQL
from tests.databases.runs import born

WAITING = 3_000
GROUP = 20

MANY_WAITING = """
INSERT INTO job_runs (id, kind, queue, job_id, request, state, enqueued_at, due_at)
SELECT (lpad(to_hex(number), 12, '0') || '7' || substr(md5(number::text), 1, 3) || '8' ||
        substr(md5(number::text), 5, 15))::uuid, 'import_tasks', 'arq:queue', number, '{}', 'waiting', now(), now()
FROM generate_series(1, :count) AS number
"""
READ = "SELECT seq_tup_read + coalesce(idx_tup_fetch, 0) FROM pg_stat_xact_user_tables WHERE relname = 'job_runs'"


async def rows_read(connection: AsyncConnection) -> int:
    """How many rows of the ledger this transaction has read."""
    return int((await connection.execute(text(READ))).scalar_one())


@pytest.mark.parametrize("analysed", [False, True], ids=["never analysed", "analysed while it was empty"])
@ON_POSTGRESQL
async def test_a_group_reads_only_its_own_runs(manager: DatabaseManager, analysed: bool) -> None:
    async with manager.get_connection() as connection:  # in one transaction: the statistics stay what they are
        if analysed:
            await connection.execute(text("ANALYZE job_runs"))
        await connection.execute(text(MANY_WAITING), {"count": WAITING})
        borns = [born() for _ in range(GROUP)]
        before = await rows_read(connection)
        new_ids = {at: uuid7() for at in range(GROUP)}
        admitted = await run_groups_postgresql.admit(connection, borns, new_ids, "ada", suspect_after=2)
        assert len(admitted) == GROUP
        assert await rows_read(connection) - before <= 5 * GROUP
        before = await rows_read(connection)
        ends = [(run_id, fence, {"rows": 1}) for run_id, fence, _ in admitted.values()]
        assert len(await run_groups_postgresql.end_succeeded(connection, ends)) == GROUP
        assert await rows_read(connection) - before <= 5 * GROUP
