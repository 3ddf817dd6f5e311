"""The input's own blocks: a frame as it came, then its picture of bytes, then the network's input.

They stand before the network in its graph and are placed like all others, so that a frame may travel in whichever of
the three forms costs least. A network that takes no picture has none: there the device reads the frame.

    0  frame            the frame's own bytes: an image file, or an array with its header
    1  frame_decode     decoded, turned upright and resized: uint8 of the input's shape
    2  frame_normalise  the network's input
"""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np

from pipeline.errors import FrameError
from pipeline.frames.decode import MAX_PIXELS, Array, Preprocess, decode, is_picture, to_picture
from pipeline.graph import Block, ModelGraph, Tensor

FRAME, DECODE, NORMALISE = range(3)
ADDED = NORMALISE
"""Blocks that come before the network's own, which keep their order; its tensors keep their ids."""
KIND_DECODE, KIND_NORMALISE = "FrameDecode", "FrameNormalise"
KINDS = frozenset({KIND_DECODE, KIND_NORMALISE})
MOST_FRAME_BYTES = 64 << 20
"""As much as its topic takes."""
USUAL_FRAME_BYTES = 50_000
"""Of a photo of 640x480 as JPEG: taken for a frame's size until frames have been seen."""


def with_input(graph: ModelGraph) -> ModelGraph:
    """The network's graph with the input's blocks before it; the same graph where it has them, or takes no picture.

    The digest stays the network's: what is added follows from its graph alone.
    """
    if len(graph.inputs) != 1 or has_input(graph) or not is_picture(graph.tensors[graph.inputs[0]]):
        return graph
    given = graph.tensors[graph.inputs[0]]
    frame = Tensor(len(graph.tensors), "frame", (MOST_FRAME_BYTES,), "uint8", varies=True)
    pixels = Tensor(len(graph.tensors) + 1, "frame_picture", given.shape, "uint8", or_dtype=given.dtype)
    blocks = [
        Block(FRAME, "frame", "input", (), (), (frame.id,)),
        Block(DECODE, "frame_decode", KIND_DECODE, (), (frame.id,), (pixels.id,)),
        replace(
            graph.blocks[0],
            index=NORMALISE,
            name="frame_normalise",
            kind=KIND_NORMALISE,
            layers=tuple(dict.fromkeys((graph.blocks[0].name, *graph.blocks[0].layers))),
            inputs=(pixels.id,),
        ),
        *(replace(block, index=block.index + ADDED) for block in graph.blocks[1:]),
    ]
    return replace(graph, tensors=(*graph.tensors, frame, pixels), blocks=tuple(blocks), inputs=(frame.id,))


def has_input(graph: ModelGraph) -> bool:
    """True for a graph that begins with the input's own blocks."""
    return len(graph) > NORMALISE and graph.blocks[DECODE].kind == KIND_DECODE


def first_block(graph: ModelGraph) -> int:
    """Index of the first block that is the network's own."""
    return NORMALISE + 1 if has_input(graph) else 1


def frame_tensor(graph: ModelGraph) -> Tensor:
    """The frame's own bytes, in a graph with the input's blocks."""
    return graph.tensors[graph.blocks[FRAME].outputs[0]]


def picture_tensor(graph: ModelGraph) -> Tensor:
    """The resized picture, in a graph with the input's blocks."""
    return graph.tensors[graph.blocks[DECODE].outputs[0]]


def network_input(graph: ModelGraph) -> Tensor:
    """The network's own input, in a graph with the input's blocks."""
    return graph.tensors[graph.blocks[NORMALISE].outputs[0]]


def own_inputs(graph: ModelGraph) -> list[Tensor]:
    """The network's own inputs, in its order, whether the input's blocks stand before them or not."""
    return [network_input(graph)] if has_input(graph) else [graph.tensors[tensor] for tensor in graph.inputs]


def as_given(payload: bytes | Array) -> Array:
    """A frame as a segment takes it: encoded bytes as uint8 of one axis, not copied; an array as it is."""
    return np.frombuffer(payload, np.uint8) if isinstance(payload, bytes) else payload


def as_sent(frame: Array) -> Array:
    """A frame as it travels: uint8 of one axis, an array with NumPy's header before it.

    Raises FrameError for more than MOST_FRAME_BYTES.
    """
    if not (frame.ndim == 1 and frame.dtype == np.uint8):
        file = io.BytesIO()
        np.lib.format.write_array(file, frame, allow_pickle=False)
        frame = np.frombuffer(file.getbuffer(), np.uint8)
    if frame.nbytes > MOST_FRAME_BYTES:
        raise FrameError(f"a frame of {frame.nbytes:,} bytes, more than the {MOST_FRAME_BYTES:,} that can be sent")
    return frame


def decoded(frame: Array, tensor: Tensor, preprocess: Preprocess, max_pixels: int = MAX_PIXELS) -> Array:
    """What the block `frame_decode` makes of a frame for the network's input `tensor`. Raises FrameError."""
    is_encoded = frame.ndim == 1 and frame.dtype == np.uint8
    return to_picture(decode(frame.tobytes(), max_pixels=max_pixels) if is_encoded else frame, tensor, preprocess)
