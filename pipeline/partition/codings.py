"""What each tensor takes on each way that it may go, as arrays: the constants of a program. Knows no placement."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.codecs import NONE
from pipeline.coding import WAYS, Way
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


@dataclass(frozen=True, slots=True)
class Codings:
    """The ways of all tensors under some costs; `is_coded` if any has a codec on any."""

    ways: Mapping[Way, WayCosts]
    is_coded: bool

    @classmethod
    def under(cls, graph: ModelGraph, costs: Costs) -> Codings:
        """Each tensor with its cheapest codec on each way."""
        plain = np.array([float(tensor.nbytes) for tensor in graph.tensors])
        known = costs.codecs.ratios if costs.codecs is not None else {}
        ways, is_coded = {}, False
        for way in WAYS:
            taken = WayCosts(plain.copy(), np.zeros(len(plain)), np.zeros(len(plain)))
            for tensor in graph.tensors:
                if tensor.id in known:
                    coding = costs.coding(tensor, way)
                    is_coded |= coding.codec != NONE
                    taken.nbytes[tensor.id] = coding.nbytes
                    taken.encode_s[tensor.id], taken.decode_s[tensor.id] = coding.encode_s, coding.decode_s
            ways[way] = taken
        return cls(ways, is_coded)

    def seconds(self, costs: Costs, way: Way) -> Floats:
        """To encode, send over all links of the way, and decode; without the links' latency."""
        taken = self.ways[way]
        sent_s = sum(
            (taken.nbytes / costs.link(lower).bandwidth_bytes_per_s for lower in LINKS if way[0] <= lower < way[1]),
            np.zeros_like(taken.nbytes),
        )
        return taken.encode_s + sent_s + taken.decode_s

    def joules(self, costs: Costs, way: Way) -> Floats:
        """Joules of both ends, to encode, send, receive and decode."""
        taken, sender, reader = self.ways[way], costs.draw(way[0]), costs.draw(way[1])
        return (
            sender.watts * taken.encode_s
            + reader.watts * taken.decode_s
            + (sender.joules_per_byte + reader.joules_per_byte) * taken.nbytes
        )

    def worth(self, costs: Costs, objective: Objective, way: Way) -> Floats:
        """What each tensor adds to an objective on a way, but for the period."""
        per_byte = objective.backbone / MEGABYTE
        return (
            objective.latency * self.seconds(costs, way)
            + per_byte * self.backbone(way)
            + objective.energy * self.joules(costs, way)
        )

    def backbone(self, way: Way) -> Floats:
        """Bytes between edge and cloud."""
        nbytes = self.ways[way].nbytes
        return nbytes if way[1] is Tier.CLOUD else np.zeros_like(nbytes)


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
