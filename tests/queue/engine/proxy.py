"""A TCP proxy that can be slow, let packets vanish without a word, or lead to another server from now on."""

import asyncio
import contextlib
import threading
from types import TracebackType
from typing import Self

CHUNK = 65_536


class Proxy:
    """Passes connections on, in a thread with an event loop of its own.

    Args:
        port: of the server at 127.0.0.1; ``target`` can be changed, for connections that come later.
        delay_s: each chunk arrives so much later, each way.
    """

    def __init__(self, port: int, *, delay_s: float = 0.0) -> None:
        self.target = port
        self.delay_s = delay_s
        self.port = 0
        self._silent: set[asyncio.Task[None]] = set()
        self._pipes: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._listening = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    @property
    def url(self) -> str:
        """The server's URL through the proxy."""
        return f"redis://127.0.0.1:{self.port}/0"

    def swallow(self) -> int:
        """From now on nothing passes on the connections that are open, and they stay open; returns how many pipes."""
        done = threading.Event()
        self._loop.call_soon_threadsafe(self._silent.update, self._pipes)
        self._loop.call_soon_threadsafe(done.set)
        assert done.wait(10)
        return len(self._silent)

    def switch(self, port: int) -> None:
        """Cuts the connections that are open; those that come lead to another port of 127.0.0.1."""

        def cut() -> None:
            self.target = port
            for pipe in self._pipes:
                pipe.cancel()

        self._loop.call_soon_threadsafe(cut)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._listening.wait(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._connected, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        self._listening.set()
        self._loop.run_forever()
        server.close()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self._loop.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except (OSError, asyncio.CancelledError):  # Python 3.11 prints what a connection's task raises
            writer.close()
            return
        pipes = [
            asyncio.create_task(self._pass_on(reader, server_writer)),
            asyncio.create_task(self._pass_on(server_reader, writer)),
        ]
        self._pipes.update(pipes)
        for pipe in pipes:
            pipe.add_done_callback(self._pipes.discard)
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*pipes, return_exceptions=True)

    async def _pass_on(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        this = asyncio.current_task()
        arrivals: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        reading = asyncio.create_task(self._read(source, arrivals))
        try:
            while True:
                due, data = await arrivals.get()
                await asyncio.sleep(max(0.0, due - self._loop.time()))
                if this in self._silent:
                    continue
                if not data:
                    return
                sink.write(data)
                await sink.drain()
        except OSError:
            return
        finally:
            reading.cancel()
            sink.close()

    async def _read(self, source: asyncio.StreamReader, arrivals: "asyncio.Queue[tuple[float, bytes]]") -> None:
        data = b"-"
        while data:
            try:
                data = await source.read(CHUNK)
            except OSError:
                data = b""
            arrivals.put_nowait((self._loop.time() + self.delay_s, data))
