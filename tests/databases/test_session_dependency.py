"""A web application's sessions: committed before the answer is sent, rolled back otherwise, and never left open."""

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Annotated

import httpx
import pytest
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from db.connection import DatabaseManager, get_reading_session, session_dependency
from db.models import User

REQUESTS = 1000
AT_ONCE = 50
Session = Annotated[AsyncSession, Depends(session_dependency, scope="function")]


def make_app() -> FastAPI:
    app = FastAPI()

    @app.post("/users/{name}")
    async def make_user(name: str, session: Session) -> dict[str, str]:
        session.add(User(username=name))
        return {"made": name}

    @app.post("/users/{name}/then-fail")
    async def make_user_and_fail(name: str, session: Session) -> None:
        session.add(User(username=name))
        await session.flush()
        raise HTTPException(status_code=418)

    @app.exception_handler(IntegrityError)
    async def conflict(request: Request, error: IntegrityError) -> JSONResponse:
        del request, error
        return JSONResponse({"error": "taken"}, status_code=409)

    return app


@pytest.fixture
async def client(manager: DatabaseManager) -> AsyncIterator[httpx.AsyncClient]:
    del manager  # the process's pool is open
    transport = httpx.ASGITransport(app=make_app())
    async with httpx.AsyncClient(transport=transport, base_url="http://app") as made:
        yield made


async def count_users() -> int:
    async with get_reading_session() as session:
        return (await session.execute(select(func.count()).select_from(User))).scalar_one()


async def test_what_was_answered_is_committed(client: httpx.AsyncClient) -> None:
    response = await client.post("/users/ada")
    assert (response.status_code, response.json()) == (200, {"made": "ada"})
    assert await count_users() == 1


async def test_a_commit_that_fails_is_answered_as_a_failure(client: httpx.AsyncClient) -> None:
    assert (await client.post("/users/ada")).status_code == 200
    assert (await client.post("/users/ada")).status_code == 409
    assert await count_users() == 1


async def test_an_error_rolls_back(client: httpx.AsyncClient) -> None:
    assert (await client.post("/users/ada/then-fail")).status_code == 418
    assert await count_users() == 0


async def test_a_thousand_cancelled_requests_leave_no_connection_checked_out(
    client: httpx.AsyncClient, manager: DatabaseManager
) -> None:
    chance = random.Random(7431)  # noqa: S311
    answered = 0
    for first in range(0, REQUESTS, AT_ONCE):
        names = range(first, first + AT_ONCE)
        tasks = [asyncio.create_task(client.post(f"/users/user-{name}")) for name in names]
        for task in chance.sample(tasks, len(tasks)):
            for _ in range(chance.randrange(12)):
                await asyncio.sleep(0)
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, httpx.Response):
                answered += 1
            else:
                assert isinstance(result, asyncio.CancelledError)
    assert manager.pool_figures().checked_out == 0
    assert answered < REQUESTS
    assert answered <= await count_users() <= REQUESTS
    assert (await client.post("/users/one-more")).status_code == 200
