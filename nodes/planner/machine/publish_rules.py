"""The table by which a plan is published: the first rule that says something decides. Pure.

docs/architecture.md has this table as `table_of_rules` prints it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias

from nodes.config.plan_request import constraints_of
from nodes.planner.machine.gain import SURE, chance_of_gain, is_stale
from nodes.planner.machine.inventory import Inventory
from nodes.planner.machine.problem import ROUNDING, PlanningProblem
from nodes.planner.machine.rules import has_lost_a_node, is_refused_by_device, may_only_blink
from nodes.planner.machine.settings import BAND
from nodes.planner.machine.solving import is_untiled_only, value_now
from nodes.planner.machine.stream import PlannedStream, assignment, assignment_of, fits
from pipeline.graph import ModelGraph
from pipeline.partition.constraints import broken
from pipeline.partition.priced_plan import PricedPlan
from pipeline.placement import Tier
from pipeline.plan import Plan


@dataclass(frozen=True, slots=True)
class Publish:
    """The best plan of today takes the present one's place; on `trial` where that is not sure to be better."""

    reason: str
    is_trial: bool = False


@dataclass(frozen=True, slots=True)
class Stay:
    """The present plan stays."""

    reason: str


Verdict: TypeAlias = Publish | Stay


class Choice(Protocol):
    """Made when it is first asked for: that may take long, and not all rules have to know."""

    @property
    def problem(self) -> PlanningProblem:
        """The problem of today."""

    @property
    def best(self) -> PricedPlan:
        """The best plan of today. Raises TrisectError where there is none."""

    @property
    def present(self) -> PricedPlan:
        """The present plan at today's prices; all its nodes are usable."""


@dataclass(frozen=True, slots=True)
class Situation:
    """A stream, its model, what there is to choose from today, and the moment in seconds of the planner's clock."""

    inventory: Inventory
    stream: PlannedStream
    graph: ModelGraph
    choice: Choice
    now: float

    @property
    def best(self) -> PricedPlan:
        """The best plan of today. Raises TrisectError where there is none."""
        return self.choice.best

    @property
    def plan(self) -> Plan:
        """The present plan: there is one after the first rule."""
        assert self.stream.plan is not None
        return self.stream.plan


@dataclass(frozen=True, slots=True)
class Rule:
    """`judge` says nothing (None) of what the rule is not about. `when` and `then` are its row in the docs."""

    name: str
    when: str
    then: str
    judge: Callable[[Situation], Verdict | None]


def _first_plan(situation: Situation) -> Verdict | None:
    plan, stream = situation.stream.plan, situation.stream
    if plan is None or plan.device != stream.binding.device or not fits(plan, situation.graph):
        return Publish("first plan")
    return None


def _epoch_seen(situation: Situation) -> Verdict | None:
    inventory, plan = situation.inventory, situation.plan
    seen = inventory.registry.highest_seen(plan.stream, inventory.newest_believable(plan.stream))
    return Publish(f"a node has seen epoch {seen} and ignores {plan.epoch}") if seen > plan.epoch else None


def _device_refuses(situation: Situation) -> Verdict | None:
    plan = situation.plan
    if is_refused_by_device(situation.inventory, situation.stream, assignment(plan)):
        return Publish(f"{plan.device} refuses epoch {plan.epoch}")
    return None


def goes_on_by_itself(inventory: Inventory, stream: PlannedStream) -> bool:
    """True when the plan is of the stream's device and model, its nodes are there, and nobody has asked for another."""
    plan = stream.plan
    if plan is None or stream.force or stream.forced is not None or stream.refused_by_device:
        return False
    is_newest = inventory.registry.highest_seen(plan.stream, inventory.newest_believable(plan.stream)) <= plan.epoch
    graph = inventory.registry.known_graph_of(stream.binding)
    fits_stream = plan.device == stream.binding.device and graph is not None and plan.digest == graph.digest
    return is_newest and fits_stream and not has_lost_a_node(inventory, stream)


def _goes_on(situation: Situation) -> Verdict | None:
    inventory, stream = situation.inventory, situation.stream
    if situation.plan.tiles is not None or not goes_on_by_itself(inventory, stream):
        return None
    least = situation.choice.problem.least
    if least is None:
        return None
    if _too_soon(situation) is not None or _breaks_constraint(situation) is not None:
        return None
    enough = (1 - inventory.settings.margin) * situation.choice.present.value
    return Stay(_none_better(situation)) if min(least) > enough * (1 + ROUNDING) else None


def _same_plan(situation: Situation) -> Verdict | None:
    plan, stream, best = situation.plan, situation.stream, situation.best
    if assignment(plan) != assignment_of(best):
        return None
    same_codecs = plan.codecs == best.codecs(situation.graph) and plan.tiles == best.tiling
    if not stream.force and not same_codecs:
        return None
    wanted = (stream.planner_of(best), stream.plan_request.objective, stream.requested_as_written, stream.by_hand)
    changed = stream.force and (plan.planner, plan.objective, plan.plan_request, plan.by_hand) != wanted
    return Publish(stream.by_whom(best)) if changed else Stay(_none_better(situation))


def _may_blink(situation: Situation) -> Verdict | None:
    lost = [node for node in situation.plan.nodes.values() if may_only_blink(situation.inventory, node, situation.now)]
    return Stay(f"{', '.join(lost)} was lost a moment ago, and may be back in another") if lost else None


def _node_gone(situation: Situation) -> Verdict | None:
    inventory, plan, binding = situation.inventory, situation.plan, situation.stream.binding
    gone = [why for tier, node in plan.nodes.items() if (why := inventory.registry.why_gone(binding, tier, node))]
    if plan.tiles is not None and is_untiled_only(inventory, situation.stream, plan.nodes[Tier.EDGE]):
        gone.append(f"{plan.nodes[Tier.EDGE]} refuses tiles")
    gone += [why for node in plan.workers if (why := inventory.registry.why_no_tiles(binding, node))]
    return Publish("; ".join(gone)) if gone else None


def _by_hand(situation: Situation) -> Verdict | None:
    stream, best = situation.stream, situation.best
    is_forced = best.placement == stream.forced and assignment(situation.plan) != assignment_of(best)
    return Publish(stream.by_whom(best)) if stream.force or is_forced else None


def _too_soon(situation: Situation) -> Verdict | None:
    since_s, least_s = (
        situation.now - situation.stream.published_at,
        situation.inventory.settings.min_seconds_between_plans,
    )
    return (
        Stay(f"it is {since_s:.1f} s old, plans follow each other after {least_s:g} s") if since_s < least_s else None
    )


def _breaks_constraint(situation: Situation) -> Verdict | None:
    inventory, stream, graph, plan = situation.inventory, situation.stream, situation.graph, situation.plan
    plan_request = stream.plan_request.constraints
    node_set = inventory.static_costs.node_set(
        plan.nodes,
        inventory.registry.costs(stream.binding, plan.nodes, stream.assumed),
        inventory.registry.kept_from_decoding(stream.binding, plan.nodes),
    )
    asked = (*constraints_of(graph, plan_request), *node_set.constraints)
    costs = stream.plan_request.parsed_objective().judging(node_set.costs)
    against = [constraint.describe(graph) for constraint in broken(graph, plan.placement, costs, asked)]
    against += [f"{n} gets no blocks" for t, n in plan.nodes.items() if t and n in plan_request.exclude_nodes]
    return Publish(f"the present plan breaks what is asked: {'; '.join(against)}") if against else None


def _better_by_margin(situation: Situation) -> Verdict | None:
    inventory, stream = situation.inventory, situation.stream
    present = situation.choice.present
    gain = 1 - situation.best.value / present.value if present.value else 0.0
    if gain < inventory.settings.margin:
        return Stay(_none_better(situation))
    if not _holds_now(situation, present):
        return Stay(f"{_none_better(situation)} with what other streams' plans take by now")
    less = f"{gain:.0%} less than the present plan's {stream.plan_request.parsed_objective().text(present.value)}"
    if inventory.settings.rule == BAND:
        return Publish("; ".join([*stream.drift_reasons, less]))
    chance = chance_of_gain(inventory, stream, present, situation.best)
    sure = chance > SURE and not is_stale(inventory, stream, situation.best, situation.now)
    if not sure and situation.now < stream.next_trial_at:
        wait_s = stream.next_trial_at - situation.now
        return Stay(f"{less} with {chance:.0%} probability, which is tried in {wait_s:.0f} s at the soonest")
    return Publish("; ".join([*stream.drift_reasons, less, f"with {chance:.0%} probability"]), is_trial=not sure)


def _holds_now(situation: Situation, present: PricedPlan) -> bool:
    """True when the best plan is better by the margin under the loads of this moment, too."""
    inventory, stream, graph = situation.inventory, situation.stream, situation.graph
    was, would_be = (value_now(inventory, stream, graph, plan) for plan in (present, situation.best))
    return would_be <= (1 - inventory.settings.margin) * was


def _none_better(situation: Situation) -> str:
    return f"none is better by {situation.inventory.settings.margin:.0%}"


RULES: Final = (
    Rule("FirstPlan", "there is no plan, or one of another device or model", "publish", _first_plan),
    Rule("EpochSeen", "a node has seen a higher epoch, and ignores this one", "publish", _epoch_seen),
    Rule("DeviceRefuses", "the device has refused the plan", "publish", _device_refuses),
    Rule("MayBlink", "a node of the plan was lost less than half a second ago", "stay", _may_blink),
    Rule(
        "GoesOn",
        "nothing is asked or refused, nothing in tiles, the plan's nodes are there, it breaks no constraint and is "
        "older than `min_seconds_between_plans`, and bounds say that no set of nodes is better by `margin`",
        "stay: the best plan need not be known",
        _goes_on,
    ),
    Rule(
        "SamePlan",
        "the best plan runs on the same nodes in the same way, with the same codecs",
        "stay; publish when a person has asked for it under another objective or planner",
        _same_plan,
    ),
    Rule(
        "NodeGone",
        "a node of the plan or a worker of its tiles is gone, drained or left out",
        "publish",
        _node_gone,
    ),
    Rule("ByHand", "a person has asked just now, or has placed the stream by hand", "publish", _by_hand),
    Rule("TooSoon", "the plan is younger than `min_seconds_between_plans`", "stay", _too_soon),
    Rule("BreaksConstraint", "the plan breaks a constraint, at today's costs", "publish", _breaks_constraint),
    Rule(
        "BetterByMargin",
        "always",
        "publish when the best is better by `margin`, and with 95 % probability at all or on trial; else stay",
        _better_by_margin,
    ),
)
"""In the order in which they are asked."""


def verdict(situation: Situation) -> Verdict:
    """The first rule's that says something; the last one always does."""
    for rule in RULES:
        if (found := rule.judge(situation)) is not None:
            return found
    raise AssertionError("the last rule says something of every situation")


def table_of_rules() -> str:
    """The rules as a table in Markdown."""
    rows = [f"| {number} | `{rule.name}` | {rule.when} | {rule.then} |" for number, rule in enumerate(RULES, start=1)]
    return "\n".join(("| | rule | when | then |", "|---|---|---|---|", *rows))
