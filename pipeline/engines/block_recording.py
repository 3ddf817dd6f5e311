"""Recordings of networks: seconds of each block on classes of machines, and a sample of each tensor's values.

A replay (`pipeline.engines.replay`) waits these seconds instead of computing, and makes its tensors of these values.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import xxhash
from pydantic import Field

from pipeline import ranges
from pipeline.engines.base import Array, Engine, Loaded
from pipeline.errors import ModelError
from pipeline.files import read_bounded
from pipeline.graph import ModelGraph, Tensor
from pipeline.ranges import Name, Ratio, Seconds, Sentence

RECORDING_VERSION = 1
MOST_BYTES = 256 << 20
MOST_NETWORKS = 64
_SAMPLED = 4096
"""Values that are kept of a tensor."""
_MOST_SAMPLE_TEXT = 1 << 17
_NOISY_BITS = 16
"""Lowest bits of a float32's mantissa, which are as good as noise: drawn new for each value, so that none repeats."""


@dataclass(frozen=True, slots=True)
class MachineTimes:
    """Seconds of each block of a network on a class of machines, the input's among them with 0.0.

    A tile takes `tile_factor` times the seconds of its part of each block's map. The input's own blocks are computed in
    a replay, too, and take `decode` and `normalise` seconds at least.
    """

    seconds: Annotated[tuple[Seconds, ...], Field(min_length=1, max_length=ranges.MOST_BLOCKS)]
    tile_factor: Ratio = 1.0
    decode: Seconds = 0.0
    normalise: Seconds = 0.0


@dataclass(frozen=True, slots=True)
class NetworkRecording:
    """A network by its digest: its times by class of machines, and by tensor id the bytes of some values, in base64."""

    name: Name
    digest: Name
    machines: Annotated[Mapping[Name, MachineTimes], Field(min_length=1, max_length=ranges.MOST_NODES)]
    samples: Annotated[
        tuple[Annotated[str, Field(max_length=_MOST_SAMPLE_TEXT)], ...], Field(max_length=10 * ranges.MOST_BLOCKS)
    ]


@dataclass(frozen=True, slots=True)
class BlockRecording:
    """Recorded networks; `source` says in words where their times come from."""

    source: Sentence
    networks: Annotated[tuple[NetworkRecording, ...], Field(min_length=1, max_length=MOST_NETWORKS)]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"version": RECORDING_VERSION, **asdict(self)}

    def write(self, path: Path) -> None:
        """Write the file that `read_recording` reads. Raises OSError."""
        path.write_text(json.dumps(self.to_json()), encoding="utf-8")

    def network_of(self, graph: ModelGraph) -> NetworkRecording:
        """The recording of this network. Raises ModelError where there is none, or one of another shape."""
        found = next((network for network in self.networks if network.digest == graph.digest), None)
        if found is None:
            known = ", ".join(f"{network.name} {network.digest}" for network in self.networks[:4])
            raise ModelError(
                f"model {graph.name!r} ({graph.digest}) was not recorded, so it cannot be replayed; "
                f"the recording has {known}"
            )
        lengths = {len(times.seconds) for times in found.machines.values()}
        if lengths != {len(graph)} or len(found.samples) != len(graph.tensors):
            raise ModelError(
                f"the recording of {graph.name!r} has {sorted(lengths)} blocks and {len(found.samples)} tensors, the "
                f"model {len(graph)} and {len(graph.tensors)}; record it again"
            )
        return found


def read_recording(path: Path) -> tuple[BlockRecording, str]:
    """A recording, and the XXH3 of its file, which names it. Raises ModelError for a file that is none."""
    try:
        content = read_bounded(path, MOST_BYTES)
        value = json.loads(content)
    except OSError as error:
        raise ModelError(f"recording {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise ModelError(f"recording {path} is not JSON: {str(error)[:200]}") from error
    ranges.require_version(value, RECORDING_VERSION, error=ModelError, what="recording")
    held = {key: part for key, part in value.items() if key != "version"}
    recording = ranges.read(BlockRecording, held, error=ModelError, what="a recording")
    return recording, xxhash.xxh3_64_hexdigest(content)


def samples_of(tensors: Mapping[int, Array], graph: ModelGraph) -> tuple[str, ...]:
    """Samples of each tensor of a network, as a recording has them; empty where `tensors` has none."""
    return tuple(_sample(tensors[t.id]) if t.id in tensors else "" for t in graph.tensors)


def _sample(array: Array) -> str:
    values = array.reshape(-1)
    drawn = np.random.default_rng(0).choice(values, _SAMPLED) if values.size > _SAMPLED else values
    return base64.b64encode(np.ascontiguousarray(drawn).tobytes()).decode()


def content_of(tensor: Tensor, sample: str) -> Array:
    """An array of the tensor's shape, read-only, of the values in its sample: as many zeros, the same exponents.

    Codecs shrink it as they do the recorded one. Zeros where there is no sample. Raises ModelError for a sample that
    is none of the tensor's dtype.
    """
    kind = np.dtype(tensor.dtype)
    try:
        values = np.frombuffer(base64.b64decode(sample, validate=True), kind)
    except (binascii.Error, ValueError) as error:
        raise ModelError(f"recording: the sample of tensor {tensor.id} ({tensor.name!r}): {error}") from error
    if not values.size:
        made = np.zeros(tensor.shape, kind)
    else:
        draw = np.random.default_rng(tensor.id)
        made = draw.choice(values, tensor.shape)
        if kind == np.float32:
            bits = made.view(np.uint32)
            noise = draw.integers(0, 1 << _NOISY_BITS, tensor.shape, np.uint32)
            np.copyto(bits, (bits >> _NOISY_BITS << _NOISY_BITS) | noise, where=bits != 0)
    made.flags.writeable = False
    return made


def computed_tensors(engine: Engine, model: Loaded, given: Mapping[int, Array]) -> dict[int, Array]:
    """All tensors of a network that is given these inputs, each block computed by itself."""
    graph, known = model.graph, dict(given)
    for block in graph.blocks[1:]:
        known |= engine.compile(model, (block.index,), block.inputs, block.outputs).run(known)
    return known
