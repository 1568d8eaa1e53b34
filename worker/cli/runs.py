"""``runs``: look at what was and is being done."""

import json
from datetime import UTC
from typing import Any
from uuid import UUID

import click

from db.connection import get_reading_session
from db.models import JobAttempt
from db.repositories import run_list
from db.repositories.job_run import RunRow
from db.repositories.run_list import RunFilter
from holdfast.states import RunState
from worker.cli.database import open_database
from worker.cli.terminal import (
    Failure,
    async_command,
    json_option,
    load_settings,
    print_json,
    read_instant,
    whole_name,
    wrong_usage,
)

STATES = [state.value for state in RunState]


@click.group()
def runs() -> None:
    """List runs and show one."""


@runs.command("list", epilog="Example: python -m worker runs list --state failed --limit 20 --json")
@click.option("--state", type=click.Choice(STATES), help="Only runs in this state.")
@click.option("--kind", metavar="KIND", help="Only runs of this kind, as import_tasks.")
@click.option("--queue", metavar="Q", help="Only runs of this queue.")
@click.option("--since", metavar="TIME", help="Enqueued at or after: ISO 8601; UTC where no offset is given.")
@click.option("--until", metavar="TIME", help="Enqueued before, written alike.")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="Runs on a page.")
@click.option("--cursor", metavar="CURSOR", help="The next page: next_cursor of the one before.")
@json_option
@async_command
async def list_command(*, limit: int, cursor: str | None, as_json: bool, **conditions: Any) -> None:
    """List runs, the newest first."""
    for name in ("since", "until"):
        if conditions[name] is not None:
            conditions[name] = read_instant(f"--{name}", conditions[name], default_zone=UTC)
    settings = load_settings()
    for scope in ("queue", "kind"):
        if conditions[scope] is not None:
            conditions[scope] = whole_name(settings, scope, conditions[scope])
    run_filter = RunFilter(**conditions)
    before = None if cursor is None else parse_run_id(cursor)
    async with open_database(settings), get_reading_session() as session:
        rows = await run_list.list_runs(session, run_filter, before=before, limit=limit + 1)
        found = await run_list.count_runs(session, run_filter)
    total = min(found, run_list.COUNTED_AT_MOST)
    page = rows[:limit]
    next_cursor = str(page[-1].id) if len(rows) > limit else None
    if as_json:
        more = {} if found == total else {"total_is_at_least": True}
        print_json({"runs": [run_document(run) for run in page], "next_cursor": next_cursor, "total": total, **more})
        return
    for run in page:
        note = run.reason or (run.error or {}).get("message", "") if run.state != "succeeded" else ""
        click.echo(f"{run.id}  {run.state:<11}  {run.kind:<14}  {run.enqueued_at:%Y-%m-%d %H:%M:%S}  {note}".rstrip())
    of = str(total) if found == total else f"more than {total:,}"
    click.echo(f"{len(page)} of {of} runs" + (f"; next page: --cursor {next_cursor}" if next_cursor else ""), err=True)


@runs.command("show", epilog="Example: python -m worker runs show 0198c0de-... --json")
@click.argument("run_id")
@json_option
@async_command
async def show_command(*, run_id: str, as_json: bool) -> None:
    """Show one run with its attempts."""
    wanted = parse_run_id(run_id)
    async with open_database(load_settings()), get_reading_session() as session:
        run = await run_list.find_run(session, wanted)
        attempts = await run_list.list_attempts(session, wanted)
    if run is None:
        raise Failure(f"run {run_id} is not in the ledger: `python -m worker runs list` shows those that are")
    if as_json:
        print_json({**run_document(run), "attempts": [attempt_document(one) for one in attempts]})
        return
    show_run(run)
    for one in attempts:
        took = (one.finished_at - one.started_at).total_seconds()
        error = f"  {one.error['message']}" if one.error else ""
        click.echo(f"  attempt {one.attempt} (start {one.fence}): {one.outcome} after {took:.1f} s{error}")


def run_document(run: RunRow) -> dict[str, Any]:
    """Return a run as ``--json`` shows it; the keys of its report stand beside its own."""
    document: dict[str, Any] = {"run_id": str(run.id), "state": run.state, "kind": run.kind}
    document |= run.report or {}
    for name in ("reason", "queue", "attempts", "crashes", "worker_id", "request", "counters", "error"):
        document[name] = getattr(run, name)
    for name in ("enqueued_at", "due_at", "started_at", "finished_at"):
        instant = getattr(run, name)
        document[name] = None if instant is None else instant.isoformat()
    document["starts"] = run.fence
    return document


def attempt_document(attempt: JobAttempt) -> dict[str, Any]:
    """Return an ended attempt as ``--json`` shows it."""
    return {
        "attempt": attempt.attempt,
        "start": attempt.fence,
        "worker_id": attempt.worker_id,
        "started_at": attempt.started_at.isoformat(),
        "finished_at": attempt.finished_at.isoformat(),
        "outcome": attempt.outcome,
        "error": attempt.error,
    }


def show_run(run: RunRow) -> None:
    """Print a run for eyes."""
    click.echo(f"run {run.id} ({run.kind}): {run.state}" + (f", {run.reason}" if run.reason else ""))
    if run.error:
        click.echo(f"  error: {run.error['message']} ({run.error['type']})")
    for name, value in (run.report or run.counters or {}).items():
        click.echo(f"  {name:<14}{value if not isinstance(value, int | float) else f'{value:,}'}")
    click.echo(f"  {'request':<14}{json.dumps(run.request, ensure_ascii=False)}")


def exit_code_of(run: RunRow) -> int:
    """Return 0 for a run that succeeded, 1 for any other."""
    return 0 if run.state == RunState.SUCCEEDED.value else 1


def parse_run_id(text: str) -> UUID:
    """Read a run id.

    Raises:
        Failure: it is none (exit code 2).
    """
    try:
        return UUID(text)
    except ValueError:
        raise wrong_usage(f"{text!r} is no run id: it reads like 0198c0de-0000-7000-8000-000000000000") from None
