"""`publish` says where frames were lost: by the broker before the device, or by the broker on the way back."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from broker import topics
from broker.exactly_once import Publication
from broker.server import Server, ServerSettings
from broker.topics import Namespace
from nodes.cli import demo
from nodes.client.publishing import publish
from nodes.client.requests import RequestRefused
from nodes.config.loader import load_config
from nodes.config.sections import Config
from nodes.protocol.asking import request_topic
from nodes.protocol.commands import TAKEN
from nodes.protocol.messages import LifeState, to_bytes
from nodes.session.presence import Presence
from nodes.tier.frame_ledger import FrameLedger
from nodes.tier.machine.events import FrameOffered
from pipeline.errors import ConfigError
from tests.integration.conftest import PATIENCE_S

FRAMES = 100
SMALL = ServerSettings(max_queued_messages=20, max_inflight_messages=20, max_packet_bytes=1 << 20)


class Device:
    """The half of a device that meets the broker: frames come in, and one result for each goes out."""

    def __init__(self, config: Config, folder: Path, answer: Callable[[Device, FrameOffered], None]) -> None:
        self.config, self.names = config, Namespace(config.pipeline)
        self.answer = answer
        self.go_on = threading.Event()
        self.presence = Presence(config, self.names, demo.DEVICE, "device", takes_frames=True, on_up=self._on_up)
        self.ledger = FrameLedger(
            self.presence.session,
            self.names,
            demo.DEVICE,
            [demo.STREAM],
            token=self.presence.token,
            border=self.presence.border,
            directory=folder / "state",
            offer=lambda offered: threading.Thread(target=self._take, args=(offered,), daemon=True).start(),
        )
        self._next = 0
        self._lock = threading.Lock()

    def _on_up(self) -> None:
        self.ledger.connected()

    def _take(self, offered: FrameOffered) -> None:
        self.go_on.wait(PATIENCE_S)
        self.answer(self, offered)

    def close(self, offered: FrameOffered, *, reply_bytes: int = 0) -> None:
        with self._lock:
            self._next += 1
            sequence = self._next
        pending_frame = offered.pending_frame
        self.ledger.entered(demo.STREAM, sequence, pending_frame)
        result = {"stream": demo.STREAM, "sequence": sequence, "ok": True, "source": "x" * reply_bytes}
        if pending_frame.correlation:
            result["correlation"] = pending_frame.correlation.decode()
        payload = to_bytes(result)
        publications = (
            [Publication(pending_frame.response_topic, payload, pending_frame.correlation)]
            if pending_frame.response_topic
            else []
        )
        publications.append(Publication(self.names.topic(topics.RESULT, stream=demo.STREAM), payload))
        self.ledger.answer(demo.STREAM, sequence, pending_frame, lambda: publications)


@contextmanager
def device(server: Server, folder: Path, answer: Callable[[Device, FrameOffered], None]) -> Iterator[Device]:
    config = load_config(demo.write_config(folder, "mobilenet_v2", server.port))
    made = Device(config, folder, answer)
    with made.ledger, made.presence:
        made.presence.session.start(PATIENCE_S)

        def counts(message: object) -> None:
            topic, _ = made.presence.border.reply_to(message)  # type: ignore[arg-type]
            found = {"ok": True, "session": made.presence.token, **made.ledger.taken(topic)}
            made.presence.reply(message, found)  # type: ignore[arg-type]

        made.presence.session.subscribe([request_topic(made.names, demo.DEVICE, TAKEN)], counts)
        made.presence.enter(LifeState.READY)
        yield made


def photos(folder: Path, nbytes: int) -> list[Path]:
    files = [folder / f"{number:03d}.jpg" for number in range(FRAMES)]
    for number, file in enumerate(files):
        file.write_bytes(number.to_bytes(4, "big") + bytes(nbytes))
    return files


def results(config: Config, files: list[Path]) -> Iterator[str]:
    for result in publish(config, demo.STREAM, files, rate_hz=None, timeout_s=PATIENCE_S):
        yield str(result["correlation"])


def test_frames_that_the_broker_drops_before_the_device_are_counted_and_the_limit_is_named(tmp_path: Path) -> None:
    with Server(SMALL) as server, device(server, tmp_path, Device.close) as made:
        threading.Timer(2.0, made.go_on.set).start()
        came: list[str] = []
        with pytest.raises(RequestRefused) as refused:
            came.extend(results(made.config, photos(tmp_path, 1_000)))
        lost = FRAMES - len(came)
        assert 0 < lost < FRAMES
        said = f"dropped {lost} of {FRAMES} frames before they reached device-1; raise max_queued_messages"
        assert said in str(refused.value)


def test_results_that_the_broker_drops_on_their_way_back_are_told_from_frames(tmp_path: Path) -> None:
    with Server(SMALL) as server:

        def silent(made: Device, offered: FrameOffered) -> None:
            """The result is out, and the broker has lost the copy for its publisher."""
            lossy = replace(offered, pending_frame=replace(offered.pending_frame, correlation=b"another's"))
            made.close(lossy)

        with device(server, tmp_path, silent) as made:
            made.go_on.set()
            with pytest.raises(RequestRefused, match="dropped the results of 3 of 3 frames on their way back"):
                list(results(made.config, photos(tmp_path, 10)[:3]))


def test_a_file_that_is_not_there_costs_no_result_of_those_before_it(tmp_path: Path) -> None:
    with Server(SMALL) as server, device(server, tmp_path, Device.close) as made:
        made.go_on.set()
        came: list[str] = []
        with pytest.raises(ConfigError, match=r"missing\.jpg"):
            came.extend(results(made.config, [*photos(tmp_path, 10)[:3], tmp_path / "missing.jpg"]))
        assert len(came) == 3


def test_a_frame_that_is_larger_than_a_frame_may_be_is_refused_to_its_publisher(tmp_path: Path) -> None:
    with Server(replace(SMALL, max_packet_bytes=100_000_000)) as server, device(server, tmp_path, Device.close) as made:
        file = tmp_path / "large.jpg"
        with file.open("wb") as sparse:
            sparse.truncate((64 << 20) + 1)
        with pytest.raises(RequestRefused, match=r"67,108,865 bytes .* more than 67,108,864"):
            list(results(made.config, [file]))
