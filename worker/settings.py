"""What the worker is told. The environment (and ``.env``) is read here and in no other place of ``worker``."""

import hashlib
import os
import socket
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import quote

from pydantic import Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import NoDecode

from holdfast.address import parse_address, shown
from holdfast.wire import DEFAULT_QUEUE, MAX_PAYLOAD_BYTES, MAX_REPORT_BYTES, queue_key
from jobs.settings import JobSettings
from worker.embedded import socket_path
from worker.served_queues import LONGEST_NAME, ServedQueue, read_queues


class Settings(JobSettings):
    """Every setting of the application; each name in capitals is the environment variable."""

    redis_url: SecretStr | None = None
    """``redis://``, ``rediss://`` (TLS), ``unix://``, or ``redis+sentinel://host:26379,host2:26379/0?service=mymaster``
    (TLS: ``rediss+sentinel://``). Default: an embedded queue in the worker's own process, which
    serves one machine; a ``redis-server`` that happens to run is not used."""
    holdfast_namespace: str = ""
    """Keeps environments apart that share a Redis: the key of every queue begins with it, as ``staging:arq:queue``, and
    so does what is kept beside it. At most 40 letters, digits, - and _; producers must use the same."""
    queue_name: Annotated[str, Field(min_length=1, max_length=100)] = DEFAULT_QUEUE
    """The queue's key in Redis: what the command line enqueues into, and what a worker serves that is told no other
    queues. Producers must use the same."""
    queues: Annotated[tuple[ServedQueue, ...], NoDecode] = ()
    """The queues that a worker serves, separated by commas; the first has priority: another one gets the slots that
    are free after it. ``high=5,default``: at most five runs of ``high`` at the same time in one worker. Default:
    ``QUEUE_NAME`` alone."""
    max_jobs: Annotated[int, Field(ge=1, le=10_000)] = 10
    """Runs at the same time in one worker. More than pool and overflow together means waiting for connections."""
    max_payload_bytes: Annotated[int, Field(ge=1024, le=MAX_REPORT_BYTES)] = MAX_PAYLOAD_BYTES
    """The largest request that a worker takes, in bytes of JSON; a larger one fails, unread. Producers have the same
    limit unless they are told another: raise it here first. Redis holds each request until its run is over, and what
    a report may have at most is what the ledger of each engine takes."""
    shutdown_grace_s: Annotated[float, Field(ge=0)] = 30.0
    """Seconds that running jobs have to end after SIGTERM; then they are interrupted and resume elsewhere. A second
    signal does not wait for them. A process that is not at its end two seconds later ends itself (exit code 1): keep
    both below the platform's own limit (Kubernetes: 30, Docker: 10 unless told otherwise)."""
    keep_result_s: Annotated[float, Field(ge=0)] = 3600.0
    """Seconds that Redis keeps a result for its producer; 0: none, and a producer that asks for it is told that
    the run is not found. The ledger keeps it in any case."""
    heartbeat_interval_s: Annotated[float, Field(gt=0, le=60)] = 2.0
    """Seconds between two signs of life in the ledger; each is one small UPDATE."""
    heartbeat_timeout_s: Annotated[float, Field(gt=0)] = 10.0
    """Seconds of silence after which a worker counts as dead and its runs are put back. Shorter is sooner, but a
    database that stalls for so long makes living workers look dead (they lose the fence, not the data)."""
    dispatch_interval_s: Annotated[float, Field(gt=0, le=60)] = 0.5
    """Seconds between two looks for runs that were enqueued in the database and did not ring."""
    lease_s: Annotated[float, Field(ge=1, le=600)] = 10.0
    """Seconds for which a claim in Redis holds without renewal: so long the runs of a worker that was killed wait.
    Shorter is sooner, but a worker that is paused for longer loses its runs to others."""
    history_keep_succeeded_days: Annotated[float, Field(gt=0)] = 30.0
    """Days for which runs that succeeded (or were cancelled) stay in the history."""
    history_keep_failed_days: Annotated[float, Field(gt=0)] = 365.0
    """Days for which runs that failed (or were quarantined) stay in the history."""
    history_keep_days: dict[str, float] = Field(default_factory=dict)
    """Other days for some: JSON, ``{"import_tasks.succeeded": 90}``, by kind and state."""
    startup_patience_s: Annotated[float, Field(ge=0)] = 10.0
    """Seconds that a starting worker waits for the database and Redis to come up."""
    log_format: Literal["console", "json"] = "console"
    """One line per event: for eyes, or one JSON object a line for machines."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least level that is logged. ``debug`` is a line for each entry that another worker holds."""

    @field_validator("queues", mode="before")
    @classmethod
    def _read_queues(cls, value: object) -> object:
        return read_queues(value.split(",")) if isinstance(value, str) else value

    @field_validator("holdfast_namespace")
    @classmethod
    def _is_namespace(cls, value: str) -> str:
        queue_key(DEFAULT_QUEUE, value)
        return value

    @field_validator("queue_name", "queues")
    @classmethod
    def _leave_room_for_the_namespace(cls, value: Any, info: ValidationInfo) -> Any:
        namespace = info.data.get("holdfast_namespace", "")
        for name in [value] if isinstance(value, str) else [queue.name for queue in value]:
            if len(queue_key(name, namespace)) > LONGEST_NAME:
                raise ValueError(f"has a name of more than {LONGEST_NAME} characters with HOLDFAST_NAMESPACE before it")
        return value

    @field_validator("redis_url")
    @classmethod
    def _is_redis_url(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            parse_address(value.get_secret_value())
        return value

    def key_of(self, queue: str) -> str:
        """Return the key in Redis of a queue that a user names, with or without the namespace."""
        return queue_key(queue, self.holdfast_namespace)

    @property
    def queue_key(self) -> str:
        """The key of the queue into which the command line enqueues."""
        return self.key_of(self.queue_name)

    @property
    def served_queues(self) -> tuple[ServedQueue, ...]:
        """The queues of a worker by their keys, the most urgent one first."""
        asked = self.queues or (ServedQueue(self.queue_name),)
        return tuple(replace(queue, name=self.key_of(queue.name)) for queue in asked)

    @property
    def queue_is_embedded(self) -> bool:
        """Whether the queue lives in the worker's own process."""
        return self.redis_url is None

    @property
    def redis_address(self) -> str:
        """The URL of the Redis to talk to, with its password: for connecting, not for showing."""
        if self.redis_url is not None:
            return self.redis_url.get_secret_value()
        return "unix://" + quote(str(socket_path(self.holdfast_data_dir.absolute())))

    @property
    def queue_home(self) -> str:
        """A name for the place where the queue lives, without secrets, at most 255 characters."""
        if self.redis_url is None:
            folder = str(self.holdfast_data_dir.resolve())
            return f"embedded:{socket.gethostname()}:{hashlib.sha256(folder.encode()).hexdigest()[:16]}"
        return shown(self.redis_url.get_secret_value())[:255]


def embedded_environment(folder: Path) -> dict[str, str]:
    """Return this process's environment for a child that uses the embedded database and queue of a folder."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("DATABASE_", "POSTGRES_", "REDIS_"))}
    return kept | {"HOLDFAST_DATA_DIR": str(folder), "DATABASE_URL": "", "POSTGRES_HOST": "", "REDIS_URL": ""}
