"""``python -m bench data_layer``: what repositories cost; exits 1 where a target is missed or a server is missing."""

import argparse
import asyncio
import json
import sys
from pathlib import Path

from bench.data_layer.measures import MEASURES, Bench
from bench.machine import describe_machine
from bench.queue.table import Row, as_markdown
from db import migrate
from db.connection import DatabaseManager
from db.settings import DatabaseSettings
from tests.servers import MissingBinaryError, PostgresServer


def main(arguments: list[str]) -> int:
    """Run the measures and print their table."""
    options = _parser().parse_args(arguments)
    try:
        with PostgresServer(durable=True) as server:
            print(describe_machine(server.execute("SHOW server_version")), flush=True)
            rows = asyncio.run(_measure(server.create_database(), options))
    except MissingBinaryError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(as_markdown(rows))
    if options.json:
        options.json.write_text(json.dumps([row.as_dict() for row in rows], indent=1) + "\n")
    return 1 if any(row.is_met is False for row in rows) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench data_layer",
        description="Measure repositories beside SQLAlchemy Core and asyncpg, on a PostgreSQL of its own.",
    )
    parser.add_argument("--only", nargs="+", choices=MEASURES, default=list(MEASURES), help="some of the measures")
    parser.add_argument("--rows", type=int, default=100_000, help="rows of bulk_create (default: 100000)")
    parser.add_argument("--calls", type=int, default=200, help="calls in a block (default: 200)")
    parser.add_argument("--blocks", type=int, default=15, help="blocks of each side, in turn (default: 15)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there")
    return parser


async def _measure(url: str, options: argparse.Namespace) -> list[Row]:
    settings = DatabaseSettings(database_url=url, database_slow_query_s=3600.0, _env_file=None)
    await migrate.upgrade(settings)
    manager = DatabaseManager(settings)
    try:
        bench = Bench(manager, url, rows=options.rows, calls=options.calls, blocks=options.blocks)
        await bench.fill()
        return [row for name in options.only for row in await MEASURES[name](bench)]
    finally:
        await manager.close()
