"""What the embedded queue says of itself (INFO)."""

import os
import resource
import secrets
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from fakeredis import FakeServer

REDIS_VERSION = "7.4.0"
FAKE_VERSION = (7, 4)

_DEFAULT_SECTIONS = {b"default", b"all", b"everything"}


@dataclass
class Counters:
    """What one running embedded queue counts; `replid` is new with each start, which tells that the data is gone."""

    started_at_s: float = field(default_factory=time.monotonic)
    replid: str = field(default_factory=lambda: secrets.token_hex(20))
    connections: int = 0
    commands: int = 0


def info_text(server: FakeServer, counters: Counters, wanted: set[bytes]) -> bytes:
    """Return the sections of INFO that are `wanted` (lower case; none or `all` is every one)."""
    every = not wanted or bool(wanted & _DEFAULT_SECTIONS)
    lines: list[str] = []
    for name, values in _sections(server, counters).items():
        if every or name.lower().encode() in wanted:
            lines += [f"# {name}", *(f"{key}:{value}" for key, value in values.items()), ""]
    return "\r\n".join(lines).encode()


def _sections(server: FakeServer, counters: Counters) -> dict[str, dict[str, str | int]]:
    memory_bytes = _resident_bytes()
    blocked = sum(1 for client in server.sockets if client.is_waiting)
    return {
        "Server": {
            "redis_version": REDIS_VERSION,
            "redis_mode": "standalone",
            "server_name": "holdfast-embedded",
            "process_id": os.getpid(),
            "run_id": counters.replid,
            "tcp_port": 0,
            "uptime_in_seconds": int(time.monotonic() - counters.started_at_s),
        },
        "Clients": {"connected_clients": len(server.sockets), "blocked_clients": blocked},
        # fakeredis does not count its bytes; the process it lives in is what there is to watch.
        "Memory": {
            "used_memory": memory_bytes,
            "used_memory_human": f"{memory_bytes / 1024 / 1024:.2f}M",
            "used_memory_rss": memory_bytes,
            "maxmemory": 0,
            "maxmemory_policy": "noeviction",
        },
        "Persistence": {"loading": 0, "aof_enabled": 0, "rdb_changes_since_last_save": 0},
        "Stats": {
            "total_connections_received": counters.connections,
            "total_commands_processed": counters.commands,
            "evicted_keys": 0,
        },
        "Replication": {"role": "master", "connected_slaves": 0, "master_replid": counters.replid},
        "Keyspace": {f"db{index}": f"keys={len(db)}" for index, db in sorted(server.dbs.items()) if len(db)},
    }


def _resident_bytes() -> int:
    if sys.platform == "linux":
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
