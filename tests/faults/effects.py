"""What the jobs of the trials leave in the database: one row a step, in a table that their plugin owns."""

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


async def make_table(engine: AsyncEngine) -> None:
    """Makes the table where it is missing."""
    async with engine.begin() as connection:
        if not await connection.run_sync(lambda sync: inspect(sync).has_table(effects.name)):
            await connection.run_sync(effects.metadata.create_all)
