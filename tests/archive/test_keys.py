"""Keys of whatever types: walked, brought back and erased by their texts, and refused where they are none."""

from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from datetime import time as day_time
from decimal import Decimal
from typing import Any, cast
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import (
    BigInteger,
    Column,
    Enum,
    Integer,
    MetaData,
    Table,
    insert,
)
from sqlalchemy.orm import Mapped, mapped_column

from db.archive_tables import archive_table
from db.archives.catalog import Catalog
from db.archives.keys import KeyTextError, key_text, parse_key
from db.base import Base
from db.connection import DatabaseManager, get_async_session
from db.mixins import SoftDeleteMixin
from db.types import NAMING_CONVENTION
from jobs.archive_records import read_names
from jobs.outcomes import JobFailed
from jobs.settings import JobSettings
from tests.archive.kinds import KINDS, Way
from tests.archive.returns import archive, erase, restore
from tests.archive.runs import LONG_AGO, count

KEYED = MetaData(naming_convention=NAMING_CONVENTION)
FIRST_DAY = date(2020, 1, 1)


class Report(SoftDeleteMixin, Base):
    """One a day of each owner and way."""

    __tablename__ = "reports"
    metadata = KEYED

    owner: Mapped[int] = mapped_column(BigInteger(), primary_key=True, autoincrement=False)
    day: Mapped[date] = mapped_column(primary_key=True)
    way: Mapped[Way] = mapped_column(Enum(Way, native_enum=False, length=10), primary_key=True)


class Account(SoftDeleteMixin, Base):
    """Has numbers that any engine has."""

    __tablename__ = "accounts"
    metadata = KEYED

    number: Mapped[int] = mapped_column(Integer(), primary_key=True, autoincrement=False)


REPORTS, ACCOUNTS = (cast("Table", model.__table__) for model in (Report, Account))
REPORTS_ARCHIVE, _ = map(archive_table, (REPORTS, ACCOUNTS))
CATALOG = Catalog.of(KEYED)


@pytest.fixture
async def reports(manager: DatabaseManager) -> AsyncIterator[list[str]]:
    """Reports that are due; gives their keys."""
    async with manager.engine.begin() as connection:
        await connection.run_sync(KEYED.create_all)
    keys = [(number % 3, FIRST_DAY + timedelta(days=number), list(Way)[number % 2]) for number in range(50)]
    marks = {"is_deleted": True, "deleted_at": LONG_AGO}
    try:
        async with get_async_session() as session:
            rows = [dict(zip(("owner", "day", "way"), key, strict=True)) | marks for key in keys]
            await session.execute(insert(REPORTS), rows)
        yield [key_text(key) for key in keys]
    finally:
        async with manager.engine.begin() as connection:
            await connection.run_sync(KEYED.drop_all)


@pytest.mark.parametrize("destination", ["tables", "files"])
async def test_rows_with_a_day_and_an_enum_in_their_key_go_come_back_and_are_erased(
    destination: str, reports: list[str], job_settings: JobSettings
) -> None:
    report = await archive(job_settings, catalog=CATALOG, batch_rows=10, destination=destination)
    assert (report.moved["reports"], await count(REPORTS)) == (50, 0)
    back = await restore(job_settings, reports[7], reports[8], table="reports", catalog=CATALOG)
    assert (back.restored, back.refused) == ({"reports": 2}, ())
    gone = await erase(job_settings, *reports[9:12], table="reports", catalog=CATALOG)
    assert (gone.erased, gone.absent) == ({"reports": 3}, ())
    assert await count(REPORTS) == 2
    assert await count(REPORTS_ARCHIVE) == (45 if destination == "tables" else 0)


@pytest.mark.parametrize("dry_run", [True, False])
@pytest.mark.parametrize(
    ("table", "text"),
    [
        ("tasks", "00000000-0000-8000-0000-000000000000"),
        ("reports", f'["{2**70}", "2020-01-01", "UP"]'),
        ("accounts", str(2**70)),
    ],
)
@pytest.mark.usefixtures("reports")
async def test_a_key_that_the_database_cannot_hold_is_refused_or_not_there(
    table: str, text: str, dry_run: bool, job_settings: JobSettings
) -> None:
    catalog = Catalog.of() if table == "tasks" else CATALOG
    for action in (restore, erase):
        try:
            report: Any = await action(job_settings, text, table=table, catalog=catalog, dry_run=dry_run)
        except JobFailed as failure:
            assert failure.code == "invalid_key"  # noqa: PT017
            assert f"{text!r} is no key of {table}" in str(failure)  # noqa: PT017
        else:  # MariaDB compares with whatever there is
            codes = [row.code for row in report.refused]
            assert codes == ["not_archived"] if action is restore else report.absent == (text,)


def keyed(*kinds: Any) -> Table:
    columns = [Column(f"column_{place}", kind, primary_key=True) for place, kind in enumerate(kinds)]
    return Table("keyed", MetaData(), *columns)


@given(st.data())
def test_keys_of_every_type_come_back(data: st.DataObject) -> None:
    kinds = data.draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=3))
    key = tuple(data.draw(values) for _, values in kinds)
    assert parse_key(keyed(*(kind for kind, _ in kinds)), key_text(key)) == key


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (UUID(int=5), "00000000-0000-0000-0000-000000000005"),
        (-7, "-7"),
        (Decimal("1.10"), "1.10"),
        (datetime(2026, 1, 31, 8, 30, tzinfo=UTC), "2026-01-31T08:30:00+00:00"),
        ("é", "é"),
        (FIRST_DAY, "2020-01-01"),
        (day_time(8, 30), "08:30:00"),
        (timedelta(days=-1, microseconds=1), "-86399.999999"),
        (Way.UP, "UP"),
        (True, "True"),
        (b"\xff\x00", "/wA="),
    ],
)
def test_the_texts_of_keys_do_not_change(value: object, text: str) -> None:
    assert key_text((value,)) == text


@pytest.mark.parametrize("kind", [kind for kind, _ in KINDS[:-1]], ids=str)
def test_nonsense_is_no_key(kind: Any) -> None:
    with pytest.raises(KeyTextError, match="is no key of keyed: it must be one value"):
        parse_key(keyed(kind), "nonsense!")


def test_nonsense_in_a_request_is_refused() -> None:
    with pytest.raises(JobFailed, match=r"is no key of reports") as caught:
        read_names(CATALOG, "reports", ['["0", "nonsense", "UP"]'])
    assert caught.value.code == "invalid_key"
