"""``queues``, ``kinds`` and ``limits``: what may run, and how much of it at the same time."""

from typing import Any

import click

from db.connection import get_async_session, get_reader
from db.repositories import control
from worker.cli.database import open_database
from worker.cli.terminal import async_command, json_option, load_settings, print_json, whole_name

Scope = str


def scope_commands(scope: Scope, plural: str) -> click.Group:
    """Make the group of commands that pauses queues or kinds."""

    @click.group(plural, help=f"Pause a {scope}, let it go on, and list what is paused.")
    def group() -> None: ...

    @group.command("pause", epilog=f"Example: python -m worker {plural} pause NAME")
    @click.argument("name")
    @json_option
    @async_command
    async def pause(*, name: str, as_json: bool) -> None:
        await _set_paused(scope, name, paused=True, as_json=as_json)

    @group.command("resume", epilog=f"Example: python -m worker {plural} resume NAME")
    @click.argument("name")
    @json_option
    @async_command
    async def resume(*, name: str, as_json: bool) -> None:
        await _set_paused(scope, name, paused=False, as_json=as_json)

    @group.command("list", epilog=f"Example: python -m worker {plural} list --json")
    @json_option
    @async_command
    async def list_command(*, as_json: bool) -> None:
        found = await _load()
        _show([{"name": name, "paused": True} for kind, name in sorted(found.paused) if kind == scope], plural, as_json)

    pause.help = f"Start no further runs of this {scope}; those that run go on."
    resume.help = f"Start runs of this {scope} again."
    list_command.help = f"List what is paused among the {plural}."
    return group


@click.group()
def limits() -> None:
    """Limit how many runs of a queue or kind run at the same time, over all workers."""


@limits.command("set", epilog="Example: python -m worker limits set kind import_tasks 2")
@click.argument("scope", type=click.Choice(["queue", "kind"]))
@click.argument("name")
@click.argument("most", type=click.IntRange(0, 100_000), required=False)
@json_option
@async_command
async def set_command(*, scope: str, name: str, most: int | None, as_json: bool) -> None:
    """Set the limit; without MOST it is taken away. It is kept roughly: workers look once a second."""
    settings = load_settings()
    name = whole_name(settings, scope, name)
    async with open_database(settings), get_async_session() as session:
        await control.set_limit(session, scope, name, most)
    _show([{"scope": scope, "name": name, "max_running": most}], "limits", as_json)


@limits.command("list", epilog="Example: python -m worker limits list --json")
@json_option
@async_command
async def list_limits(*, as_json: bool) -> None:
    """List the limits."""
    found = await _load()
    rows = [{"scope": scope, "name": name, "max_running": most} for scope, name, most in found.limits]
    _show(rows, "limits", as_json)


async def _set_paused(scope: Scope, name: str, *, paused: bool, as_json: bool) -> None:
    settings = load_settings()
    name = whole_name(settings, scope, name)
    async with open_database(settings), get_async_session() as session:
        await control.set_paused(session, scope, name, paused=paused)
    _show([{"name": name, "paused": paused}], f"{scope}s", as_json)


async def _load() -> control.Controls:
    async with open_database(load_settings()), get_reader() as reader:
        return await control.load_controls(reader)


def _show(rows: list[dict[str, Any]], plural: str, as_json: bool) -> None:
    if as_json:
        print_json({plural: rows})
        return
    for row in rows:
        click.echo("  ".join(f"{key}={value}" for key, value in row.items()))
    if not rows:
        click.echo(f"no {plural} to show", err=True)
