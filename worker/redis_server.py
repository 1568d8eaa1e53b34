"""What a Redis has to be for a queue to live in it."""

import secrets
from dataclasses import dataclass
from typing import Any

from redis.exceptions import NoPermissionError, ResponseError

from db.errors import first_line


@dataclass(frozen=True, slots=True)
class BrokenRule:
    """What is wrong with a Redis, and what to do."""

    rule: str
    advice: str


CLUSTER = BrokenRule(
    "it is a Redis Cluster, where the keys of a queue and its runs are on different servers: no step could be atomic",
    "name a single Redis, with replicas and sentinels if you like",
)


PROBE_LUA = """
redis.call('TIME')
redis.call('ZCARD', KEYS[1])
return redis.call('HDEL', KEYS[2], ARGV[1])
"""
"""KEYS: queue, owners. ARGV: what is no job's id. It takes the rights of a worker and changes nothing."""


async def broken_rules(client: Any, queue: str) -> list[BrokenRule]:
    """Look at a Redis that answers.

    Args:
        client: connected as the worker will be.
        queue: the key of one of its queues.

    Raises:
        redis.exceptions.RedisError, OSError: it does not answer any more.
    """
    info = await _info(client)
    found = [CLUSTER] if info.get("cluster_enabled") else []
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        rule = f"its maxmemory-policy is {policy}: Redis may throw waiting runs away"
        found.append(BrokenRule(rule, "set maxmemory-policy to noeviction"))
    if not found and (missing := await _missing_right(client, queue)) is not None:
        found.append(missing)
    return found


async def refusal(client: Any, queue: str) -> BrokenRule | None:
    """Return why no worker can work with a Redis that answers: it is part of a cluster, or refuses the user's commands.

    Args and errors: as ``broken_rules``.
    """
    return CLUSTER if (await _info(client)).get("cluster_enabled") else await _missing_right(client, queue)


async def _missing_right(client: Any, queue: str) -> BrokenRule | None:
    try:
        await client.info("server")
        await client.dbsize()
        await client.eval(PROBE_LUA, 2, queue, f"{queue}:owners", secrets.token_hex(16))
    except ResponseError as error:
        if isinstance(error, NoPermissionError) or "user executing the script" in str(error):
            advice = "give this user the rights of the worker in deploy/redis-users.acl, or name another one"
            return BrokenRule(first_line(error), advice)
    return None


async def _info(client: Any) -> dict[str, Any]:
    try:
        info: dict[str, Any] = await client.info()
    except ResponseError:  # not for this user: nothing can be said
        return {}
    return info
