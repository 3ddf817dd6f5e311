"""How far codecs shrink a stream's tensors: as its frames show, else as a node saw when it profiled the model. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from nodes.protocol.messages import TensorRatio
from nodes.protocol.reports import FRAME_WORK
from pipeline.codecs import CODECS, NONE
from pipeline.frames.input_blocks import USUAL_FRAME_BYTES, frame_tensor, has_input
from pipeline.graph import ModelGraph, Tensor
from pipeline.profiling.profile import Profile

ByTensor: TypeAlias = Mapping[int, Mapping[str, float]]
"""Of each tensor, how many times fewer bytes each codec makes of it."""
_NAMED = 3


@dataclass(slots=True)
class Ratios:
    """Of one stream. `assumed` is what its plans go by; it changes when something has left the band around it."""

    assumed: ByTensor = field(default_factory=dict)
    _seen: dict[int, dict[str, float]] = field(default_factory=dict)

    def learn(self, found: TensorRatio, band: float) -> bool:
        """Take the running mean that a node reports; True if it is new, or has left the band around what is assumed."""
        if found.codec not in CODECS and found.codec not in {NONE, FRAME_WORK}:
            return False
        self._seen.setdefault(found.tensor, {})[found.codec] = found.ratio
        was = self.assumed.get(found.tensor, {}).get(found.codec)
        return was is None or abs(found.ratio - was) > band * was

    def frame_work(self, graph: ModelGraph) -> float:
        """How many times the test picture's seconds a frame of the stream takes to decode; 1 before any was seen."""
        known = self.assumed.get(frame_tensor(graph).id, {}) if has_input(graph) else {}
        return 1 / known.get(FRAME_WORK, 1.0)

    def assume(self, graph: ModelGraph, profile: Profile | None, band: float) -> tuple[str, ...]:
        """Go by what is known now, if that is more than before or differs by the band. Returns what does, in words."""
        now = self._known(graph, profile)
        shape = {tensor: codecs.keys() for tensor, codecs in now.items()}
        differs = tuple(self._differences(graph, now, band))
        if shape != {tensor: codecs.keys() for tensor, codecs in self.assumed.items()} or differs:
            self.assumed = now
        return differs

    def _known(self, graph: ModelGraph, profile: Profile | None) -> dict[int, dict[str, float]]:
        known: dict[int, dict[str, float]] = {}
        if has_input(graph):
            frame = frame_tensor(graph)
            known[frame.id] = {NONE: frame.nbytes / USUAL_FRAME_BYTES, FRAME_WORK: 1.0}
        for codec, ratios in profile.ratios.items() if profile is not None else ():
            for tensor, ratio in enumerate(ratios[: len(graph.tensors)]):
                if codec in CODECS and ratio > 1:
                    known.setdefault(tensor, {})[codec] = ratio
        for tensor, seen in self._seen.items():
            if tensor < len(graph.tensors):
                known.setdefault(tensor, {}).update(seen)
        return known

    def _differences(self, graph: ModelGraph, now: ByTensor, band: float) -> Iterator[str]:
        left = [
            _difference(graph.tensors[tensor], codec, ratio, was)
            for tensor, codecs in now.items()
            for codec, ratio in codecs.items()
            if (was := self.assumed.get(tensor, {}).get(codec)) is not None and abs(ratio - was) > band * was
        ]
        yield from left[:_NAMED]


def _difference(tensor: Tensor, codec: str, ratio: float, was: float) -> str:
    if codec == NONE:
        return f"frames have {tensor.nbytes / ratio / 1e3:.3g} kB, not {tensor.nbytes / was / 1e3:.3g}"
    if codec == FRAME_WORK:
        return f"frames take {1 / ratio:.3g} times the test picture to decode, not {1 / was:.3g}"
    return f"{tensor.name} shrinks {ratio:.3g} times with {codec}, not {was:.3g}"
