"""What only looks like a type that files treat otherwise, and what no file could give back: it is told, and stays."""

import enum
from datetime import date, time
from typing import Any, cast

import pytest
from sqlalchemy import Enum, MetaData, Table, Time, text
from sqlalchemy.orm import Mapped, mapped_column

from db.archive_tables import archive_table
from db.archives.catalog import Catalog
from db.archives.hashing import base_type
from db.base import SoftDeleteModel
from db.connection import DatabaseManager
from db.models import ArchivePart
from db.types import NAMING_CONVENTION
from jobs.outcomes import JobFailed
from jobs.settings import JobSettings
from tests.archive.models import tables_of
from tests.archive.returns import archive
from tests.archive.runs import count
from tests.archive.test_values import OF_ALL, SAMPLES, dialect, go_and_come_back, put

__all__ = ["dialect"]
OF_NAMES = MetaData(naming_convention=NAMING_CONVENTION)
PARTS = cast("Table", ArchivePart.__table__)


class TimeFrame(enum.Enum):
    SHORT = "short"


class DateStyle(enum.Enum):
    LONG = "long"


class IntervalKind(enum.Enum):
    DAY = "day"


class NumericKind(enum.Enum):
    WHOLE = "whole"


class Named(SoftDeleteModel):
    """Types whose names begin like others."""

    __tablename__ = "named"
    metadata = OF_NAMES

    frame: Mapped[TimeFrame | None] = mapped_column(Enum(TimeFrame))
    style: Mapped[DateStyle | None] = mapped_column(Enum(DateStyle))
    kind: Mapped[IntervalKind | None] = mapped_column(Enum(IntervalKind))
    number: Mapped[NumericKind | None] = mapped_column(Enum(NumericKind))
    day: Mapped[date | None]
    hour: Mapped[time | None] = mapped_column(Time(timezone=True))


NAMED = cast("Table", Named.__table__)
archive_table(NAMED)


@pytest.mark.parametrize(
    "values",
    [
        {"frame": TimeFrame.SHORT},
        {"style": DateStyle.LONG},
        {"kind": IntervalKind.DAY},
        {"number": NumericKind.WHOLE},
        {"day": date(2024, 2, 29)},
    ],
)
async def test_types_whose_names_begin_like_others_come_back(
    values: dict[str, Any], manager: DatabaseManager, job_settings: JobSettings
) -> None:
    async with tables_of(manager, OF_NAMES):
        await go_and_come_back(job_settings, NAMED, OF_NAMES, values)


@pytest.mark.parametrize(
    ("kind", "base"),
    [
        ("timestamp(3) with time zone[]", "timestamp"),
        ("time without time zone", "time"),
        ("interval day to second(3)", "interval"),
        ("numeric(30,10)", "numeric"),
        ("date[]", "date"),
        ("int(11) unsigned", "int"),
        ("timeframe", "timeframe"),
        ('"time frame"', '"time'),
    ],
)
def test_the_own_word_of_a_type(kind: str, base: str) -> None:
    assert base_type(kind) == base


async def refused(settings: JobSettings, table: Table, metadata: MetaData, column: str, **fields: Any) -> None:
    """Archive to files: the run ends, names the column, and everything is still there."""
    before = await count(table)
    with pytest.raises(JobFailed, match=rf"^{table.name}: .*{column}: .*: archive to tables, or purge") as caught:
        await archive(settings, catalog=Catalog.of(metadata), destination="files", **fields)
    assert (caught.value.code, await count(table), await count(PARTS)) == ("unreadable_value", before, 0)


async def test_the_end_of_a_day_elsewhere_stays(manager: DatabaseManager, job_settings: JobSettings) -> None:
    if manager.engine.dialect.name == "postgresql":
        async with tables_of(manager, OF_NAMES):
            await put(NAMED, hour=text("'24:00:00+05'"))
            await refused(job_settings, NAMED, OF_NAMES, "hour")


async def test_a_dry_run_tells_it_too(dialect: str, job_settings: JobSettings) -> None:
    values = {"postgresql": {"at": text("'infinity'")}, "sqlite": {"number": text("'none'")}}.get(dialect, {})
    await put(SAMPLES, **values)
    for column in values:
        await refused(job_settings, SAMPLES, OF_ALL, column, dry_run=True)
