"""Pareto fronts: the plans of which none is better by one measure without being worse by another.

Source: the epsilon-constraint method (Haimes, Lasdon, Wismer, 1971): the first measure is minimised under ever tighter
limits on the second, so plans between the corners of the convex hull, which no weighted sum finds, are found too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from pipeline.coding import WAYS, Way, over
from pipeline.cost import LINKS, Costs, Prediction
from pipeline.errors import Infeasible, PlanError
from pipeline.graph import ModelGraph
from pipeline.partition.constraints import Constraint, EnergyLimit, Limit, by_maker
from pipeline.partition.objective import MEGABYTE, NAMED, Objective
from pipeline.partition.priced_plan import NodeSet, PricedPlan
from pipeline.partition.search import choose
from pipeline.placement import Tier

_TIE = 1e-4
"""Weight of the second measure, as a share, where the first is about equal."""
_CLOSER = 1e-5
"""The least share by which the next plan has to be better by the second measure."""


@dataclass(frozen=True)
class PeriodLimit(Constraint):
    """No stage, link, coder or machine whose cores are shared is taken for longer than `seconds` a frame."""

    seconds: float

    def limits(self, graph: ModelGraph, costs: Costs) -> Iterable[Limit]:
        """One sum for each."""
        for tier, times in costs.seconds.items():
            yield Limit(self.seconds + (costs.waiting_s if tier == Tier.EDGE else 0.0), {tier: times})
        for shared in costs.cores:
            taken = {tier: [share * s for s in costs.seconds[tier]] for tier, share in shared.shares.items()}
            besides_s = shared.tiles_s - shared.shares.get(Tier.EDGE, 0.0) * costs.waiting_s
            yield Limit(self.seconds - besides_s, taken)
        if costs.tiles is not None:
            yield Limit(self.seconds - costs.tiles.busy_seconds)
        for lower in LINKS:
            rate = costs.link(lower).bandwidth_bytes_per_s
            sent = {way: [costs.sent_bytes(tensor, way) / rate for tensor in graph.tensors] for way in over(lower)}
            back = {tier: [n / rate for n in nbytes] for tier, nbytes in _returned(graph, costs, lower).items()}
            yield Limit(self.seconds, back, sent)
        if costs.is_bound:
            return
        codings = {way: [costs.coding(tensor, way) for tensor in graph.tensors] for way in WAYS}
        encoded = by_maker(graph, costs, lambda tensor, way: costs.coding(tensor, way).encode_s)
        decoded = by_maker(graph, costs, lambda tensor, way: costs.coding(tensor, way).decode_s)
        for tier in Tier:
            own = {tier: encoded[tier]} if tier in encoded else {}
            yield Limit(self.seconds, own, {w: [c.encode_s for c in codings[w]] for w in WAYS if w[0] == tier})
            yield Limit(self.seconds, tensors={w: [c.decode_s for c in codings[w]] for w in WAYS if w[1] == tier})
        yield Limit(self.seconds, decoded)

    def describe(self, graph: ModelGraph) -> str:
        """In words."""
        return f"at most {self.seconds:g} s between frames"


@dataclass(frozen=True)
class BackboneLimit(Constraint):
    """A frame sends at most so many bytes between edge and cloud, its answer's included."""

    nbytes: float

    def limits(self, graph: ModelGraph, costs: Costs) -> Iterable[Limit]:
        """Their sum."""
        sent: dict[Way, list[float]] = {
            way: [float(costs.sent_bytes(tensor, way)) for tensor in graph.tensors] for way in over(Tier.EDGE)
        }
        return [Limit(self.nbytes, _returned(graph, costs, Tier.EDGE), sent)]

    def describe(self, graph: ModelGraph) -> str:
        """In words."""
        return f"at most {self.nbytes:,.0f} bytes a frame between edge and cloud"


@dataclass(frozen=True)
class PriceLimit(Constraint):
    """A frame costs at most so much money."""

    price: float

    def limits(self, graph: ModelGraph, costs: Costs) -> Iterable[Limit]:
        """Their sum."""
        return [
            Limit(self.price, {t: [costs.prices.get(t, 0.0) * s for s in times] for t, times in costs.seconds.items()})
        ]

    def describe(self, graph: ModelGraph) -> str:
        """In words."""
        return f"a frame costs at most {self.price:g}"


@dataclass(frozen=True, slots=True)
class Measure:
    """A number of a plan, by the objective of the same name: its unit, and the constraint that bounds it."""

    unit: str
    of: Callable[[Prediction], float]
    limit: Callable[[float], Constraint] | None


MEASURES: Mapping[str, Measure] = MappingProxyType(
    {
        "latency": Measure("s", lambda predicted: predicted.seconds, None),
        "throughput": Measure("s between frames", lambda predicted: predicted.period_s, PeriodLimit),
        "backbone": Measure(
            "MB", lambda predicted: predicted.backbone_nbytes / MEGABYTE, lambda mb: BackboneLimit(mb * MEGABYTE)
        ),
        "energy": Measure("J", lambda predicted: predicted.joules, EnergyLimit),
        "price": Measure("", lambda predicted: predicted.price, PriceLimit),
    }
)
"""In the order in which they are minimised: of two, the later one is limited."""


def measures(text: str) -> tuple[str, str]:
    """Read `latency,energy`. Raises PlanError unless it names two different measures."""
    names = [name.strip() for name in text.split(",")]
    if len(names) != 2 or len(set(names)) != 2 or not set(names) <= MEASURES.keys():  # noqa: PLR2004
        raise PlanError(f"a front is over two of {', '.join(MEASURES)}, such as latency,energy; not {text[:80]!r}")
    first, second = sorted(names, key=list(MEASURES).index)
    return first, second


def front(
    graph: ModelGraph,
    node_sets: Sequence[NodeSet],
    by: tuple[str, str],
    constraints: Sequence[Constraint] = (),
    *,
    most: int = 20,
    progress: Callable[[int], None] = lambda found: None,
) -> list[PricedPlan]:
    """Find at most `most` plans of the front, by the first measure ascending, by the second evenly apart.

    The first is the best by the first measure, the last the best by the second; `progress` is told how many there are.
    Codecs are those that suit the first measure. Raises Infeasible when the constraints leave no plan.
    """
    first, second = MEASURES[by[0]], MEASURES[by[1]]
    limit = second.limit
    assert limit is not None

    def best(objective: Objective, *asked: Constraint) -> PricedPlan:
        return choose(graph, node_sets, [*constraints, *asked], objective)[0]

    start = best(NAMED[by[0]])
    end = best(NAMED[by[1]])
    scale = first.of(start.predicted) / max(second.of(start.predicted), 1e-12)
    objective = _sum(by, _TIE * scale if scale > 0 else _TIE)
    found = [best(objective)]
    least = second.of(end.predicted)
    step = (second.of(found[0].predicted) - least) / max(most - 1, 1)
    while len(found) < most:
        progress(len(found))
        reached = second.of(found[-1].predicted)
        bound = reached - max(step, _CLOSER * reached)
        if reached <= least * (1 + _CLOSER) or bound < least:
            bound = least * (1 + _CLOSER)
        if reached <= bound:
            break
        try:
            found.append(best(objective, limit(bound)))
        except Infeasible:
            break
    return found


def _sum(by: tuple[str, str], weight: float) -> Objective:
    """The first measure with a little of the second, so that no plan is found that another one dominates."""
    field = {"throughput": "period"}
    return replace(NAMED[by[0]], **{field.get(by[1], by[1]): weight})


def _returned(graph: ModelGraph, costs: Costs, lower: Tier) -> dict[Tier, list[float]]:
    """Bytes of outputs that come down the link, at the blocks that make them, by the tier from which they come."""
    return {tier: nbytes for tier, nbytes in by_maker(graph, costs, costs.sent_bytes).items() if tier > lower}
