"""``workers``: who is there, and what they do."""

from typing import Any

import click

from db.connection import get_reading_session
from db.repositories import worker_heartbeat
from db.repositories.worker_heartbeat import SeenWorker
from worker.cli.database import open_database
from worker.cli.terminal import async_command, json_option, load_settings, print_json


@click.group()
def workers() -> None:
    """List the workers of this database."""


@workers.command("list", epilog="Example: python -m worker workers list --json")
@json_option
@async_command
async def list_command(*, as_json: bool) -> None:
    """List the workers, the youngest first. Their states: starting, ready, draining (told to stop), or held.

    Who has not been heard of for HEARTBEAT_TIMEOUT_S seconds is dead: its runs are put back, its line stays for a day.
    """
    settings = load_settings()
    async with open_database(settings), get_reading_session() as session:
        found = await worker_heartbeat.list_workers(session, timeout_s=settings.heartbeat_timeout_s)
    if as_json:
        print_json({"workers": [worker_document(worker) for worker in found]})
        return
    for worker in found:
        click.echo(_line(worker))
    if not found:
        click.echo("no workers to show", err=True)


def _line(worker: SeenWorker) -> str:
    row = worker.heartbeat
    state = row.state if worker.is_alive else f"dead (was {row.state})"
    seen = f"{state} since {worker.since:%Y-%m-%d %H:%M:%S}  seen {worker.silent_s:.0f} s ago"
    return f"{row.worker_id}  {seen}  {worker.running} running  {', '.join(row.queues or ())}".rstrip()


def worker_document(worker: SeenWorker) -> dict[str, Any]:
    """Return a worker as ``--json`` shows it."""
    row = worker.heartbeat
    return {
        "worker_id": row.worker_id,
        "host": row.host,
        "pid": row.pid,
        "queues": row.queues,
        "state": row.state,
        "since": worker.since.isoformat(),
        "started_at": row.started_at.isoformat(),
        "last_seen_at": row.heartbeat_at.isoformat(),
        "silent_s": round(worker.silent_s, 1),
        "running": worker.running,
        "alive": worker.is_alive,
    }
