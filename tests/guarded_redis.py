"""A Redis with the users of `deploy/redis-users.acl`, for those who work as these users."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from tests import skips
from tests.processes import CHECKOUT
from tests.servers import RedisServer

USERS_FILE = CHECKOUT / "deploy" / "redis-users.acl"
USERS = ("producer", "worker", "operator")
ADMIN = "user admin on nopass ~* &* +@all\n"


@contextmanager
def guarded_redis(folder: Path, config: pytest.Config) -> Iterator[RedisServer]:
    """Starts one; the users' names are their passwords, and there is an `admin` for the test."""
    lines = USERS_FILE.read_text()
    for user in USERS:
        assert f"user {user} on resetpass " in lines
        lines = lines.replace(f"user {user} on resetpass ", f"user {user} on >{user} ")
    lines = lines.replace("user default off\n", "user default on nopass ~* &* +@all\n")  # for the server's own calls
    file = folder / "users.acl"
    file.write_text(lines + ADMIN)
    with skips.made_or_skipped(lambda: RedisServer(extra_args=["--aclfile", str(file)]), config) as server:
        admin = connect(server, "admin")
        admin.acl_setuser("default", enabled=False)
        yield server
        print("denied:", denied(admin))  # pytest shows it when the test fails
        admin.acl_setuser("default", enabled=True)
        admin.close()


def connect(server: RedisServer, user: str) -> Any:
    """A client of that user."""
    return redis.Redis(port=server.port, username=user, password=user, socket_timeout=10)


def url_of(server: RedisServer, user: str) -> str:
    """The URL for that user."""
    return f"redis://{user}:{user}@127.0.0.1:{server.port}/0"


def denied(admin: Any) -> list[str]:
    """What Redis has refused anybody."""
    refused = [entry for entry in admin.acl_log() if entry["reason"] != "auth"]
    # What redis-py tries and can do without; Redis 7.0, which the file is for as well, does not know it.
    return [f"{entry['username']} {entry['object']}" for entry in refused if entry["object"] != "client|setinfo"]
