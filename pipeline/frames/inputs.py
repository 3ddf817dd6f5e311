"""From one frame to all inputs of a model. Bytes in, arrays or FrameError out."""

from __future__ import annotations

from pipeline.errors import FrameError
from pipeline.frames.decode import MAX_PIXELS, Array, Preprocess, decode, to_input
from pipeline.frames.input_blocks import as_given, has_input
from pipeline.frames.packed import fields
from pipeline.graph import ModelGraph


def to_given(
    frame: bytes | Array, graph: ModelGraph, preprocess: Preprocess, max_pixels: int = MAX_PIXELS
) -> dict[int, Array]:
    """A frame as its graph's segments take it, by tensor id: as it came where the graph reads it, else `to_inputs`."""
    if has_input(graph):
        return {graph.inputs[0]: as_given(frame)}
    return to_inputs(frame, graph, preprocess, max_pixels)


def to_inputs(
    frame: bytes | Array, graph: ModelGraph, preprocess: Preprocess, max_pixels: int = MAX_PIXELS
) -> dict[int, Array]:
    """Each input of the model by tensor id, in its exact shape and dtype.

    A model with one input takes any frame that `decode` reads, or an array. One with several takes a msgpack map from
    each input's name to a map of dtype, shape and data. Raises FrameError, also for an image above `max_pixels`.
    """
    if len(graph.inputs) == 1:
        tensor = graph.tensors[graph.inputs[0]]
        return {tensor.id: to_input(_decoded(frame, max_pixels), tensor, preprocess)}
    parts = _parts(frame, graph)
    return {
        tensor: to_input(
            decode(parts[graph.tensors[tensor].name], max_pixels=max_pixels), graph.tensors[tensor], preprocess
        )
        for tensor in graph.inputs
    }


def _decoded(frame: bytes | Array, max_pixels: int) -> Array:
    return decode(frame, max_pixels=max_pixels) if isinstance(frame, bytes) else frame


def _parts(frame: bytes | Array, graph: ModelGraph) -> dict[str, bytes]:
    names = [graph.tensors[tensor].name for tensor in graph.inputs]
    wanted = f"model {graph.name!r} has {len(names)} inputs: send a msgpack map with {', '.join(names)}"
    if not isinstance(frame, bytes):
        raise FrameError(f"{wanted}, not a single array")
    try:
        parts = dict(fields(frame))
        return {name: parts[name] for name in names}
    except KeyError as error:
        raise FrameError(f"{wanted}; {error} is missing") from error
    except Exception as error:  # msgpack raises many kinds on bytes that are not msgpack, and TypeError on other values
        raise FrameError(f"{wanted}; these {len(frame):,} bytes are none: {type(error).__name__}: {error}") from error
