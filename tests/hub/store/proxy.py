"""A TCP proxy in front of a database, which cuts or freezes connections when a test says so.

It has a thread of its own: a hub that starts keeps its loop waiting for the database.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress

__all__ = ["Proxy", "running_proxy"]

COMMIT = b"COMMIT"
"""In clear text in what a client sends, also in the extended protocol."""


class Proxy:
    """Passes bytes on.

    Attributes:
        port: Where it listens.
        refusing: New connections are closed at once.
        commits: Commits that were passed on.
        cut_at: Cut the connection of the commit with this number, after it was passed on and
            before its answer comes back.
        freeze_at: Freeze all after the commit with this number was passed on; its answer waits.
        swallow_at: Cut the connection of the commit with this number, which is not passed on.
    """

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._flows: set[asyncio.Event] = set()
        self._frozen = False
        self.port = 0
        self.refusing = False
        self.commits = 0
        self.cut_at = 0
        self.swallow_at = 0
        self.freeze_at = 0
        self.cuts = 0
        self.loop = asyncio.new_event_loop()

    def cut(self) -> None:
        """Cut all connections now."""
        self.loop.call_soon_threadsafe(self._cut)

    def _cut(self) -> None:
        self.cuts += 1
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    def freeze(self) -> None:
        """Pass nothing on from now on, as a server that is stopped; nothing is closed."""
        self.loop.call_soon_threadsafe(self._freeze)

    def _freeze(self) -> None:
        self._frozen = True
        for flow in self._flows:
            flow.clear()

    def thaw(self) -> None:
        """Go on, with all that came meanwhile."""
        self.loop.call_soon_threadsafe(self._thaw)

    def _thaw(self) -> None:
        self._frozen = False
        for flow in self._flows:
            flow.set()

    def lose(self) -> None:
        """Never pass anything on over these connections, as a network that forgot them.

        Both ends keep them; new ones are as usual.
        """
        self.loop.call_soon_threadsafe(self._lose)

    def _lose(self) -> None:
        self._freeze()
        self._flows.clear()
        self._frozen = False

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one client."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        ends = {writer}
        try:
            if not self.refusing:
                flow = asyncio.Event()
                self._flows.add(flow)
                if not self._frozen:
                    flow.set()
                await flow.wait()
                up_reader, up_writer = await asyncio.open_connection(self._host, self._port)
                ends.add(up_writer)
                self._writers |= ends
                await self._pass_both_ways(reader, writer, up_reader, up_writer, flow)
        except asyncio.CancelledError:
            pass  # the end: asyncio's own callback would complain of it
        finally:
            for end in ends:
                end.transport.abort()
            self._writers -= ends
            self._tasks.discard(task)

    async def _pass_both_ways(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        up_reader: asyncio.StreamReader,
        up_writer: asyncio.StreamWriter,
        flow: asyncio.Event,
    ) -> None:
        back = asyncio.create_task(self._pass(up_reader, writer, flow, watch=False))
        try:
            with suppress(ConnectionError):
                await self._pass(reader, up_writer, flow, watch=True)
            for end in (writer, up_writer):
                end.transport.abort()
            with suppress(ConnectionError):
                await back
        finally:
            back.cancel()

    async def _pass(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        flow: asyncio.Event,
        *,
        watch: bool,
    ) -> None:
        with suppress(ConnectionError):
            while True:
                try:
                    data = await reader.read(65536)
                except ConnectionError:
                    data = b""
                await flow.wait()  # also with the news that this end is closed
                if not data:
                    break
                if watch and COMMIT in data:
                    self.commits += 1
                    if self.commits == self.freeze_at:
                        self._freeze()  # what comes back, not this
                    if self.commits == self.swallow_at:
                        self._cut()
                        return
                writer.write(data)
                await writer.drain()
                if watch and COMMIT in data and self.commits == self.cut_at:
                    self.cuts += 1
                    for end in self._writers - {writer}:  # the server still gets the commit
                        end.transport.abort()
                    await asyncio.sleep(0.02)
                    return
        if not watch:
            writer.transport.abort()

    async def end(self) -> None:
        """Close everything."""
        self._cut()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def serve(self, ready: threading.Event, done: asyncio.Event) -> None:
        """Listen on a free port until it is done."""
        server = await asyncio.start_server(self.accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        ready.set()
        await done.wait()
        server.close()
        await self.end()


@contextmanager
def running_proxy(host: str, port: int) -> Generator[Proxy]:
    """Run a proxy on a free port."""
    proxy = Proxy(host, port)
    ready, done = threading.Event(), asyncio.Event()
    serving = proxy.serve(ready, done)
    thread = threading.Thread(target=lambda: proxy.loop.run_until_complete(serving), daemon=True)
    thread.start()
    ready.wait()
    try:
        yield proxy
    finally:
        proxy.loop.call_soon_threadsafe(done.set)
        thread.join()
        proxy.loop.close()
