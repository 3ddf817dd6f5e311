"""Files of which one cannot be sent: those before it still give their results."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from broker.errors import NotConnected
from nodes.client import publishing
from nodes.client.answers import Answer
from nodes.client.requests import RequestRefused
from pipeline.errors import ConfigError, FrameError, TrisectError
from pipeline.plan import StreamId


class Client:
    """Answers each frame once the next is sent, and fails at what `errors` has."""

    errors: dict[str, TrisectError]

    def __init__(self, config: Any, stream: StreamId, *, timeout_s: float) -> None:
        self._open: list[tuple[str, Future[Answer]]] = []

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def submit(self, file: Path, *, name: str) -> Future[Answer]:
        for sent, future in self._open:
            future.set_result(Answer("s", 1, {"name": sent}))
        self._open = []
        if name in self.errors:
            raise self.errors[name]
        future = Future[Answer]()
        self._open.append((name, future))
        return future


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (ConfigError("no such file"), ConfigError),
        (FrameError("more than a message may have"), FrameError),
        (NotConnected("client", "stopped"), RequestRefused),
    ],
)
def test_files_before_one_that_cannot_be_sent_give_their_results(
    error: TrisectError, raised: type[TrisectError], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publishing, "Client", Client)
    monkeypatch.setattr(Client, "errors", {"c": error}, raising=False)
    config: Any = None
    results = publishing.publish(config, StreamId("s"), [Path(n) for n in "abcd"], rate_hz=None, timeout_s=1.0)
    assert [next(results)["name"], next(results)["name"]] == ["a", "b"]
    with pytest.raises(raised):
        next(results)
