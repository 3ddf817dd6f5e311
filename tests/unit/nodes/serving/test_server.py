"""The HTTP endpoint over a socket, with a client in place of the pipeline that gives back what it gets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from nodes.config.sections import Config
from nodes.serving import server
from nodes.serving.protocol import HEADER_LENGTH
from nodes.serving.server import Endpoint, listening
from pipeline.graph import Tensor

CONFIG = Config.model_validate(
    {
        "pipeline": "lab",
        "models": {"net": {"source": "mobilenet_v2", "weights": "seed:0"}},
        "streams": {"camera": {"device": "device-1", "model": "net", "outputs": True}},
        "nodes": {"device-1": {"tier": "device"}, "edge-1": {"tier": "edge"}},
    }
)
INPUT = Tensor(0, "x", (1, 2), "float32")
PATIENCE_S = 60.0


class Echo:
    """A pipeline whose model returns its input."""

    def graph_of(self, _stream: str) -> Any:
        return SimpleNamespace(name="net", tensors={"y": INPUT}, outputs=["y"])

    async def publish(self, frame: np.ndarray, *, stream: str) -> Any:
        return SimpleNamespace(outputs={"y": frame}, result={"stream": stream})


@pytest.fixture(autouse=True)
def one_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "own_inputs", lambda _graph: [INPUT])
    monkeypatch.setattr(server, "LINGER_S", 0.1)


def with_endpoint(use: Callable[[int], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        echo: Any = Echo()
        async with listening(Endpoint(CONFIG, echo), "127.0.0.1", 0) as (_, port):
            return await asyncio.wait_for(use(port), PATIENCE_S)

    return asyncio.run(run())


async def answered(port: int, request: bytes) -> tuple[int, str]:
    """Status and body of the answer to these bytes; 0 where the connection ends without one."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        got = await reader.read()
    except ConnectionError:
        return 0, ""
    finally:
        writer.close()
    return (int(got.split()[1]) if got else 0), got.partition(b"\r\n\r\n")[2].decode()


def post(body: bytes, *headers: str, length: int | None = None) -> bytes:
    fields = ["POST /v2/models/camera/infer HTTP/1.1", "Host: x", "Connection: close", *headers]
    fields.append(f"Content-Length: {len(body) if length is None else length}")
    return "\r\n".join([*fields, "", ""]).encode() + body


def given(**changes: Any) -> bytes:
    return json.dumps(
        {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2], **changes}]}
    ).encode()


def binary(shape: list[int], tail: bytes) -> bytes:
    head = given(shape=shape, data=None, parameters={"binary_data_size": len(tail)})
    return post(head + tail, f"{HEADER_LENGTH}: {len(head)}")


REFUSED = {
    "no JSON": post(b"{"),
    "no text": post(b"\xff\xfe\xfa"),
    "brackets": post(b'{"inputs":' + b"[" * 100_000),
    "NaN": post(given(data=[float("nan"), 1])),
    "sizes that no array has": binary([0] + [2**31 - 1] * 7, b""),
    "NaN that is asked for in JSON": binary([1], np.float32("nan").tobytes()),
    "a header longer than all": post(given(), f"{HEADER_LENGTH}: 999"),
    "a body that is no chunk": post(b"zz\r\n", "Transfer-Encoding: chunked").replace(b"Content-Length: 4\r\n", b""),
    "a length below 0": post(given(), length=-1),
}


def test_what_is_no_request_is_answered_in_words_and_others_are_served_on() -> None:
    async def use(port: int) -> None:
        for name, request in REFUSED.items():
            status, said = await answered(port, request)
            assert (name, status) == (name, 400)
            assert said
        assert (await answered(port, post(given())))[0] == 200
        status, said = await answered(port, post(b"", length=server.MOST_BODY + 1))
        assert status == 413  # at once: no byte of it was sent

    with_endpoint(use)


def test_a_body_that_does_not_come_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "BODY_S", 0.1)

    async def use(port: int) -> None:
        assert (await answered(port, post(b"{", length=100)))[0] == 408
        assert (await answered(port, post(given())))[0] == 200

    with_endpoint(use)


def test_requests_that_wait_take_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MOST_HELD", 1000)

    async def use(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(post(bytes(990), length=2000))
        await writer.drain()
        while (await answered(port, post(given())))[0] != 503:  # until the 990 bytes are there
            pass
        writer.close()
        while (await answered(port, post(given())))[0] != 200:  # and let go with their connection
            pass
        assert not await reader.read()

    with_endpoint(use)


def test_a_connection_too_many_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MOST_CONNECTIONS", 2)

    async def use(port: int) -> None:
        writers = [(await asyncio.open_connection("127.0.0.1", port))[1] for _ in range(2)]
        while (await answered(port, post(given())))[0] != 0:
            pass
        for writer in writers:
            writer.close()
        while (await answered(port, post(given())))[0] != 200:
            pass

    with_endpoint(use)
