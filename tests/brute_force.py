"""All placements of a small graph and what each takes: the cost model and the constraints written a second time.

Shares no code with `pipeline.cost` or `pipeline.partition`, which are judged by it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from pipeline.cost import Costs
from pipeline.energy import Draw
from pipeline.graph import Block, ModelGraph, Tensor
from pipeline.partition.constraints import (
    Constraint,
    EnergyLimit,
    Forbid,
    MemoryLimit,
    MinDepth,
    Pin,
    RawStays,
    ShareLimit,
    TimeLimit,
    UploadLimit,
    Uses,
)
from pipeline.partition.objective import LATENCY, Objective
from pipeline.placement import Tier

Floats = npt.NDArray[np.float64]
Placed = npt.NDArray[np.int8]


class AllPlacements:
    """`placed[k, v]`: the tier of block v in the k-th monotone placement on the tiers that have costs."""

    def __init__(self, graph: ModelGraph, costs: Costs) -> None:
        self.graph, self.costs = graph, costs
        rows = np.zeros((1, 1), np.int8)
        for block in graph.blocks[1:]:
            floor = rows[:, [graph.producer[t] for t in block.inputs]].max(axis=1)
            grown = [
                np.column_stack([rows[floor <= tier], np.full((floor <= tier).sum(), tier, np.int8)])
                for tier in sorted(costs.seconds)
            ]
            rows = np.concatenate(grown)
        self.placed: Placed = rows
        self.on = {tier: rows == tier for tier in Tier}
        self.seconds = {tier: self.on[tier] @ np.asarray(s, float) for tier, s in costs.seconds.items()}
        self.used, self.back = {}, {}
        for lower in (Tier.DEVICE, Tier.EDGE):
            beyond = rows > lower
            self.used[lower] = beyond.any(axis=1)
            self.back[lower] = beyond[:, [graph.producer[t] for t in graph.outputs]].any(axis=1)

    def sent(self, objective: Objective) -> tuple[dict[Tier, Floats], dict[Tier, Floats], list[Floats], Floats]:
        """Bytes up and down each link with the best codec of each tensor and output, seconds of each node's coding, and
        joules of both.
        """
        nothing = np.zeros(len(self.placed))
        up, down = ({lower: nothing.copy() for lower in (Tier.DEVICE, Tier.EDGE)} for _ in range(2))
        encoding, decoding = {tier: nothing.copy() for tier in Tier}, {tier: nothing.copy() for tier in Tier}
        joules = nothing.copy()
        for tensor, way, goes in self._moves():
            nbytes, encode_s, decode_s = self._best_codec(tensor, way, objective)
            for lower in range(min(way), max(way)):
                (up if way[0] < way[1] else down)[Tier(lower)] += nbytes * goes
            encoding[Tier(way[0])] += encode_s * goes
            decoding[Tier(way[1])] += decode_s * goes
            joules += self._joules(way, nbytes, encode_s, decode_s) * goes
        return up, down, [*encoding.values(), *decoding.values()], joules

    def _moves(self) -> Iterator[tuple[Tensor, tuple[int, int], npt.NDArray[np.bool_]]]:
        """Each tensor to its furthest reader, and each output to the device, with the placements that have it so."""
        for tensor in self.graph.tensors:
            source = self.placed[:, self.graph.producer[tensor.id]]
            readers = list(self.graph.consumers[tensor.id])
            if readers:
                furthest = self.placed[:, readers].max(axis=1)
                for way in ((0, 1), (0, 2), (1, 2)):
                    yield tensor, way, (source == way[0]) & (furthest == way[1])
            if tensor.id in self.graph.outputs:
                yield tensor, (1, 0), source == 1
                yield tensor, (2, 0), source == 2

    def _joules(self, way: tuple[int, int], nbytes: float, encode_s: float, decode_s: float) -> float:
        ends = [self.costs.draws.get(Tier(end), Draw()) for end in way]
        return ends[0].watts * encode_s + ends[1].watts * decode_s + nbytes * sum(end.joules_per_byte for end in ends)

    def _best_codec(self, tensor: Tensor, way: tuple[int, int], objective: Objective) -> tuple[float, float, float]:
        """Bytes, seconds to encode, seconds to decode, of all codecs that both ends have, and on the way up what is
        between.
        """
        known, size = self.costs.codecs, tensor.nbytes
        links = (self.costs.device_edge, self.costs.edge_cloud)[min(way) : max(way)]
        rates = [link.bandwidth_bytes_per_s for link in links]
        found = [(float(size), 0.0, 0.0)]
        if known is not None and {Tier(end) for end in way} <= known.speeds.keys():
            passed = range(way[0], way[1] + 1) if way[0] < way[1] else way
            between = [known.speeds[t] for t in passed if t in known.speeds]  # type: ignore[index]
            for codec, ratio in known.ratios.get(tensor.id, {}).items():
                if ratio > 1 and all(codec in speeds for speeds in between):
                    first, last = between[0][codec], between[-1][codec]
                    encode_s = size / first.encode_bytes_per_s + first.encode_call_s
                    decode_s = size / last.decode_bytes_per_s + last.decode_call_s
                    found.append((float(-(-size // ratio)), encode_s, decode_s))

        def cost(option: tuple[float, float, float]) -> float:
            nbytes, encode_s, decode_s = option
            sent_s = [nbytes / rate for rate in rates]
            total = (objective.latency or 1e-6) * (encode_s + sum(sent_s) + decode_s)
            total += objective.period * max(encode_s, decode_s, *sent_s)
            total += objective.energy * self._joules(way, *option)
            return total + objective.backbone * nbytes / 1e6 * (max(way) == 2)

        return min(found, key=cost)

    def joules(self, objective: Objective) -> Floats:
        """What each adds to what the nodes draw when idle, with the codecs that suit the objective."""
        costs, (*_, joules) = self.costs, self.sent(objective)
        for tier, seconds in self.seconds.items():
            joules = joules + costs.draws.get(tier, Draw()).watts * seconds
        return joules

    def values(self, objective: Objective) -> Floats:
        """The objective of each."""
        costs, latency, price = self.costs, np.zeros(len(self.placed)), np.zeros(len(self.placed))
        up, down, coding, _ = self.sent(objective)
        busy = [*self.seconds.values(), *coding]
        latency = latency + np.sum(coding, axis=0)
        for tier, seconds in self.seconds.items():
            latency = latency + seconds
            price = price + costs.prices.get(tier, 0.0) * seconds
        for lower, link in ((Tier.DEVICE, costs.device_edge), (Tier.EDGE, costs.edge_cloud)):
            busy.append((up[lower] + down[lower]) / link.bandwidth_bytes_per_s)
            latency = latency + busy[-1] + link.latency_s * (1.0 * self.used[lower] + self.back[lower])
        taken = ([share * self.seconds[tier] for tier, share in shared.shares.items()] for shared in costs.cores)
        busy += [np.sum(of_nodes, axis=0) for of_nodes in taken]
        backbone = (up[Tier.EDGE] + down[Tier.EDGE]) / 1e6
        period = np.max(busy, axis=0)
        return np.asarray(
            objective.latency * latency
            + objective.period * period
            + objective.backbone * backbone
            + objective.price * price
            + objective.energy * self.joules(objective)
        )

    def respect(self, constraint: Constraint, objective: Objective = LATENCY) -> npt.NDArray[np.bool_]:
        """Which of them do, with the codecs that the objective chooses."""
        graph = self.graph
        match constraint:
            case Pin(block, tier):
                return np.asarray(self.placed[:, block] == tier)
            case Forbid(block, tier):
                return np.asarray(self.placed[:, block] != tier)
            case RawStays(tier):
                readers = [b for t in graph.inputs for b in graph.consumers[t]]
                return np.asarray((self.placed[:, readers] <= tier).all(axis=1))
            case MinDepth(blocks):
                depth = {0: 0}
                for b in graph.blocks[1:]:
                    depth[b.index] = 1 + min(depth[graph.producer[t]] for t in b.inputs)
                readers = [
                    b.index for b in graph.blocks[1:] if min(depth[graph.producer[t]] for t in b.inputs) < blocks
                ]
                return np.asarray((self.placed[:, readers] == Tier.DEVICE).all(axis=1))
            case UploadLimit(lower, nbytes):
                return np.asarray(self.sent(objective)[0][lower] <= nbytes)
            case EnergyLimit(joules):
                return np.asarray(self.joules(objective) <= joules * (1 + 1e-9))
            case TimeLimit(tier, seconds):
                return np.asarray(self.seconds.get(tier, np.zeros(len(self.placed))) <= seconds * (1 + 1e-9))
            case ShareLimit(tier, share):
                total = np.sum(list(self.seconds.values()), axis=0)
                own = self.seconds.get(tier, np.zeros(len(self.placed)))
                return np.asarray(own <= share * total * (1 + 1e-9) + 1e-12 * total)
            case MemoryLimit(tier, nbytes):
                weights = self.on[tier] @ np.array([8.0 * b.parameters for b in graph.blocks])
                working = [sum(graph.tensors[t].nbytes for t in (*b.inputs, *b.outputs)) for b in graph.blocks]
                return np.asarray(weights + (self.on[tier] * np.array(working, float)).max(axis=1) <= nbytes)
            case Uses(tier):
                return np.asarray(self.on[tier][:, 1:].any(axis=1))
        raise NotImplementedError(constraint)

    def allowed(self, constraints: Sequence[Constraint], objective: Objective = LATENCY) -> npt.NDArray[np.bool_]:
        """Which respect all, with the codecs that suit the objective."""
        kept = np.ones(len(self.placed), bool)
        for constraint in constraints:
            kept &= self.respect(constraint, objective)
        return kept


def random_graph(rng: np.random.Generator, most: int = 10) -> ModelGraph:
    """A DAG of 2 to `most` blocks with branches, joins, blocks of several outputs, and one or more model outputs."""
    tensors: list[Tensor] = []
    blocks: list[Block] = []
    for index in range(int(rng.integers(2, most + 1))):
        count = min(int(rng.integers(1, 4)), len(tensors)) if index else 0
        near = rng.integers(max(0, len(tensors) - 4), max(len(tensors), 1), count).tolist()
        made = range(len(tensors), len(tensors) + int(rng.choice([1, 1, 1, 2])))
        tensors += [Tensor(t, f"t{t}", (1, int(rng.integers(1, 300_000))), "float32") for t in made]
        kind = "Dense" if index else "input"
        parameters = int(rng.integers(0, 500_000)) if index else 0
        blocks.append(Block(index, f"b{index}", kind, (), tuple(sorted(set(near))), tuple(made), parameters))
    read = {t for block in blocks for t in block.inputs}
    ends = [t.id for t in tensors if t.id not in read]
    outputs = ends if rng.random() < 0.5 else [ends[-1], int(rng.integers(0, len(tensors)))]
    return ModelGraph("random", "0" * 8, tuple(tensors), tuple(blocks), blocks[0].outputs, tuple(outputs))
