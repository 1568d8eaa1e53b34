"""``runs cancel`` and ``runs retry``: acting on runs that are named."""

from collections.abc import Mapping
from uuid import UUID

import click
from redis.exceptions import RedisError

from db.connection import get_async_session, get_reading_session
from db.errors import first_line
from db.repositories import run_actions, run_list
from holdfast.states import RunState
from jobs.registry import load_jobs
from worker import dispatch
from worker.cancellations import tell_cancelled
from worker.cli.database import open_database
from worker.cli.runs import parse_run_id
from worker.cli.terminal import Failure, async_command, json_option, load_settings, print_json
from worker.embedded import is_listening
from worker.redis_url import make_client
from worker.settings import Settings


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


async def _tell_redis(settings: Settings, states: Mapping[UUID, RunState | None]) -> None:
    """Let producers know of runs that ended, and put runs that go on into Redis at once."""
    waiting = [run_id for run_id, state in states.items() if state is RunState.WAITING]
    cancelled = [run_id for run_id, state in states.items() if state is RunState.CANCELLED]
    there_is_none = settings.queue_is_embedded and not is_listening(settings.holdfast_data_dir.absolute())
    if there_is_none or not (waiting or cancelled):
        return
    client = make_client(settings.redis_address, timeout_s=5.0)
    try:
        await dispatch.dispatch_runs(client, tuple(load_jobs(settings)), waiting)
        for run_id in cancelled:
            async with get_reading_session() as session:
                run = await run_list.find_run(session, run_id)
            if run is not None:
                await tell_cancelled(client, run)
    except (RedisError, OSError) as error:
        click.echo(f"Redis does not answer ({first_line(error)}): it hears of it later, from a worker", err=True)
    finally:
        await client.aclose()


async def _act(run_ids: tuple[str, ...], action: run_actions.Action, done: str, *, as_json: bool) -> None:
    settings = load_settings()
    wanted = dict.fromkeys(parse_run_id(text) for text in run_ids)
    states: dict[UUID, RunState | None] = {}
    async with open_database(settings):
        for run_id in wanted:
            async with get_async_session() as session:
                states[run_id] = await action(session, run_id)
        await _tell_redis(settings, states)
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
