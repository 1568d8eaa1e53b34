"""Commands that are jobs: enqueue a request, wait for its end, print the report."""

from collections.abc import Mapping, Sequence
from typing import Any

import click

from db.repositories.job_run import RunRow
from holdfast.requests import JobRequest
from holdfast.states import RunState
from worker.cli.follow import enqueue_request, finish_run
from worker.cli.runs import exit_code_of
from worker.cli.terminal import Failure, print_json
from worker.settings import Settings


async def work(settings: Settings, request: JobRequest[Any]) -> RunRow:
    """Enqueue a request and wait for the run's end with a progress bar; the database is open."""
    return await finish_run(settings, await enqueue_request(settings, request))


async def detach(settings: Settings, request: JobRequest[Any], *, as_json: bool) -> None:
    """Enqueue a request, and say which run it became."""
    run_id = await enqueue_request(settings, request)
    if as_json:
        print_json({"run_id": str(run_id), "state": RunState.WAITING.value})
    else:
        click.echo(f"run {run_id} is waiting; look at it with: python -m worker runs show {run_id}")


def document_of(run: RunRow, keys: Sequence[str]) -> dict[str, Any]:
    """Return a run as ``--json`` shows it: its id, its state and these keys of its report."""
    report = run.report or {}
    document = {"run_id": str(run.id), "state": run.state, **{key: report.get(key) for key in keys}}
    return document | ({"error": run.error} if run.error else {})


def print_end(run: RunRow, document: Mapping[str, Any], *, as_json: bool) -> None:
    """Print how a run ended.

    Raises:
        Failure: it is not over, or did not succeed.
    """
    if as_json:
        print_json(document)
    else:
        for key, value in document.items():
            if key != "error" and value not in (None, [], {}, False):
                click.echo(f"{key:<18}{_shown(value)}")
    if not RunState(run.state).is_over:
        raise Failure(f"run {run.id} was interrupted and waits; `python -m worker run` goes on with it")
    if exit_code_of(run):
        raise Failure((run.error or {}).get("message") or f"run {run.id} is {run.state}")


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_shown(one)}" for name, one in value.items())
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{value:,}"
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
