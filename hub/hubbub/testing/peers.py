"""Peers that speak bytes, politely or not."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from typing import Final, Self

from hubbub.config import Address

__all__ = ["TcpPeer", "UdpPeer"]

WAIT_S: Final = 10.0
"""How long a peer waits for an answer before the test has failed."""


class TcpPeer:
    """A TCP client of a listener under test."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connect(cls, address: Address, *, tls: ssl.SSLContext | None = None) -> Self:
        """Connect."""
        async with asyncio.timeout(WAIT_S):
            return cls(*await asyncio.open_connection(address.host, address.port, ssl=tls))

    async def send(self, data: bytes) -> None:
        """Send bytes, as far as the listener reads them."""
        self.writer.write(data)
        async with asyncio.timeout(WAIT_S):
            await self.writer.drain()

    async def line(self) -> bytes:
        r"""Return the next line with its `\n`; what there is of it when the listener closed."""
        async with asyncio.timeout(WAIT_S):
            return await self.reader.readline()

    async def rest(self) -> bytes:
        """Return all that comes until the listener closes; also when it does so rudely.

        Raises:
            TimeoutError: it does not close.
        """
        got = bytearray()
        async with asyncio.timeout(WAIT_S):
            try:
                while data := await self.reader.read(65_536):
                    got += data
            except ConnectionError:
                pass
        return bytes(got)

    def half_close(self) -> None:
        """Say that nothing more will be sent; what comes is still read."""
        self.writer.write_eof()

    def vanish(self) -> None:
        """Be gone without a word: the connection is reset."""
        taken = self.writer.get_extra_info("socket")
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def close(self) -> None:
        """Leave."""
        self.writer.close()
        try:
            async with asyncio.timeout(WAIT_S):
                await self.writer.wait_closed()
        except (ConnectionError, ssl.SSLError):
            pass


class UdpPeer:
    """A UDP client of a listener under test; it sends empty datagrams too, as asyncio does not."""

    def __init__(self, address: Address) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.connect(address)
        self._socket.setblocking(False)

    def send(self, data: bytes) -> None:
        """Send one datagram."""
        self._socket.send(data)

    async def answer(self) -> bytes:
        """Return the next answer.

        Raises:
            TimeoutError: there is none.
        """
        async with asyncio.timeout(WAIT_S):
            while True:
                try:
                    return self._socket.recv(65_536)
                except BlockingIOError:
                    await asyncio.sleep(0.002)

    def close(self) -> None:
        """Leave."""
        self._socket.close()
