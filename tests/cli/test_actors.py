"""Who changes rows inside a run: its kind, where the job names nobody else."""

from pathlib import Path

import pytest
from sqlalchemy import insert

from db.models import Task, User
from holdfast.ids import uuid7
from tests.cli.command import invoke
from tests.cli.tables import Tables

PLUGIN = """
from typing import ClassVar

from db.connection import get_async_session
from db.mixins import acting_as
from db.repositories.task import TaskRepository
from holdfast import JobReport, JobRequest
from jobs.registry import Job


class TidyTitles(JobRequest[JobReport]):
    kind: ClassVar[str] = "tidy_titles"
    report_type: ClassVar[type[JobReport]] = JobReport


async def tidy_titles(context, request):
    tasks = TaskRepository()
    async with get_async_session() as session:
        for task in await tasks.get_multi(session, order_by="title"):
            if task.title == "asked for":
                with acting_as("eve"):
                    await tasks.update(session, task.id, description="tidy")
            else:
                await tasks.update(session, task.id, description="tidy")
        await tasks.create(session, title="new", user_id=task.user_id)
    return JobReport()


JOBS = (Job(TidyTitles, tidy_titles, timeout_s=60),)
"""


def test_a_run_acts_as_its_kind(tables: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tidying_plugin.py").write_text(PLUGIN, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("HOLDFAST_PLUGINS", "tidying_plugin")
    owner = uuid7()
    rows = [
        {"title": title, "user_id": owner, "created_by": "ada", "updated_by": "ada"} for title in ("a", "asked for")
    ]
    tables.change(insert(User).values(id=owner, username="ada"), insert(Task).values(rows))
    ended = invoke("enqueue", "tidy_titles", "--wait", "--json")
    assert ended.document["state"] == "succeeded", ended
    assert [(task.title, task.created_by, task.updated_by) for task in tables.tasks()] == [
        ("a", "ada", "tidy_titles"),
        ("asked for", "ada", "eve"),
        ("new", "tidy_titles", None),
    ]
