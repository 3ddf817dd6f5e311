from __future__ import annotations

from unittest import mock

import numpy as np
import pytest

from nodes.protocol.messages import to_bytes
from nodes.protocol.reports import read_report
from nodes.tier.codec_ratios import INTERVAL_S, CodecTrials
from nodes.tier.meter import RATIOS, Meter
from pipeline.plan import StreamId

CAM = StreamId("cam")
MAP = np.maximum(np.random.default_rng(0).normal(size=(1, 14, 14, 32)), 0).astype(np.float32)


def test_the_mean_of_the_newest_frames_is_reported_with_its_deviation_and_once() -> None:
    meter = Meter()
    for number in range(2 * RATIOS):
        meter.ratio(CAM, 7, "bitmap", 8.0 if number < RATIOS else 2.0 if number % 2 else 4.0)
    report = meter.report()
    assert report["tensor.cam.7.bitmap.ratio"] == pytest.approx(1 / 0.375, abs=1e-3)
    (read,) = read_report(to_bytes(report)).ratios
    assert (read.stream, read.tensor, read.codec, read.frames) == (CAM, 7, "bitmap", RATIOS)
    assert read.deviation == pytest.approx(1.0)
    assert read_report(to_bytes(meter.report())).ratios == ()
    meter.ratio(CAM, 7, "bitmap", 2.0)
    assert len(read_report(to_bytes(meter.report())).ratios) == 1


def test_a_ratio_that_cannot_be_is_left_out_and_told() -> None:
    report = {"ts": 0.0, "tensor.cam.7.bitmap.frames": 3, "tensor.cam.7.bitmap.ratio": -1.0}
    read = read_report(to_bytes(report))
    assert read.ratios == ()
    assert "tensor.cam.7.bitmap" in read.wrong


def test_all_codecs_are_tried_now_and_then() -> None:
    meter, now = Meter(), 100.0
    trials = CodecTrials(meter)
    with mock.patch("nodes.tier.codec_ratios.time.monotonic", side_effect=lambda: now):
        trials.consider(CAM, 7, MAP)
        found = {ratio.codec: ratio for ratio in read_report(to_bytes(meter.report())).ratios}
        assert found.keys() == {"bitmap", "bitmap-zstd", "shuffle-zstd"}
        assert found["bitmap"].ratio == pytest.approx(1.9, abs=0.1)
        now += INTERVAL_S / 2
        trials.consider(CAM, 7, MAP)
        assert read_report(to_bytes(meter.report())).ratios == ()
        now += INTERVAL_S
        trials.consider(CAM, 7, MAP)
        assert len(read_report(to_bytes(meter.report())).ratios) == 3


def test_trials_take_no_more_than_their_share_of_a_thread() -> None:
    meter, now = Meter(), 0.0
    trials = CodecTrials(meter)

    def slow(array: object) -> dict[str, float]:
        nonlocal now
        now += 1.0
        return {"bitmap": 2.0}

    with (
        mock.patch("nodes.tier.codec_ratios.time.monotonic", side_effect=lambda: now),
        mock.patch("nodes.tier.codec_ratios.codecs.ratios", side_effect=slow) as tried,
    ):
        for tensor in range(1000):
            trials.consider(CAM, tensor, MAP)
            now += 1.0
        assert tried.call_count <= 11


def test_what_is_sent_as_it_is_says_nothing_of_a_codec() -> None:
    meter = Meter()
    CodecTrials(meter).sent(CAM, 7, "none", 1.0)
    assert read_report(to_bytes(meter.report())).ratios == ()
