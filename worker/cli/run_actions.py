"""``runs cancel`` and ``runs retry``: acting on runs that are named."""

from uuid import UUID

import click

from db.connection import get_async_session
from db.repositories import run_actions
from holdfast.states import RunState
from worker.cli.database import open_database
from worker.cli.runs import parse_run_id
from worker.cli.terminal import Failure, async_command, json_option, load_settings, print_json


@click.command("cancel", epilog="Example: python -m worker runs cancel 0198c0de-0000-7000-8000-000000000000")
@click.argument("run_ids", nargs=-1, required=True, metavar="RUN_ID...")
@json_option
@async_command
async def cancel(*, run_ids: tuple[str, ...], as_json: bool) -> None:
    """Cancel runs: waiting ones at once, running ones at their worker's next look (a second or two)."""
    await _act(run_ids, run_actions.cancel, "cancelled", as_json=as_json)


@click.command("retry", epilog="Example: python -m worker runs retry 0198c0de-0000-7000-8000-000000000000")
@click.argument("run_ids", nargs=-1, required=True, metavar="RUN_ID...")
@json_option
@async_command
async def retry(*, run_ids: tuple[str, ...], as_json: bool) -> None:
    """Let failed or quarantined runs go on from their cursor, with all their attempts again."""
    await _act(run_ids, run_actions.replay, "waiting", as_json=as_json)


async def _act(run_ids: tuple[str, ...], action: run_actions.Action, done: str, *, as_json: bool) -> None:
    wanted = [parse_run_id(text) for text in run_ids]
    states: dict[UUID, RunState | None] = {}
    async with open_database(load_settings()):
        for run_id in wanted:
            async with get_async_session() as session:
                states[run_id] = await action(session, run_id)
    documents = [
        {
            "run_id": str(run_id),
            "state": state.value if state else None,
            "done": state is not None and state.value == done,
        }
        for run_id, state in states.items()
    ]
    if as_json:
        print_json({"runs": documents})
    else:
        for document in documents:
            click.echo(f"{document['run_id']}  {document['state'] or 'not found'}")
    if missing := [document["run_id"] for document in documents if document["state"] is None]:
        raise Failure(f"run {missing[0]} cannot be {done}: it is not in the ledger, or not in a state for that")
