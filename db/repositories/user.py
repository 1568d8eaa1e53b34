"""Finding users."""

from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import selectinload

from db.models import Task, User
from db.repositories.base import BaseRepository


class UserWithTaskCount(NamedTuple):
    """A user, and how many tasks it has that are not deleted."""

    user: User
    task_count: int


class UserRepository(BaseRepository[User]):
    """The users."""

    model = User

    async def get_by_username(self, session: AsyncSession, username: str) -> User | None:
        """Return the user of this name, capitals and small letters told apart; None if there is none."""
        found = await self.get_multi(session, {"username": username}, limit=1)
        return found[0] if found else None

    async def username_exists(self, session: AsyncSession, username: str) -> bool:
        """Return whether the name is taken."""
        return await self.exists(session, {"username": username})

    async def get_user_with_tasks(self, session: AsyncSession, user_id: UUID) -> User | None:
        """Return a user with its ``tasks`` loaded, but for deleted ones, by two statements; None if there is none."""
        return await self.get(session, user_id, options=(selectinload(User.tasks),))

    async def get_users_with_task_counts(
        self, session: AsyncSession, *, limit: int = 100, offset: int = 0
    ) -> Sequence[UserWithTaskCount]:
        """Return users by name, each with the number of its tasks, by one statement.

        Args:
            session: an open one.
            limit: the most users.
            offset: how many to leave out.
        """
        counts = (
            select(func.count())
            .select_from(Task.__table__)
            .where(Task.__table__.c.user_id == User.id, Task.__table__.c.is_deleted.is_(False))
            .scalar_subquery()
        )
        query = select(User, counts).order_by(User.username).limit(limit).offset(offset)
        with self._rows.errors():
            found = (await session.execute(query)).all()
        return [UserWithTaskCount(user, count) for user, count in found]
