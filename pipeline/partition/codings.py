"""What each tensor takes on each way that it may go, as arrays: the constants of a program. Knows no placement."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.codecs import CODECS, NONE
from pipeline.coding import WAYS, CodecCosts, CodecSpeed, Way
from pipeline.cost import LINKS, Costs
from pipeline.graph import ModelGraph
from pipeline.partition.objective import MEGABYTE, Objective
from pipeline.placement import Tier

_ROUNDING = 1e-12
"""Of a tensor's sum over two links: without codecs the parts add up to the whole."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class WayCosts:
    """By tensor id: bytes as they are sent, seconds to encode at one end and to decode at the other."""

    nbytes: Floats
    encode_s: Floats
    decode_s: Floats

    def take(self, other: WayCosts, where: npt.NDArray[np.bool_]) -> None:
        """Replace the tensors `where` that is true."""
        for own, others in zip(self._arrays, other._arrays, strict=True):
            np.copyto(own, others, where=where)

    @property
    def _arrays(self) -> tuple[Floats, Floats, Floats]:
        return self.nbytes, self.encode_s, self.decode_s


@dataclass(frozen=True, slots=True)
class Codings:
    """The ways of all tensors under some costs; `is_coded` if any has a codec on any."""

    ways: Mapping[Way, WayCosts]
    is_coded: bool

    @classmethod
    def under(cls, graph: ModelGraph, costs: Costs, nbytes: Floats | None = None) -> Codings:
        """Each tensor with its cheapest codec on each way; `nbytes` are the tensors', where they are at hand."""
        sizes = np.array([float(tensor.nbytes) for tensor in graph.tensors]) if nbytes is None else nbytes
        if costs.fixed is not None:
            return cls._given(graph, costs, sizes)
        plain, fewer = sizes, dict[str, Floats]()
        if costs.codecs is not None and costs.codecs.ratios:
            fewer = _ratios(graph, costs.codecs)
            varies = np.array([tensor.varies for tensor in graph.tensors])
            plain = np.where(varies, np.ceil(sizes / fewer.pop(NONE)), sizes)
        found = {way: _cheapest(costs, way, plain, sizes, fewer) for way in WAYS}
        return cls({way: taken for way, (taken, _) in found.items()}, any(coded for _, coded in found.values()))

    @classmethod
    def _given(cls, graph: ModelGraph, costs: Costs, sizes: Floats) -> Codings:
        ways = {way: WayCosts(sizes.copy(), np.zeros(len(sizes)), np.zeros(len(sizes))) for way in WAYS}
        is_coded = False
        for way, taken in ways.items():
            for tensor in graph.tensors:
                coding = costs.coding(tensor, way)
                is_coded |= coding.codec != NONE
                taken.nbytes[tensor.id] = coding.nbytes
                taken.encode_s[tensor.id], taken.decode_s[tensor.id] = coding.encode_s, coding.decode_s
        return cls(ways, is_coded)

    def seconds(self, costs: Costs, way: Way) -> Floats:
        """To encode, send over all links of the way, and decode; without the links' latency."""
        return _seconds(self.ways[way], costs, way)

    def worth(self, costs: Costs, objective: Objective, way: Way) -> Floats:
        """What each tensor adds to an objective on a way, but for the period."""
        per_byte = objective.backbone / MEGABYTE
        return (
            objective.latency * self.seconds(costs, way)
            + per_byte * self.backbone(way)
            + objective.energy * _joules(self.ways[way], costs, way)
        )

    def backbone(self, way: Way) -> Floats:
        """Bytes between edge and cloud."""
        nbytes = self.ways[way].nbytes
        return nbytes if way[1] is Tier.CLOUD else np.zeros_like(nbytes)


def _ratios(graph: ModelGraph, known: CodecCosts) -> dict[str, Floats]:
    """By codec, `none` among them, how many times fewer bytes it makes of each tensor; 1 where that is not known."""
    found = {NONE: np.ones(len(graph.tensors))}
    for tensor, by_codec in known.ratios.items():
        for codec, ratio in by_codec.items() if tensor < len(graph.tensors) else ():
            if codec in CODECS or codec == NONE:
                found.setdefault(codec, np.ones(len(graph.tensors)))[tensor] = ratio
    return found


def _cheapest(
    costs: Costs, way: Way, plain: Floats, sizes: Floats, fewer: Mapping[str, Floats]
) -> tuple[WayCosts, bool]:
    """Each tensor as `pipeline.coding.least` sends it, and whether any is coded."""
    taken = WayCosts(plain.copy(), np.zeros_like(plain), np.zeros_like(plain))
    if not fewer or costs.codecs is None:
        return taken, False
    least, is_coded = _worth(taken, costs, way), False
    for codec, (encoder, decoder) in _on_way(costs.codecs, way, fewer):
        ratios = fewer[codec]
        coded = WayCosts(
            np.ceil(sizes / ratios), sizes / encoder.encode_bytes_per_s, sizes / decoder.decode_bytes_per_s
        )
        worth = _worth(coded, costs, way)
        better = (ratios > 1) & (worth < least)
        taken.take(coded, better)
        least, is_coded = np.where(better, worth, least), is_coded or bool(better.any())
    return taken, is_coded


def _on_way(
    known: CodecCosts, way: Way, codecs: Mapping[str, Floats]
) -> Iterator[tuple[str, tuple[CodecSpeed, CodecSpeed]]]:
    """The codecs that all nodes on a way have, with the speeds at its ends."""
    if way[0] in known.speeds and way[1] in known.speeds:
        on_way = [speeds for tier, speeds in known.speeds.items() if way[0] <= tier <= way[1]]
        for codec in codecs:
            if all(codec in speeds for speeds in on_way):
                yield codec, (known.speeds[way[0]][codec], known.speeds[way[1]][codec])


def _worth(taken: WayCosts, costs: Costs, way: Way) -> Floats:
    """What `pipeline.coding.least` makes least."""
    worth = costs.worth
    total = worth.latency * _seconds(taken, costs, way)
    if worth.period:
        sent = [taken.nbytes / costs.link(lower).bandwidth_bytes_per_s for lower in _crossed(way)]
        total = total + worth.period * np.max([taken.encode_s, taken.decode_s, *sent], axis=0)
    if way[1] is Tier.CLOUD:
        total = total + worth.backbone_byte * taken.nbytes
    return total + worth.energy * _joules(taken, costs, way)


def _seconds(taken: WayCosts, costs: Costs, way: Way) -> Floats:
    per_byte = sum(1 / costs.link(lower).bandwidth_bytes_per_s for lower in _crossed(way))
    return taken.encode_s + taken.nbytes * per_byte + taken.decode_s


def _joules(taken: WayCosts, costs: Costs, way: Way) -> Floats:
    """Joules of both ends, to encode, send, receive and decode."""
    sender, reader = costs.draw(way[0]), costs.draw(way[1])
    return (
        sender.watts * taken.encode_s
        + reader.watts * taken.decode_s
        + (sender.joules_per_byte + reader.joules_per_byte) * taken.nbytes
    )


def _crossed(way: Way) -> list[Tier]:
    return [lower for lower in LINKS if way[0] <= lower < way[1]]


@dataclass(frozen=True, slots=True)
class Shares:
    """A sum over the tensors that cross, by tensor: what one adds that goes from device to edge, what one from edge to
    cloud, and what besides both if it goes all the way: below 0 where nothing is decoded and encoded again between.
    """

    below: Floats
    above: Floats
    beyond: Floats

    @classmethod
    def adding(cls, below: Floats, whole: Floats, above: Floats) -> Shares:
        """From what a tensor adds on each of its ways, in the order of WAYS."""
        beyond = whole - below - above
        return cls(below, above, np.where(np.abs(beyond) > _ROUNDING * np.abs(whole), beyond, 0.0))
