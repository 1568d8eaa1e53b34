"""``check``: all configuration problems at once."""

import click
from pydantic import ValidationError

from worker.checks import find_problems
from worker.cli.terminal import async_command, json_option, print_json, setting_problems
from worker.settings import Settings

KEYS = ("setting", "value", "rule", "advice")


@click.command(epilog="Example: python -m worker check --json")
@json_option
@async_command
async def check(*, as_json: bool) -> None:
    """Look at the settings, the folders, the database and Redis; exits 2 for wrong settings, 1 for other problems."""
    code = 0
    try:
        problems = [problem.as_dict() for problem in await find_problems(Settings())]
        code = 1 if problems else 0
    except ValidationError as error:
        problems = [{key: problem[key] for key in KEYS} for problem in setting_problems(error)]
        code = 2
    if as_json:
        print_json({"problems": problems})
    else:
        for problem in problems:
            click.echo("{setting}={value}: {rule}; {advice}".format_map(problem))
        click.echo(f"{len(problems)} problems" if problems else "no problems", err=True)
    raise click.exceptions.Exit(code)
