"""Decide whether two nodes' answers may be mixed in one plan: equal bits, or close ones where that was asked for."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from nodes.protocol.messages import NodeInfo
from pipeline.engines.answers import Distance, distance
from pipeline.errors import ModelError

CLOSE = "close"
_distance = lru_cache(maxsize=1024)(distance)


@dataclass(frozen=True, slots=True)
class Equality:
    """`exact` as configured; with `close`, answers may differ by `tolerance` of the largest value, not in the class."""

    exact: str = "everywhere"
    tolerance: float = 1e-4

    def why_apart(self, device: NodeInfo | None, other: NodeInfo, model: str) -> str:
        """The reason not to mix the other node's answers with the device's; "" if they may be mixed."""
        if device is None or device.node == other.node or device.bits == other.bits:
            return ""
        both = f"{other.node} computes with {other.bits or 'an older trisect'}, {device.node} with {device.bits}"
        if self.exact != CLOSE:
            return f"{both}: their answers differ in bits; give both one engine and version, or say exact: close"
        try:
            found = _distance(device.answers.get(model, ""), other.answers.get(model, ""))
        except ModelError as error:
            return f"{both}: how far their answers are apart is not known: {error}"
        if found.relative > self.tolerance or not found.same_top:
            top = "" if found.same_top else ", with another top class"
            apart = f"{found.relative:.1e}{top}, the tolerance is {self.tolerance:.1e}"
            return f"{both}: answers to {model!r} differ by {apart}"
        return ""

    def largest_difference(self, infos: list[NodeInfo], model: str) -> float:
        """Between the answers of a plan's nodes, as a share of the largest value; 0 where all compute alike."""
        pairs = [(a, b) for number, a in enumerate(infos) for b in infos[:number] if a.bits != b.bits]
        found: list[Distance] = []
        for a, b in pairs:
            try:
                found.append(_distance(a.answers.get(model, ""), b.answers.get(model, "")))
            except ModelError:
                continue
        return max((one.relative for one in found), default=0.0)
