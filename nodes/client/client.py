"""The client for programs: frames go in, answers come back, over one session that reconnects by itself."""

from __future__ import annotations

import itertools
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from broker import topics
from broker.complaints import Complaints
from broker.errors import BrokerError, NotConnected
from broker.session import Channel, Message
from broker.topics import Namespace
from nodes.client.answers import Answer, ClientClosed, FrameLost
from nodes.client.frames import Frame, frame_bytes
from nodes.client.losses import Losses
from nodes.client.open_frames import OpenFrames
from nodes.client.requests import CONNECT_WAIT_S, require_stream
from nodes.client.stream_reader import StreamReader
from nodes.client.subscription import Subscription
from nodes.config.loader import load_config
from nodes.config.sections import Config
from nodes.protocol.border import Border
from nodes.protocol.messages import check_result
from nodes.session.presence import guest_session, reply_topic
from pipeline.errors import ConfigError, TrisectError
from pipeline.graph import ModelGraph
from pipeline.plan import StreamId

_log = logging.getLogger(__name__)

ASK_AFTER_S = 2.0
"""Without an answer for that long, the device is asked what has come there."""
ON_THEIR_WAY = 2
"""Frames of `stream` beyond the device's window, so that the next one is there when a place becomes free."""
_MAY_READ_OUTPUTS = frozenset({"operator", "viewer"})


@dataclass(slots=True)
class _Feed:
    """One stream as this client feeds it."""

    frames: OpenFrames
    losses: Losses


class Client:
    """A connection to a running pipeline; open it as a context, or with `open` and `close`. Thread safe.

    A lost connection is made again by itself, and what was sent meanwhile follows, in order, within bounds.

    Args:
        config: the pipeline's configuration, or the path of its file or of an enrolment.
        stream: the stream that is meant where a method names none; may be left out where the pipeline has one alone.
        timeout_s: seconds without any answer after which open frames count as lost.

    Raises ConfigError for a configuration that is wrong, or lacks the stream.
    """

    def __init__(self, config: Config | Path | str, stream: str | None = None, *, timeout_s: float = 60.0) -> None:
        self.config = config if isinstance(config, Config) else load_config(Path(config))
        self._stream = (
            require_stream(self.config, stream) if stream is not None or len(self.config.streams) == 1 else None
        )
        self._timeout_s = timeout_s
        self._names = Namespace(self.config.pipeline)
        self._border = Border(self._names)
        self._session = guest_session(self.config, "client")
        self._reply_topic = reply_topic(self.config, self._session)
        self._numbers = itertools.count()
        self._lock = threading.RLock()
        self._readers: dict[StreamId, StreamReader] = {}
        self._feeds: dict[StreamId, _Feed] = {}
        self._listeners: dict[StreamId, list[Callable[[Answer | None], None]]] = {}
        member = self.config.broker.credentials
        self._reads_outputs = member is None or bool(_MAY_READ_OUTPUTS.intersection(member.roles))
        self._failures = Complaints(_log)
        self._closing = threading.Event()
        self._watch = threading.Thread(target=self._look_after_frames, name=f"{self._session.name}.watch", daemon=True)

    def open(self, wait_s: float = CONNECT_WAIT_S) -> Client:
        """Connect. Raises BrokerUnreachable, BrokerRefused."""
        self._session.subscribe([self._reply_topic], self._on_reply)
        try:
            self._session.start(wait_s)
        except BrokerError:
            self.close()
            raise
        self._watch.start()
        return self

    def close(self) -> None:
        """Disconnect; frames without an answer end with ClientClosed, subscriptions end."""
        self._closing.set()
        self._session.stop()
        with self._lock:
            feeds = list(self._feeds.values())
            listeners = [one for these in self._listeners.values() for one in these]
        for feed in feeds:
            feed.frames.end(ClientClosed(f"the client was closed with {len(feed.frames)} frames without an answer"))
        for listener in listeners:
            listener(None)

    def __enter__(self) -> Client:
        return self.open()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def publish(self, frame: Frame, *, stream: str | None = None) -> Answer:
        """Send a frame and wait for its answer.

        `frame` is an encoded image (JPEG, PNG) or NPY as bytes, the path of such a file, an array (pixels as uint8 of
        (height, width[, channels]), or the input's own shape and dtype), or a mapping from input names to arrays.

        Raises FrameRefused when the device cannot make an input of it, FrameFailed when it could not be computed,
        FrameLost when no answer will come, and what `submit` raises.
        """
        answer = self.submit(frame, stream=stream).result()
        if answer.error is not None:
            raise answer.error
        return answer

    def submit(self, frame: Frame, *, stream: str | None = None, name: str | None = None) -> Future[Answer]:
        """Send a frame; returns a future of its answer. A failed frame's answer carries its error.

        `name` begins the result's `correlation`, lone surrogates (of file names that are no UTF-8)
        escaped. The future's exception is FrameLost or ClientClosed; its callbacks run
        in a network thread and must not wait. Blocks only while too many bytes wait to be sent.

        Raises ConfigError for an unknown stream or a file that cannot be read, FrameError for an array of no numbers,
        BrokerError (TopicOverfull, PayloadTooLarge) for a frame that is too large, ClientClosed.
        """
        payload = frame_bytes(frame)
        key = self._key(stream)
        feed = self._feed(key)
        number = next(self._numbers)
        named = (name or self._session.name).encode(errors="backslashreplace").decode()
        open_frame = feed.frames.add(f"{named}#{number}", payload)

        def settled(taken: bool) -> None:
            open_frame.unsent = not taken

        def unread() -> None:
            device = self.config.streams[key].device
            text = f"nobody takes frames of stream {key}: its device {device} has never run at this broker"
            feed.frames.end_one(open_frame, FrameLost(text, hint="start it, then send the frame again"))

        try:
            self._session.publish(
                self._names.topic(topics.FRAME, stream=key),
                payload,
                channel=Channel.BULK,
                response_topic=self._reply_topic,
                correlation=open_frame.correlation.encode(),
                wait_s=None,
                settled=settled,
                unread=unread,
            )
        except BrokerError as error:
            feed.frames.forget(open_frame)
            if isinstance(error, NotConnected):
                raise ClientClosed(f"{error}") from error
            raise
        return open_frame.future

    def stream(
        self, frames: Iterable[Frame], *, window: int | None = None, stream: str | None = None
    ) -> Iterator[Answer]:
        """Send frames as fast as they are answered; yields their answers in the frames' order.

        At most `window` frames are out or wait to be yielded (default: the stream's own window and two more on their
        way): the next one is taken from `frames` when there is room, so a slow pipeline, or a slow reader, holds its
        source back. A frame that failed has an answer with its error. Raises what `submit` and its futures raise.
        """
        limit = self.limit_of(window, stream)
        waiting: deque[Future[Answer]] = deque()
        try:
            for frame in frames:
                waiting.append(self.submit(frame, stream=stream))
                if len(waiting) >= limit:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()

    def subscribe(self, stream: str | None = None) -> Subscription:
        """All answers of a stream from now on, whoever sent the frames: iterate over it, and close it.

        Raises ConfigError for an unknown stream, ClientClosed.
        """
        subscription = Subscription()
        subscription.ended = self.listen(subscription.offer, stream)
        return subscription

    def listen(self, listener: Callable[[Answer | None], None], stream: str | None = None) -> Callable[[], None]:
        """Have each answer of a stream given to `listener`, in a network thread, where it must not wait.

        None says that the client was closed. Returns what ends it. Raises as `subscribe`.
        """
        key = self._key(stream)
        with self._lock:
            self._reader(key)
            self._listeners[key] = [*self._listeners.get(key, ()), listener]

        def end() -> None:
            with self._lock:
                self._listeners[key] = [one for one in self._listeners[key] if one is not listener]

        return end

    def watch(self, stream: str | None = None) -> None:
        """Know the stream's model as soon as it has a plan. Raises ConfigError for an unknown stream, ClientClosed."""
        key = self._key(stream)
        with self._lock:
            self._reader(key)

    def graph_of(self, stream: str | None = None) -> ModelGraph | None:
        """The manifest of the stream's model: its inputs and outputs; None before it is `watch`ed or has a plan."""
        reader = self._readers.get(self._key(stream))
        return reader.graph if reader is not None else None

    def limit_of(self, window: int | None, stream: str | None = None) -> int:
        """Frames that `stream` keeps out. Raises ConfigError for an unknown stream or a window below 1."""
        if window is not None and window < 1:
            raise ConfigError(f"a window of {window} frames; give at least 1")
        return window or self.config.streams[self._key(stream)].window + ON_THEIR_WAY

    def _key(self, stream: str | None) -> StreamId:
        return require_stream(self.config, stream) if stream is not None or self._stream is None else self._stream

    def _reader(self, key: StreamId) -> StreamReader:
        if self._closing.is_set():
            raise ClientClosed("the client was closed", hint="make a new one")
        if key not in self._readers:
            self._readers[key] = StreamReader(
                self._session, self._names, key, self._border, self._on_answer, with_outputs=self._reads_outputs
            )
        return self._readers[key]

    def _feed(self, key: StreamId) -> _Feed:
        with self._lock:
            self._reader(key)
            if key not in self._feeds:
                frames, device = OpenFrames(), self.config.streams[key].device
                losses = Losses(self._session, self._names, device, self._reply_topic, frames, self._timeout_s)
                self._feeds[key] = _Feed(frames, losses)
            feed = self._feeds[key]
            if not len(feed.frames) and not feed.losses.has_begun:
                feed.losses.begin()
            return feed

    def _on_reply(self, message: Message) -> None:
        result = self._border.read(message)
        if result is None or "sequence" not in result:
            return  # the answer to a request
        try:
            check_result(result)
        except TrisectError as error:
            self._border.refuse(message.topic, str(error))
            return
        reader = self._readers.get(result["stream"])
        if reader is not None:
            reader.take(result)

    def _on_answer(self, answer: Answer) -> None:
        key = StreamId(answer.stream)
        feed = self._feeds.get(key)
        frame = feed.frames.take(answer.result) if feed is not None else None
        if frame is not None and frame.future.set_running_or_notify_cancel():
            frame.future.set_result(answer)
        for listener in self._listeners.get(key, ()):
            listener(answer)

    def _look_after_frames(self) -> None:
        while not self._closing.wait(ASK_AFTER_S):
            with self._lock:
                feeds = dict(self._feeds)
            for feed in feeds.values():
                try:
                    if feed.frames.is_quiet(ASK_AFTER_S) and (why := feed.losses.why_lost()):
                        feed.frames.end(FrameLost(why))
                except NotConnected:
                    return
                except Exception as error:
                    self._failures.add(type(error).__name__, f"{self._session.name}: {error}", error=error)
