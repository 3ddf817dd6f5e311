"""What the page's server answers, and to whom; without a socket."""

from __future__ import annotations

import gzip
import hashlib
import json
import re

import pytest
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from nodes.config.sections import Config
from nodes.web.relay import MOST_REASON_BYTES, shortened
from nodes.web.server import Listener, WebServer
from nodes.web.static_files import POLICY, STATIC, read_files
from nodes.web.vendoring import LIBRARIES, LIST, VENDOR
from pipeline.errors import ConfigError

KEY = "k" * 32
COOKIE = {"Cookie": f"trisect-8080={KEY}"}
CONFIG = Config.model_validate(
    {
        "pipeline": "lab",
        "broker": {"username": "ann", "password": "secret"},
        "models": {"net": {"source": "mobilenet_v2", "weights": "seed:0"}},
        "streams": {"camera": {"device": "device-1", "model": "net"}},
        "nodes": {"device-1": {"tier": "device"}, "edge-1": {"tier": "edge"}},
    }
)
MOST_COMPRESSED = 1_000_000


@pytest.fixture(scope="module")
def server() -> WebServer:
    return WebServer(CONFIG, Listener(key=KEY))


def get(server: WebServer, path: str, **headers: str) -> Response | None:
    return server.answer(None, Request(path, Headers({"Host": "127.0.0.1:8080", **headers})))  # type: ignore[arg-type]


def settings(server: WebServer, **headers: str) -> dict[str, object]:
    answer = get(server, "/settings.json", **headers)
    assert answer is not None
    found: dict[str, object] = json.loads(answer.body)
    return found


def test_files_are_served_to_all_with_a_policy_that_lets_nothing_else_in(server: WebServer) -> None:
    for path in ("/", "/js/app.js", "/css/base.css", "/vendor/mqtt.esm.js", "/vendor/LICENSES/mqtt.txt"):
        answer = get(server, path)
        assert answer is not None
        assert (answer.status_code, answer.headers["Content-Security-Policy"]) == (200, POLICY)
    assert "'unsafe" not in POLICY
    assert "http" not in POLICY


@pytest.mark.parametrize("path", ["/nothing", "/../server.py", "/js/../../server.py", "/%2e%2e/server.py", "/vendor/"])
def test_nothing_else_is_served(server: WebServer, path: str) -> None:
    answer = get(server, path, **COOKIE)
    assert answer is not None
    assert answer.status_code == 404


def test_what_is_no_address_is_answered_all_the_same(server: WebServer) -> None:
    answer = get(server, "//[/")
    assert answer is not None
    assert answer.status_code == 400


def test_the_key_in_the_address_becomes_a_cookie_and_leaves_the_address(server: WebServer) -> None:
    answer = get(server, f"/?key={KEY}")
    assert answer is not None
    assert (answer.status_code, answer.headers["Location"]) == (303, "/")
    cookie = answer.headers["Set-Cookie"]
    assert cookie.startswith(COOKIE["Cookie"])
    assert {"HttpOnly", "SameSite=Strict"} <= set(cookie.split("; "))
    wrong = get(server, "/?key=guess")
    assert wrong is not None
    assert "Set-Cookie" not in wrong.headers


@pytest.mark.parametrize("path", ["/settings.json", "/mqtt"])
def test_settings_and_broker_are_for_those_who_have_the_key(server: WebServer, path: str) -> None:
    for headers in (
        {},
        {"Cookie": "trisect-8080=guess"},
        {"Cookie": f"trisect-9090={KEY}"},
        {"Cookie": 'a="; ;=;{}'},
    ):
        answer = get(server, path, **headers)
        assert answer is not None
        assert answer.status_code == 401
        assert "open the address" in json.loads(answer.body)["error"]


def test_a_page_of_another_site_gets_no_way_to_the_broker(server: WebServer) -> None:
    answer = get(server, "/mqtt", **COOKIE, Origin="http://evil.example")
    assert answer is not None
    assert answer.status_code == 403
    bracket = get(server, "/mqtt", **COOKIE, Origin="http://[")
    assert bracket is not None
    assert bracket.status_code == 403
    assert get(server, "/mqtt", **COOKIE, Origin="http://127.0.0.1:8080") is None


def test_settings_say_what_the_page_needs(server: WebServer) -> None:
    found = settings(server, **COOKIE)
    assert found["prefix"] == "trisect/v1/lab/"
    assert found["login"] == {"username": "ann", "password": "secret"}
    assert found["streams"] == {"camera": {"device": "device-1", "model": "net"}}
    assert found["client_id"] != settings(server, **COOKIE)["client_id"]


def test_an_unchanged_file_is_not_sent_again(server: WebServer) -> None:
    first = get(server, "/js/app.js")
    assert first is not None
    again = get(server, "/js/app.js", **{"If-None-Match": first.headers["ETag"]})
    assert again is not None
    assert (again.status_code, again.body) == (304, b"")


def test_files_are_compressed_for_those_who_can_read_it(server: WebServer) -> None:
    answer, plain = get(server, "/js/app.js", **{"Accept-Encoding": "gzip, br"}), get(server, "/js/app.js")
    assert answer is not None
    assert plain is not None
    assert gzip.decompress(answer.body) == plain.body


def test_the_page_leaves_loopback_with_tls_only() -> None:
    with pytest.raises(ConfigError, match="without TLS"):
        Listener(host="0.0.0.0", key=KEY)


def test_a_reason_fits_into_a_closing_frame() -> None:
    assert len(shortened("ä" * 400).encode()) <= MOST_REASON_BYTES
    assert shortened("a\nb") == "a\ufffdb"


def test_the_whole_page_is_below_a_megabyte() -> None:
    served = {file.tag: file for path, file in read_files().items() if "LICENSES" not in path}
    assert sum(len(file.compressed) for file in served.values()) < MOST_COMPRESSED


def test_each_library_is_the_one_that_was_listed_and_has_its_licence() -> None:
    listed = dict(re.findall(r"^  (\S+) sha256 (\w+)$", (VENDOR / LIST).read_text(), re.MULTILINE))
    names = {name for library in LIBRARIES for name in library.files.values()}
    assert listed.keys() == names
    assert {path.name for path in VENDOR.iterdir() if path.suffix in {".js", ".css"}} == names
    for name, digest in listed.items():
        assert hashlib.sha256((VENDOR / name).read_bytes()).hexdigest() == digest
    for library in LIBRARIES:
        assert (VENDOR / "LICENSES" / f"{library.name.rpartition('/')[2]}.txt").read_text().strip()


def test_own_scripts_make_no_html_of_text_and_ask_nobody_else() -> None:
    """A name from the network is never parsed, so that it cannot be more than a name."""
    forbidden = ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "DOMParser", "https://")
    for path in (STATIC / "js").glob("*.js"):
        text = path.read_text()
        assert not [word for word in forbidden if word in text], path.name
        assert len(text.splitlines()) < 400, path.name
    assert not re.search(r"<script(?![^>]*src=)|\son\w+=|style=", (STATIC / "index.html").read_text())
