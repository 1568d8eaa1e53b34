"""What a worker asks the ledger again and again, in one statement: what operators say, and whether there is work."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    ScalarSelect,
    Select,
    TextClause,
    false,
    literal_column,
    or_,
    select,
    true,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from db.models import Control
from db.past_orm import execute_past_orm
from db.repositories.control import ControlRow
from db.repositories.due_runs import IS_RUNNING, NOT_DISPATCHED, dispatchable
from holdfast.outbox import job_runs

_CONTROLS = tuple(Control.__table__.columns)


@dataclass(frozen=True, slots=True)
class Glance:
    """What one look at the ledger has shown."""

    controls: Sequence[ControlRow]
    """All of their rows, for ``control.controls_of``."""
    undispatched: bool
    """Whether a run is due that is not in Redis yet; False as well where that was not asked."""
    running: bool
    """Whether the ledger has running runs; False as well where that was not asked."""


class Glancer:
    """Asks for some queues and kinds.

    Args:
        queues: the queues' keys.
        kinds: those that this worker knows.
    """

    def __init__(self, queues: Sequence[str], kinds: Sequence[str]) -> None:
        # IN would be taken apart at each look.
        is_known_kind = or_(false(), *(job_runs.c.kind == kind for kind in kinds))
        self._undispatched = [_first_of(*dispatchable(queue, is_known_kind), NOT_DISPATCHED) for queue in queues]
        self._running = [_first_of(*IS_RUNNING, job_runs.c.queue == queue) for queue in queues]
        self._queries: dict[tuple[bool, bool], Select[Any]] = {}

    async def look(
        self, reader: AsyncConnection, *, due_before: datetime, after: UUID, undispatched: bool, running: bool
    ) -> Glance:
        """Look once.

        Args:
            reader: a connection.
            due_before: later runs are to stay in the ledger for now.
            after: only undispatched runs above this id, as the watermark.
            undispatched: ask for undispatched runs.
            running: ask for running ones.
        """
        query, values = (
            self.query(undispatched=undispatched, running=running),
            {"due_before": due_before, "after": after},
        )
        rows = (await execute_past_orm(reader, query, values)).rows
        answers = rows[0][len(_CONTROLS) :]
        first_of_running = len(self._undispatched) if undispatched else 0
        return Glance(
            [row for row in rows if row.scope is not None],
            undispatched=any(answers[:first_of_running]),
            running=any(answers[first_of_running:]),
        )

    def query(self, *, undispatched: bool, running: bool) -> Select[Any]:
        """Return the statement for these questions: a row for each control, or one without any, with the answers."""
        asked = undispatched, running
        if asked not in self._queries:
            answers = (*(self._undispatched if undispatched else ()), *(self._running if running else ()))
            one = select(literal_column("1").label("one")).subquery("one")
            query = select(*_CONTROLS, *(answer.label(f"answer_{at}") for at, answer in enumerate(answers)))
            self._queries[asked] = query.select_from(one.outerjoin(Control.__table__, true()))
        return self._queries[asked]


def _first_of(*where: ColumnElement[bool] | TextClause) -> ScalarSelect[int]:
    # In the order of the index, and no EXISTS: that its planner may answer by any other way to the rows.
    row: Select[tuple[int]] = select(literal_column("1")).where(*where).order_by(job_runs.c.id)
    return row.limit(literal_column("1")).scalar_subquery()
