"""Starting and stopping the embedded queue, and asking from another process whether it is there."""

import asyncio
import contextlib
import logging
import os
import socket
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import Self

from worker.embedded.front import Front
from worker.embedded.place import QueueLock, is_trusted, open_listener, socket_path

logger = logging.getLogger(__name__)

_STOP_TIMEOUT_S = 10.0
_PING_TIMEOUT_S = 2.0


class EmbeddedRedis:
    """The embedded queue of one data folder, run by a thread of this process between `start` and `stop`."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir.resolve()
        self._running = contextlib.ExitStack()

    @property
    def socket_path(self) -> Path:
        """Where clients connect."""
        return socket_path(self._data_dir)

    def start(self) -> None:
        """Own the folder's queue, and return when it listens; a stale socket is replaced.

        Raises:
            EmbeddedQueueInUse: another process owns it, or it has been started already.
            OSError: the folder cannot hold a socket.
        """
        with contextlib.ExitStack() as undo:
            lock = QueueLock(self._data_dir)
            undo.callback(lock.release)
            listener = open_listener(self._data_dir)
            undo.callback(self.socket_path.unlink, missing_ok=True)
            undo.callback(listener.close)
            self._start_thread(listener, undo)
            self._running = undo.pop_all()

    def stop(self) -> None:
        """Drop every client, remove the socket and free the folder; harmless when it does not run."""
        self._running.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _start_thread(self, listener: socket.socket, undo: contextlib.ExitStack) -> None:
        ready: Future[Front] = Future()
        # A daemon, so that a process which ends without stop() ends.
        thread = threading.Thread(target=_run_front, args=(listener, ready), name="embedded-queue", daemon=True)
        thread.start()
        undo.callback(_stop_thread, thread, ready.result())


def _run_front(listener: socket.socket, ready: Future[Front]) -> None:
    async def serve() -> None:
        front = Front()
        server = await front.listen(listener)
        ready.set_result(front)
        await front.serve(server)

    try:
        asyncio.run(serve())
    except BaseException as error:
        if not ready.done():
            ready.set_exception(error)
            return
        logger.exception("the embedded queue has stopped")
        raise


def _stop_thread(thread: threading.Thread, front: Front) -> None:
    # A loop that is closed already has nothing left to stop.
    with contextlib.suppress(RuntimeError):
        front.loop.call_soon_threadsafe(front.stop)
    thread.join(_STOP_TIMEOUT_S)
    if thread.is_alive():
        logger.warning("the embedded queue did not stop in %.0f s: a script of a client does not end", _STOP_TIMEOUT_S)


def is_listening(data_dir: Path) -> bool:
    """Tell whether a live embedded queue answers for `data_dir`, in this process or another one."""
    path = socket_path(data_dir)
    if not is_trusted(data_dir, path):
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(_PING_TIMEOUT_S)
        try:
            client.connect(os.fspath(path))
            client.sendall(b"PING\r\n")
            return client.recv(16).startswith(b"+PONG")
        except OSError:
            return False
