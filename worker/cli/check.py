"""``check``: all configuration problems at once."""

import click

from worker.checks import find_problems
from worker.cli.terminal import WrongSettings, async_command, json_option, load_settings, print_json


@click.command(epilog="Example: python -m worker check --json")
@json_option
@async_command
async def check(*, as_json: bool) -> None:
    """Look at the settings, the folders, the database and Redis; exits 2 for wrong settings, 1 for other problems."""
    try:
        problems = await find_problems(load_settings())
        code = 1 if problems else 0
    except WrongSettings as wrong:
        problems, code = list(wrong.problems), wrong.exit_code
    if as_json:
        print_json({"problems": [problem.as_dict() for problem in problems]})
    else:
        for problem in problems:
            click.echo(str(problem))
        click.echo(f"{len(problems)} problems" if problems else "no problems", err=True)
    raise click.exceptions.Exit(code)
