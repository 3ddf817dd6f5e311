"""A recording of a pipeline: what nodes, planner and devices have said, with the moments when it came.

The file is one Zstandard stream of msgpack: a header, messages, an end. What was written is flushed each second, so
that a file that was cut off is read up to the cut. Bytes are bounded before anything is allocated, and nothing is
executed.
"""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Final, NamedTuple

import msgpack
import zstandard
from pydantic import Field

from broker.topics import LARGEST_PACKET
from pipeline import ranges
from pipeline.errors import TrisectError
from pipeline.ranges import Id, Timestamp, Word

FORMAT: Final = "trisect recording"
VERSION: Final = 1
_LEVEL: Final = 3
_FLUSH_S: Final = 1.0
_MOST_CONFIGURATION: Final = 1 << 20
_MOST_TOPIC: Final = 65_535
_MOST_WINDOW: Final = 1 << 27
_READ_BYTES: Final = 1 << 16
_END: Final = ""
"""The topic of the last record: who does not find it reads a file that was cut off."""
MOST_SECONDS: Final = 1e9


class RecordingError(TrisectError):
    """A file is no recording, or one that this trisect does not read."""


@dataclass(frozen=True, slots=True)
class Header:
    """What was recorded: the pipeline's name, its configuration as YAML without a way to the broker, and when."""

    pipeline: Id
    configuration: Annotated[str, Field(strict=True, max_length=_MOST_CONFIGURATION)]
    started_ts: Timestamp
    trisect: Word


class Recorded(NamedTuple):
    """One message, `at` seconds after the recording began. `retain`: the broker had kept it from before."""

    at: float
    topic: str
    payload: bytes
    retain: bool


class RecordingWriter:
    """Writes a recording, as a context. Raises OSError, also when the disk is full; what was written can be read."""

    def __init__(self, path: Path, header: Header) -> None:
        self._file = path.open("wb")
        self._began = self._flushed_at = time.monotonic()
        self._packer = msgpack.Packer(use_bin_type=True)
        self._stream = zstandard.ZstdCompressor(level=_LEVEL).stream_writer(self._file, closefd=False)
        self._stream.write(self._packer.pack({"format": FORMAT, "version": VERSION, **asdict(header)}))
        self.flush()

    def __enter__(self) -> RecordingWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self.add(_END, b"", retain=False)
                self._stream.close()  # type: ignore[no-untyped-call]
        finally:
            self._file.close()

    @property
    def seconds(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self._began

    @property
    def nbytes(self) -> int:
        """Bytes of the file so far."""
        return self._file.tell()

    def add(self, topic: str, payload: bytes, *, retain: bool) -> None:
        """Keep a message that has just come."""
        self._stream.write(self._packer.pack([round(self.seconds, 6), topic, payload, retain]))
        self.tick()

    def tick(self) -> None:
        """Have the file hold everything, once a second."""
        if time.monotonic() - self._flushed_at >= _FLUSH_S:
            self.flush()

    def flush(self) -> None:
        """Have the file hold everything that was added."""
        self._stream.flush(zstandard.FLUSH_BLOCK)
        self._file.flush()
        self._flushed_at = time.monotonic()


class Recording:
    """A recording that is read from its begin, once. Raises RecordingError for what is none.

    `is_cut` says, after the last message, that the file was cut off there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.is_cut = False
        try:
            self._file: io.BufferedIOBase = path.open("rb")
        except OSError as error:
            raise RecordingError(f"{path}: cannot be read: {error.strerror}", file=path) from error
        self._stream = zstandard.ZstdDecompressor(max_window_size=_MOST_WINDOW).stream_reader(self._file)
        self._unpacker = msgpack.Unpacker(
            raw=False,
            strict_map_key=True,
            max_buffer_size=LARGEST_PACKET + _MOST_TOPIC + _READ_BYTES,
            max_bin_len=LARGEST_PACKET,
            max_str_len=4 * _MOST_CONFIGURATION,
            max_array_len=len(Recorded._fields),
            max_map_len=16,
            max_ext_len=0,
        )
        try:
            self.header = self._read_header()
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Recording:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Recorded]:
        """All messages in order, up to the end or the cut. Raises RecordingError for what cannot have been written."""
        last = 0.0
        while (value := self._next()) is not None:
            message = self._checked(value, last)
            if message.topic == _END:
                return
            last = message.at
            yield message
        self.is_cut = True

    def _read_header(self) -> Header:
        value = self._next()
        if not isinstance(value, dict) or value.pop("format", None) != FORMAT:
            raise RecordingError(f"{self.path}: not a recording that `trisect record` has made", file=self.path)
        version = value.pop("version", None)
        if version != VERSION:
            shown = f"{version!r:.20}"
            raise RecordingError(
                f"{self.path}: a recording of version {shown}; this trisect reads version {VERSION}", file=self.path
            )
        return ranges.read(Header, value, error=RecordingError, what="a recording's header")

    def _next(self) -> Any:
        """The next value; None at the end of what can be read."""
        while True:
            try:
                return self._unpacker.unpack()
            except msgpack.OutOfData:
                pass
            except (ValueError, msgpack.UnpackException) as error:
                raise RecordingError(f"{self.path}: not a recording: {error!s:.200}", file=self.path) from error
            try:
                more = self._stream.read(_READ_BYTES)
                self._unpacker.feed(more)
            except (zstandard.ZstdError, OSError, msgpack.BufferFull) as error:
                raise RecordingError(f"{self.path}: not a recording: {error!s:.200}", file=self.path) from error
            if not more:
                return None

    def _checked(self, value: Any, last: float) -> Recorded:
        if isinstance(value, list) and len(value) == len(Recorded._fields):
            at, topic, payload, retain = value
            is_timed = isinstance(at, float | int) and not isinstance(at, bool) and last <= at <= MOST_SECONDS
            is_named = isinstance(topic, str) and len(topic) <= _MOST_TOPIC
            if is_timed and is_named and isinstance(payload, bytes) and isinstance(retain, bool):
                return Recorded(float(at), topic, payload, retain)
        raise RecordingError(f"{self.path}: not a message of a recording: {value!r:.100}", file=self.path)
