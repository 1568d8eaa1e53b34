"""A database that is not what the models say loses no row."""

import pytest
from sqlalchemy import text

from db.connection import DatabaseManager
from jobs.outcomes import JobFailed
from jobs.settings import JobSettings
from tests.archive.models import CATALOG, FOLDERS
from tests.archive.runs import archive, rows_of
from tests.archive.test_graph import folder

DRIFTS = {
    "ALTER TABLE folders ADD COLUMN colour VARCHAR(20)": "folders.colour is in the database but not in the model: its "
    "content would be lost; map it",
    "ALTER TABLE folders_archive DROP COLUMN name": "folders_archive lacks the column name of folders: add it by a "
    "migration",
    "ALTER TABLE folders_archive RENAME COLUMN name TO label": "folders_archive lacks the column name of folders",
    "DROP TABLE folders_archive": "folders_archive is not in the database: make it by a migration",
    "CREATE TABLE {name} (id INTEGER PRIMARY KEY, "
    "folder_id {id} REFERENCES folders (id) ON DELETE CASCADE{key})": "{name} refers to folders",
}


@pytest.mark.parametrize("change", DRIFTS, ids=range(len(DRIFTS)))
async def test_drift_is_found_before_the_first_row_moves(
    change: str, graph: DatabaseManager, job_settings: JobSettings
) -> None:
    dialect = graph.engine.dialect.name
    place = await folder()
    words = {
        "name": "labels",
        "id": "CHAR(32)" if dialect == "sqlite" else "UUID",
        "key": ", FOREIGN KEY (folder_id) REFERENCES folders (id)" if dialect in {"mysql", "mariadb"} else "",
    }
    async with graph.engine.begin() as connection:
        await connection.execute(text(change.format(**words)))
    try:
        with pytest.raises(JobFailed) as caught:
            await archive(job_settings, catalog=CATALOG, tables=("folders",))
    finally:
        async with graph.engine.begin() as connection:
            await connection.execute(text("DROP TABLE IF EXISTS labels"))
    assert caught.value.code == "schema_drift"
    assert DRIFTS[change].format(**words) in str(caught.value)
    assert str(caught.value).endswith("; no row was moved")
    assert set(await rows_of(FOLDERS)) == {place}


async def test_another_type_in_the_archive_is_told(graph: DatabaseManager, job_settings: JobSettings) -> None:
    dialect = graph.engine.dialect.name
    if dialect == "sqlite":  # it cannot change a column's type
        changes = [
            "ALTER TABLE folders_archive DROP COLUMN name",
            "ALTER TABLE folders_archive ADD COLUMN name INTEGER",
        ]
    elif dialect == "postgresql":
        changes = ["ALTER TABLE folders_archive ALTER COLUMN name TYPE varchar(20)"]
    else:
        changes = ["ALTER TABLE folders_archive MODIFY COLUMN name VARCHAR(20)"]
    await folder()
    async with graph.engine.begin() as connection:
        for change in changes:
            await connection.execute(text(change))
    with pytest.raises(JobFailed, match=r"folders_archive.name is .+ but folders.name is .+: change the archive"):
        await archive(job_settings, catalog=CATALOG, tables=("folders",))


async def test_a_table_without_an_archive_goes_to_files(graph: DatabaseManager, job_settings: JobSettings) -> None:
    await folder()
    async with graph.engine.begin() as connection:
        await connection.execute(text("DROP TABLE folders_archive"))
    report = await archive(job_settings, catalog=CATALOG, tables=("folders",), destination="files")
    assert report.moved == {"folders": 1}


async def test_all_that_is_wrong_is_told_at_once(graph: DatabaseManager, job_settings: JobSettings) -> None:
    async with graph.engine.begin() as connection:
        for table in ("folders_archive", "documents_archive"):
            await connection.execute(text(f"DROP TABLE {table}"))
    with pytest.raises(JobFailed, match=r"folders_archive is not .*\(1 more: documents_archive is not"):
        await archive(job_settings, catalog=CATALOG, tables=("folders",))
