"""The checker of the fault tests finds what it is there to find."""

from pathlib import Path

from sqlalchemy import delete, insert, select, update

from db.models import ImportReject, Task
from holdfast.ids import uuid7
from holdfast.outbox import job_runs
from tests.faults.checker import judge
from tests.faults.place import Place
from tests.faults.task_files import write_task_file
from tests.faults.watch import Sample

ROWS = 100


async def test_every_damage_is_found(sqlite_url: str, tmp_path: Path) -> None:
    place = Place(sqlite_url, tmp_path)
    file = write_task_file(tmp_path / "tasks.csv", ROWS, seed=1, keyed=False)
    async with place.watched() as watch:
        run_id = await place.enqueue(watch, file.request())
        with place.worker() as worker:
            over = await watch.until_over(run_id, worker=worker)
            assert worker.terminate() == 0
        assert (await judge(watch, run_id, file, crashes=0)).problems == []

        async with watch.manager.session() as session:
            first, second, third = (await session.execute(select(Task.__table__).limit(3))).mappings().all()
            await session.execute(delete(Task).where(Task.id == first["id"]))
            await session.execute(insert(Task).values({**second, "id": uuid7()}))
            await session.execute(update(Task).where(Task.id == third["id"]).values(title=f"{third['title']} "))
            await session.execute(update(ImportReject).values(code="another"))
            await session.execute(
                update(job_runs).values(counters=over.counters | {"inserted": ROWS}, attempts=1, crashes=2)
            )
        watch.history.append(Sample(over.state, over.fence - 1, over.crashes, over.worker_id, over.counters))

        verdict = await judge(watch, run_id, file, crashes=1)

    assert (verdict.lost, verdict.doubled) == (2, 2), "one is gone, one there twice, one differs by a space"
    assert verdict.wrong_rejects == 2 * len(file.rejects)
    assert len(verdict.wrong_counters) == 1
    found = "\n".join(verdict.broken_rules)
    for words in (
        "was followed by",
        "1 attempts were charged",
        "counts 2 crashes in a row of 1",
        "is not what stands in",
    ):
        assert words in found
