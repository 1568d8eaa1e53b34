"""Asking sentinels which server is the master now."""

import asyncio

from redis.asyncio.sentinel import MasterNotFoundError, Sentinel
from redis.exceptions import RedisError

from holdfast.address import RedisAddress


class MasterFinder(Sentinel):
    """redis-py's sentinels, with errors in one line and no connection that outlives its question.

    Args:
        address: names at least one sentinel.
    """

    def __init__(self, address: RedisAddress) -> None:
        super().__init__(list(address.sentinels), sentinel_kwargs=dict(address.sentinel_options))  # type: ignore[no-untyped-call]
        self._one_at_a_time = asyncio.Lock()

    async def discover_master(self, service_name: str) -> tuple[str, int]:
        """Return host and port of the master.

        Raises:
            MasterNotFoundError: no sentinel that answers knows one that is up.
        """
        reasons = []
        async with self._one_at_a_time:
            for position, sentinel in enumerate(self.sentinels):
                place = "{host}:{port}".format_map(sentinel.connection_pool.connection_kwargs)
                try:
                    state = (await sentinel.sentinel_masters()).get(service_name)  # type: ignore[no-untyped-call]
                except (RedisError, OSError) as error:
                    reasons.append(f"{place}: {error}")
                    continue
                finally:
                    await sentinel.connection_pool.disconnect()
                if state is not None and self.check_master_state(state, service_name):
                    self.sentinels.insert(0, self.sentinels.pop(position))  # the next question begins here
                    return state["ip"], state["port"]
                reasons.append(f"{place} knows no such master" if state is None else f"{place} knows it to be down")
        raise MasterNotFoundError(f"no sentinel names a master {service_name!r} that is up ({'; '.join(reasons)})")
