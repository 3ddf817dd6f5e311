"""Which codec a tensor is sent with: the one that costs least on its way, from what codecs take and save. Pure.

A tensor is published once, for all its readers, so it has one codec from its sender to its furthest reader: between two
neighbouring tiers, or from the device through the broker to the cloud over both links. An output goes back to the
device by itself, from the tier that makes it. For each of these five ways the choice depends on nothing else that a
plan decides, so to a planner it is a constant.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from pipeline import ranges
from pipeline.codecs import CODECS, NONE
from pipeline.energy import NO_DRAW, Draw
from pipeline.errors import ModelError
from pipeline.graph import Tensor
from pipeline.placement import Tier
from pipeline.ranges import Rate, Seconds

Amount = TypeVar("Amount", float, npt.NDArray[np.float64])
Way: TypeAlias = tuple[Tier, Tier]
"""From a tensor's sender to its furthest reader."""
WAYS: Sequence[Way] = ((Tier.DEVICE, Tier.EDGE), (Tier.DEVICE, Tier.CLOUD), (Tier.EDGE, Tier.CLOUD))
"""Of tensors that cross."""
BACK: Sequence[Way] = ((Tier.EDGE, Tier.DEVICE), (Tier.CLOUD, Tier.DEVICE))
"""Of outputs to the device."""
LEAST_LATENCY = 1e-6
"""Weight of latency where an objective has none: of codecs that are equally good, the quickest."""


def over(lower: Tier) -> list[Way]:
    """The ways that lead up the link above `lower`."""
    return [way for way in WAYS if lower in links_of(way)]


def back_over(lower: Tier) -> list[Way]:
    """The ways that lead down it."""
    return [way for way in BACK if lower in links_of(way)]


def links_of(way: Way) -> list[Tier]:
    """The links on a way, by their lower tiers."""
    return [lower for lower in (Tier.DEVICE, Tier.EDGE) if min(way) <= lower < max(way)]


@dataclass(frozen=True, slots=True)
class PlannedCodecs:
    """The codecs of a plan, by tensor id: of the `tensors` that cross, and of the outputs (`results`) that go back to
    the device. What is in neither goes as it is.
    """

    tensors: Mapping[int, str] = field(default_factory=lambda: MappingProxyType({}))
    results: Mapping[int, str] = field(default_factory=lambda: MappingProxyType({}))

    def on(self, tensor: int, way: Way) -> str:
        """The codec of a tensor on one of its ways."""
        return (self.results if way in BACK else self.tensors).get(tensor, NONE)

    @property
    def names(self) -> set[str]:
        """All codecs that are used."""
        return {*self.tensors.values(), *self.results.values()}


@dataclass(frozen=True, slots=True)
class CodecSpeed:
    """What a codec reaches on one machine: bytes per second of the tensor as it is, not as it is sent, and seconds that
    a call takes whatever the size, for which small tensors go as they are.
    """

    encode_bytes_per_s: Rate
    decode_bytes_per_s: Rate
    encode_call_s: Seconds = 0.0
    decode_call_s: Seconds = 0.0

    def encode_s(self, nbytes: Amount) -> Amount:
        """Seconds to encode a tensor of so many bytes, or each of several."""
        return nbytes / self.encode_bytes_per_s + self.encode_call_s

    def decode_s(self, nbytes: Amount) -> Amount:
        """Seconds to decode it again."""
        return nbytes / self.decode_bytes_per_s + self.decode_call_s

    def to_json(self) -> dict[str, float]:
        """Plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> CodecSpeed:
        """Read it back. Raises ModelError for anything else."""
        return ranges.read(cls, value, error=ModelError, what="a codec's speed")


@dataclass(frozen=True, slots=True)
class CodecCosts:
    """What is known of codecs: `ratios[tensor][codec]`, how many times fewer bytes, and `speeds[tier][codec]`.

    A codec that has no ratio for a tensor, or that a node has no speed for, is not used there. The ratio of `none` is
    that of a tensor that varies: how many times fewer bytes than the most it has. Without one, it counts as the most.
    """

    ratios: Mapping[int, Mapping[str, float]] = field(default_factory=lambda: MappingProxyType({}))
    speeds: Mapping[Tier, Mapping[str, CodecSpeed]] = field(default_factory=lambda: MappingProxyType({}))
    _able: dict[tuple[Tensor, Way], tuple[Coding, ...]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    """Computed once: a planner asks for them for each link's rate and each placement."""

    def able(self, tensor: Tensor, way: Way) -> tuple[Coding, ...]:
        """The tensor with each codec that shrinks it and is known to all nodes on the way."""
        key = (tensor, way)
        found = self._able.get(key)
        if found is None:
            found = self._able[key] = tuple(self._codings(tensor, way))
        return found

    def on_way(self, way: Way) -> list[Mapping[str, CodecSpeed]]:
        """The speeds of the nodes that have to know a tensor's codec: those at both ends, and an edge node on the way
        up to the cloud, which may read it, too.
        """
        return [speeds for tier, speeds in self.speeds.items() if tier in way or way[0] < tier < way[1]]

    def _codings(self, tensor: Tensor, way: Way) -> Iterator[Coding]:
        if way[0] not in self.speeds or way[1] not in self.speeds:
            return
        on_way = self.on_way(way)
        for codec, ratio in self.ratios.get(tensor.id, {}).items():
            if ratio > 1 and codec in CODECS and all(codec in speeds for speeds in on_way):
                yield Coding(
                    codec,
                    math.ceil(tensor.nbytes / ratio),
                    self.speeds[way[0]][codec].encode_s(tensor.nbytes),
                    self.speeds[way[1]][codec].decode_s(tensor.nbytes),
                )


@dataclass(frozen=True, slots=True)
class CodingWorth:
    """Weights by which a codec is chosen: of a second of a frame's latency, of a second in which the busiest of coder
    and link is taken, of a byte between edge and cloud, and of a joule.
    """

    latency: float = 1.0
    period: float = 0.0
    backbone_byte: float = 0.0
    energy: float = 0.0


QUICKEST = CodingWorth()


@dataclass(frozen=True, slots=True)
class Coding:
    """One tensor on one way: its codec, the bytes that this makes of it, and seconds at either end."""

    codec: str
    nbytes: int
    encode_s: float = 0.0
    decode_s: float = 0.0

    def joules(self, sender: Draw, reader: Draw) -> float:
        """Joules of both ends: to encode, send, receive and decode."""
        return sender.joules(self.encode_s, self.nbytes) + reader.joules(self.decode_s, self.nbytes)


def least(
    tensor: Tensor,
    way: Way,
    known: CodecCosts | None,
    bandwidths: Mapping[Tier, float],
    worth: CodingWorth,
    draws: Mapping[Tier, Draw] = MappingProxyType({}),
) -> Coding:
    """The cheapest coding of a tensor; `bandwidths` in bytes per second, by a link's lower tier."""
    able = known.able(tensor, way) if known is not None else ()
    if not able:
        return _plain(tensor, known)
    crossed = [bandwidths[lower] for lower in links_of(way)]
    backbone_byte = worth.backbone_byte if Tier.CLOUD in way else 0.0
    sender, reader = (draws.get(tier, NO_DRAW) for tier in way)

    def cost(coding: Coding) -> float:
        sent_s = [coding.nbytes / bandwidth for bandwidth in crossed]
        busiest_s = max(coding.encode_s, coding.decode_s, *sent_s)
        return (
            worth.latency * (coding.encode_s + sum(sent_s) + coding.decode_s)
            + worth.period * busiest_s
            + backbone_byte * coding.nbytes
            + worth.energy * coding.joules(sender, reader)
        )

    return min((_plain(tensor, known), *able), key=cost)


def fewest(tensor: Tensor, way: Way, known: CodecCosts | None) -> int:
    """Bytes of the tensor with whichever codec makes fewest of it."""
    able = known.able(tensor, way) if known is not None else ()
    return min([_plain(tensor, known).nbytes, *(coding.nbytes for coding in able)])


def given(tensor: Tensor, way: Way, known: CodecCosts | None, codec: str) -> Coding:
    """The tensor with this codec; as it is where nothing is known of the codec."""
    able = known.able(tensor, way) if known is not None else ()
    return next((coding for coding in able if coding.codec == codec), _plain(tensor, known))


def _plain(tensor: Tensor, known: CodecCosts | None) -> Coding:
    """The tensor as it is."""
    ratio = known.ratios.get(tensor.id, {}).get(NONE, 1.0) if known is not None and tensor.varies else 1.0
    return Coding(NONE, math.ceil(tensor.nbytes / ratio))
