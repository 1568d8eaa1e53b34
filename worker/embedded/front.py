"""The front: connections on the unix socket, each handing its requests to fakeredis in the front's own thread."""

import asyncio
import logging
import socket
import time
from typing import cast

from fakeredis import FakeServer

from worker.embedded.commands import EmbeddedSocket
from worker.embedded.info import FAKE_VERSION, Counters
from worker.embedded.resp import ProtocolError, RequestParser

logger = logging.getLogger(__name__)

_SWEEP_INTERVAL_S = 5.0
# Clients send a whole pipeline before they read, so replies are kept for them, as Redis does, up to this.
_MAX_UNSENT_BYTES = 256 * 1024 * 1024


class Connection(asyncio.Protocol):
    """One client: requests in, replies out, the replies of what was read together in one write."""

    def __init__(self, front: "Front") -> None:
        self._front = front
        self._parser = RequestParser()
        self._unsent: list[bytes] = []
        self._is_serving = False
        self._is_over = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Give the client its state in fakeredis."""
        self._transport = cast("asyncio.Transport", transport)
        self._socket = EmbeddedSocket(self._front.redis, self, self._front.counters)
        self._front.counters.connections += 1
        self._front.connections.add(self)

    def data_received(self, data: bytes) -> None:
        """Run what has come in."""
        if self._is_over:
            return
        try:
            self._parser.feed(data)
        except ProtocolError as error:
            self._refuse(error)
        self.resume()

    def connection_lost(self, exc: Exception | None) -> None:
        """Free the client's state; its watches, subscriptions and blocking command end here."""
        self._is_over = True
        self._front.forget(self)
        self._socket.leave()

    def resume(self) -> None:
        """Run the requests that are there, until none is left or one blocks, then send the replies."""
        self._is_serving = True
        try:
            while not self._is_over and not self._socket.is_waiting:
                request = self._parser.next_request()
                if request is None:
                    break
                self._socket.execute(request)
        except ProtocolError as error:
            self._refuse(error)
        finally:
            self._is_serving = False
        self._flush()

    def deliver(self, data: bytes) -> None:
        """Queue bytes for the client; a message that somebody else published is sent in the loop's next round."""
        if not self._unsent and not self._is_serving:
            self._front.loop.call_soon(self._flush)
        self._unsent.append(data)

    def hang_up(self) -> None:
        """Read no more, and close when everything is sent."""
        self._is_over = True
        self._front.loop.call_soon(self._flush)

    def abort(self) -> None:
        """Close at once."""
        self._transport.abort()

    def _refuse(self, error: ProtocolError) -> None:
        self.deliver(f"-ERR Protocol error: {error}\r\n".encode())
        self.hang_up()

    def _flush(self) -> None:
        if self._unsent:
            self._transport.write(b"".join(self._unsent))
            self._unsent.clear()
        if self._is_over:
            self._transport.close()
        elif self._transport.get_write_buffer_size() > _MAX_UNSENT_BYTES:
            logger.warning("a client of the embedded queue does not read its replies: disconnected")
            self._transport.abort()


class Front:
    """All the connections of one embedded queue, in one event loop."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.redis = FakeServer(version=FAKE_VERSION)
        self.counters = Counters()
        self.connections: set[Connection] = set()
        self._stopping = asyncio.Event()
        self._all_gone = asyncio.Event()

    async def listen(self, listener: socket.socket) -> asyncio.Server:
        """Take the connections that come in on `listener` from now on."""
        return await self.loop.create_unix_server(lambda: Connection(self), sock=listener)

    async def serve(self, server: asyncio.Server) -> None:
        """Serve until `stop`, then drop every client."""
        sweeper = self.loop.create_task(self._sweep())
        await self._stopping.wait()
        sweeper.cancel()
        server.close()
        for connection in list(self.connections):
            connection.abort()
        if self.connections:
            await self._all_gone.wait()

    def forget(self, connection: Connection) -> None:
        """Take a lost connection off the list."""
        self.connections.discard(connection)
        if not self.connections and self._stopping.is_set():
            self._all_gone.set()

    def stop(self) -> None:
        """End `serve`; for the loop's own thread."""
        self._stopping.set()

    async def _sweep(self) -> None:
        """Drop expired keys that nobody asks for; fakeredis itself looks at a key only when it is used."""
        while True:
            await asyncio.sleep(_SWEEP_INTERVAL_S)
            now = time.time()
            for db in list(self.redis.dbs.values()):
                db.time = now
                len(db)
