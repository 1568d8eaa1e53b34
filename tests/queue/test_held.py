"""A worker on a copied database holds back until it is adopted."""

import subprocess
import sys
from pathlib import Path
from uuid import UUID

from sqlalchemy import update

from db.models import Installation
from holdfast import Client, outbox
from tests.processes import CHECKOUT
from tests.queue.workplace import Workplace, log_events


async def test_nothing_runs_before_adopt(redis_url: str, tmp_path: Path) -> None:
    place = Workplace(redis_url, tmp_path)
    async with place.ledger() as ledger, Client(redis_url) as client:
        with place.started_worker("owner") as owner:
            assert owner.terminate() == 0
        async with ledger.manager.session() as session:
            elsewhere = {"server": "sqlite 1", "addresses": ["/elsewhere/holdfast.db"]}
            await session.execute(update(Installation).values(elsewhere))
            of_ledger = await outbox.enqueue(session, place.import_request())
        of_redis = await client.enqueue(place.import_request())
        with place.started_worker("copy") as worker:
            worker.wait_for("held: this database is a copy")
            client.ring()
            environment = place.environment()
            adopted = subprocess.run(  # noqa: ASYNC221 - nothing else is to happen meanwhile
                [sys.executable, "-m", "worker", "adopt"],
                cwd=CHECKOUT,
                env=environment,
                capture_output=True,
                text=True,
                check=True,
            )
            assert f"{place.folder / 'data' / 'holdfast.db'}" in adopted.stdout
            assert "run started" not in worker.text
            for run_id in (of_ledger, UUID(of_redis.id)):
                await ledger.until(run_id, "succeeded")
            assert worker.terminate() == 0
    events = [event["event"] for event in log_events(worker)]
    assert events.index("adopted: runs are taken up again") < events.index("run started")
