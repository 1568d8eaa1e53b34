"""A pytest plugin, loaded into the run of arq's tests from outside of its tree.

It puts our Worker in the place of arq's, unless it is told to leave arq as it is, and the Redis that the run was given
in the place of the container that arq's tests would start.
"""

import os
import sys
from types import ModuleType
from typing import Self

import arq.worker

REDIS_PORT_VARIABLE = "ARQ_SUITE_REDIS_PORT"
STOCK_VARIABLE = "ARQ_SUITE_STOCK"


class RedisContainer:
    """What arq's fixtures take for a container."""

    port = 6379

    def __init__(self, image: str) -> None:
        del image

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def get_container_host_ip(self) -> str:
        """Returns where Redis is."""
        return "127.0.0.1"

    def get_exposed_port(self, port: int) -> int:
        """Returns the port of the run's own Redis."""
        del port
        return int(os.environ[REDIS_PORT_VARIABLE])


def _replace_containers() -> None:
    module = ModuleType("testcontainers.redis")
    module.RedisContainer = RedisContainer  # type: ignore[attr-defined]
    sys.modules["testcontainers"] = ModuleType("testcontainers")
    sys.modules["testcontainers.redis"] = module


def _replace_worker() -> None:
    from worker.queue import Worker  # noqa: PLC0415 - not where stock arq is tested

    arq.worker.Worker = Worker  # type: ignore[misc]


_replace_containers()
if not os.environ.get(STOCK_VARIABLE):
    _replace_worker()
