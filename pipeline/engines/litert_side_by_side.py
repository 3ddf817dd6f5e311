"""LiteRT's segments for several frames at once, each on a thread of its own instead of all threads for each in turn.

A frame's small maps cannot keep several threads busy, frames can. A kernel's sums do not depend on the number of
threads, so bits are equal; each segment proves that on a seeded frame before it is used so, and measures its gain.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Final

from pipeline.engines.base import Array, Segment
from pipeline.engines.batched import Batched, Begun
from pipeline.engines.checks import noise
from pipeline.graph import ModelGraph

_log = logging.getLogger(__name__)

LEAST_GAIN = 1.1
"""Times as fast as one by one, at least, to be worth the memory."""
_MOST_ROUNDS: Final = 5
_MOST_S: Final = 1.0


class SideBySideSegment(Batched):
    """Blocks that run on all threads for one frame, and on one thread each for several: `whole`, or `singles`.

    `batch` is 1 where a single thread makes other bits, or frames gain less than LEAST_GAIN; the log says so.
    """

    def __init__(
        self,
        graph: ModelGraph,
        whole: Segment,
        singles: Sequence[Segment],
        *,
        batch: int,
        inputs: tuple[int, ...],
        outputs: tuple[int, ...],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.inputs, self.outputs = inputs, outputs
        self._whole, self._singles, self._clock = whole, tuple(singles), clock
        self._threads = ThreadPoolExecutor(len(self._singles), thread_name_prefix="side-by-side")
        given = {t: noise(graph.tensors[t]) for t in inputs}
        if (differs := self._differing(given)) is not None:
            name = graph.tensors[differs].name
            _log.warning("%s: frames run one by one: tensor %s has other bits on one thread", graph.name, name)
        elif (gain := self._gain(given)) < LEAST_GAIN:
            _log.info("%s: frames run one by one: side by side they are %.2f times as fast", graph.name, gain)
        else:
            self.batch = batch
            _log.info("%s: %d frames run side by side, %.2f times as fast", graph.name, len(self._singles), gain)

    def begin(self, tensors: Mapping[int, Array]) -> Begun:
        """Keep a frame's inputs: all of it runs next to others."""
        return {t: tensors[t] for t in self.inputs if t in tensors}

    def finish(self, begun: Sequence[Begun]) -> list[dict[int, Array]]:
        """Run the frames, as many at a time as there are threads; a single one on all of them. Raises PlanError."""
        found: list[dict[int, Array]] = []
        for at in range(0, len(begun), len(self._singles)):
            some = begun[at : at + len(self._singles)]
            found += [self._whole.run(some[0])] if len(some) == 1 else self._side_by_side(some)
        return found

    def _side_by_side(self, some: Sequence[Begun]) -> list[dict[int, Array]]:
        running = [self._threads.submit(single.run, one) for single, one in zip(self._singles, some, strict=False)]
        wait(running)  # also where one fails: no segment may run in two threads at once
        return [one.result() for one in running]

    def _differing(self, given: Begun) -> int | None:
        """The first output that has other bits on one thread than on all, None where none has."""
        wanted = {t: array.tobytes() for t, array in self._whole.run(given).items()}
        for made in self._side_by_side([given] * len(self._singles)):
            for tensor, array in made.items():
                if array.tobytes() != wanted[tensor]:
                    return tensor
        return None

    def _gain(self, given: Begun) -> float:
        """Times as fast as one by one, the best of some rounds in turn: what else runs here can only slow them down."""
        some, ended = [given] * len(self._singles), self._clock() + _MOST_S
        alone: list[float] = []
        beside: list[float] = []
        while not alone or (len(alone) < _MOST_ROUNDS and self._clock() < ended):
            alone.append(self._seconds(lambda: [self._whole.run(one) for one in some]))
            beside.append(self._seconds(lambda: self._side_by_side(some)))
        return min(alone) / max(min(beside), 1e-9)

    def _seconds(self, work: Callable[[], object]) -> float:
        began = self._clock()
        work()
        return self._clock() - began
