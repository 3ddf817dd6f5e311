"""The input's own blocks: a frame in each of its forms, and that wherever they run the answer is the same."""

from __future__ import annotations

import io
from collections.abc import Mapping
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.codecs import NONE
from pipeline.coding import CodecCosts
from pipeline.cost import Costs, Link
from pipeline.engines.base import Array
from pipeline.engines.pictured import Pictured, PicturedEngine, pictured
from pipeline.errors import FrameError, PlanError, WireError
from pipeline.frames.decode import Preprocess, to_input
from pipeline.frames.fingerprint import fingerprint, sample_frame
from pipeline.frames.input_blocks import (
    MOST_FRAME_BYTES,
    as_given,
    as_sent,
    frame_tensor,
    has_input,
    network_input,
    picture_tensor,
    with_input,
)
from pipeline.graph import Block, ModelGraph, Tensor
from pipeline.partition import baselines, exact
from pipeline.partition.constraints import RawStays, broken
from pipeline.placement import Placement, Tier, stages
from pipeline.reassembly import Assembler
from pipeline.wire import FrameKey, Received, encode

D, E, C = Tier
SIDE = 16
PREPROCESS = Preprocess(size=(SIDE, SIDE), mode="torch")


def network() -> ModelGraph:
    tensors = (Tensor(0, "image", (1, SIDE, SIDE, 3), "float32"), Tensor(1, "sum", (1, 3), "float32"))
    blocks = (Block(0, "image", "input", ("image",), (), (0,)), Block(1, "sum", "Sum", ("sum",), (0,), (1,)))
    return ModelGraph("sums", "c0ffee00", tensors, blocks, (0,), (1,))


class Sums:
    """An engine whose one block sums the picture up; it sees the network alone."""

    name, version, threads = "sums", "1", 1

    def compile(self, model: Any, blocks: Any, inputs: Any, outputs: Any) -> Any:
        assert list(blocks) == [1], "the network's own number of its block"
        assert (inputs, outputs) == ((0,), (1,))
        return self

    def run(self, tensors: Mapping[int, Array]) -> dict[int, Array]:
        return {1: tensors[0].sum(axis=(1, 2))}


class Network:
    graph = network()


MODEL = pictured(Network(), PREPROCESS)  # type: ignore[arg-type]
ENGINE = PicturedEngine(Sums())  # type: ignore[arg-type]
GRAPH = with_input(network())
KEY = FrameKey("cam", 1, 1, 1, 1)


def jpeg(side: int = 40) -> bytes:
    file = io.BytesIO()
    values = np.random.default_rng(0).integers(0, 256, (side, side + 9, 3), np.uint8)
    Image.fromarray(values).save(file, "JPEG")
    return file.getvalue()


def npy(array: Array) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


FRAMES: dict[str, bytes | Array] = {
    "photo": jpeg(),
    "pixels, as a camera gives them": np.random.default_rng(1).integers(0, 256, (30, 20, 3), np.uint8),
    "pixels in a file": npy(np.random.default_rng(2).integers(0, 256, (SIDE, SIDE, 3), np.uint8)),
    "the input itself": npy(np.random.default_rng(3).normal(size=(1, SIDE, SIDE, 3)).astype(np.float32)),
}


def over_the_wire(tensor: int, array: Array, codec: str = NONE) -> Array:
    assembler = Assembler(lambda key, asked: GRAPH.tensors[asked])
    done = [assembler.add("device-1", chunk) for chunk in encode(KEY, tensor, array, codec=codec, chunk_bytes=1000)]
    received = done[-1]
    assert isinstance(received, Received)
    return received.array


def run(placement: Placement, frame: bytes | Array, codec: str = NONE) -> Array:
    arrived = {GRAPH.inputs[0]: as_given(frame)}
    for stage in stages(GRAPH, placement):
        inputs = GRAPH.inputs if 0 in stage.blocks else stage.inputs
        made = ENGINE.compile(MODEL, stage.blocks, inputs, stage.outputs).run({t: arrived[t] for t in inputs})
        arrived |= {t: over_the_wire(t, made[t], codec) for t in stage.outputs}
    return arrived[GRAPH.outputs[0]]


@pytest.mark.parametrize("codec", ["none", "webp", "shuffle-zstd"])
@pytest.mark.parametrize("name", FRAMES)
def test_wherever_the_inputs_blocks_run_the_answer_is_that_of_the_network_on_the_same_frame(
    name: str, codec: str
) -> None:
    frame = FRAMES[name]
    decoded: Any = frame
    if isinstance(frame, bytes):
        file = io.BytesIO(frame)
        decoded = np.load(file) if name.endswith(("file", "itself")) else np.asarray(Image.open(file))
    expected = to_input(decoded, network().tensors[0], PREPROCESS).sum(axis=(1, 2))
    for later in combinations_with_replacement(Tier, len(GRAPH) - 1):
        assert np.array_equal(run((D, *later), frame, codec), expected), later


def test_the_network_keeps_its_tensors_and_the_order_of_its_blocks() -> None:
    assert [block.name for block in GRAPH.blocks] == ["frame", "frame_decode", "frame_normalise", "sum"]
    assert GRAPH.digest == network().digest
    assert GRAPH.tensors[:2] == network().tensors
    assert (GRAPH.inputs, GRAPH.outputs) == ((2,), (1,))
    assert GRAPH.block_named("image").name == "frame_normalise", "by the name of the layer that it stands for"
    assert ModelGraph.from_json(GRAPH.to_json()) == GRAPH
    assert with_input(GRAPH) is GRAPH
    assert "varies" not in network().to_json()["tensors"][0]


@pytest.mark.parametrize("shape", [(1, 4), (1, 8, 8, 2), (1, 8, 8)])
def test_a_network_that_takes_no_picture_has_no_such_blocks(shape: tuple[int, ...]) -> None:
    given = Tensor(0, "given", shape, "float32")
    blocks = (Block(0, "given", "input", (), (), (0,)), Block(1, "d", "Dense", (), (0,), (1,)))
    graph = ModelGraph("other", "c0ffee00", (given, Tensor(1, "out", (1, 1), "float32")), blocks, (0,), (1,))
    assert with_input(graph) is graph
    assert not has_input(graph)


@pytest.mark.parametrize("frame", [b"", b"no picture", jpeg()[:200], npy(np.zeros((3, 3), np.float32))])
def test_what_is_no_frame_raises_the_same_wherever_it_is_decoded(frame: bytes) -> None:
    said = set()
    for tier in Tier:
        with pytest.raises(FrameError) as raised:
            run((D, tier, tier, tier), frame)
        said.add(str(raised.value))
    assert len(said) == 1


def test_more_pixels_than_allowed_are_refused_by_whoever_decodes() -> None:
    segment = ENGINE.compile(MODEL, (1, 2, 3), (frame_tensor(GRAPH).id,), (1,))
    given = {frame_tensor(GRAPH).id: as_given(jpeg())}
    segment.run(given)
    segment.max_pixels = 100  # type: ignore[attr-defined]
    with pytest.raises(FrameError, match="more than the 100 allowed"):
        segment.run(given)


def test_a_segment_that_lacks_what_its_blocks_read_is_not_compiled() -> None:
    with pytest.raises(PlanError, match="block 1 needs tensors"):
        ENGINE.compile(MODEL, (1,), (), (picture_tensor(GRAPH).id,))
    with pytest.raises(PlanError, match="are not made"):
        ENGINE.compile(MODEL, (2,), (picture_tensor(GRAPH).id,), (frame_tensor(GRAPH).id,))


@pytest.mark.parametrize(
    ("tensor", "array"),
    [
        (frame_tensor(GRAPH), np.zeros((2, 2), np.uint8)),
        (frame_tensor(GRAPH), np.zeros(4, np.int8)),
        (picture_tensor(GRAPH), np.zeros((1, SIDE, SIDE, 3), np.float64)),
        (picture_tensor(GRAPH), np.zeros((1, SIDE, SIDE - 1, 3), np.uint8)),
        (network_input(GRAPH), np.zeros((1, SIDE, SIDE, 3), np.uint8)),
    ],
)
def test_a_tensor_of_another_dtype_or_shape_than_it_may_have_is_refused(tensor: Tensor, array: Array) -> None:
    with pytest.raises(WireError, match="expected"):
        over_the_wire(tensor.id, array)


def test_a_frame_above_the_most_is_refused_before_it_is_sent() -> None:
    with pytest.raises(FrameError, match="that can be sent"):
        as_sent(np.zeros(MOST_FRAME_BYTES + 1, np.uint8))
    with pytest.raises(WireError, match="at most uint8"):
        over_the_wire(frame_tensor(GRAPH).id, np.zeros(MOST_FRAME_BYTES + 1, np.uint8))


def test_the_fingerprint_is_of_the_bits_that_a_preprocessing_gives() -> None:
    tensor = network().tensors[0]
    assert fingerprint(tensor, PREPROCESS) == fingerprint(tensor, PREPROCESS)
    others = [Preprocess(PREPROCESS.size, "tf"), Preprocess(PREPROCESS.size, "torch", crop=True)]
    assert len({fingerprint(tensor, one) for one in (PREPROCESS, *others)}) == 3
    assert sample_frame().nbytes < 100_000


def costs(frame_bytes: float | None) -> Costs:
    ratios = {frame_tensor(GRAPH).id: {NONE: MOST_FRAME_BYTES / frame_bytes}} if frame_bytes else {}
    seconds = {D: (0.0, 0.01, 0.001, 1.0), E: (0.0, 0.01, 0.001, 0.5), C: (0.0, 0.01, 0.001, 0.1)}
    return Costs(seconds, Link(1e6, 0.001), Link(1e6, 0.001), codecs=CodecCosts(ratios))


@pytest.mark.parametrize(
    ("frame_bytes", "placement"),
    [(100.0, (D, C, C, C)), (1e6, (D, D, C, C)), (None, (D, D, C, C))],
    ids=["a small frame travels as it came", "a large one as its picture", "one never seen, too"],
)
def test_the_planner_sends_the_form_that_costs_least(frame_bytes: float | None, placement: Placement) -> None:
    assert exact.solve(GRAPH, costs(frame_bytes)).placement == placement
    assert baselines.cloud_only(GRAPH, costs(frame_bytes)) == placement, "a tier alone has the same choice"


def test_raw_counts_in_all_its_forms() -> None:
    for begin in (1, 2, 3):
        placement = (D,) * begin + (C,) * (len(GRAPH) - begin)
        assert broken(GRAPH, placement, costs(100.0), [RawStays(D)]) == [RawStays(D)]


def test_pictured_models_are_made_of_networks_that_take_pictures_only() -> None:
    assert isinstance(MODEL, Pictured)
    assert has_input(MODEL.graph)
