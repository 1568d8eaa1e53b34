"""``python -m bench``: what can be measured; ``python -m bench queue`` measures it."""

import sys

from bench import imports_driver
from bench.archive import driver as archive_driver
from bench.data_layer import driver as data_layer_driver
from bench.queue import driver

HELP = """usage: python -m bench queue|imports|data_layer|archive [options]     (or: make bench ARGS="queue [options]")

  queue   how fast the queue is, beside stock arq, on servers of its own; takes about 20 minutes, on an idle machine
  imports how fast an import is, beside psql's \\copy, on a PostgreSQL of its own
  data_layer
          what repositories cost, beside SQLAlchemy Core and asyncpg, on a PostgreSQL of its own; about 3 minutes
  archive how fast an archive is, beside one giant transaction and pt-archiver, on servers of its own; about 20 minutes

python -m bench queue --help names the measures and the options; bench/README.md tells what the figures mean."""


def main() -> int:
    """Run a bench; returns its exit code."""
    arguments = sys.argv[1:]
    if arguments[:1] == ["queue"]:
        return driver.main(arguments[1:])
    if arguments[:1] == ["imports"]:
        return imports_driver.main(arguments[1:])
    if arguments[:1] == ["data_layer"]:
        return data_layer_driver.main(arguments[1:])
    if arguments[:1] == ["archive"]:
        return archive_driver.main(arguments[1:])
    print(HELP)
    return 0 if not arguments or arguments[0] in {"-h", "--help"} else 2


if __name__ == "__main__":
    sys.exit(main())
