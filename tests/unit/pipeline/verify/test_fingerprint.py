"""Fingerprints: of the answers' bits alone."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
import pytest

from pipeline.engines import create, unsplit
from pipeline.engines.answers import frame
from pipeline.lite.sketch import Layer, Sketch, packaged
from pipeline.verify.fingerprint import _plain, fingerprint

if TYPE_CHECKING:
    from pipeline.lite.package import Package


@pytest.fixture(scope="module")
def model() -> Package:
    layers = (
        Layer("convolution", "conv", ("image",), 3, 8),
        Layer("depthwise", "depthwise", ("convolution",), 5),
        Layer("mean", "mean", ("depthwise",)),
        Layer("dense", "dense", ("mean",), units=10),
    )
    return packaged(Sketch("small", (12, 12, 3), layers))


def test_a_fingerprint_is_the_hash_of_the_outputs_frame_after_frame(model: Package) -> None:
    engine = create("litert", 1)
    segment, found = unsplit(engine, model), hashlib.sha256()
    for seed in range(3):
        found.update(segment.run(frame(model.graph, seed))[model.graph.outputs[0]].astype("<f4").tobytes())
    assert fingerprint(engine, model, 3) == found.hexdigest()


def test_another_number_of_frames_or_threads_gives_another_or_the_same_fingerprint(model: Package) -> None:
    one, two = create("litert", 1), create("litert", 2)
    assert fingerprint(one, model, 1) != fingerprint(one, model, 2)
    assert fingerprint(one, model) == fingerprint(two, model)


def test_the_sign_and_payload_of_a_nan_do_not_count() -> None:
    bits = np.array([0x7FC00000, 0xFFC00000, 0x7FC00001], np.uint32)
    plain = _plain(bits.view(np.float32)).view(np.uint32)
    assert len(set(plain.tolist())) == 1


def test_zero_and_minus_zero_are_different_bits() -> None:
    assert _plain(np.array([0.0], np.float32)).tobytes() != _plain(np.array([-0.0], np.float32)).tobytes()


def test_the_byte_order_of_a_machine_does_not_count() -> None:
    array = np.array([1.5, -2.25], np.float32)
    assert _plain(array.astype(">f4")).tobytes() == _plain(array).tobytes()
