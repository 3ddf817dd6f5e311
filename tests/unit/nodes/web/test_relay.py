"""The relay between browsers and a broker, over sockets, with a broker that only counts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as open_websocket
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Origin, Subprotocol

from broker.messages import Address
from broker.ports import free_port
from nodes.config.sections import Config
from nodes.web import server
from nodes.web.relay import BAD_DATA, TRY_LATER, BrokerAway, connect
from nodes.web.server import MOST_FRAME, MQTT, Listener, WebServer

KEY = "k" * 32
PATIENCE_S = 60.0
TOO_BIG = 1009
FLOOD = 64 << 20
"""Bytes that a broker would like to send at once: more than sockets and queues on the way hold."""


def test_a_broker_that_is_not_there_is_named_with_the_reason() -> None:
    first, second = free_port("127.0.0.1"), free_port("127.0.0.1")
    with pytest.raises(
        BrokerAway, match=f"127.0.0.1:{first}: Connection refused; 127.0.0.1:{second}: Connection refused"
    ):
        asyncio.run(connect(Address("127.0.0.1", first, alternatives=(("127.0.0.1", second),))))


class Broker:
    """Takes connections, echoes, and sends without end to whoever says `flood`, as fast as it is taken."""

    def __init__(self) -> None:
        self.port = 0
        self.open = 0
        self.flooded = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        try:
            while data := await reader.read(1 << 16):
                writer.write(data)
                while data == b"flood" and self.flooded < FLOOD:
                    writer.write(bytes(1 << 16))
                    await writer.drain()
                    self.flooded += 1 << 16
        except ConnectionError:
            pass
        finally:
            self.open -= 1
            writer.close()


def with_page(use: Callable[[Broker, int], Awaitable[None]]) -> None:
    async def run() -> None:
        broker = Broker()
        async with await asyncio.start_server(broker.serve, "127.0.0.1", 0) as listener:
            broker.port = listener.sockets[0].getsockname()[1]
            config = Config.model_validate(
                {
                    "pipeline": "lab",
                    "broker": {"host": "127.0.0.1", "port": broker.port},
                    "models": {"net": {"source": "mobilenet_v2", "weights": "seed:0"}},
                    "streams": {"camera": {"device": "device-1", "model": "net"}},
                    "nodes": {"device-1": {"tier": "device"}},
                }
            )
            ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
            page = asyncio.create_task(WebServer(config, Listener(port=0, key=KEY)).run(ready.set_result))
            either: set[asyncio.Future[Any]] = {page, ready}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            try:
                await asyncio.wait_for(use(broker, int(ready.result().split(":")[2].split("/")[0])), PATIENCE_S)
            finally:
                page.cancel()
                await asyncio.gather(page, return_exceptions=True)

    asyncio.run(run())


@asynccontextmanager
async def browser(port: int, **options: Any) -> AsyncIterator[ClientConnection]:
    wanted = {"subprotocols": [MQTT], "origin": Origin(f"http://127.0.0.1:{port}"), "proxy": None, **options}
    cookie = {"Cookie": f"trisect-0={KEY}"}
    async with open_websocket(f"ws://127.0.0.1:{port}/mqtt", additional_headers=cookie, **wanted) as websocket:
        yield websocket


async def closed_with(websocket: ClientConnection) -> int | None:
    with suppress(ConnectionClosed):
        while True:
            await websocket.recv()
    return websocket.close_code


def test_frames_that_are_too_large_or_text_end_their_connection_and_no_other() -> None:
    async def use(broker: Broker, port: int) -> None:
        async with browser(port) as other:
            async with browser(port) as websocket:
                await websocket.send(bytes(MOST_FRAME + 1))
                assert await closed_with(websocket) == TOO_BIG
            async with browser(port) as websocket:
                await websocket.send(iter([bytes(MOST_FRAME // 2)] * 3))  # one message in parts
                assert await closed_with(websocket) == TOO_BIG
            async with browser(port) as websocket:
                await websocket.send("text")
                assert await closed_with(websocket) == BAD_DATA
            await other.send(b"still here")
            assert await other.recv() == b"still here"
        while broker.open:
            await asyncio.sleep(0.01)

    with_page(use)


def test_another_protocol_or_site_gets_no_websocket() -> None:
    async def use(broker: Broker, port: int) -> None:
        for options, status in (
            ({"subprotocols": [Subprotocol("chat")]}, 400),
            ({"subprotocols": None}, 400),
            ({"origin": Origin("http://evil.example")}, 403),
            ({"origin": Origin("null")}, 403),
        ):
            with pytest.raises(InvalidStatus) as refused:
                async with browser(port, **options):
                    pass
            assert refused.value.response.status_code == status
        assert not broker.open

    with_page(use)


def test_a_handshake_that_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "OPEN_S", 0.1)

    async def use(_broker: Broker, port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /mqtt HTTP/1.1\r\nHost: x\r\n")
        await reader.read()  # until the server ends it
        writer.close()

    with_page(use)


def test_a_page_too_many_is_asked_to_try_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MOST_PAGES", 1)

    async def use(broker: Broker, port: int) -> None:
        async with browser(port) as first:
            await first.send(b"hello")
            assert await first.recv() == b"hello"
            async with browser(port) as second:
                assert await closed_with(second) == TRY_LATER
            assert broker.open == 1
        while broker.open:
            await asyncio.sleep(0.01)
        async with browser(port) as third:
            await third.send(b"hello")
            assert await third.recv() == b"hello"

    with_page(use)


def test_a_page_that_does_not_read_holds_the_broker_back() -> None:
    async def use(broker: Broker, port: int) -> None:
        async with browser(port, max_queue=1, close_timeout=0.1) as websocket:
            await websocket.send(b"flood")
            seen = -1
            while seen != broker.flooded or not seen:  # it stands still: everything on the way is full
                seen = broker.flooded
                await asyncio.sleep(0.2)
            assert seen < FLOOD
            while broker.flooded < FLOOD:
                await websocket.recv()

    with_page(use)
