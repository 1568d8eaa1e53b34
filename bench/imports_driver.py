"""``python -m bench imports``: the import beside ``psql \\copy``; exits 1 where a server is missing."""

import argparse
import asyncio
import sys

from bench.imports import measure, table
from bench.machine import describe_machine
from tests.servers import MissingBinaryError, PostgresServer


def main(arguments: list[str]) -> int:
    """Run the measures and print their tables."""
    parser = argparse.ArgumentParser(
        prog="python -m bench imports", description="Measure imports against psql's \\copy."
    )
    parser.add_argument("--rows", type=int, default=100_000, help="rows of the file (default: 100000)")
    parser.add_argument("--runs", type=int, default=3, help="runs of each side, in turn (default: 3)")
    options = parser.parse_args(arguments)
    if options.rows < 1 or options.runs < 1:
        parser.error("--rows and --runs must be 1 or more")
    try:
        with PostgresServer(durable=True) as server:
            print(describe_machine(server.execute("SHOW server_version")), flush=True)
            pairs = [asyncio.run(measure(server, options.rows)) for _ in range(options.runs)]
    except MissingBinaryError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print("\n".join(table(pairs, options.rows)))
    return 0
