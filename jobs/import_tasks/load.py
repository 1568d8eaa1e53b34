"""Writing one batch of rows: found by key first, then inserted, updated, skipped or rejected."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast
from uuid import UUID

from sqlalchemy import Table, bindparam, insert, select, update
from sqlalchemy.engine import Row as ResultRow
from sqlalchemy.ext.asyncio import AsyncSession

from db.mixins import now
from db.models import ImportReject, Task, User
from holdfast.ids import uuid7
from holdfast.requests import ImportTasks
from jobs.import_tasks.record_types import Problem
from jobs.import_tasks.rows import METADATA_PREFIX, Reject, Row
from jobs.outcomes import JobFailed

TASKS = cast("Table", Task.__table__)
COUNTERS = ("rows_read", "inserted", "updated", "unchanged", "skipped", "rejected")
COLUMN_CHARACTERS = 255
"""How much of a column's name the rejects table holds."""


@dataclass(slots=True)
class Plan:
    """What one batch will do, decided before anything is written."""

    inserts: list[dict[str, Any]] = field(default_factory=list)
    updates: list[dict[str, Any]] = field(default_factory=list)
    unchanged: list[UUID] = field(default_factory=list)
    skipped: int = 0
    rejects: list[Reject] = field(default_factory=list)
    written_keys: set[str] = field(default_factory=set)

    def counts(self) -> dict[str, int]:
        """Return the batch's share of the counters."""
        parts = {
            "inserted": len(self.inserts),
            "updated": len(self.updates),
            "unchanged": len(self.unchanged),
            "skipped": self.skipped,
            "rejected": len(self.rejects),
        }
        return {"rows_read": sum(parts.values()), **parts}


class BatchLoader:
    """Loads batches for one run.

    Args:
        run_id: written into each row, which tells a key that this file holds twice from one that was there before.
        request: the owner and what to do with taken keys.
        mapping: field -> column of the file. An update changes these fields and the constants, no others.
    """

    def __init__(self, run_id: UUID, request: ImportTasks, mapping: Mapping[str, str]) -> None:
        self._run_id = run_id
        self._request = request
        self._mapping = mapping
        self._given = frozenset({*mapping, *request.constants})

    async def load(self, session: AsyncSession, rows: Sequence[Row | Reject]) -> dict[str, int]:
        """Write a batch in the caller's transaction.

        Returns:
            The batch's share of the counters ``COUNTERS``.

        Raises:
            JobFailed: a key is taken and the request says ``on_conflict="fail"``.
            sqlalchemy.exc.IntegrityError: somebody else took a key meanwhile; run the whole transaction again.
        """
        good = [row for row in rows if isinstance(row, Row)]
        plan = Plan(rejects=[row for row in rows if isinstance(row, Reject)])
        owners = await self._owners(session, good)
        existing = await self._existing(session, good)
        for row in good:
            self._place(plan, row, owners, existing)
        await self._write(session, plan)
        return plan.counts()

    def _place(self, plan: Plan, row: Row, owners: Mapping[str, UUID], existing: Mapping[str, ResultRow[Any]]) -> None:
        task, key = row.task, row.task.external_key
        owner = owners.get(task.user or self._request.user)
        if owner is None:
            reason = f"={task.user!r} is no user: make it, or import with --create-users"
            plan.rejects.append(self._reject(row, "unknown_user", "user", reason))
            return
        known = existing.get(key) if key is not None else None
        if key is not None and (key in plan.written_keys or (known and known.import_run_id == self._run_id)):
            reason = f"={key!r} stands in this file more than once: the first one counts"
            plan.rejects.append(self._reject(row, "duplicate_key", "external_key", reason))
            return
        if known is None:
            plan.inserts.append(self._new_task(row, owner))
        elif known.is_deleted and self._request.restore_deleted:
            plan.updates.append({"task_id": known.id, **self._changes(row, owner, known)})
        elif self._request.on_conflict == "fail":
            raise JobFailed("duplicate_key", f"line {row.line}: external_key {key!r} {_taken(known)}")
        elif self._request.on_conflict == "skip" or known.is_deleted:
            plan.skipped += 1
            return
        elif changes := self._changes(row, owner, known):
            plan.updates.append({"task_id": known.id, **changes})
        else:
            plan.unchanged.append(known.id)
        if key is not None:
            plan.written_keys.add(key)

    def _reject(self, row: Row, code: str, field_name: str, reason: str) -> Reject:
        column = self._mapping.get(field_name, field_name)
        return Reject(row.line, row.raw, Problem(code, column + reason, column))

    def _new_task(self, row: Row, owner: UUID) -> dict[str, Any]:
        task, made_at = row.task, now()
        return {
            "id": uuid7(),
            "title": task.title,
            "description": task.description,
            "status": task.status,
            "user_id": owner,
            "completed_at": task.completed_at,
            "external_key": task.external_key,
            "import_run_id": self._run_id,
            "metadata_json": task.metadata,
            "created_by": self._request.user,
            "created_at": task.created_at or made_at,
            "updated_at": made_at,
        }

    def _changes(self, row: Row, owner: UUID, known: ResultRow[Any]) -> dict[str, Any]:
        wanted: dict[str, Any] = {}
        if self._request.on_conflict == "update":
            wanted = self._wanted(row, owner, known)
        if self._request.restore_deleted:
            wanted |= {"is_deleted": False, "deleted_at": None}
        if all(getattr(known, name) == value for name, value in wanted.items()):
            return {}
        return {**wanted, "import_run_id": self._run_id, "updated_at": now(), "updated_by": self._request.user}

    def _wanted(self, row: Row, owner: UUID, known: ResultRow[Any]) -> dict[str, Any]:
        task = row.task
        # What this record lacks keeps its value, so that all updates of a batch name the same columns.
        wanted = {
            name: getattr(task if name in task.model_fields_set else known, name)
            for name in self._given
            if name in TASKS.c
        }
        if "user" in self._given:
            wanted["user_id"] = known.user_id if task.user is None else owner
        if any(name.startswith(METADATA_PREFIX) for name in self._given):
            wanted["metadata_json"] = (known.metadata_json or {}) | (task.metadata or {})
        return wanted

    async def _owners(self, session: AsyncSession, rows: Sequence[Row]) -> dict[str, UUID]:
        """Return the id of every user that the rows name, made where the request allows."""
        default = self._request.user
        names = {row.task.user or default for row in rows}
        if not names:
            return {}
        found = await session.execute(select(User.username, User.id).where(User.username.in_(names)))
        owners = {row.username: row.id for row in found}
        missing = [name for name in sorted(names - owners.keys()) if name == default or self._request.create_users]
        for name in missing:
            owners[name] = uuid7()
            await session.execute(insert(User).values(id=owners[name], username=name))
        return owners

    async def _existing(self, session: AsyncSession, rows: Sequence[Row]) -> dict[str, ResultRow[Any]]:
        keys = {row.task.external_key for row in rows if row.task.external_key is not None}
        if not keys:
            return {}
        columns = (
            list(TASKS.c)
            if self._request.on_conflict == "update"
            else [TASKS.c[name] for name in ("id", "external_key", "import_run_id", "is_deleted", "deleted_at")]
        )
        found = await session.execute(select(*columns).where(TASKS.c.external_key.in_(keys)))
        return {row.external_key: row for row in found}

    async def _write(self, session: AsyncSession, plan: Plan) -> None:
        if plan.inserts:
            await session.execute(insert(TASKS), plan.inserts)
        if plan.updates:
            names = [name for name in plan.updates[0] if name != "task_id"]
            statement = update(TASKS).where(TASKS.c.id == bindparam("task_id"))
            await session.execute(statement.values({name: bindparam(name) for name in names}), plan.updates)
        if plan.unchanged:
            # Marked as this run's, so that the same key further down in the file is seen to be the second one.
            seen = update(TASKS).where(TASKS.c.id.in_(plan.unchanged))
            kept = {name: TASKS.c[name] for name in ("updated_at", "updated_by")}
            await session.execute(seen.values(import_run_id=self._run_id, **kept))
        if plan.rejects:
            await session.execute(insert(ImportReject), [reject_row(self._run_id, one) for one in plan.rejects])


def _taken(known: ResultRow[Any]) -> str:
    if known.is_deleted:
        return "is taken by a deleted task; import with --restore-deleted, or with --on-conflict skip"
    return "is taken already; import with --on-conflict skip or update"


def reject_row(run_id: UUID, reject: Reject) -> dict[str, Any]:
    """Return the row of ``import_rejects`` for a reject."""
    problem = reject.problem
    return {
        "run_id": run_id,
        "line": reject.line,
        "column": None if problem.column is None else problem.column[:COLUMN_CHARACTERS],
        "code": problem.code,
        "reason": problem.reason.replace("\x00", "\\x00"),
        # PostgreSQL's text cannot hold a NUL, so the stored raw row shows it the way Python would write it.
        "raw": reject.raw.replace("\x00", "\\x00"),
    }
