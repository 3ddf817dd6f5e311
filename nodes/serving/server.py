"""`trisect serve-http`: the Open Inference Protocol v2 over HTTP, each stream a model, answered by the pipeline."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any, Final

import numpy as np
from aiohttp import web

from broker.errors import BrokerError
from nodes.client.answers import Answer, FrameLost, FrameRefused
from nodes.client.async_client import AsyncClient
from nodes.client.frames import Frame
from nodes.config.sections import Config
from nodes.serving.protocol import HEADER_LENGTH, NAMES, BadRequest, Request, read_request, write_response
from pipeline.errors import ConfigError, FrameError, TrisectError
from pipeline.frames.input_blocks import own_inputs
from pipeline.graph import ModelGraph, Tensor

_log = logging.getLogger(__name__)

MOST_BODY: Final = 64 << 20
"""Bytes of a request: as many as a frame may have."""
MOST_HELD: Final = 8 * MOST_BODY
"""Bytes of all requests that are being received or answered: more are refused until others have their answers."""
MOST_CONNECTIONS: Final = 512
BODY_S: Final = 60.0
IDLE_S: Final = 75.0
"""How long a connection may take to ask for something, the first time as afterwards."""
LINGER_S: Final = 2.0
"""How long a client that was answered early may go on to send its body."""
VERSION: Final = "1"
_ANSWERED = ("task", "top", "boxes", "shares", "keypoints", "values", "seconds", "sequence", "stream")
_PICTURE: Final = "frame"
"""The name of an input that brings a picture's pixels, or an encoded image as UINT8 of one axis."""


class Endpoint:
    """The routes of one pipeline's endpoint; `client` is open while it serves."""

    def __init__(self, config: Config, client: AsyncClient) -> None:
        if silent := [name for name, stream in config.streams.items() if not stream.outputs]:
            raise ConfigError(
                f"streams.{silent[0]} publishes no output tensors, which is what clients of this protocol ask for",
                hint=f"set streams.{silent[0]}.outputs: true and start its device again",
            )
        self._config, self._client = config, client
        self._held = 0

    def application(self) -> web.Application:
        """All routes, each with and without a version."""
        app = web.Application(client_max_size=MOST_BODY, middlewares=[_errors_as_json])
        app.router.add_get("/v2", self._server)
        app.router.add_get("/v2/health/live", self._live)
        app.router.add_get("/v2/health/ready", self._ready)
        app.router.add_post("/v2/repository/index", self._index)
        for base in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
            app.router.add_get(base, self._model)
            app.router.add_get(f"{base}/ready", self._model_ready)
            app.router.add_post(f"{base}/infer", self._infer)
        return app

    async def _server(self, _: web.Request) -> web.Response:
        return web.json_response(
            {"name": "trisect", "version": version("trisect"), "extensions": ["binary_tensor_data"]}
        )

    async def _live(self, _: web.Request) -> web.Response:
        return web.json_response({"live": True})

    async def _ready(self, _: web.Request) -> web.Response:
        is_ready = all(self._client.graph_of(stream) is not None for stream in self._config.streams)
        return web.json_response({"ready": is_ready}, status=200 if is_ready else 503)

    async def _index(self, _: web.Request) -> web.Response:
        states = {True: "READY", False: "UNAVAILABLE"}
        return web.json_response(
            [
                {"name": stream, "version": VERSION, "state": states[self._client.graph_of(stream) is not None]}
                for stream in self._config.streams
            ]
        )

    async def _model(self, request: web.Request) -> web.Response:
        stream, graph = self._graph(request)
        described = {
            "name": stream,
            "versions": [VERSION],
            "platform": f"trisect_{graph.name}",
            "inputs": [_described(tensor) for tensor in own_inputs(graph)],
            "outputs": [_described(graph.tensors[t]) for t in graph.outputs],
        }
        return web.json_response(described)

    async def _model_ready(self, request: web.Request) -> web.Response:
        stream, _ = self._graph(request)
        return web.json_response({"name": stream, "ready": True})

    async def _infer(self, request: web.Request) -> web.Response:
        stream, graph = self._graph(request)
        body = bytearray()
        try:
            await asyncio.wait_for(self._receive(request, body), BODY_S)
            asked = read_request(bytes(body), _length(request.headers.get(HEADER_LENGTH)))
            answer = await self._client.publish(_frame(asked, graph), stream=stream)
            made, length = write_response(asked, stream, answer.outputs, _fields(answer))
        except asyncio.TimeoutError:
            raise web.HTTPRequestTimeout(reason=f"{len(body)} bytes of the body in {BODY_S:.0f} s") from None
        finally:
            self._held -= len(body)
        if length is None:
            return web.Response(body=made, content_type="application/json")
        headers = {HEADER_LENGTH: str(length), "Content-Type": "application/octet-stream"}
        return web.Response(body=made, headers=headers)

    async def _receive(self, request: web.Request, body: bytearray) -> None:
        """Fill `body`, which counts as held from then on. Raises HTTPException for what there is no room for."""
        if (request.content_length or 0) > MOST_BODY:
            raise web.HTTPRequestEntityTooLarge(MOST_BODY, request.content_length or 0)
        async for part in request.content.iter_any():
            self._held += len(part)
            body += part
            if len(body) > MOST_BODY:
                raise web.HTTPRequestEntityTooLarge(MOST_BODY, len(body))
            if self._held > MOST_HELD:
                raise web.HTTPServiceUnavailable(reason=f"{MOST_HELD} bytes of requests wait for their answers")

    def _graph(self, request: web.Request) -> tuple[str, ModelGraph]:
        stream, asked = request.match_info["model"], request.match_info.get("version", VERSION)
        if stream not in self._config.streams or asked != VERSION:
            known = ", ".join(self._config.streams)
            raise web.HTTPNotFound(reason=f"no model {stream!r:.80} of version {asked!r:.20}; there are: {known}")
        graph = self._client.graph_of(stream)
        if graph is None:
            raise web.HTTPServiceUnavailable(reason=f"stream {stream} has no plan yet; are planner and nodes running?")
        return stream, graph


def _described(tensor: Tensor) -> dict[str, Any]:
    return {"name": tensor.name, "datatype": NAMES[tensor.dtype], "shape": list(tensor.shape)}


def _length(text: str | None) -> int | None:
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > len(str(MOST_BODY)):
        raise BadRequest(f"{HEADER_LENGTH}: a number of bytes expected, not {text[:40]!r}")
    return int(text)


def _frame(asked: Request, graph: ModelGraph) -> Frame:
    """The frame to publish: the one input, or all of them by name. Raises BadRequest for other names."""
    names = [tensor.name for tensor in own_inputs(graph)]
    given = asked.inputs
    if len(names) == 1 and len(given) == 1:
        ((name, array),) = given.items()
        if name in {names[0], _PICTURE}:
            return array.tobytes() if array.ndim == 1 and array.dtype == np.uint8 else array
    elif set(given) == set(names):
        return dict(given)
    raise BadRequest(f"inputs {', '.join(given)[:200]}: model {graph.name!r} takes {', '.join(names)}")


def _fields(answer: Answer) -> Mapping[str, Any]:
    return {name: answer.result[name] for name in _ANSWERED if name in answer.result}


@web.middleware
async def _errors_as_json(request: web.Request, handler: Any) -> web.StreamResponse:
    """Each error has the protocol's shape: a status, and `error` with what is wrong."""
    try:
        response: web.StreamResponse = await handler(request)
    except web.HTTPException as error:
        return web.json_response({"error": error.reason}, status=error.status)
    except (BadRequest, FrameRefused, FrameError) as error:
        return web.json_response({"error": str(error)}, status=400)
    except FrameLost as error:
        return web.json_response({"error": str(error)}, status=504)
    except BrokerError as error:
        return web.json_response({"error": str(error)}, status=503)
    except TrisectError as error:
        return web.json_response({"error": str(error)}, status=500)
    except asyncio.CancelledError:
        raise
    except Exception:
        _log.exception("%s %.200s", request.method, request.path)
        return web.json_response({"error": "an internal error; see the log"}, status=500)
    return response


async def serve(
    config: Config, host: str, port: int, *, timeout_s: float, ready: Callable[[tuple[str, int]], None]
) -> None:
    """Serve until cancelled; `ready` is given the address. Raises BrokerError, ConfigError, OSError (a taken port)."""
    async with AsyncClient(config, timeout_s=timeout_s) as client:
        for stream in config.streams:
            await client.watch(stream)
        async with listening(Endpoint(config, client), host, port) as address:
            ready(address)
            await asyncio.Event().wait()


@asynccontextmanager
async def listening(endpoint: Endpoint, host: str, port: int) -> AsyncIterator[tuple[str, int]]:
    """Listen while the context is open, which is given the address. Raises OSError (a taken port)."""
    runner = web.AppRunner(endpoint.application(), keepalive_timeout=IDLE_S, lingering_time=LINGER_S)
    await runner.setup()
    requests = runner.server
    assert requests is not None

    def connected() -> asyncio.Protocol:
        return requests() if len(requests.connections) < MOST_CONNECTIONS else _Full()

    try:
        listener = await asyncio.get_running_loop().create_server(connected, host, port)
        async with listener:
            yield listener.sockets[0].getsockname()[:2]
    finally:
        await runner.cleanup()


class _Full(asyncio.Protocol):
    """A connection too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """End it."""
        transport.close()
