"""The embedded queue: fakeredis behind a Redis front on a unix socket, for one machine and no server to install.

It lives in a thread of its own with its own event loop, so a job that blocks the worker's loop does not freeze the
queue, and other processes of the machine can enqueue. Nothing of it survives the process: the ledger does.
"""

from worker.embedded.place import EmbeddedQueueInUse, socket_path
from worker.embedded.server import EmbeddedRedis, is_listening

__all__ = ["EmbeddedQueueInUse", "EmbeddedRedis", "is_listening", "socket_path"]
