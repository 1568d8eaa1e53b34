"""Archives in compressed files: durable and read back before the rows are gone."""

import asyncio
import hashlib
import json
import stat
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import pytest
import zstandard
from sqlalchemy import Table, select, update

from db.connection import get_async_session
from db.fields import json_value
from db.models import TASKS_ARCHIVE, ArchivePart, Task
from holdfast.requests import ArchiveDeleted
from jobs.archive_deleted import ahead, archive_deleted, destinations, sizes
from jobs.archive_deleted.part_files import PartFile, PartUnreadable, part_name, read_part, write_part
from jobs.outcomes import JobFailed
from jobs.registry import BUILT_IN
from jobs.settings import JobSettings
from tests.archive.runs import archive, context_of, count, make_tasks, rows_of
from tests.databases.runs import admitted

TASKS = cast("Table", Task.__table__)
PARTS = cast("Table", ArchivePart.__table__)
GONE = (
    "is missing or cut off, though its rows were archived and deleted: bring it back, or set ARCHIVE_DIR to where it "
    "was written, and retry the run"
)


def lines_of(folder: Path) -> Iterator[dict[str, Any]]:
    for path in sorted(folder.glob("*.ndjson.zst")):
        for line in zstandard.ZstdDecompressor().decompress(path.read_bytes()).decode().splitlines():
            yield json.loads(line)


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def as_json(row: dict[str, Any]) -> dict[str, Any]:
    return {name: json_value(value) for name, value in row.items()}


@pytest.mark.usefixtures("manager")
async def test_due_rows_stand_in_the_files_and_nowhere_else(job_settings: JobSettings) -> None:
    ids = await make_tasks(900, deleted=range(0, 900, 3))
    before = await rows_of(TASKS)
    report = await archive(job_settings, destination="files")
    gone = {ids[number] for number in range(0, 900, 3)}
    assert set(await rows_of(TASKS)) == set(before) - gone
    assert await count(TASKS_ARCHIVE) == 0
    assert report.folder is not None
    found = {UUID(line["id"]): line for line in lines_of(Path(report.folder))}
    assert len(found) == report.moved["tasks"] == 300
    same = {key: _normal(line) for key, line in found.items()}
    assert same == {key: _normal(as_json(before[key])) for key in gone}


def _normal(line: dict[str, Any]) -> dict[str, Any]:
    """Instants of PostgreSQL end with fewer zeros than Python's."""
    return {
        name: datetime.fromisoformat(value) if name.endswith("_at") and value else value for name, value in line.items()
    }


@pytest.mark.usefixtures("manager")
async def test_the_manifest_and_the_table_say_what_there_is(job_settings: JobSettings) -> None:
    await make_tasks(500, deleted=range(500))
    report = await archive(job_settings, destination="files", batch_rows=200)
    folder = Path(report.folder or "")
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert [part["rows"] for part in manifest["parts"]] == [200, 200, 100]
    for part in manifest["parts"]:
        content = (folder / part["file"]).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (part["bytes"], part["sha256"])
    tasks = manifest["tables"]["tasks"]
    assert (tasks["key"], tasks["rows"]) == (["id"], 500)
    assert set(tasks["columns"]) == {column.name for column in TASKS.columns}
    async with get_async_session(read_only=True) as session:
        listed = (await session.execute(select(PARTS).order_by(PARTS.c.number))).all()
    assert [part.file for part in listed] == [part["file"] for part in manifest["parts"]]
    assert (report.files, report.bytes) == (3, sum(part.byte_count for part in listed))
    assert names_in(folder) == {"manifest.json", *(part.file for part in listed)}


@pytest.mark.usefixtures("manager")
async def test_nobody_else_may_read_them(job_settings: JobSettings) -> None:
    await make_tasks(5, deleted=range(5))
    report = await archive(job_settings, destination="files")
    folder = Path(report.folder or "")
    assert {mode_of(place) for place in (folder, folder.parent, folder.parent.parent)} == {0o700}
    assert {mode_of(folder / name) for name in names_in(folder)} == {0o600}


@pytest.mark.usefixtures("manager")
async def test_what_a_dead_attempt_has_left_is_removed_and_a_later_ones_is_not(job_settings: JobSettings) -> None:
    await make_tasks(5, deleted=range(5))
    given = await admitted("ada")
    folder = job_settings.archives_dir / str(given.run_id)
    folder.mkdir(parents=True)
    stray, later = folder / part_name("tasks", 9, given.fence), folder / part_name("tasks", 9, given.fence + 1)
    stray.write_bytes(b"rows that were never deleted")
    later.write_bytes(b"of somebody who has overtaken this one")
    await archive_deleted(context_of(given, job_settings), ArchiveDeleted(destination="files"))
    assert (stray.exists(), later.exists()) == (False, True)


@pytest.mark.usefixtures("manager")
async def test_a_file_that_reads_back_as_something_else_deletes_nothing(
    job_settings: JobSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    await make_tasks(50, deleted=range(50))

    def damaged(folder: Path, name: str, lines: bytes) -> PartFile:
        part = write_part(folder, name, lines)
        content = bytearray((folder / name).read_bytes())
        content[20] ^= 1
        (folder / name).write_bytes(content)
        read_part(folder, part)
        return part

    monkeypatch.setattr(destinations, "write_part", damaged)
    monkeypatch.setattr(ahead, "write_part", damaged)
    with pytest.raises(JobFailed, match="its rows were not deleted") as caught:
        await archive(job_settings, destination="files")
    assert caught.value.code == "part_unreadable"
    assert await count(TASKS) == 50
    assert await count(PARTS) == 0


@pytest.mark.usefixtures("manager")
async def test_a_file_that_is_gone_at_the_end_is_told(job_settings: JobSettings) -> None:
    await make_tasks(50, deleted=range(50))
    given = await admitted("ada")
    stopped = context_of(given, job_settings)
    await archive_deleted(stopped, ArchiveDeleted(destination="files", max_rows=10, batch_rows=10))
    folder = job_settings.archives_dir / str(given.run_id)
    (path,) = folder.glob("*.zst")
    path.unlink()
    with pytest.raises(JobFailed) as told:
        await archive_deleted(stopped, ArchiveDeleted(destination="files"))
    assert (told.value.code, str(told.value)) == ("part_unreadable", f"{path} {GONE}")


@pytest.mark.usefixtures("manager")
async def test_a_run_that_goes_on_in_another_folder_is_told_where_its_files_are(
    job_settings: JobSettings, tmp_path: Path
) -> None:
    await make_tasks(50, deleted=range(50))
    given, request = await admitted("ada"), ArchiveDeleted(destination="files", batch_rows=10)
    await archive_deleted(context_of(given, job_settings), request.model_copy(update={"max_rows": 20}))
    elsewhere = job_settings.model_copy(update={"archive_dir": tmp_path / "elsewhere"})
    with pytest.raises(JobFailed, match=r"though its rows were archived and deleted: .* set ARCHIVE_DIR to where it"):
        await archive_deleted(context_of(given, elsewhere), request)
    assert list((tmp_path / "elsewhere").glob("*/manifest.json")) == []  # it would name files that are not there


def test_a_damaged_part_is_refused_wherever_it_is_damaged(tmp_path: Path) -> None:
    part = write_part(tmp_path, part_name("tasks", 1, 1), b'{"id":1}\n' * 100)
    content = (tmp_path / part.name).read_bytes()
    for place in range(len(content)):
        changed = bytearray(content)
        changed[place] ^= 0x10
        (tmp_path / part.name).write_bytes(changed)
        with pytest.raises(PartUnreadable, match="has the SHA-256"):
            read_part(tmp_path, part)
    (tmp_path / part.name).write_bytes(content[:-1])
    with pytest.raises(PartUnreadable, match="has the SHA-256"):
        read_part(tmp_path, part)
    (tmp_path / part.name).unlink()
    with pytest.raises(PartUnreadable, match="cannot be read"):
        read_part(tmp_path, part)


def test_a_full_disk_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_part(tmp_path, part_name("tasks", 1, 1), b"{}\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("manager")
async def test_a_row_that_is_changed_after_it_was_written_is_written_again(
    job_settings: JobSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On PostgreSQL the files are written ahead; whoever changes a row then changes what is archived."""
    ids = await make_tasks(300, deleted=range(300))
    loop, changed = asyncio.get_running_loop(), list[UUID]()

    async def change(key: UUID) -> None:
        async with get_async_session() as session:
            await session.execute(update(TASKS).where(TASKS.c.id == key).values(title="changed in time"))

    def written(folder: Path, name: str, lines: bytes) -> PartFile:
        part = write_part(folder, name, lines)
        if not changed:
            changed.append(ids[7])
            asyncio.run_coroutine_threadsafe(change(ids[7]), loop).result()
        return part

    monkeypatch.setattr(ahead, "write_part", written)
    report = await archive(job_settings, destination="files")
    titles = {UUID(line["id"]): line["title"] for line in lines_of(Path(report.folder or ""))}
    assert (len(titles), report.moved, report.left) == (300, {"tasks": 300}, {})
    assert [titles[key] for key in changed] == ["changed in time"] * len(changed)
    assert await count(TASKS) == 0


@pytest.mark.usefixtures("manager")
async def test_a_full_disk_deletes_nothing_and_is_tried_again(
    job_settings: JobSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    await make_tasks(200, deleted=range(200))
    given = await admitted("ada")
    context, request = context_of(given, job_settings), ArchiveDeleted(destination="files", batch_rows=50)
    written = 0

    def full(folder: Path, name: str, lines: bytes) -> PartFile:
        nonlocal written
        written += 1
        if written == 3:
            raise OSError(28, "No space left on device")
        return write_part(folder, name, lines)

    with monkeypatch.context() as patched:
        patched.setattr(destinations, "write_part", full)
        with pytest.raises(OSError, match="No space left") as caught:
            await archive_deleted(context, request)
    (job,) = (job for job in BUILT_IN if job.request_type is ArchiveDeleted)
    assert job.retries.for_error(caught.value, is_transient=False) is not None
    assert await count(TASKS) == 100
    report = await archive_deleted(context, request)
    assert (report.moved, report.files) == ({"tasks": 200}, 4)
    assert len({line["id"] for line in lines_of(Path(report.folder or ""))}) == 200


@pytest.mark.usefixtures("manager")
@pytest.mark.parametrize("connections", [1, 2])
async def test_a_file_of_long_rows_has_fewer_of_them(
    connections: int, job_settings: JobSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sizes, "MOST_BYTES", 200_000)
    await make_tasks(400, deleted=range(400))
    async with get_async_session() as session:
        await session.execute(update(TASKS).values(description="x" * 10_000))  # which PostgreSQL packs
    report = await archive(job_settings, destination="files", connections=connections)
    assert (report.moved, report.left) == ({"tasks": 400}, {})
    async with get_async_session(read_only=True) as session:
        rows = list(await session.scalars(select(ArchivePart.rows)))
    assert max(rows) <= 60  # the least that PostgreSQL takes is one page
