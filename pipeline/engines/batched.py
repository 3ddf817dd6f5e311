"""Segments that run frames together where that saves time: each is begun alone, and several are finished at once.

What is finished together has the bits that it has alone; a segment that cannot promise that, or gains nothing by it,
says 1 for its `batch`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from pipeline.engines.base import Array, Segment

Begun: TypeAlias = dict[int, Array]
"""What `finish` goes on with, by tensor id, the inputs that it needs among them."""


class Batched:
    """The base of such segments. Run it from one thread at a time."""

    inputs: tuple[int, ...] = ()
    outputs: tuple[int, ...] = ()
    batch: int = 1
    """Frames that `finish` takes at best; more are taken in turns."""

    def begin(self, tensors: Mapping[int, Array]) -> Begun:
        """Run the first part, of which frames gain nothing together. Raises as `Segment.run` does."""
        raise NotImplementedError

    def finish(self, begun: Sequence[Begun]) -> list[dict[int, Array]]:
        """Run the rest. Returns the outputs of each, in order."""
        raise NotImplementedError

    def run(self, tensors: Mapping[int, Array]) -> dict[int, Array]:
        """Outputs by id of one frame."""
        return self.finish([self.begin(tensors)])[0]


def batch_of(segment: Segment | None) -> int:
    """Frames that a segment runs together at best."""
    return segment.batch if isinstance(segment, Batched) else 1


def begin(segment: Segment, tensors: Mapping[int, Array]) -> Begun:
    """Begin a frame on any segment."""
    return segment.begin(tensors) if isinstance(segment, Batched) else segment.run(tensors)


def finish(segment: Segment, begun: Sequence[Begun]) -> list[dict[int, Array]]:
    """Finish frames on any segment."""
    return segment.finish(begun) if isinstance(segment, Batched) else [*begun]
