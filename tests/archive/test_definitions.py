"""What an archive table is made of, which tables there are, and keys as text."""

from datetime import UTC, datetime
from typing import Any, cast
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import (
    ARRAY,
    JSON,
    BigInteger,
    Column,
    DateTime,
    Enum,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    Uuid,
)
from sqlalchemy.dialects.postgresql import INET
from sqlalchemy.types import TypeEngine

from db.archive_tables import archive_parts, archive_table, existing_archive
from db.archives.catalog import Catalog, UnknownTable
from db.archives.keys import KeyTextError, key_text, parse_key
from db.archives.searching import ConditionError, read_condition
from db.models import TASKS_ARCHIVE, Task
from db.types import UtcDateTime
from tests.archive.hostile import HOSTILE_NAMES
from tests.archive.models import CATALOG, CITATIONS, DOCUMENTS, FOLDERS, REVISIONS

TASKS = cast("Table", Task.__table__)


def test_an_archive_has_the_columns_the_key_and_nothing_else_that_could_refuse_a_row() -> None:
    names = [column.name for column in TASKS_ARCHIVE.columns]
    assert names == [*(column.name for column in TASKS.columns), "archived_at", "archive_run_id"]
    assert TASKS_ARCHIVE.primary_key.columns.keys() == ["id"]
    assert not [one for one in TASKS_ARCHIVE.constraints if isinstance(one, UniqueConstraint)]
    assert not TASKS_ARCHIVE.foreign_keys
    assert not TASKS_ARCHIVE.indexes
    wanted = {column.name for column in TASKS_ARCHIVE.columns if not column.nullable}
    assert wanted == {"id", "archived_at", "archive_run_id"}


def test_an_archive_is_made_once() -> None:
    assert archive_table(TASKS) is TASKS_ARCHIVE
    assert existing_archive(TASKS) is TASKS_ARCHIVE
    assert existing_archive(CITATIONS) is None


def test_a_column_with_the_archives_own_name_is_refused() -> None:
    with pytest.raises(ValueError, match="notes_archive: the table has a column archived_at, which is the archive's"):
        archive_parts("notes_archive", [Column("id", Integer()), Column("archived_at", DateTime())], key=("id",))


@pytest.mark.parametrize("key", [(), ("number",)])
def test_an_archive_needs_a_key(key: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="must be columns of the table: name them"):
        archive_parts("notes_archive", [Column("id", Integer())], key=key)


def test_the_catalog_of_the_application() -> None:
    catalog = Catalog.of()
    assert list(catalog.soft_deleted) == ["tasks"]
    assert catalog.find("tasks") is TASKS


@pytest.mark.parametrize("name", HOSTILE_NAMES, ids=range(len(HOSTILE_NAMES)))
def test_other_names_are_refused_in_one_short_line(name: str) -> None:
    with pytest.raises(UnknownTable, match="no table of a mapped model with soft deletion") as caught:
        Catalog.of().find(name)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_a_near_name_is_suggested() -> None:
    with pytest.raises(UnknownTable, match="did you mean tasks"):
        Catalog.of().find("task")


def test_who_may_follow_whom() -> None:
    assert CATALOG.family_of(FOLDERS) == [FOLDERS, DOCUMENTS, CITATIONS, REVISIONS]
    assert CATALOG.children_first([FOLDERS, DOCUMENTS]) == [DOCUMENTS, FOLDERS]
    owned = {reference.child.name: reference.owns for reference in CATALOG.references_to(DOCUMENTS)}
    assert owned == {"citations": False, "revisions": True}


PAIRS = Table(
    "pairs", MetaData(), Column("a", String(50), primary_key=True), Column("b", BigInteger(), primary_key=True)
)
MOMENTS = Table("moments", MetaData(), Column("at", UtcDateTime(), primary_key=True))
NAMED = Table("named", MetaData(), Column("id", Uuid(), primary_key=True))


@given(st.text(max_size=50), st.integers(-(2**63), 2**63 - 1))
def test_keys_of_several_columns_come_back(first: str, second: int) -> None:
    assert parse_key(PAIRS, key_text((first, second))) == (first, second)


@given(st.uuids())
def test_uuids_come_back(key: UUID) -> None:
    assert key_text((key,)) == str(key)
    assert parse_key(NAMED, str(key)) == (key,)


@given(st.datetimes(timezones=st.just(UTC)))
def test_instants_come_back(key: datetime) -> None:
    assert parse_key(MOMENTS, key_text((key,))) == (key,)


@pytest.mark.parametrize(("table", "text"), [(NAMED, "1'; --"), (PAIRS, "x"), (PAIRS, '["x"]'), (PAIRS, '["x", "y"]')])
def test_what_is_no_key_is_refused(table: Table, text: str) -> None:
    with pytest.raises(KeyTextError, match=rf"is no key of {table.name}: it must be "):
        parse_key(table, text)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (JSON(), "x=1"),
        (JSON(), "x~1"),
        (ARRAY(Integer()), "x=1"),
        (ARRAY(Integer()), "x~1"),
        (Enum("a", "b"), "x~a"),
        (LargeBinary(), "x~a"),
        (INET(), "x~a"),
    ],
)
def test_what_a_type_cannot_be_asked_is_refused(kind: TypeEngine[Any], text: str) -> None:
    table = Table("odd", MetaData(), Column("id", Integer(), primary_key=True), Column("x", kind))
    with pytest.raises(ConditionError, match=rf"^{text}: x (holds|is no text)"):
        read_condition(table, text)
