"""What a run is to archive: tables from the models, retention from the request or the settings, drift refused."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from sqlalchemy import Table

import db.models  # noqa: F401 - registers the models
from db.archives.catalog import Catalog, UnknownTable
from db.archives.drift import find_shape
from db.archives.rows import Shape, count_due
from db.connection import get_reading_session
from db.repositories.job_run import database_now
from holdfast.requests import ArchiveDeleted
from jobs.archive_deleted.state import State, TableState
from jobs.outcomes import JobFailed
from jobs.settings import JobSettings

RETENTIONS = "ARCHIVE_RETENTION_DAYS_BY_TABLE"


@dataclass(frozen=True, eq=False)
class Plan:
    """The tables in the order in which they are archived, and the shape of each that rows may leave."""

    catalog: Catalog
    tables: tuple[Table, ...]
    shapes: dict[str, Shape]

    def has_children(self, table: Table) -> bool:
        """Whether rows of other tables may have to go with this one's."""
        return bool(self.catalog.references_to(table))


async def make_plan(request: ArchiveDeleted, catalog: Catalog) -> Plan:
    """Look at the tables that a request is about; nothing is written.

    Raises:
        JobFailed: a name is no such table, or the database is not what the models say. Nothing has been moved.
    """
    try:
        wanted = [catalog.find(name) for name in request.tables] or list(catalog.soft_deleted.values())
    except UnknownTable as error:
        raise JobFailed("unknown_table", str(error)) from error
    tables = catalog.children_first(wanted)
    family = dict.fromkeys(member for table in tables for member in catalog.family_of(table))
    leaving, shapes, problems = _leaving(catalog, family), dict[str, Shape](), list[str]()
    async with get_reading_session() as session:
        for table in family:
            leaves = table in leaving
            archived, to_files = (leaves and request.destination == name for name in ("tables", "files"))
            found = await find_shape(session, catalog, table, archived=archived, leaves=leaves, to_files=to_files)
            shapes[table.fullname] = found.shape
            problems += found.problems
    if problems:
        more = f" ({len(problems) - 1} more: {'; '.join(problems[1:])})" if len(problems) > 1 else ""
        raise JobFailed("schema_drift", f"{problems[0]}{more}; no row was moved")
    return Plan(catalog, tuple(tables), shapes)


def _leaving(catalog: Catalog, family: Iterable[Table]) -> list[Table]:
    """Return the tables whose rows may leave in this run; what else refers to them is a living reference."""
    leaving = [table for table in family if catalog.is_soft_deleted(table)]
    for parent in leaving:  # those that are found are looked at in their turn
        owned = [reference.child for reference in catalog.references_to(parent) if reference.owns]
        leaving += [child for child in dict.fromkeys(owned) if child not in leaving]
    return leaving


def unknown_retentions(settings: JobSettings, catalog: Catalog) -> list[tuple[str, UnknownTable]]:
    """Return the names in ``ARCHIVE_RETENTION_DAYS_BY_TABLE`` that no table has: rows would leave before their time."""
    unknown = []
    for name in settings.archive_retention_days_by_table:
        try:
            catalog.find(name)
        except UnknownTable as error:
            unknown.append((name, error))
    return unknown


async def _deletion_limits(request: ArchiveDeleted, plan: Plan, settings: JobSettings) -> dict[str, datetime]:
    """Return for each table the instant before which a row must have been deleted, by the database's clock."""
    if request.deleted_before is not None:
        return {table.fullname: request.deleted_before for table in plan.tables}
    if request.older_than_days is None and (unknown := unknown_retentions(settings, plan.catalog)):
        name, error = unknown[0]
        raise JobFailed("unknown_table", f"{RETENTIONS}={name}: {error}; no row was moved")
    async with get_reading_session() as session:
        now = await database_now(session)
    days = {
        table.fullname: settings.archive_days_of(table.fullname)
        if request.older_than_days is None
        else request.older_than_days
        for table in plan.tables
    }
    return {name: now - timedelta(days=count) for name, count in days.items()}


async def first_state(settings: JobSettings, request: ArchiveDeleted, plan: Plan) -> State:
    """Return where a run begins: what is due in each table, and since when.

    Raises:
        JobFailed: the settings say when rows are due, and name a table that there is not.
    """
    limits = await _deletion_limits(request, plan, settings)
    async with get_reading_session() as session:
        due = {table.fullname: await count_due(session, table, limits[table.fullname]) for table in plan.tables}
    return State(tuple(TableState(name, limits[name], count, left=None if count else 0) for name, count in due.items()))


def fit_state(state: State, plan: Plan) -> State:
    """Return where a run goes on among the tables of today: a deploy may have come between its attempts.

    A table that has got children is walked anew where its pages were, which know nothing of them.

    Raises:
        JobFailed: a table that the run has begun with has gone.
    """
    known = {table.fullname: table for table in plan.tables}
    for share in state.tables:
        if share.name not in known:
            raise JobFailed(
                "unknown_table",
                f"{share.name}: the run has begun with it, and no mapped model has it now; what it has archived so far "
                "stays archived, no more was moved: bring the model back and retry the run, or begin another",
            )
        if share.walk is not None and share.walk.kind == "pages" and plan.has_children(known[share.name]):
            state = state.with_table(replace(share, walk=None))
    return state
