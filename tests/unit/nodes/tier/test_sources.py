"""A device's own frames: order, rate, loops, and what waits or gives way when the window is full."""

from __future__ import annotations

import queue
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from nodes.config.sections import SourceSection
from nodes.tier import sources
from nodes.tier.pending_frame import PendingFrame
from nodes.tier.sources import Source, open_frames
from pipeline.errors import ConfigError
from pipeline.plan import NodeId, StreamId

STREAM = StreamId("camera")
PATIENCE_S = 10.0

Offered = queue.SimpleQueue[tuple[PendingFrame, bool]]


def section(**values: object) -> SourceSection:
    """As the configuration gives it: paths are text."""
    return SourceSection.model_validate({k: str(v) if isinstance(v, Path) else v for k, v in values.items()})


def folder_of(path: Path, count: int) -> Path:
    for number in range(count):
        (path / f"{number}.jpg").write_bytes(bytes([number]))
    (path / "notes.txt").write_text("no image")
    return path


def source_of(settings: SourceSection, window: int) -> tuple[Source, Offered]:
    offered: Offered = queue.SimpleQueue()
    source = Source(
        NodeId("device-1"),
        STREAM,
        settings,
        window,
        lambda stream, pending_frame, live: offered.put((pending_frame, live)),
    )
    source.start()
    return source, offered


def test_a_folder_is_read_once_in_order_of_names(tmp_path: Path) -> None:
    frames = list(open_frames(section(images=folder_of(tmp_path, 3))))
    assert frames == [("0.jpg", b"\x00"), ("1.jpg", b"\x01"), ("2.jpg", b"\x02")]


def test_a_loop_begins_anew(tmp_path: Path) -> None:
    frames = open_frames(section(images=folder_of(tmp_path, 2), loop=True))
    assert [next(frames)[0] for _ in range(5)] == ["0.jpg", "1.jpg", "0.jpg", "1.jpg", "0.jpg"]


@pytest.mark.parametrize("name", ["missing", "empty"])
def test_a_folder_without_images_is_said(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=name):
        open_frames(section(images=tmp_path / name))


def test_a_blocking_source_waits_until_a_frame_is_answered(tmp_path: Path) -> None:
    source, offered = source_of(section(images=folder_of(tmp_path, 5)), window=2)
    first, live = offered.get(timeout=PATIENCE_S)
    offered.get(timeout=PATIENCE_S)
    assert not live
    with pytest.raises(queue.Empty):
        offered.get(timeout=0.1)
    first.done()
    third, _ = offered.get(timeout=PATIENCE_S)
    assert third.source == "2.jpg"
    source.stop()


def test_a_live_source_does_not_wait(tmp_path: Path) -> None:
    source, offered = source_of(section(images=folder_of(tmp_path, 5), policy="freshest", rate_hz=1000.0), window=1)
    assert [offered.get(timeout=PATIENCE_S)[1] for _ in range(5)] == [True] * 5
    source.stop()


def test_a_video_gives_its_frames_as_rgb(tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2", reason="OpenCV is the extra `video`")
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for _ in range(3):
        image = np.zeros((48, 64, 3), np.uint8)
        image[..., 0] = 255  # blue, to OpenCV
        writer.write(image)
    writer.release()
    frames = list(open_frames(section(video=path)))
    assert len(frames) == 3
    pixel = np.asarray(frames[0][1])[20, 20].astype(int)
    assert pixel[2] > 200
    assert pixel[0] < 50
    looped = open_frames(section(video=path, loop=True))
    assert len([next(looped) for _ in range(7)]) == 7


def test_a_video_that_is_none_is_said(tmp_path: Path) -> None:
    pytest.importorskip("cv2", reason="OpenCV is the extra `video`")
    (tmp_path / "clip.avi").write_bytes(b"nothing")
    with pytest.raises(ConfigError, match=r"clip\.avi"):
        open_frames(section(video=tmp_path / "clip.avi"))


def test_what_cannot_be_read_is_passed_over_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder_of(tmp_path, 3)
    (tmp_path / "0a.jpg").mkdir()
    (tmp_path / "1a.jpg").symlink_to(tmp_path / "nowhere.jpg")
    frames = open_frames(section(images=tmp_path))
    (tmp_path / "2.jpg").unlink()
    assert list(frames) == [("0.jpg", b"\x00"), ("0a.jpg", None), ("1.jpg", b"\x01"), ("1a.jpg", None), ("2.jpg", None)]
    assert sum("is passed over" in record.message for record in caplog.records) == 3


def test_a_source_goes_on_past_what_cannot_be_read_and_keeps_its_place(tmp_path: Path) -> None:
    folder_of(tmp_path, 3)
    (tmp_path / "0a.jpg").mkdir()
    source, offered = source_of(section(images=tmp_path), window=4)
    pending_frames = [offered.get(timeout=PATIENCE_S)[0] for _ in range(3)]
    assert [(pending_frame.source, pending_frame.position) for pending_frame in pending_frames] == [
        ("0.jpg", 1),
        ("1.jpg", 3),
        ("2.jpg", 4),
    ]
    source.stop()


def test_an_emptied_folder_that_is_filled_again_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    import time

    frames = open_frames(section(images=folder_of(tmp_path, 2), loop=True))
    assert next(frames)[1] == b"\x00"
    for file in tmp_path.glob("*.jpg"):
        file.unlink()
    began = time.monotonic()
    assert [next(frames)[1] for _ in range(4)] == [None] * 4
    assert time.monotonic() - began > 0.5, "an empty folder is asked without a pause"
    folder_of(tmp_path, 2)
    assert {next(frames)[1] for _ in range(2)} == {b"\x00", b"\x01"}
    assert sum("is passed over" in record.message for record in caplog.records) == 2


class FakeCapture:
    """A camera that gives two images each time it is opened, and cannot be opened every second time."""

    opened: list[FakeCapture]

    def __init__(self, source: object) -> None:
        self.is_open = len(self.opened) % 2 == 0
        self.left, self.released = 2, False
        self.opened.append(self)

    def isOpened(self) -> bool:  # noqa: N802  # OpenCV's name
        return self.is_open

    def get(self, name: int) -> float:
        return -1.0

    def read(self) -> tuple[bool, np.ndarray | None]:
        self.left -= 1
        return (True, np.zeros((4, 4, 3), np.uint8)) if self.left >= 0 else (False, None)

    def release(self) -> None:
        self.released = True


@pytest.fixture
def camera(monkeypatch: pytest.MonkeyPatch) -> list[FakeCapture]:
    """OpenCV with that camera; all that were opened."""
    opened: list[FakeCapture] = []
    monkeypatch.setattr(FakeCapture, "opened", opened, raising=False)
    fake = SimpleNamespace(
        VideoCapture=FakeCapture, error=RuntimeError, CAP_PROP_FRAME_COUNT=7, CAP_PROP_FPS=5, CAP_PROP_POS_FRAMES=1
    )
    monkeypatch.setitem(sys.modules, "cv2", fake)
    monkeypatch.setattr(sources, "RETRY_S", 0.01)
    return opened


@pytest.mark.parametrize("values", [{"camera": 0}, {"video": "rtsp://camera/live"}])
def test_a_camera_that_fails_is_opened_again_and_the_source_goes_on(
    camera: list[FakeCapture], values: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    source, offered = source_of(section(**values, policy="freshest"), window=1)
    names = [offered.get(timeout=PATIENCE_S)[0].source for _ in range(6)]
    assert [name.rpartition("#")[2] for name in names] == ["0", "1", "2", "3", "4", "5"]
    source.stop()
    assert all(capture.released for capture in camera), "a camera is held that nobody reads"
    assert "no image from" in caplog.text


def test_a_camera_that_is_not_there_at_the_start_is_waited_for(camera: list[FakeCapture]) -> None:
    camera.append(FakeCapture.__new__(FakeCapture))
    camera[0].released = True
    source, offered = source_of(section(camera=0), window=1)
    assert offered.get(timeout=PATIENCE_S)[0].source == "0#0"
    assert not camera[1].is_open
    source.stop()


def test_a_file_ends_where_it_cannot_be_read_further(camera: list[FakeCapture], tmp_path: Path) -> None:
    assert len(list(open_frames(section(video=tmp_path / "clip.avi")))) == 2
    assert [capture.released for capture in camera] == [True]
