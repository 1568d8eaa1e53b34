"""Finding tasks."""

from typing import Unpack
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from db.models import Task, TaskStatus
from db.repositories.base import BaseRepository, Page, Paging


class TaskRepository(BaseRepository[Task]):
    """The tasks. Every method leaves deleted ones out, unless it is told ``include_deleted=True``."""

    model = Task

    async def get_by_user(self, session: AsyncSession, user_id: UUID, **paging: Unpack[Paging]) -> Page[Task]:
        """Return a page of a user's tasks, see ``Paging``."""
        return await self.get_multi(session, {"user_id": user_id}, **paging)

    async def get_by_status(self, session: AsyncSession, status: TaskStatus, **paging: Unpack[Paging]) -> Page[Task]:
        """Return a page of the tasks that have come this far."""
        return await self.get_multi(session, {"status": status}, **paging)

    async def get_completed_tasks(self, session: AsyncSession, **paging: Unpack[Paging]) -> Page[Task]:
        """Return a page of the completed tasks."""
        return await self.get_by_status(session, TaskStatus.COMPLETED, **paging)

    async def get_pending_tasks(self, session: AsyncSession, **paging: Unpack[Paging]) -> Page[Task]:
        """Return a page of the tasks that nobody has begun."""
        return await self.get_by_status(session, TaskStatus.PENDING, **paging)

    async def get_in_progress_tasks(self, session: AsyncSession, **paging: Unpack[Paging]) -> Page[Task]:
        """Return a page of the tasks that somebody has begun."""
        return await self.get_by_status(session, TaskStatus.IN_PROGRESS, **paging)

    async def search_by_title(self, session: AsyncSession, text: str, **paging: Unpack[Paging]) -> Page[Task]:
        """Return a page of the tasks whose title holds a text, capitals or small letters.

        Args:
            session: an open one.
            text: taken as it is: ``%`` and ``_`` stand for themselves.
            paging: see ``Paging``.
        """
        return await self.get_multi(session, {"title__icontains": text}, **paging)

    async def get_user_tasks_by_status(
        self, session: AsyncSession, user_id: UUID, status: TaskStatus, **paging: Unpack[Paging]
    ) -> Page[Task]:
        """Return a page of a user's tasks that have come this far."""
        return await self.get_multi(session, {"user_id": user_id, "status": status}, **paging)
