"""A producer that writes orders and enqueues their runs, both in its own transaction, until it is killed.

`python -m tests.faults.producer DATABASE_URL SEED`; one transaction in four is rolled back at its end.
"""

import asyncio
import random
import sys

from pydantic import SecretStr
from sqlalchemy import insert

from db.connection import DatabaseManager
from db.settings import DatabaseSettings
from holdfast import outbox
from tests.faults.effects import orders
from tests.faults.kinds import TrialWrite

READY = "producing"
ROLLED_BACK = 0.25


async def produce(manager: DatabaseManager, rng: random.Random) -> None:
    """Writes one transaction of a few orders, or takes it back at its end."""
    async with manager.session() as session:
        for _ in range(rng.randint(1, 4)):
            run_id = await outbox.enqueue(session, TrialWrite())
            await session.execute(insert(orders).values(run_id=run_id))
        if rng.random() < ROLLED_BACK:
            await session.rollback()


async def main(url: str, seed: int) -> None:
    """Produces for ever."""
    manager = DatabaseManager(DatabaseSettings(_env_file=None, database_url=SecretStr(url)))
    rng = random.Random(seed)  # noqa: S311 - no secret
    await manager.connect()
    print(READY, flush=True)
    while True:
        await produce(manager, rng)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
