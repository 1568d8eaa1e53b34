"""``archives search`` and ``archives list``: what lies in archive tables and in files."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import click
from sqlalchemy import String, Table
from sqlalchemy.exc import StatementError
from sqlalchemy.ext.asyncio import AsyncSession

from db.archive_tables import existing_archive
from db.archives.catalog import Catalog, UnknownTable
from db.archives.keys import key_text
from db.archives.searching import (
    ArchiveSize,
    Condition,
    ConditionError,
    FoundRow,
    measure_archive,
    read_condition,
    search_archive,
)
from db.connection import get_async_session
from db.errors import is_unstorable
from db.fields import json_value
from jobs.archive_deleted.part_files import PartUnreadable
from jobs.archive_files import Part, lines_of, list_parts, rows_in_part
from jobs.archive_manifests import find_unlisted
from jobs.catalogs import open_catalog
from worker.cli.archive_adopt import unlisted_documents
from worker.cli.database import open_database
from worker.cli.terminal import (
    Failure,
    async_command,
    json_option,
    load_settings,
    print_json,
    read_instant,
    wrong_usage,
)
from worker.settings import Settings

SHOWN_CHARACTERS = 60


@click.command(epilog="Example: python -m worker archives search tasks external_key=ABC-1 title~invoice --json")
@click.argument("table")
@click.argument("conditions", nargs=-1, metavar="[COLUMN=VALUE | COLUMN~TEXT]...")
@click.option("--deleted-since", metavar="TIME", help="Deleted at or after: ISO 8601 with an offset.")
@click.option("--deleted-until", metavar="TIME", help="Deleted before, written alike.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="The most rows.")
@json_option
@async_command
async def search(*, table: str, conditions: tuple[str, ...], limit: int, as_json: bool, **times: str | None) -> None:
    """Look for rows of TABLE in its archive and in files: equal to VALUE, or with TEXT in them."""
    settings = load_settings()
    found_table = find_table(open_catalog(settings), table)
    wanted = read_conditions(found_table, conditions, times)
    try:
        async with open_database(settings), get_async_session(read_only=True) as session:
            found = await find_rows(session, settings, found_table, wanted, limit=limit + 1)
    except StatementError as error:
        if not is_unstorable(error):
            raise
        raise wrong_usage(f"nothing can be compared with a value that is asked for: {error.orig}") from None
    more, rows = len(found.rows) > limit, found.rows[:limit]
    if as_json:
        documents = [row_document(found_table, row) for row in rows]
        print_json({"rows": documents, "more": more, "unreadable": found.unreadable})
    else:
        for row in rows:
            click.echo(row_line(found_table, row, wanted))
        click.echo(f"{len(rows)} rows" + ("; there are more: raise --limit, or ask for less" if more else ""), err=True)
    if found.unreadable:
        raise Failure(f"{found.unreadable[0]} ({len(found.unreadable)} of the files were not searched)")


@dataclass(slots=True)
class Found:
    """What a search came to."""

    rows: list[FoundRow]
    unreadable: list[str] = field(default_factory=list)
    """Why files could not be searched, one line each."""


async def find_rows(
    session: AsyncSession, settings: Settings, table: Table, conditions: Sequence[Condition], *, limit: int
) -> Found:
    """Look into the archive table first, and then into the files, the oldest first."""
    found = Found(await search_archive(session, table, conditions, limit=limit))
    for part in await list_parts(session, settings, [table.fullname]):
        if len(found.rows) >= limit:
            break
        try:
            rows = await rows_in_part(part, table, lambda values: all(one.holds(values) for one in conditions))
        except PartUnreadable as error:
            found.unreadable.append(str(error))
            continue
        place = f"{part.run_id}/{part.file.name}"
        found.rows += [FoundRow(row.key, row.values, row.archived_at, part.run_id, place) for row in rows]
    return found


def find_table(catalog: Catalog, name: str) -> Table:
    """Return the table of a name.

    Raises:
        Failure: there is none (exit code 2); the name has gone nowhere near SQL.
    """
    try:
        return catalog.find(name)
    except UnknownTable as error:
        raise wrong_usage(str(error)) from None


def read_conditions(table: Table, texts: Sequence[str], times: dict[str, str | None]) -> list[Condition]:
    """Return the conditions that the user has typed.

    Raises:
        Failure: one does not fit (exit code 2).
    """
    try:
        conditions = [read_condition(table, text) for text in texts]
    except ConditionError as error:
        raise wrong_usage(str(error)) from None
    if (since := times["deleted_since"]) is not None:
        conditions.append(Condition("deleted_at", ">=", read_instant("--deleted-since", since)))
    if (until := times["deleted_until"]) is not None:
        conditions.append(Condition("deleted_at", "<", read_instant("--deleted-until", until)))
    return conditions


def row_document(table: Table, row: FoundRow) -> dict[str, Any]:
    """Return a row as ``--json`` shows it."""
    return {
        "table": table.fullname,
        "id": key_text(row.key),
        "archived_at": row.archived_at.isoformat(),
        "run_id": str(row.run_id),
        "file": row.file,
        "values": {name: json_value(value) for name, value in row.values.items()},
    }


def row_line(table: Table, row: FoundRow, conditions: Sequence[Condition]) -> str:
    """Return a row for eyes: its key, when it went and where it lies, the columns asked for and the first text."""
    texts = [name for name, column in table.c.items() if isinstance(column.type, String) or _is_short_text(column.type)]
    names = dict.fromkeys([*texts[:1], *(one.column for one in conditions)])
    shown = "  ".join(f"{name}={str(row.values.get(name))[:SHOWN_CHARACTERS]!r}" for name in names)
    place = row.file or getattr(existing_archive(table), "fullname", "")
    return f"{key_text(row.key)}  {row.archived_at:%Y-%m-%d %H:%M}  {place}  {shown}".rstrip()


def _is_short_text(kind: Any) -> bool:
    return isinstance(getattr(kind, "impl", None), String)


@click.command("list", epilog="Example: python -m worker archives list --verify --json")
@click.argument("table", required=False)
@click.option("--verify", is_flag=True, help="Read each file and compare its SHA-256.")
@json_option
@async_command
async def list_archives(*, table: str | None, verify: bool, as_json: bool) -> None:
    """List what lies in archive tables and in files."""
    settings = load_settings()
    catalog = open_catalog(settings)
    tables = [find_table(catalog, table)] if table else list(catalog.soft_deleted.values())
    async with open_database(settings), get_async_session(read_only=True) as session:
        sizes = [(one, await measure_archive(session, one)) for one in tables]
        parts = await list_parts(session, settings, [one.fullname for one in tables])
        seen = await find_unlisted(session, settings)
    unlisted = [document for one in seen.unlisted for document in unlisted_documents(one)]
    documents = [_table_document(one, size) for one, size in sizes if size is not None] + _file_documents(parts)
    damaged = [problem for part in parts if (problem := _problem(part)) is not None] if verify else []
    if as_json:
        known = {"archives": documents, "not_listed": unlisted}
        print_json({**known, "damaged": damaged} if verify else known)
    for one in () if as_json else documents:
        place = (
            f"{one['files']} files, {one['bytes']:,} bytes, run {one['run_id']}" if one["run_id"] else "archive table"
        )
        first, last = ((one[name] or "-")[:16].replace("T", " ") for name in ("first_archived_at", "last_archived_at"))
        click.echo(f"{one['table']:<20}{one['rows']:>12,} rows  {first} to {last}  {place}")
    for one in () if as_json else unlisted:
        click.echo(
            f"not known to this database: {one['rows']:,} rows of {one['table']} in {one['files']} files of run "
            f"{one['run_id']}; enter them with: archives adopt {one['run_id']}",
            err=True,
        )
    for problem in () if as_json else seen.unreadable:
        click.echo(problem, err=True)
    if damaged:
        raise Failure(f"{damaged[0]} ({len(damaged)} of {len(parts)} files are damaged)")


def _table_document(table: Table, size: ArchiveSize) -> dict[str, Any]:
    document = {"table": table.fullname, "run_id": None, "rows": size.rows, "files": 0, "bytes": 0}
    return document | _span(size.first_archived_at, size.last_archived_at)


def _file_documents(parts: Sequence[Part]) -> list[dict[str, Any]]:
    grouped: dict[tuple[str, str], list[Part]] = {}
    for part in parts:
        grouped.setdefault((part.table, str(part.run_id)), []).append(part)
    documents = []
    for (table, run_id), own in grouped.items():
        rows, size = sum(part.file.rows for part in own), sum(part.file.bytes for part in own)
        document = {"table": table, "run_id": run_id, "rows": rows, "files": len(own), "bytes": size}
        documents.append(document | _span(own[0].row.written_at, own[-1].row.written_at))
    return documents


def _span(first: datetime | None, last: datetime | None) -> dict[str, str | None]:
    return {
        "first_archived_at": None if first is None else first.isoformat(),
        "last_archived_at": None if last is None else last.isoformat(),
    }


def _problem(part: Part) -> str | None:
    try:
        lines_of(part)
    except PartUnreadable as error:
        return str(error)
    return None
