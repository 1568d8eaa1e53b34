"""Users and tasks over HTTP, with FastAPI.

    DATABASE_URL=postgresql://... python -m uvicorn --factory examples.tasks_api:make_app

One session a request, committed before the answer is sent; related rows are loaded with the query that needs them.
It shows the data layer and nothing of access: nobody signs in here, and whoever reaches it may make superusers.
"""

from typing import Annotated, Any
from uuid import UUID

from fastapi import Depends, FastAPI, Query
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import selectinload

from db.connection import check_database_health, database_lifespan, session_dependency
from db.errors import NotFoundError
from db.models import Task, TaskStatus, User
from db.repositories.task import TaskRepository
from db.repositories.user import UserRepository
from db.schemas import TaskCreate, TaskRead, UserCreate, UserRead
from db.serializers import ModelSerializer
from examples.error_answers import add_error_answers
from services.tasks import TaskService
from services.users import UserService

# Without the scope FastAPI would answer first and commit then.
Session = Annotated[AsyncSession, Depends(session_dependency, scope="function")]


def make_app() -> FastAPI:
    """Make the application; its pool opens and closes with it."""
    app = FastAPI(title="Tasks", lifespan=database_lifespan)
    add_error_answers(app)
    _add_users(app)
    _add_tasks(app)

    @app.get("/health")
    async def health() -> dict[str, Any]:
        return dict(await check_database_health())

    return app


def _add_users(app: FastAPI) -> None:
    users, service = UserRepository(), UserService()
    with_tasks = ModelSerializer(User, relationships=["tasks"])

    @app.post("/users", status_code=201)
    async def create_user(session: Session, new: UserCreate) -> UserRead:
        return await service.create(session, new)

    @app.get("/users/{user_id}")
    async def show_user(session: Session, user_id: UUID) -> dict[str, Any]:
        user = await users.get_user_with_tasks(session, user_id)
        if user is None:
            raise NotFoundError(f"there is no user {user_id}")
        return with_tasks.to_dict(user)

    @app.post("/users/{user_id}/deactivate")
    async def deactivate_user(session: Session, user_id: UUID) -> UserRead:
        return await service.deactivate(session, user_id)


def _add_tasks(app: FastAPI) -> None:
    tasks, service = TaskRepository(), TaskService()
    with_user = ModelSerializer(Task, relationships=["user"])

    @app.get("/tasks")
    async def list_tasks(  # noqa: PLR0917 - each is a parameter of the query
        session: Session,
        status: TaskStatus | None = None,
        title: Annotated[str | None, Query(max_length=255)] = None,
        order_by: Annotated[list[str], Query()] = ["-created_at"],  # noqa: B006 - FastAPI copies it
        limit: int = 50,
        after: str | None = None,
    ) -> dict[str, Any]:
        given = {"status": status, "title__icontains": title}
        filters = {name: value for name, value in given.items() if value is not None}
        related = [selectinload(Task.user)]
        page = await tasks.get_multi(session, filters, order_by=order_by, limit=limit, after=after, options=related)
        return {"items": with_user.bulk_to_dict(page), "next_cursor": page.next_cursor}

    @app.post("/tasks", status_code=201)
    async def create_task(session: Session, new: TaskCreate) -> TaskRead:
        return await service.create(session, new)

    @app.post("/tasks/{task_id}/complete")
    async def complete_task(session: Session, task_id: UUID) -> TaskRead:
        return await service.mark_completed(session, task_id)

    @app.post("/tasks/{task_id}/status/{status}")
    async def change_status(session: Session, task_id: UUID, status: TaskStatus) -> TaskRead:
        return await service.change_status(session, task_id, status)

    @app.delete("/tasks/{task_id}", status_code=204)
    async def delete_task(session: Session, task_id: UUID) -> None:
        await tasks.delete(session, task_id)

    @app.post("/tasks/{task_id}/restore")
    async def restore_task(session: Session, task_id: UUID) -> TaskRead:
        return TaskRead.model_validate(await tasks.restore(session, task_id))
