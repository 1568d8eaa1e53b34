"""Tasks: making them, how far they may come, whose they are."""

from typing import Any, Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from db.errors import InvalidInputError, NotFoundError
from db.mixins import now
from db.models import Task, TaskStatus
from db.repositories.task import TaskRepository
from db.repositories.user import UserRepository
from db.schemas import TaskCreate, TaskRead
from services.errors import StatusChangeRefused, UserDeactivated

NEXT_STATUSES: Final[dict[TaskStatus, frozenset[TaskStatus]]] = {
    TaskStatus.PENDING: frozenset(
        {
            TaskStatus.IN_PROGRESS,  # somebody has begun
            TaskStatus.COMPLETED,  # it was done before anybody said that it had begun
            TaskStatus.CANCELLED,  # it is not to be done
        }
    ),
    TaskStatus.IN_PROGRESS: frozenset(
        {
            TaskStatus.PENDING,  # it was put back
            TaskStatus.COMPLETED,  # it is done
            TaskStatus.CANCELLED,  # it is not to be done after all
        }
    ),
    TaskStatus.COMPLETED: frozenset({TaskStatus.PENDING}),  # it was reopened
    TaskStatus.CANCELLED: frozenset({TaskStatus.PENDING}),  # it was reopened
}
"""What may follow what, and why. The same status again is no change and always allowed."""


class TaskService:
    """The rules of tasks."""

    def __init__(self) -> None:
        self._tasks = TaskRepository()
        self._users = UserRepository()

    async def create(self, session: AsyncSession, new: TaskCreate) -> TaskRead:
        """Make a task; a completed one without ``completed_at`` was completed now.

        Raises:
            NotFoundError: there is no such user.
            UserDeactivated: the user is given no more tasks.
            InvalidInputError: ``completed_at`` of a task that is not completed.
            DuplicateKeyError: the external key is taken, perhaps by a deleted task: see its ``deleted_id``.
        """
        await self._check_user(session, new.user_id)
        values = new.model_dump()
        if new.status is TaskStatus.COMPLETED:
            values["completed_at"] = new.completed_at or now()
        elif new.completed_at is not None:
            raise InvalidInputError(f"completed_at of a task that is {new.status}: leave it out, or say COMPLETED")
        return TaskRead.model_validate(await self._tasks.create(session, **values))

    async def change_status(self, session: AsyncSession, task_id: UUID, status: TaskStatus) -> TaskRead:
        """Take a task on, if ``NEXT_STATUSES`` allows it; ``completed_at`` follows.

        Raises:
            NotFoundError: there is no such task, or it is deleted.
            StatusChangeRefused: not from its status.
        """
        task = await self._locked(session, task_id)
        if task.status is status:
            return TaskRead.model_validate(task)
        allowed = NEXT_STATUSES[task.status]
        if status not in allowed:
            raise StatusChangeRefused(
                f"task {task_id} is {task.status} and cannot become {status}, only {', '.join(sorted(allowed))}"
            )
        completed_at = now() if status is TaskStatus.COMPLETED else None
        changed = await self._tasks.update(session, task_id, status=status, completed_at=completed_at)
        return TaskRead.model_validate(changed)

    async def mark_completed(self, session: AsyncSession, task_id: UUID) -> TaskRead:
        """Say that a task is done; of one that is, the first time counts. Raises as ``change_status``."""
        return await self.change_status(session, task_id, TaskStatus.COMPLETED)

    async def reopen(self, session: AsyncSession, task_id: UUID) -> TaskRead:
        """Put a task back to be done. Raises as ``change_status``."""
        return await self.change_status(session, task_id, TaskStatus.PENDING)

    async def assign(self, session: AsyncSession, task_id: UUID, user_id: UUID) -> TaskRead:
        """Give a task to a user.

        Raises:
            NotFoundError: there is no such task or user.
            UserDeactivated: the user is given no more tasks.
        """
        await self._check_user(session, user_id)
        return TaskRead.model_validate(await self._tasks.update(session, task_id, user_id=user_id))

    async def _locked(self, session: AsyncSession, task_id: UUID) -> Task:
        """Return the task as it is now, and keep others from changing it until the commit."""
        task = await self._tasks.get_for_update(session, task_id)
        if task is None:
            raise NotFoundError(f"tasks: there is no row {str(task_id)[:60]!r}, or it is deleted", table="tasks")
        return task

    async def _check_user(self, session: AsyncSession, user_id: Any) -> None:
        user = await self._users.get(session, user_id)
        if user is None:
            raise NotFoundError(f"users: there is no row {str(user_id)[:60]!r}", table="users")
        if not user.is_active:
            raise UserDeactivated(f"user {user.username} is deactivated and is given no tasks: choose another one")
