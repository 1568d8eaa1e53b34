"""What only looks like a type that files treat otherwise, and what no file could give back: it is told, and stays."""

import enum
from datetime import date, time
from typing import Any, cast

import pytest
from sqlalchemy import Enum, MetaData, Table, Time, text
from sqlalchemy.orm import Mapped, mapped_column

from db.archive_tables import archive_table
from db.archives.catalog import Catalog
from db.base import SoftDeleteModel
from db.connection import DatabaseManager
from db.models import ArchivePart
from db.types import NAMING_CONVENTION
from jobs.outcomes import JobFailed
from jobs.settings import JobSettings
from tests.archive.models import tables_of
from tests.archive.returns import archive
from tests.archive.runs import count
from tests.archive.test_values import OF_ALL, OF_POSTGRESQL, SAMPLES, SPECIALS, dialect, go_and_come_back, put
from tests.databases.engines import NOT_ON_MARIADB, ON_POSTGRESQL

__all__ = ["dialect"]
OF_NAMES = MetaData(naming_convention=NAMING_CONVENTION)
PARTS = cast("Table", ArchivePart.__table__)
pytestmark = pytest.mark.usefixtures("dialect")


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


async def refused(settings: JobSettings, table: Table, metadata: MetaData, column: str, **fields: Any) -> None:
    """Archive to files: the run ends, names the column, and everything is still there."""
    before = await count(table)
    with pytest.raises(JobFailed, match=rf"^{table.name}: .*{column}: .*: archive to tables, or purge") as caught:
        await archive(settings, catalog=Catalog.of(metadata), destination="files", **fields)
    assert (caught.value.code, await count(table), await count(PARTS)) == ("unreadable_value", before, 0)


@ON_POSTGRESQL
async def test_the_end_of_a_day_elsewhere_stays(manager: DatabaseManager, job_settings: JobSettings) -> None:
    async with tables_of(manager, OF_NAMES):
        await put(NAMED, hour=text("'24:00:00+05'"))
        await refused(job_settings, NAMED, OF_NAMES, "hour")


async def test_a_dry_run_tells_it_too(dialect: str, job_settings: JobSettings) -> None:
    values = {"postgresql": {"at": text("'infinity'")}, "sqlite": {"number": text("'none'")}}
    (column,) = value = values.get(dialect, {"any_json": MARK})
    await put(SAMPLES, **value)
    await refused(job_settings, SAMPLES, OF_ALL, column, dry_run=True)


def written(document: str) -> Any:
    """A document as SQL."""
    return text("'" + document.replace(":", r"\:") + "'")


MARK = written('{"holdfast:json": "null"}')
"""What stands for JSON's null in a line."""
TOO_DEEP = {
    "201 lists": "[" * 201 + "]" * 201,
    "600 objects": '{"a":' * 600 + "1" + "}" * 600,
    "1,500 lists beside others": '[[], "[",' + "[" * 1500 + "]" * 1500 + "]",
}
KEPT = {
    "many lists": "[" + ", ".join(['["]", "{"]'] * 300) + "]",
    "what is like the mark": '{"holdfast": "null", "holdfast:json": "null"}',
    "a long number": f'{{"a": [{"7" * 5001}, -1{"0" * 6000}]}}',
}
DEEP = "[" * 200 + "]" * 200


async def test_the_mark_of_null_stays(job_settings: JobSettings) -> None:
    await put(SAMPLES)
    await put(SAMPLES, any_json=MARK)
    await refused(job_settings, SAMPLES, OF_ALL, "any_json")


@NOT_ON_MARIADB
@pytest.mark.parametrize("name", TOO_DEEP)
async def test_json_that_could_not_be_read_again_stays(name: str, job_settings: JobSettings) -> None:
    """MariaDB has 32 levels."""
    await put(SAMPLES)
    await put(SAMPLES, any_json=written(TOO_DEEP[name]))
    await refused(job_settings, SAMPLES, OF_ALL, "any_json")


@pytest.mark.parametrize("name", KEPT)
async def test_json_that_is_unusual_comes_back(name: str, job_settings: JobSettings) -> None:
    await go_and_come_back(job_settings, SAMPLES, OF_ALL, {"any_json": written(KEPT[name])})


@NOT_ON_MARIADB
async def test_json_as_deep_as_may_be_comes_back(job_settings: JobSettings) -> None:
    await go_and_come_back(job_settings, SAMPLES, OF_ALL, {"any_json": written(DEEP)})


@ON_POSTGRESQL
@pytest.mark.parametrize("name", ["the mark", *TOO_DEEP])
async def test_jsonb_that_could_not_be_read_again_stays(name: str, job_settings: JobSettings) -> None:
    await put(SPECIALS)
    await put(SPECIALS, binary_json=written(TOO_DEEP[name]) if name in TOO_DEEP else MARK)
    await refused(job_settings, SPECIALS, OF_POSTGRESQL, "binary_json")


@ON_POSTGRESQL
@pytest.mark.parametrize("name", ["deep", *KEPT])
async def test_jsonb_that_is_unusual_comes_back(name: str, job_settings: JobSettings) -> None:
    await go_and_come_back(job_settings, SPECIALS, OF_POSTGRESQL, {"binary_json": written(KEPT.get(name, DEEP))})


@NOT_ON_MARIADB
@pytest.mark.parametrize(
    ("document", "is_taken"),
    [
        (r'{"\u0068oldf\u0061st:js\u006Fn" : "null"}', True),
        (r'{"\u00e4": "holdfast:json"}', False),
        (r'["holdfast:json", "\u0000"]', False),
    ],
)
async def test_the_mark_in_other_letters(document: str, is_taken: bool, job_settings: JobSettings) -> None:
    """MariaDB takes the backslashes out of the text."""
    await put(SAMPLES, any_json=written(document))
    if is_taken:
        await refused(job_settings, SAMPLES, OF_ALL, "any_json")
    else:
        assert (await archive(job_settings, catalog=Catalog.of(OF_ALL), destination="files")).moved == {"samples": 1}
