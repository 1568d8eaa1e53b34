"""The FastAPI example, as a process of uvicorn on a PostgreSQL of its own, over HTTP."""

import asyncio
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from db import migrate
from db.settings import DatabaseSettings
from holdfast.ids import uuid7
from tests import skips
from tests.processes import WorkerProcess, clean_environment
from tests.servers import PostgresServer, free_port

CANARY = "canary-8841"


@pytest.fixture(scope="module")
def server(pytestconfig: pytest.Config) -> Iterator[PostgresServer]:
    """One that the last test may stop."""
    with skips.made_or_skipped(PostgresServer, pytestconfig) as made:
        yield made


@pytest.fixture(scope="module")
def application(
    server: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, WorkerProcess]]:
    """Its URL, and the process."""
    url, port = server.create_database(), free_port()
    asyncio.run(migrate.upgrade(DatabaseSettings(database_url=url, _env_file=None)))
    folder: Path = tmp_path_factory.mktemp("api")
    command = ("--factory", "examples.tasks_api:make_app", "--host", "127.0.0.1", "--port", str(port))
    environment = clean_environment(DATABASE_URL=url, HOLDFAST_DATA_DIR=str(folder))
    with WorkerProcess(environment, folder, program=("-m", "uvicorn"), arguments=command, name="api") as process:
        process.wait_for("Application startup complete", timeout_s=60)
        yield f"http://127.0.0.1:{port}", process


@pytest.fixture
def api(application: tuple[str, WorkerProcess]) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=application[0], timeout=30) as client:
        yield client


def make_user(api: httpx.Client, **values: object) -> dict[str, Any]:
    answer = api.post("/users", json={"username": f"user-{secrets.token_hex(6)}", **values})
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def make_task(api: httpx.Client, user: dict[str, Any], **values: object) -> dict[str, Any]:
    answer = api.post("/tasks", json={"title": "t", "user_id": user["id"], **values})
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def test_a_user_is_shown_with_its_tasks_and_without_its_hash(api: httpx.Client) -> None:
    user = make_user(api, password=CANARY)
    for title in ("first", "second"):
        make_task(api, user, title=title)
    shown = api.get(f"/users/{user['id']}")
    assert shown.status_code == 200
    assert sorted(task["title"] for task in shown.json()["tasks"]) == ["first", "second"]
    assert "argon2" not in shown.text
    assert CANARY not in shown.text


def test_an_answer_comes_after_its_commit(api: httpx.Client) -> None:
    """Another connection sees at once what the answer says."""
    user = make_user(api)
    for _ in range(20):
        task = make_task(api, user)
        found = api.get("/tasks", params={"limit": 1, "order_by": "-id"}).json()["items"]
        assert found[0]["id"] == task["id"]


def test_pages_follow_their_cursors_with_users_loaded(api: httpx.Client) -> None:
    user, mark = make_user(api), secrets.token_hex(6)
    for number in range(5):
        make_task(api, user, title=f"{mark} {number} 100%")
    make_task(api, user, title="another")
    titles: list[str] = []
    after = None
    while True:
        params: dict[str, Any] = {"title": mark.upper(), "limit": 2, "order_by": ["title", "-id"]}
        page = api.get("/tasks", params=params | ({"after": after} if after else {})).json()
        titles += [item["title"] for item in page["items"]]
        assert all(item["user"]["username"] == user["username"] for item in page["items"])
        after = page["next_cursor"]
        if after is None:
            break
    assert titles == [f"{mark} {number} 100%" for number in range(5)]


def test_conflicts_are_409(api: httpx.Client) -> None:
    user = make_user(api)
    taken = api.post("/users", json={"username": user["username"]})
    assert (taken.status_code, taken.json()["error"], taken.json()["columns"]) == (
        409,
        "DuplicateKeyError",
        ["username"],
    )
    task = make_task(api, user)
    assert api.post(f"/tasks/{task['id']}/complete").json()["status"] == "COMPLETED"
    refused = api.post(f"/tasks/{task['id']}/status/CANCELLED")
    assert (refused.status_code, refused.json()["error"]) == (409, "StatusChangeRefused")
    assert api.post(f"/users/{user['id']}/deactivate").json()["is_active"] is False
    assert api.post("/tasks", json={"title": "t", "user_id": user["id"]}).status_code == 409


def test_the_key_of_a_deleted_task_leads_to_its_restoration(api: httpx.Client) -> None:
    user, key = make_user(api), secrets.token_hex(6)
    task = make_task(api, user, external_key=key)
    assert api.delete(f"/tasks/{task['id']}").status_code == 204
    again = api.post("/tasks", json={"title": "t", "user_id": user["id"], "external_key": key})
    assert (again.status_code, again.json()["deleted_id"]) == (409, task["id"])
    restored = api.post(f"/tasks/{again.json()['deleted_id']}/restore")
    assert (restored.status_code, restored.json()["is_deleted"]) == (200, False)


def test_what_is_not_there_is_404(api: httpx.Client) -> None:
    for answer in (
        api.get(f"/users/{uuid7()}"),
        api.post(f"/tasks/{uuid7()}/complete"),
        api.delete(f"/tasks/{uuid7()}"),
        api.post("/tasks", json={"title": "t", "user_id": str(uuid7())}),
    ):
        assert (answer.status_code, answer.json()["error"]) == (404, "NotFoundError")


def test_what_does_not_fit_is_422(api: httpx.Client) -> None:
    user = make_user(api)
    for answer in (
        api.get("/tasks", params={"order_by": "nonsense"}),
        api.get("/tasks", params={"after": "nonsense"}),
        api.get("/tasks", params={"limit": 100_000}),
        api.get("/tasks", params={"title": "a\x00b"}),
        api.get("/users/no-uuid"),
        api.post("/tasks", json={"title": "x" * 256, "user_id": user["id"]}),
        api.post("/tasks", json={"title": "t", "user_id": user["id"], "completed_at": "2020-01-01T00:00:00Z"}),
        api.post("/tasks", json={"title": "t", "user_id": user["id"], "nonsense": 1}),
        api.post("/tasks", content=b'{"title": "\\ud800", "user_id": "%s"}' % user["id"].encode()),
    ):
        assert answer.status_code == 422, answer.text


def test_a_database_that_is_away_is_503_until_it_is_back(
    api: httpx.Client, server: PostgresServer, application: tuple[str, WorkerProcess]
) -> None:
    user = make_user(api)
    server.stop()
    for _ in range(3):
        answer = api.get(f"/users/{user['id']}")
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
        assert "127.0.0.1" not in answer.text
    server.start()
    assert api.get(f"/users/{user['id']}").status_code == 200
    assert application[1].alive
    assert CANARY not in application[1].text
