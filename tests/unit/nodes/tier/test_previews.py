"""When a device publishes pictures of its frames, and when it must not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

import msgpack
import numpy as np
import pytest
from pydantic import ValidationError

from broker import topics
from broker.session import Session
from broker.topics import Namespace
from nodes.config.sections import StreamSection
from nodes.tier import previews
from nodes.tier.previews import Previews
from pipeline.plan import StreamId
from tests.unit.nodes.tier.machine.test_tier import CAM, plan

FRAME = np.zeros((48, 64, 3), np.uint8)
LAB = Namespace("lab")


@dataclass
class Line:
    """Keeps what is published."""

    is_up: bool = True
    sent: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)

    def publish(self, topic: str, payload: bytes, *, qos: int) -> None:
        assert qos == topics.PREVIEW.qos
        self.sent.append((topic, msgpack.unpackb(payload)))


def section(**more: Any) -> StreamSection:
    return StreamSection.model_validate({"device": "device-1", "model": "net", **more})


def made(line: Line, monkeypatch: pytest.MonkeyPatch, **more: Any) -> Previews:
    monkeypatch.setattr(previews, "INTERVAL_S", 0.0)
    monkeypatch.setattr(previews, "MOST_SHARE", 1e9)
    return Previews(cast("Session", line), LAB, {CAM: section(**more)})


def test_a_preview_names_its_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    line = Line()
    made(line, monkeypatch, preview=True).consider(CAM, 7, FRAME)
    ((topic, message),) = line.sent
    assert topic == LAB.topic(topics.PREVIEW, stream=CAM)
    assert (message["stream"], message["sequence"], message["width"], message["height"]) == (CAM, 7, 64, 48)
    assert message["jpeg"].startswith(b"\xff\xd8")


def test_there_is_none_where_the_configuration_does_not_ask_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    line = Line()
    made(line, monkeypatch).consider(CAM, 7, FRAME)
    made(line, monkeypatch, preview=True).consider(StreamId("other"), 7, FRAME)
    assert not line.sent


def test_there_is_none_while_the_broker_is_away_and_none_of_what_is_no_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    line = Line(is_up=False)
    made(line, monkeypatch, preview=True).consider(CAM, 7, FRAME)
    line.is_up = True
    made(line, monkeypatch, preview=True).consider(CAM, 8, b"no picture")
    assert not line.sent


def test_they_come_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    line = Line()
    monkeypatch.setattr(previews, "INTERVAL_S", 3600.0)
    found = Previews(cast("Session", line), LAB, {CAM: section(preview=True)})
    for sequence in range(5):
        found.consider(CAM, sequence, FRAME)
    assert [message["sequence"] for _, message in line.sent] == [0]


def test_none_leaves_the_device_once_a_person_asks_that_raw_frames_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    line = Line()
    found = made(line, monkeypatch, preview=True)
    found.planned(replace(plan(1), plan_request={"constraints": {"raw_stays_on": "device"}}))
    found.consider(CAM, 1, FRAME)
    assert not line.sent
    found.planned(plan(2))
    found.consider(CAM, 2, FRAME)
    assert len(line.sent) == 1


def test_a_configuration_cannot_want_both() -> None:
    with pytest.raises(ValidationError, match="leave one of the two out"):
        section(preview=True, plan={"constraints": {"raw_stays_on": "device"}})
