"""Where the server binaries are: on the PATH or where Debian puts them.

`TEST_SERVER_PATH` replaces all of these places, so that a test can hide the servers of a machine. Run as a program
it prints the Debian packages whose binaries are missing, one a line; it needs the standard library only.
"""

import os
import re
import shutil
from pathlib import Path

# Server binary, other names of it, and the Debian package that brings it.
POSTGRES = (("postgres",), "postgresql")
MARIADB = (("mariadbd", "mysqld"), "mariadb-server")
REDIS = (("redis-server", "valkey-server"), "redis-server")
PGBOUNCER = (("pgbouncer",), "pgbouncer")
OPENSSL = (("openssl",), "openssl")  # makes certificates
DEBIAN_POSTGRES = Path("/usr/lib/postgresql")


class MissingBinaryError(RuntimeError):
    """A server's binary is not on this machine; the text names the package to install."""


def find_server(names: tuple[str, ...], package: str) -> Path:
    """Returns the path of the first of the names that is found.

    Raises:
        MissingBinaryError: when no folder of the search path holds one.
    """
    for name in names:
        found = shutil.which(name, path=_search_path())
        if found:
            return Path(found)
    raise MissingBinaryError(f"{names[0]} is not on the PATH: apt-get install {package}")


def find_tool(server: Path, *names: str) -> Path:
    """Returns a program that belongs to a server binary: beside it (links followed), or else on the search path.

    Raises:
        MissingBinaryError: when there is none.
    """
    beside = [str(server.resolve().parent), str(server.parent)]
    for name in names:
        found = shutil.which(name, path=os.pathsep.join(beside)) or shutil.which(name, path=_search_path())
        if found:
            return Path(found)
    raise MissingBinaryError(f"{names[0]} is not on the PATH, but {server} is: install the rest of that server")


def missing_packages() -> list[str]:
    """Returns the Debian packages of the servers that are not on this machine."""
    missing = []
    for names, package in (POSTGRES, MARIADB, REDIS, PGBOUNCER, OPENSSL):
        try:
            find_server(names, package)
        except MissingBinaryError:
            missing.append(package)
    return missing


def _search_path() -> str:
    replacement = os.environ.get("TEST_SERVER_PATH")
    if replacement is not None:
        return replacement or os.devnull  # which() takes an empty path for its default
    folders = sorted(DEBIAN_POSTGRES.glob("*/bin"), key=_version, reverse=True)
    return os.pathsep.join([os.environ.get("PATH", os.defpath), *map(str, folders), "/usr/sbin"])


def _version(folder: Path) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", folder.parent.name)]


if __name__ == "__main__":
    print("\n".join(missing_packages()))
