"""`trisect web`: the page's files and settings over HTTP, and its way to the broker over a websocket. No TensorFlow.

Who has the key may do what the login may that this process was started with. The key comes once in the URL and then in
a cookie that no script and no other site can use.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import ssl
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from ipaddress import ip_address
from typing import Final
from urllib.parse import SplitResult, parse_qs, urlsplit

from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from nodes.config.sections import Config
from nodes.session.presence import address_of
from nodes.web.page_settings import RELAY_PATH, SETTINGS_PATH, page_settings
from nodes.web.relay import TRY_LATER, relay
from nodes.web.static_files import SECURITY_HEADERS, StaticFile, read_files
from pipeline.errors import ConfigError

_log = logging.getLogger(__name__)

MQTT: Final = Subprotocol("mqtt")
COMPRESSED_FROM: Final = 512
MOST_FRAME: Final = 1 << 20
"""Bytes of a frame from the browser: commands are small, and mqtt.js sends a packet in one or more frames."""
MOST_PAGES: Final = 64
"""Ways to the broker at once: each may hold a few megabytes that its page or the broker does not take."""
FRAMES_WAITING: Final = 4
OPEN_S: Final = 10.0
"""How long a browser may take to ask for something."""
CLOSE_S: Final = 1.0
"""How long a page may take to close its websocket; one that hangs must not hold the server up when it ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """Where the page is served.

    Attributes:
        tls: a context with the server's certificate; None for plain HTTP, on loopback only.
        key: what a browser must show.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    tls: ssl.SSLContext | None = None
    key: str = field(repr=False)

    def __post_init__(self) -> None:
        if self.tls is None and not self.is_loopback:
            raise ConfigError(
                f"the page on {self.host} without TLS would show its key to the whole network; give "
                "--certificate and --certificate-key, or --folder, or listen on 127.0.0.1"
            )

    @property
    def is_loopback(self) -> bool:
        """True when only this machine can reach it."""
        try:
            return self.host == "localhost" or ip_address(self.host).is_loopback
        except ValueError:
            return False

    def url(self, port: int) -> str:
        """The address to open, with the key."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{port}/?key={self.key}"


class WebServer:
    """The page of one pipeline, with one login."""

    def __init__(self, config: Config, listener: Listener) -> None:
        self._config, self._listener = config, listener
        self._address = address_of(config)
        self._files: Mapping[str, StaticFile] = read_files()
        self._cookie = f"trisect-{listener.port}"
        self._pages = 0

    async def run(self, on_ready: Callable[[str], None]) -> None:
        """Serve until cancelled; `on_ready` gets the address to open. Raises ConfigError when the port is taken."""
        where = self._listener
        try:
            server = await serve(
                self._serve_page,
                where.host,
                where.port,
                ssl=where.tls,
                process_request=self.answer,
                subprotocols=[MQTT],
                compression=None,  # on loopback and in a LAN it costs more than it saves
                max_size=MOST_FRAME,
                max_queue=FRAMES_WAITING,
                server_header=None,
                open_timeout=OPEN_S,
                close_timeout=CLOSE_S,
            )
        except OSError as error:
            raise ConfigError(
                f"{where.host}:{where.port} cannot be listened on: {error.strerror or error}; choose another --port"
            ) from error
        async with server:
            on_ready(where.url(next(iter(server.sockets)).getsockname()[1]))
            await asyncio.get_running_loop().create_future()

    async def _serve_page(self, websocket: ServerConnection) -> None:
        if self._pages >= MOST_PAGES:
            await websocket.close(TRY_LATER, f"{MOST_PAGES} pages are open, which is the most")
            return
        self._pages += 1
        try:
            await relay(websocket, self._address)
        finally:
            self._pages -= 1

    def answer(self, connection: ServerConnection, request: Request) -> Response | None:
        """The response to an HTTP request; None lets a websocket in."""
        if (url := _split(request.path)) is None:
            return _response(HTTPStatus.BAD_REQUEST, b"no address\n")
        if url.path == RELAY_PATH:
            return self._refusal(request)
        if url.path == SETTINGS_PATH:
            return self._refusal(request) or _json(HTTPStatus.OK, page_settings(self._config))
        if url.path == "/" and "key" in (query := parse_qs(url.query)):
            return self._let_in(query["key"][0])
        file = self._files.get(url.path)
        if file is None:
            return _response(HTTPStatus.NOT_FOUND, b"no such page\n")
        return _file(file, request.headers)

    def _let_in(self, key: str) -> Response:
        """To the page without the key in its address, which would otherwise stay in the browser's history."""
        headers = [("Location", "/")]
        if self._is_key(key):
            secure = "; Secure" if self._listener.tls else ""
            headers.append(("Set-Cookie", f"{self._cookie}={key}; HttpOnly; SameSite=Strict; Path=/{secure}"))
        return _response(HTTPStatus.SEE_OTHER, b"", headers)

    def _refusal(self, request: Request) -> Response | None:
        if not self._is_key(_cookie(request.headers, self._cookie)):
            why = "the key is missing or old: open the address that `trisect web` printed when it started"
            return _json(HTTPStatus.UNAUTHORIZED, {"error": why})
        origin, host = request.headers.get("Origin"), request.headers.get("Host")
        if origin is not None and ((from_site := _split(origin)) is None or from_site.netloc != host):
            return _json(HTTPStatus.FORBIDDEN, {"error": "asked for by a page of another site"})
        return None

    def _is_key(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), self._listener.key.encode())


def _split(address: str) -> SplitResult | None:
    """None for what is no address, as one with an open bracket."""
    try:
        return urlsplit(address)
    except ValueError:
        return None


def _cookie(headers: Headers, name: str) -> str:
    try:
        found = SimpleCookie("; ".join(headers.get_all("Cookie"))).get(name)
    except CookieError:
        return ""
    return found.value if found else ""


def _file(file: StaticFile, headers: Headers) -> Response:
    common = [("Content-Type", file.content_type), ("ETag", file.tag), ("Cache-Control", "no-cache")]
    if headers.get("If-None-Match") == file.tag:
        return _response(HTTPStatus.NOT_MODIFIED, b"", common)
    if "gzip" in headers.get("Accept-Encoding", "") and len(file.body) >= COMPRESSED_FROM:
        return _response(HTTPStatus.OK, file.compressed, [*common, ("Content-Encoding", "gzip")])
    return _response(HTTPStatus.OK, file.body, common)


def _json(status: HTTPStatus, value: object) -> Response:
    body = json.dumps(value).encode()
    return _response(status, body, [("Content-Type", "application/json"), ("Cache-Control", "no-store")])


def _response(status: HTTPStatus, body: bytes, headers: Iterable[tuple[str, str]] = ()) -> Response:
    length = ("Content-Length", str(len(body)))
    fields = Headers([*SECURITY_HEADERS, length, ("Connection", "close"), *headers])
    return Response(status.value, status.phrase, fields, body)
