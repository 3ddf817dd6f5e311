"""A real mosquitto per test, on a free port, and sessions that are stopped at the end."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from queue import Empty, SimpleQueue
from typing import Any, Final

import pytest

from broker.server import Server
from broker.session import Address, Limits, Message, Session

# only ever reached by a test that fails
PATIENCE_S: Final = 30.0
QUICK: Final = Limits(reconnect_min_s=0.02, reconnect_max_s=0.2)


class Received:
    """A handler that keeps what it is given, and lets a test wait for it."""

    def __init__(self) -> None:
        self._messages: SimpleQueue[Message] = SimpleQueue()

    def __call__(self, message: Message) -> None:
        self._messages.put(message)

    def next(self) -> Message:
        return self._messages.get(timeout=PATIENCE_S)

    def payloads(self, count: int) -> list[bytes]:
        return [self.next().payload for _ in range(count)]

    def until(self, payload: bytes) -> list[bytes]:
        """Everything before a payload that was sent last on the same connection: proves what did *not* arrive."""
        seen: list[bytes] = []
        while (message := self.next()).payload != payload:
            seen.append(message.payload)
        return seen

    def quiet_for(self, seconds: float) -> bool:
        """Whether nothing comes for so long; what comes is gone."""
        try:
            self._messages.get(timeout=seconds)
        except Empty:
            return True
        return False

    def empty(self) -> bool:
        try:
            self._messages.get_nowait()
        except Empty:
            return True
        return False


class Signal:
    """A callback that counts its calls, and lets a test wait for the next one."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[tuple[Any, ...]] = SimpleQueue()

    def __call__(self, *arguments: Any) -> None:
        self._calls.put(arguments)

    def wait(self) -> tuple[Any, ...]:
        return self._calls.get(timeout=PATIENCE_S)

    def called(self) -> bool:
        return not self._calls.empty()


OpenSession = Callable[..., Session]


@pytest.fixture
def server() -> Iterator[Server]:
    """A broker of the test's own: it may be stopped, killed and restarted."""
    with Server() as running:
        yield running


@pytest.fixture(scope="module")
def module_server() -> Iterator[Server]:
    """A broker for the tests of one file that leave it alone."""
    with Server() as running:
        yield running


@pytest.fixture
def address(server: Server) -> Address:
    return Address(server.host, server.port)


@pytest.fixture
def open_session() -> Iterator[OpenSession]:
    """Makes sessions with quick reconnects, started unless `start=False`, and stops them after the test."""
    sessions: list[Session] = []

    def make(address: Address, name: str = "node", *, start: bool = True, **options: Any) -> Session:
        options.setdefault("limits", QUICK)
        session = Session(address, name=name, token=uuid.uuid4().hex, **options)
        sessions.append(session)
        return session.start(PATIENCE_S) if start else session

    yield make
    for session in reversed(sessions):
        session.stop(wait_s=1.0)
    left = [thread.name for thread in threading.enumerate() if thread.name.startswith(tuple(s.name for s in sessions))]
    assert not left, f"threads outlived their session: {left}"


def eventually(condition: Callable[[], bool]) -> None:
    """Wait until the condition holds; fails when it does not in PATIENCE_S."""
    give_up = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.05)
