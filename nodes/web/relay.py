"""A browser's way to the broker: the bytes of one websocket, to and from one connection of its own.

A browser cannot present the certificate that an enrolled member enters with, speaks no MQTT over TCP, and brokers need
not have a listener for websockets. So this process makes the connection, as the member that it was started for.
"""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from typing import Final, Protocol

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from broker.messages import Address
from broker.tls import context_of, explained
from nodes.display.text import plain
from pipeline.errors import TrisectError

_log = logging.getLogger(__name__)

READ_BYTES: Final = 1 << 16
CONNECT_S: Final = 5.0
GOING_AWAY, BAD_DATA, TRY_LATER = 1001, 1003, 1013
MOST_REASON_BYTES: Final = 120
"""A websocket's closing frame has room for 123."""


class BrokerAway(TrisectError):
    """None of the broker's addresses took a connection."""


class _Writer(Protocol):
    def write(self, data: bytes) -> None: ...
    async def drain(self) -> None: ...


async def relay(websocket: ServerConnection, address: Address) -> None:
    """Join the websocket with a connection to the broker until either ends."""
    try:
        reader, writer = await connect(address)
    except BrokerAway as away:
        await websocket.close(TRY_LATER, shortened(str(away)))
        return
    tasks = [asyncio.create_task(_up(websocket, writer)), asyncio.create_task(_down(reader, websocket))]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        writer.close()
        await websocket.close(GOING_AWAY, "the broker has closed the connection")


async def connect(address: Address) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection to the first address that takes one. Raises BrokerAway, which says why none did."""
    context = context_of(address.tls) if address.tls is not None else None
    reasons = []
    for host, port in address.endpoints:
        try:
            opening = asyncio.open_connection(host, port, ssl=context, limit=READ_BYTES)
            return await asyncio.wait_for(opening, CONNECT_S)
        except (OSError, asyncio.TimeoutError) as error:
            reasons.append(f"{host}:{port}: {_reason(error)}")
    _log.info("no broker for a page: %s", "; ".join(reasons))  # which the page shows, and tries again
    raise BrokerAway("; ".join(reasons))


def _reason(error: Exception) -> str:
    if isinstance(error, asyncio.TimeoutError):
        return f"no answer within {CONNECT_S:.0f} s"
    if isinstance(error, OSError) and not isinstance(error, ssl.SSLError) and error.errno is not None:
        return os.strerror(error.errno) if error.errno > 0 else str(error)  # below 0: of the resolver
    return explained(error)


def shortened(reason: str) -> str:
    """A reason that fits into a websocket's closing frame."""
    return plain(reason, MOST_REASON_BYTES).encode()[:MOST_REASON_BYTES].decode(errors="ignore")


async def _up(websocket: ServerConnection, writer: _Writer) -> None:
    try:
        async for message in websocket:
            if isinstance(message, str):
                await websocket.close(BAD_DATA, "MQTT goes in binary frames")
                return
            writer.write(message)
            await writer.drain()
    except (ConnectionClosed, OSError):
        return


async def _down(reader: asyncio.StreamReader, websocket: ServerConnection) -> None:
    try:
        while data := await reader.read(READ_BYTES):
            await websocket.send(data)
    except (ConnectionClosed, OSError):
        return
