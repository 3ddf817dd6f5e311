"""How soon a placement could answer if branches overlapped: a bound below the cost model's sum."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.cost import LINKS, Costs, coding_of
from pipeline.graph import ModelGraph
from pipeline.placement import Tier, crossings


def critical_path_s(graph: ModelGraph, placement: Sequence[Tier], costs: Costs) -> float:
    """Seconds until the last output is made if whatever does not wait for another could run at once.

    A lower bound for how branches may overlap: each tensor crosses on its own, and the answer's way back is not in it.
    """
    done = [0.0] * len(graph)
    codings = {c.tensor: coding_of(graph, costs, c) for c in crossings(graph, placement)}
    for block in graph.blocks:
        tier, ready = placement[block.index], 0.0
        for tensor in block.inputs:
            producer = graph.producer[tensor]
            arrives = done[producer]
            if placement[producer] < tier:
                arrives += codings[tensor].encode_s + codings[tensor].decode_s
            for lower in LINKS:
                if placement[producer] <= lower < tier:
                    link = costs.link(lower)
                    arrives += codings[tensor].nbytes / link.bandwidth_bytes_per_s + link.latency_s
            ready = max(ready, arrives)
        done[block.index] = ready + costs.seconds[tier][block.index]
    return max(done[graph.producer[tensor]] for tensor in graph.outputs)
