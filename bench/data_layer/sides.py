"""The same work three times: by a repository, by SQLAlchemy Core, and by asyncpg.

Core is used as one writes it by hand: the statement is built where it is executed, on a connection, and what comes back
is a row. asyncpg gets finished SQL and prepares it once. All three return every column of the row that they read or
wrote, leave soft-deleted rows out, and set ``updated_at``.
"""

from collections.abc import Sequence
from typing import Any, Protocol, cast
from uuid import UUID

import asyncpg
from sqlalchemy import Table, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from db.copy import copy_rows
from db.mixins import now
from db.models import Task
from db.repositories.task import TaskRepository

TASKS = cast(Table, Task.__table__)
COLUMNS = [column.name for column in TASKS.columns]
LISTED = ", ".join(COLUMNS)


INSERTED = ("id", "title", "status", "user_id", "created_at", "updated_at", "is_deleted")


class Side(Protocol):
    """One way to do the work, in a transaction that is open."""

    async def get(self, key: UUID) -> Any:
        """Read one row."""

    async def update(self, key: UUID, title: str) -> Any:
        """Change one row and return it."""

    async def create(self, rows: Sequence[dict[str, Any]]) -> None:
        """Insert rows with the same fields."""

    async def load(self, rows: Sequence[dict[str, Any]]) -> None:
        """Insert rows the fastest way that the side has."""

    async def page(self, after: UUID | None, limit: int) -> UUID | None:
        """Read the next page by the primary key; returns its last key, None at the end."""


class ByRepository:
    """Ours."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session
        self._tasks = TaskRepository()
        self._cursor: str | None = None

    async def get(self, key: UUID) -> Any:
        return await self._tasks.get(self._session, key)

    async def update(self, key: UUID, title: str) -> Any:
        return await self._tasks.update(self._session, key, title=title)

    async def create(self, rows: Sequence[dict[str, Any]]) -> None:
        await self._tasks.bulk_create(self._session, rows)

    async def load(self, rows: Sequence[dict[str, Any]]) -> None:
        await copy_rows(self._session, Task, rows)

    async def page(self, after: UUID | None, limit: int) -> UUID | None:
        cursor = self._cursor if after is not None else None
        found = await self._tasks.get_multi(self._session, limit=limit, after=cursor)
        self._cursor = found.next_cursor
        return found[-1].id if found.next_cursor is not None else None


class ByCore:
    """SQLAlchemy Core."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def get(self, key: UUID) -> Any:
        query = select(TASKS).where(TASKS.c.id == key, TASKS.c.is_deleted.is_(False))
        return (await self._connection.execute(query)).one_or_none()

    async def update(self, key: UUID, title: str) -> Any:
        change = update(TASKS).where(TASKS.c.id == key, TASKS.c.is_deleted.is_(False)).values(title=title)
        return (await self._connection.execute(change.returning(TASKS))).one_or_none()

    async def create(self, rows: Sequence[dict[str, Any]]) -> None:
        await self._connection.execute(insert(TASKS), rows)

    async def load(self, rows: Sequence[dict[str, Any]]) -> None:
        await self.create(rows)

    async def page(self, after: UUID | None, limit: int) -> UUID | None:
        query = select(TASKS).where(TASKS.c.is_deleted.is_(False)).order_by(TASKS.c.id).limit(limit)
        if after is not None:
            query = query.where(TASKS.c.id > after)
        found = (await self._connection.execute(query)).all()
        return found[-1].id if len(found) == limit else None


class ByDriver:
    """asyncpg."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection

    async def get(self, key: UUID) -> Any:
        return await self._connection.fetchrow(f"SELECT {LISTED} FROM tasks WHERE id = $1 AND NOT is_deleted", key)  # noqa: S608

    async def update(self, key: UUID, title: str) -> Any:
        change = "UPDATE tasks SET title = $2, updated_at = $3, updated_by = NULL WHERE id = $1 AND NOT is_deleted"
        return await self._connection.fetchrow(f"{change} RETURNING {LISTED}", key, title, now())

    async def create(self, rows: Sequence[dict[str, Any]]) -> None:
        places = ", ".join(f"${number + 1}" for number in range(len(INSERTED)))
        insertion = f"INSERT INTO tasks ({', '.join(INSERTED)}) VALUES ({places})"  # noqa: S608
        await self._connection.executemany(insertion, _records(rows))

    async def load(self, rows: Sequence[dict[str, Any]]) -> None:
        await self._connection.copy_records_to_table("tasks", records=_records(rows), columns=INSERTED)

    async def page(self, after: UUID | None, limit: int) -> UUID | None:
        bound = "" if after is None else "AND id > $2"
        query = f"SELECT {LISTED} FROM tasks WHERE NOT is_deleted {bound} ORDER BY id LIMIT $1"  # noqa: S608
        found = await self._connection.fetch(query, *([limit] if after is None else [limit, after]))
        return found[-1]["id"] if len(found) == limit else None


def _records(rows: Sequence[dict[str, Any]]) -> list[tuple[Any, ...]]:
    made_at = now()
    return [(row["id"], row["title"], "PENDING", row["user_id"], made_at, made_at, False) for row in rows]
