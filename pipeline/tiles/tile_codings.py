"""Which codec a stack's tiles are sent with, and what it takes and saves: constants by tensor in a worker pool. Pure.

As with the tensors of a cut (`pipeline.coding`), the codec of a tensor depends on nothing else that a plan decides: it
is the one with which a tile of it costs least on the way between the coordinator and the workers' mean.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pipeline.codecs import CODECS, NONE
from pipeline.graph import ModelGraph, Tensor
from pipeline.tiles.tiling import TensorCodec, Tiling
from pipeline.tiles.worker_pool import Floats, Ints, Moved, WorkerPool


@dataclass(frozen=True, slots=True)
class TileCoder:
    """What one codec makes of one tensor's tiles: `fewer` times the bytes, and seconds of a byte of the tensor as it
    is, and of a call.

    The workers' seconds are by member of the pool, the coordinator first and nobody last.
    """

    fewer: float
    coordinator_s: tuple[float, float]
    workers_s: tuple[Floats, Floats]
    is_back: bool

    def moved(self, members: Ints, nbytes: Floats) -> Moved:
        """Tiles of so many bytes, `[..., layout, tile]`, between the coordinator and these members."""
        calls, (byte_s, call_s), (their_byte_s, their_call_s) = nbytes > 0, self.coordinator_s, self.workers_s
        at_coordinator = nbytes * byte_s + calls * call_s
        at_worker = nbytes * their_byte_s[members] + calls * their_call_s[members]
        ends = (at_worker, at_coordinator) if self.is_back else (at_coordinator, at_worker)
        return Moved(nbytes * self.fewer, *ends)


def coder(pool: WorkerPool, tensor: Tensor, codec: str, *, is_back: bool) -> TileCoder:
    """The codec's costs in this pool; those of the tensor as it is where one of the pool does not know it."""
    ratio = dict(_able(pool, tensor)).get(codec)
    members = (pool.coordinator, *pool.workers)
    if ratio is None:
        nothing = np.zeros(len(members) + 1)
        return TileCoder(1.0, (0.0, 0.0), (nothing, nothing), is_back)
    speeds = [member.codecs[codec] for member in members]
    encode_s = [(1 / speed.encode_bytes_per_s, speed.encode_call_s) for speed in speeds]
    decode_s = [(1 / speed.decode_bytes_per_s, speed.decode_call_s) for speed in speeds]
    here_s, there_s = (decode_s, encode_s) if is_back else (encode_s, decode_s)
    byte_s, call_s = np.array([*there_s, (0.0, 0.0)]).T
    return TileCoder(1 / ratio, here_s[0], (byte_s, call_s), is_back)


def cheapest(pool: WorkerPool, tensor: Tensor, *, is_back: bool) -> str:
    """The codec with which the tensor's tiles cost least on their way there or back."""
    known = pool.chosen.get((tensor.id, is_back))
    if known is None:
        able = [NONE, *(codec for codec, _ in _able(pool, tensor))]
        known = min(able, key=lambda codec: _cost(pool, tensor, codec, is_back=is_back)) if len(able) > 1 else NONE
        pool.chosen[tensor.id, is_back] = known
    return known


def cheapest_coder(pool: WorkerPool, tensor: Tensor, *, is_back: bool) -> TileCoder:
    """The costs of the tensor's cheapest codec."""
    return coder(pool, tensor, cheapest(pool, tensor, is_back=is_back), is_back=is_back)


def coded(graph: ModelGraph, pool: WorkerPool, tiling: Tiling) -> Tiling:
    """The tiling with the cheapest codecs of its stack's inputs and output."""
    if not pool.ratios:
        return tiling.uncoded
    stack = tiling.stack(graph)
    ways = [*((tensor, False) for tensor in stack.inputs), (stack.output, True)]
    found = ((t, cheapest(pool, graph.tensors[t], is_back=is_back)) for t, is_back in ways)
    return replace(tiling, codecs=tuple(TensorCodec(tensor, codec) for tensor, codec in found if codec != NONE))


def _able(pool: WorkerPool, tensor: Tensor) -> Iterator[tuple[str, float]]:
    """The codecs that shrink the tensor and that all of the pool know, with how many times fewer bytes they make."""
    for codec, ratio in pool.ratios.get(tensor.id, {}).items():
        if ratio > 1 and codec in CODECS and all(codec in m.codecs for m in (pool.coordinator, *pool.workers)):
            yield codec, ratio


def _cost(pool: WorkerPool, tensor: Tensor, codec: str, *, is_back: bool) -> float:
    """What `pipeline.coding.least` makes least, of the tensor's whole bytes and the mean of the workers."""
    used, worth, workers = coder(pool, tensor, codec, is_back=is_back), pool.worth, pool.workers
    nbytes = tensor.nbytes * used.fewer
    (byte_s, call_s), theirs = used.coordinator_s, used.workers_s
    here_s = tensor.nbytes * byte_s + call_s
    there_s = (
        sum(float(s[1:-1].mean()) * times for s, times in zip(theirs, (tensor.nbytes, 1), strict=True))
        if workers
        else 0.0
    )
    own_link_s = nbytes / (pool.coordinator.down_bytes_per_s if is_back else pool.coordinator.up_bytes_per_s)
    their_link_s = nbytes * _mean([1 / (w.up_bytes_per_s if is_back else w.down_bytes_per_s) for w in workers])
    joules = pool.coordinator.draw.joules(here_s, nbytes) + _mean([w.draw.joules(there_s, nbytes) for w in workers])
    return (
        worth.latency * (here_s + own_link_s + their_link_s + there_s)
        + worth.period * max(here_s, own_link_s, their_link_s, there_s)
        + worth.energy * joules
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
