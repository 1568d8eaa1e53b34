"""Our adapter for the peers' harness, which starts it as a program with its own folder and ours on PYTHONPATH.

``QB_LEDGER=1`` measures the ledgered twins, in the database ``hf`` on the server of ``QB_PG_DSN``, and with
``HOLDFAST_BENCH_TWIN=session`` those that open a session.
"""

import sys

import qb_common  # type: ignore[import-not-found] # the harness's own module
from sqlalchemy.engine import make_url

from bench.queue import ours
from bench.queue.kinds import request_of
from bench.queue.settings import Harness, WorkerPlace
from holdfast import Client

_harness = Harness.from_environment()
_clients: list[Client] = []


def _database_url() -> str:
    url = make_url(_harness.postgres_dsn).set(database="hf")
    return url.render_as_string(hide_password=False)


def _kind(job: str) -> str:
    return f"{job}_{_harness.twin}" if _harness.ledgered else job


def worker(concurrency: int) -> None:
    """Become the worker."""
    place = WorkerPlace(
        redis_url=_harness.redis_url,
        data_dir=_harness.marks.parent / "holdfast-data",
        marks=_harness.marks,
        slots=concurrency,
        database_url=_database_url() if _harness.ledgered else "",
    )
    ours.become_worker(place)


async def open() -> None:  # noqa: A001 - the harness's name
    """Connect the producer."""
    _clients.append(Client(_harness.redis_url))


async def close() -> None:
    """Close the producer."""
    await _clients.pop().close()


async def enqueue(job: str, arg: float) -> None:
    """Enqueue one run."""
    await _clients[0].enqueue(request_of(_kind(job), arg))


async def enqueue_batch(job: str, n: int) -> None:
    """Enqueue many runs."""
    await ours.enqueue_many(_clients[0], _kind(job), n)


async def reset() -> None:
    """Empty the ledger; Redis is the harness's to flush."""
    if _harness.ledgered:
        await ours.empty_ledger(_database_url())


if __name__ == "__main__":
    qb_common.main(sys.modules[__name__])
