"""What a Redis has to be for a queue to live in it."""

from dataclasses import dataclass
from typing import Any

from redis.exceptions import ResponseError


@dataclass(frozen=True, slots=True)
class BrokenRule:
    """What is wrong with a Redis, and what to do."""

    rule: str
    advice: str


CLUSTER = BrokenRule(
    "it is a Redis Cluster, where the keys of a queue and its runs are on different servers: no step could be atomic",
    "name a single Redis, with replicas and sentinels if you like",
)


async def broken_rules(client: Any) -> list[BrokenRule]:
    """Look at a Redis that answers.

    Raises:
        redis.exceptions.RedisError, OSError: it does not answer any more.
    """
    info = await _info(client)
    found = [CLUSTER] if info.get("cluster_enabled") else []
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        rule = f"its maxmemory-policy is {policy}: Redis may throw waiting runs away"
        found.append(BrokenRule(rule, "set maxmemory-policy to noeviction"))
    return found


async def is_cluster(client: Any) -> bool:
    """Whether a Redis that answers is part of a cluster, whose scripts would fail one by one.

    Raises:
        redis.exceptions.RedisError, OSError: it does not answer any more.
    """
    return bool((await _info(client)).get("cluster_enabled"))


async def _info(client: Any) -> dict[str, Any]:
    try:
        info: dict[str, Any] = await client.info()
    except ResponseError:  # not for this user: nothing can be said
        return {}
    return info
