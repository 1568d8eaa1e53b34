"""Development data: people and their tasks, realistic and the same for the same number."""

import random
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any
from uuid import UUID

from sqlalchemy import exists, insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from db.models import Task, TaskStatus, User

BATCH_ROWS = 500
NEWEST = datetime(2026, 1, 31, 17, 0, tzinfo=UTC)
"""When the youngest task was made; fixed, so that the same number makes the same rows on every day."""
SPAN_DAYS = 365

_FIRST = (
    "Amara Björn Chen Dilara Emeka Freya Giulia Hana Ivo Jun Kofi Lucía Mehmet Nadia Olga Priya Rafael Sofia Tomás Yara"
)
_LAST = (
    "Adeyemi Bauer Costa Dubois Eriksson Fischer Garcia Horvat Ivanova Jansen Kowalski Lee Meyer Nakamura Okafor Silva"
)
_VERBS = "Add Document Fix Investigate Migrate Refactor Remove Review Speed_up Test Update Write_up"
_THINGS = (
    "login page",
    "CSV export",
    "nightly import",
    "search index",
    "password reset",
    "invoice layout",
    "audit log",
    "mobile menu",
    "payment webhook",
    "backup restore",
    "e-mail templates",
    "rate limits",
)
_REASONS = (
    "A customer reported it twice this week.",
    "It fails for names with umlauts (ü, ß) and for emoji \U0001f600.",
    "Found while preparing the release; see the linked thread.",
    "Steps:\n1. open the page\n2. press save\n3. nothing happens",
    "Nobody remembers why it was done this way.",
)
_TAGS = ("backend", "bug", "customer", "design", "docs", "frontend", "ops", "urgent")
_STATUSES = (TaskStatus.PENDING, TaskStatus.IN_PROGRESS, TaskStatus.COMPLETED, TaskStatus.CANCELLED)


class AlreadySeeded(Exception):  # noqa: N818
    """The rows of this number are there; the message is one line."""


async def seed(session: AsyncSession, *, users: int, tasks: int, number: int) -> None:
    """Add people and tasks, in the caller's transaction. None of them can sign in.

    Args:
        session: it is not committed here.
        users: how many people.
        tasks: how many tasks; about one in thirty is deleted softly.
        number: the same number and counts make the same rows, ids and times included.

    Raises:
        AlreadySeeded: this number was used before in this database.
        ValueError: tasks without anybody to own them.
    """
    if tasks and not users:
        raise ValueError(f"{tasks} tasks need somebody to own them: make at least one user")
    chance = random.Random(number)  # noqa: S311 - nobody is to be kept from guessing
    people = list(_people(chance, users, number))
    if people and await session.scalar(select(exists().where(User.username == people[0]["username"]))):
        raise AlreadySeeded(f"seed {number} is in the database already: give another --seed, or reset it first")
    for some in _batches(iter(people)):
        await session.execute(insert(User), some)
    owners = [person["id"] for person in people]
    for some in _batches(_tasks(chance, tasks, number, owners)):
        await session.execute(insert(Task), some)


def _batches(rows: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    while some := list(islice(rows, BATCH_ROWS)):
        yield some


def _people(chance: random.Random, count: int, number: int) -> Iterator[dict[str, Any]]:
    for at in range(count):
        first, last = chance.choice(_FIRST.split()), chance.choice(_LAST.split())
        name = f"{_ascii(first)}.{_ascii(last)}.{number}-{at + 1}"
        made_at = NEWEST - timedelta(days=SPAN_DAYS + 30) + timedelta(minutes=at)
        yield {
            "id": _uuid7(chance, made_at),
            "username": name,
            "email": None if chance.random() < 0.1 else f"{name}@example.org",
            "full_name": f"{first} {last}",
            "is_active": chance.random() > 0.05,
            "is_superuser": at == 0,
            "created_at": made_at,
            "updated_at": made_at,
        }


def _tasks(chance: random.Random, count: int, number: int, owners: Sequence[UUID]) -> Iterator[dict[str, Any]]:
    step = timedelta(days=SPAN_DAYS) / max(count, 1)
    for at in range(count):
        made_at = NEWEST - step * (count - at)
        changed_at = made_at + timedelta(hours=chance.expovariate(1 / 36))
        (status,) = chance.choices(_STATUSES, weights=(30, 15, 45, 10))
        verb, thing = chance.choice(_VERBS.split()).replace("_", " "), chance.choice(_THINGS)
        deleted = chance.random() < 1 / 30
        yield {
            "id": _uuid7(chance, made_at),
            "title": f"{verb} the {thing}",
            "description": chance.choice(_REASONS) if chance.random() < 0.7 else None,
            "status": status,
            "user_id": chance.choice(owners),
            "completed_at": changed_at if status is TaskStatus.COMPLETED else None,
            "external_key": f"SEED{number}-{at + 1}",
            "metadata_json": {"points": chance.choice((1, 2, 3, 5, 8)), "sprint": f"{made_at:%G-W%V}"},
            "tags": sorted(chance.sample(_TAGS, chance.randint(0, 3))),
            "created_at": made_at,
            "updated_at": changed_at,
            "created_by": "seed",
            "is_deleted": deleted,
            "deleted_at": changed_at if deleted else None,
        }


def _uuid7(chance: random.Random, made_at: datetime) -> UUID:
    milliseconds = int(made_at.timestamp() * 1000)
    noise = chance.getrandbits(74)
    return UUID(int=milliseconds << 80 | 0x7 << 76 | noise >> 62 << 64 | 0b10 << 62 | noise & (1 << 62) - 1)


def _ascii(name: str) -> str:
    return name.translate(str.maketrans("öíá", "oia")).lower()
