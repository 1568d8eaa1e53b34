"""What a command left in the tables, read over a connection of its own."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import SecretStr
from sqlalchemy import Executable, Select, select
from sqlalchemy.ext.asyncio import AsyncSession

from db import migrate
from db.connection import DatabaseManager
from db.models import ImportReject, JobRun, Task, User
from db.settings import DatabaseSettings

Made = TypeVar("Made")


class Tables:
    """The tables of one database, for looking at (and for what a test has to prepare).

    Args:
        url: the database's.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.settings = DatabaseSettings(_env_file=None, database_url=SecretStr(url))

    @classmethod
    def embedded(cls, data_dir: Path) -> "Tables":
        """The tables of a data folder."""
        return cls(f"sqlite:///{data_dir / 'holdfast.db'}")

    def upgrade(self) -> None:
        """Makes them."""
        asyncio.run(migrate.upgrade(self.settings))

    def read(self, query: Select[*tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        """Returns a query's rows."""

        async def rows(session: AsyncSession) -> list[tuple[Any, ...]]:
            found = await session.execute(query, execution_options={"include_deleted": True})
            return [tuple(row) for row in found]

        # Not as SQLite's one writer: a look may not wait for the command that it looks at.
        return asyncio.run(self._with_session(rows, read_only=True))

    def change(self, *statements: Executable) -> None:
        """Executes statements and commits."""

        async def execute(session: AsyncSession) -> None:
            for statement in statements:
                await session.execute(statement)

        asyncio.run(self._with_session(execute, read_only=False))

    def tasks(self) -> list[Task]:
        """Returns every task, in the order of their titles."""
        return sorted((row[0] for row in self.read(select(Task))), key=lambda task: str(task.title))

    def titles(self) -> list[str]:
        """Returns every task's title."""
        return [task.title for task in self.tasks()]

    def by_key(self) -> dict[str | None, Task]:
        """Returns every task by its external key."""
        return {task.external_key: task for task in self.tasks()}

    def users(self) -> dict[Any, str]:
        """Returns every user's name by id."""
        return dict(self.read(select(User.id, User.username)))

    def rejects(self) -> list[tuple[Any, ...]]:
        """Returns line, column and code of every rejected row."""
        query = select(ImportReject.line, ImportReject.column, ImportReject.code)
        return self.read(query.order_by(ImportReject.run_id, ImportReject.line))

    def runs(self) -> list[JobRun]:
        """Returns every run."""
        return [row[0] for row in self.read(select(JobRun).order_by(JobRun.id))]

    async def _with_session(self, work: Callable[[AsyncSession], Awaitable[Made]], *, read_only: bool) -> Made:
        manager = DatabaseManager(self.settings)
        try:
            async with manager.session(read_only=read_only) as session:
                return await work(session)
        finally:
            await manager.close()
