"""What each tensor takes on each way that it may go, as arrays: the constants of a program. Knows no placement."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.codecs import CODECS, NONE
from pipeline.coding import BACK, WAYS, CodecCosts, CodecSpeed, Way, links_of
from pipeline.cost import Costs
from pipeline.graph import ModelGraph, Tensor
from pipeline.partition.objective import MEGABYTE, Objective
from pipeline.placement import Tier

_ROUNDING = 1e-12
"""Of a tensor's sum over two links: without codecs the parts add up to the whole."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class WayCosts:
    """Of tensors: bytes as they are sent, seconds to encode at one end and to decode at the other."""

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
    """The ways of all tensors under some costs, by tensor id, and the ways back of `graph.results`, in their order;
    `is_coded` if any has a codec on any.
    """

    ways: Mapping[Way, WayCosts]
    is_coded: bool

    @classmethod
    def under(cls, graph: ModelGraph, costs: Costs, nbytes: Floats | None = None) -> Codings:
        """Each tensor with its cheapest codec on each way; `nbytes` are the tensors', where they are at hand."""
        sizes = np.array([float(tensor.nbytes) for tensor in graph.tensors]) if nbytes is None else nbytes
        if costs.fixed is not None:
            return cls._given(graph, costs)
        plain, fewer = sizes, dict[str, Floats]()
        if costs.codecs is not None and costs.codecs.ratios:
            fewer = _ratios(graph, costs.codecs)
            varies = np.array([tensor.varies for tensor in graph.tensors])
            plain = np.where(varies, np.ceil(sizes / fewer.pop(NONE)), sizes)
        return cls._of({way: _cheapest(costs, way, plain, sizes, fewer) for way in WAYS}, graph, costs)

    @classmethod
    def _given(cls, graph: ModelGraph, costs: Costs) -> Codings:
        return cls._of({way: _each(costs, way, graph.tensors) for way in WAYS}, graph, costs)

    @classmethod
    def _of(cls, up: Mapping[Way, tuple[WayCosts, bool]], graph: ModelGraph, costs: Costs) -> Codings:
        """Add the ways back: outputs are few, so one by one is quicker than by arrays."""
        outputs = [graph.tensors[tensor] for tensor in graph.results]
        found = {**up, **{way: _each(costs, way, outputs) for way in BACK}}
        return cls({way: taken for way, (taken, _) in found.items()}, any(coded for _, coded in found.values()))

    def seconds(self, costs: Costs, way: Way) -> Floats:
        """To encode, send over all links of the way, and decode; without the links' latency."""
        return _seconds(self.ways[way], costs, way)

    def worth(self, costs: Costs, objective: Objective, way: Way) -> Floats:
        """What each tensor (on a way back, each output) adds to an objective on a way, but for the period."""
        per_byte = objective.backbone / MEGABYTE
        return (
            objective.latency * self.seconds(costs, way)
            + per_byte * self.backbone(way)
            + objective.energy * _joules(self.ways[way], costs, way)
        )

    def backbone(self, way: Way) -> Floats:
        """Bytes between edge and cloud."""
        nbytes = self.ways[way].nbytes
        return nbytes if Tier.CLOUD in way else np.zeros_like(nbytes)

    def worths(self, costs: Costs, objective: Objective) -> Shares:
        """What all that is sent adds to an objective, but for the period."""
        return Shares.adding(
            *(self.worth(costs, objective, way) for way in WAYS),
            returned=Returned.adding(*(self.worth(costs, objective, way) for way in BACK)),
        )

    def link_bytes(self, lower: Tier) -> Shares:
        """Bytes that pass a link, up and down."""
        below, whole, above = (self.ways[way].nbytes for way in WAYS)
        from_edge, from_cloud = (self.ways[way].nbytes for way in BACK)
        nothing, none = np.zeros_like(whole), np.zeros_like(from_cloud)
        if lower == Tier.DEVICE:
            return Shares.adding(below, whole, nothing, returned=Returned.adding(from_edge, from_cloud))
        return Shares.adding(nothing, whole, above, returned=Returned.adding(none, from_cloud))

    def coders(self) -> Iterator[Shares]:
        """Seconds of those who encode (device, edge, cloud) and of those who decode (edge, cloud, device)."""
        below, whole, above = (self.ways[way] for way in WAYS)
        from_edge, from_cloud = (self.ways[way] for way in BACK)
        nothing, none = np.zeros_like(whole.nbytes), np.zeros_like(from_edge.nbytes)
        yield Shares.adding(below.encode_s, whole.encode_s, nothing)
        yield Shares.adding(nothing, nothing, above.encode_s, returned=Returned.adding(from_edge.encode_s, none))
        yield Shares(nothing, nothing, nothing, Returned.adding(none, from_cloud.encode_s))
        yield Shares.adding(below.decode_s, nothing, nothing)
        yield Shares.adding(nothing, whole.decode_s, above.decode_s)
        yield Shares(nothing, nothing, nothing, Returned.adding(from_edge.decode_s, from_cloud.decode_s))


def _each(costs: Costs, way: Way, tensors: Sequence[Tensor]) -> tuple[WayCosts, bool]:
    """These tensors as `costs.coding` sends them, and whether any is coded."""
    found = [costs.coding(tensor, way) for tensor in tensors]
    parts = ((float(one.nbytes), one.encode_s, one.decode_s) for one in found)
    nbytes, encode_s, decode_s = np.array(list(parts), float).reshape(-1, 3).T
    return WayCosts(nbytes, encode_s, decode_s), any(one.codec != NONE for one in found)


def _ratios(graph: ModelGraph, known: CodecCosts) -> dict[str, Floats]:
    """By codec, `none` among them, how many times fewer bytes it makes of each tensor; 1 where that is not known."""
    found = {NONE: np.ones(len(graph.tensors))}
    for tensor, by_codec in known.ratios.items():
        for codec, ratio in by_codec.items() if tensor < len(graph.tensors) else ():
            if codec in CODECS or codec == NONE:
                if codec not in found:
                    found[codec] = np.ones(len(graph.tensors))
                found[codec][tensor] = ratio
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
        coded = WayCosts(np.ceil(sizes / ratios), encoder.encode_s(sizes), decoder.decode_s(sizes))
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
        on_way = known.on_way(way)
        for codec in codecs:
            if all(codec in speeds for speeds in on_way):
                yield codec, (known.speeds[way[0]][codec], known.speeds[way[1]][codec])


def _worth(taken: WayCosts, costs: Costs, way: Way) -> Floats:
    """What `pipeline.coding.least` makes least."""
    worth = costs.worth
    total = worth.latency * _seconds(taken, costs, way)
    if worth.period:
        sent = [taken.nbytes / costs.link(lower).bandwidth_bytes_per_s for lower in links_of(way)]
        total = total + worth.period * np.max([taken.encode_s, taken.decode_s, *sent], axis=0)
    if way[1] is Tier.CLOUD:
        total = total + worth.backbone_byte * taken.nbytes
    return total + worth.energy * _joules(taken, costs, way)


def _seconds(taken: WayCosts, costs: Costs, way: Way) -> Floats:
    per_byte = sum(1 / costs.link(lower).bandwidth_bytes_per_s for lower in links_of(way))
    return taken.encode_s + taken.nbytes * per_byte + taken.decode_s


def _joules(taken: WayCosts, costs: Costs, way: Way) -> Floats:
    """Joules of both ends, to encode, send, receive and decode."""
    sender, reader = costs.draw(way[0]), costs.draw(way[1])
    return (
        sender.watts * taken.encode_s
        + reader.watts * taken.decode_s
        + (sender.joules_per_byte + reader.joules_per_byte) * taken.nbytes
    )


@dataclass(frozen=True, slots=True)
class Returned:
    """A sum over the outputs that go back to the device, in their order: what one adds that is made beyond the device,
    and what besides, perhaps below 0, if it is made in the cloud.
    """

    below: Floats
    above: Floats

    @classmethod
    def adding(cls, from_edge: Floats, from_cloud: Floats) -> Returned:
        """From what an output adds on each of its ways, in the order of BACK."""
        return cls(from_edge, from_cloud - from_edge)

    def at_least(self) -> Floats:
        """What each adds beyond the device at least, wherever it is made."""
        return self.below + np.minimum(self.above, 0.0)


_NOTHING = np.zeros(0)
NOBODY_RETURNS = Returned(_NOTHING, _NOTHING)
"""Of a sum over what crosses alone."""


@dataclass(frozen=True, slots=True)
class Shares:
    """A sum over the tensors that cross, by tensor: what one adds that goes from device to edge, what one from edge to
    cloud, and what besides both if it goes all the way: below 0 where nothing is decoded and encoded again between. And
    over the outputs that come back.
    """

    below: Floats
    above: Floats
    beyond: Floats
    returned: Returned = NOBODY_RETURNS

    @classmethod
    def adding(cls, below: Floats, whole: Floats, above: Floats, *, returned: Returned = NOBODY_RETURNS) -> Shares:
        """From what a tensor adds on each of its ways, in the order of WAYS."""
        beyond = whole - below - above
        return cls(below, above, np.where(np.abs(beyond) > _ROUNDING * np.abs(whole), beyond, 0.0), returned)
