"""A device's own frames: images of a folder, a video file or a camera, at a rate, once or in a loop."""

from __future__ import annotations

import itertools
import logging
import math
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from broker import topics
from nodes.config.sections import SourceSection
from nodes.tier.pending_frame import PendingFrame
from pipeline.errors import ConfigError
from pipeline.files import read_bounded
from pipeline.plan import NodeId, StreamId
from pipeline.wire import Array

_log = logging.getLogger(__name__)

NOTHING_TO_READ_S = 1.0
RETRY_S = 1.0
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".npy")

Frames = Iterator[tuple[str, bytes | Array | None]]
"""Names and contents; None for what could not be read, which counts all the same."""
Offer = Callable[[StreamId, PendingFrame, bool], None]
"""Takes the stream, the frame, and whether it may be dropped for a fresher one."""


class Source:
    """A thread that offers frames. With the policy `block` it waits until `window` of them are answered."""

    def __init__(
        self,
        node: NodeId,
        stream: StreamId,
        section: SourceSection,
        window: int,
        offer: Offer,
        *,
        start_at: int = 0,
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        self._stream, self._section, self._offer = stream, section, offer
        self._start_at, self._on_end = start_at, on_end
        self._open = open_frames(section, start_at=start_at)
        self._window = window
        self._credit = threading.Semaphore(window)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"{node}.source.{stream}", daemon=True)

    def start(self) -> None:
        """Begin to offer."""
        self._thread.start()

    def stop(self) -> None:
        """Offer no more."""
        self._stop.set()
        self._credit.release(self._window)
        self._thread.join(5.0)

    def _run(self) -> None:
        offered, next_at = 0, time.monotonic()
        if self._start_at:
            _log.info("source of stream %s goes on after %d frames", self._stream, self._start_at)
        try:
            for name, payload in self._open:
                if payload is None:
                    offered += 1
                    if self._stop.is_set():
                        break
                    continue
                if not self._await_turn(next_at):
                    break
                live = self._section.policy == "freshest"
                done = (lambda: None) if live else self._credit.release
                self._offer(self._stream, self._pending_frame(payload, name, done, offered + 1), live)
                offered += 1
                if self._section.rate_hz:
                    # a frame that had to wait does not make the following ones hurry
                    next_at = max(next_at, time.monotonic() - 1.0) + 1.0 / self._section.rate_hz
            else:
                self._await_answers()
        except Exception:
            _log.exception("source of stream %s failed", self._stream)
        finally:
            if isinstance(self._open, Generator):
                self._open.close()
        _log.info("source of stream %s ended after %d frames", self._stream, offered)

    def _pending_frame(self, payload: bytes | Array, name: str, done: Callable[[], None], offered: int) -> PendingFrame:
        return PendingFrame(payload, name, done, position=self._start_at + offered)

    def _await_answers(self) -> None:
        """The source has ended when its last frames are answered; with `freshest` when they are offered."""
        for _ in range(self._window if self._section.policy == "block" else 0):
            self._credit.acquire()
        if not self._stop.is_set():
            self._on_end()

    def _await_turn(self, at: float) -> bool:
        if self._section.policy == "block":
            self._credit.acquire()
        self._stop.wait(max(0.0, at - time.monotonic()))
        return not self._stop.is_set()


def open_frames(section: SourceSection, *, start_at: int = 0) -> Frames:
    """(name, encoded bytes or RGB array) one after the other. Raises ConfigError when there is nothing to read.

    Images go on after `start_at` frames; a video begins again.
    """
    if section.images is not None:
        return _images(section.images, section.loop, start_at)
    return _video(section)


def _images(path: Path, loop: bool, start_at: int) -> Frames:
    if not path.exists():
        raise ConfigError(f"streams: source: images: {path} does not exist")
    files = sorted(p for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES) if path.is_dir() else [path]
    if not files:
        raise ConfigError(f"streams: source: images: no {', '.join(IMAGE_SUFFIXES)} in {path}")
    return _read(files, loop, start_at % len(files) if loop else start_at)


def _read(files: Sequence[Path], loop: bool, start_at: int) -> Frames:
    """Each file in turn; one that cannot be read is passed over, and said once until it can be read again."""
    unreadable: set[Path] = set()
    for number, file in enumerate(itertools.islice(itertools.cycle(files) if loop else files, start_at, None)):
        try:
            content = read_bounded(file, topics.FRAME.max_bytes)
            unreadable.discard(file)
        except OSError as error:
            if file not in unreadable:
                _log.warning("source: %s is passed over: %s", file, error.strerror or error)
            unreadable.add(file)
            if len(unreadable) == len(files) and number % len(files) == 0:
                time.sleep(NOTHING_TO_READ_S)  # an emptied folder may be filled again
            yield file.name, None
        else:
            yield file.name, content


def _video(section: SourceSection) -> Frames:
    source = section.video if section.video is not None else section.camera
    try:
        import cv2  # noqa: F401  # said here, where the configuration is at hand
    except ImportError:
        raise ConfigError("a video or camera needs OpenCV: pip install 'trisect[video]'") from None
    is_file = isinstance(source, str) and "://" not in source
    recording = Recording(source, loop=section.loop, is_file=is_file)
    if is_file and not recording.open():
        raise ConfigError(f"streams: source: {source!r} cannot be opened as a video")
    as_camera = section.video is not None and section.policy == "freshest" and section.rate_hz is None
    return _paced(recording) if as_camera else recording.frames()


class Recording:
    """A video or camera, read by OpenCV. A file has an end; a camera that gives no image is opened again and again.

    So is a file in a loop that cannot be read any more, and a URL that does not say how many frames it has.
    """

    def __init__(self, source: str | int | None, *, loop: bool, is_file: bool) -> None:
        self._source, self._loop, self._is_file = source, loop, is_file
        self._capture: Any = None
        self._has_end = is_file

    def open(self) -> bool:
        """Open it, or open it again. Returns whether there is something to read."""
        import cv2

        self.release()
        capture = cv2.VideoCapture(self._source)
        if not capture.isOpened():
            capture.release()
            return False
        self._capture = capture
        self._has_end = self._is_file or (isinstance(self._source, str) and self._value(cv2.CAP_PROP_FRAME_COUNT) > 0)
        return True

    @property
    def rate_hz(self) -> float:
        """Frames a second at which it was taken; 0 where that is not known."""
        import cv2

        return self._value(cv2.CAP_PROP_FPS)

    def _value(self, name: int) -> float:
        value = float(self._capture.get(name)) if self._capture is not None else 0.0
        return value if math.isfinite(value) else 0.0

    def release(self) -> None:
        """Let it go: another process may want the camera."""
        if self._capture is not None:
            self._capture.release()
        self._capture = None

    def frames(self) -> Frames:
        """Names and RGB arrays; None at each attempt while there is nothing to be had."""
        number, is_away = 0, False
        try:
            while True:
                image = self._read(number)
                if image is not None:
                    if is_away:
                        _log.info("source: %s is back", self._source)
                    is_away = False
                    yield f"{self._source}#{number}", image
                    number += 1
                elif self._has_end and not self._loop:
                    return
                else:
                    if not is_away:
                        _log.warning("source: no image from %s; it is opened again every %g s", self._source, RETRY_S)
                    is_away = True
                    time.sleep(RETRY_S)
                    yield f"{self._source}#{number}", None
                    self.open()
        finally:
            self.release()

    def _read(self, number: int) -> Array | None:
        import cv2

        if self._capture is None and not self.open():
            return None
        try:
            read, image = self._capture.read()
            if not read and self._loop and number:
                self._capture.set(cv2.CAP_PROP_POS_FRAMES, 0)
                read, image = self._capture.read()
            return np.ascontiguousarray(image[:, :, ::-1]) if read else None
        except (cv2.error, IndexError, TypeError) as error:  # a driver's, or what is no image of three channels
            _log.debug("source: %s: %s", self._source, error)
            return None


def _paced(recording: Recording) -> Frames:
    """A recording that stands for a camera comes at the rate at which it was taken, not as fast as it can be read."""
    for frame in recording.frames():
        rate_hz = recording.rate_hz
        time.sleep(1.0 / rate_hz if rate_hz > 0 else 0.0)
        yield frame
