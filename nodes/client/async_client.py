"""The client for asyncio: the same connection, awaited."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from pathlib import Path
from types import TracebackType

from nodes.client.answers import Answer
from nodes.client.client import Client
from nodes.client.frames import Frame
from nodes.client.requests import CONNECT_WAIT_S
from nodes.client.subscription import MOST_WAITING
from nodes.config.sections import Config
from pipeline.graph import ModelGraph


class AsyncClient:
    """A connection to a running pipeline for asyncio: `Client`, with methods that are awaited.

    Open it as an asynchronous context, in the event loop that uses it. Arguments and errors are those of `Client`.
    """

    def __init__(self, config: Config | Path | str, stream: str | None = None, *, timeout_s: float = 60.0) -> None:
        self._client = Client(config, stream, timeout_s=timeout_s)
        self.config = self._client.config

    async def open(self, wait_s: float = CONNECT_WAIT_S) -> AsyncClient:
        """Connect. Raises BrokerUnreachable, BrokerRefused."""
        await asyncio.to_thread(self._client.open, wait_s)
        return self

    async def close(self) -> None:
        """Disconnect; frames without an answer end with ClientClosed, subscriptions end."""
        await asyncio.to_thread(self._client.close)

    async def __aenter__(self) -> AsyncClient:
        return await self.open()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def watch(self, stream: str | None = None) -> None:
        """Know the stream's model as soon as it has a plan; see `Client.watch`."""
        await asyncio.to_thread(self._client.watch, stream)

    def graph_of(self, stream: str | None = None) -> ModelGraph | None:
        """The manifest of the stream's model; see `Client.graph_of`."""
        return self._client.graph_of(stream)

    async def publish(self, frame: Frame, *, stream: str | None = None) -> Answer:
        """Send a frame and await its answer; see `Client.publish`."""
        answer = await (await self.submit(frame, stream=stream))
        if answer.error is not None:
            raise answer.error
        return answer

    async def submit(
        self, frame: Frame, *, stream: str | None = None, name: str | None = None
    ) -> asyncio.Future[Answer]:
        """Send a frame; returns a future of its answer; see `Client.submit`."""
        # in a thread: it waits while too many bytes are unsent, and reads files
        future = await asyncio.to_thread(self._client.submit, frame, stream=stream, name=name)
        return asyncio.wrap_future(future)

    async def stream(
        self, frames: Iterable[Frame] | AsyncIterable[Frame], *, window: int | None = None, stream: str | None = None
    ) -> AsyncIterator[Answer]:
        """Send frames as fast as they are answered; yields their answers in the frames' order; see `Client.stream`."""
        limit = self._client.limit_of(window, stream)
        waiting: deque[asyncio.Future[Answer]] = deque()
        try:
            async for frame in _each(frames):
                waiting.append(await self.submit(frame, stream=stream))
                if len(waiting) >= limit:
                    yield await waiting.popleft()
            while waiting:
                yield await waiting.popleft()
        finally:
            for future in waiting:
                future.cancel()

    async def subscribe(self, stream: str | None = None) -> AsyncIterator[Answer]:
        """All answers of a stream from now on, whoever sent the frames; see `Client.subscribe`.

        Of more answers than a slow reader may keep waiting, the oldest are dropped.
        """
        loop = asyncio.get_running_loop()
        answers: asyncio.Queue[Answer | None] = asyncio.Queue()

        def keep(answer: Answer | None) -> None:
            answers.put_nowait(answer)
            if answers.qsize() > MOST_WAITING:
                answers.get_nowait()

        def listen(answer: Answer | None) -> None:
            loop.call_soon_threadsafe(keep, answer)

        end = await asyncio.to_thread(self._client.listen, listen, stream)
        try:
            while (answer := await answers.get()) is not None:
                yield answer
        finally:
            end()


async def _each(frames: Iterable[Frame] | AsyncIterable[Frame]) -> AsyncIterator[Frame]:
    if isinstance(frames, AsyncIterable):
        async for frame in frames:
            yield frame
    else:
        for frame in frames:
            yield frame
