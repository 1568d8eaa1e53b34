"""What the trials leave in the database: a row for each step of a job, and one for each order of a producer."""

from sqlalchemy import BigInteger, Column, Integer, MetaData, Table, Uuid, inspect
from sqlalchemy.ext.asyncio import AsyncEngine

effects = Table(
    "trial_effects",
    MetaData(),
    Column("id", BigInteger().with_variant(Integer(), "sqlite"), primary_key=True, autoincrement=True),
    # Nothing here is unique: a step that takes effect twice stands here twice.
    Column("run_id", Uuid(), nullable=False),
    Column("step", Integer(), nullable=False),
    Column("fence", Integer(), nullable=False),
)

orders = Table(
    "trial_orders",
    effects.metadata,
    Column("id", BigInteger().with_variant(Integer(), "sqlite"), primary_key=True, autoincrement=True),
    Column("run_id", Uuid(), nullable=False, index=True),
)
"""What a producer writes in the transaction in which it enqueues."""


async def make_tables(engine: AsyncEngine) -> None:
    """Makes the tables where they are missing."""
    async with engine.begin() as connection:
        if not await connection.run_sync(lambda sync: inspect(sync).has_table(effects.name)):
            await connection.run_sync(effects.metadata.create_all)
