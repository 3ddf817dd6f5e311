"""The planner's decisions: when it publishes, what, and what it says when it cannot."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from unittest import mock

import pytest

from nodes.planner.machine import events as pe
from nodes.planner.machine.planner import PlannerMachine, PlannerSettings
from nodes.planner.machine.problem import EXACT
from nodes.planner.machine.rules import LOST_GRACE_S
from nodes.planner.machine.stream import FORCED
from nodes.protocol.messages import LifeState, LinkReport, NodeInfo
from nodes.tier.machine import events as ev
from nodes.tier.machine.actions import Log
from pipeline.partition import exact
from pipeline.plan import NodeId, Plan
from pipeline.profiling.profile import Profile
from tests.unit.nodes.tier.machine.test_tier import (
    CAM,
    CLOUD,
    DEVICE,
    EDGE,
    EDGE_2,
    GRAPH,
    TIERS,
    C,
    D,
    E,
    applied,
    state,
)

SETTLE_S, PATIENCE_S, MARGIN = 1.0, 5.0, 0.1
SECONDS = {DEVICE: 1.0, EDGE: 0.1, EDGE_2: 0.2, CLOUD: 0.01}
ON_CLOUD, ON_EDGE, ON_DEVICE = (D, C, C, C), (D, E, E, E), (D, D, D, D)


class Planner:
    """A planner's machine, its clock, and what nodes would tell it."""

    def __init__(self, *, prepare_timeout_s: float = 1e9, lost_after_s: float = 1e9) -> None:
        settings = PlannerSettings(
            margin=MARGIN,
            min_seconds_between_plans=PATIENCE_S,
            settle_s=SETTLE_S,
            prepare_timeout_s=prepare_timeout_s,
            lost_after_s=lost_after_s,
        )
        self.machine = PlannerMachine(settings, started_at=0.0)
        self.now = 0.0

    def __call__(self, event: pe.PlannerEvent, after: float = 0.0) -> list[pe.PlannerAction]:
        self.now += after
        actions = self.machine.handle(event, self.now, self.now)
        self.machine.validate()
        return actions

    def tick(self, after: float) -> list[pe.PlannerAction]:
        return self(ev.Tick(), after)

    def info(
        self,
        node: NodeId,
        *,
        session: str = "one",
        digest: str = GRAPH.digest,
        speed: Mapping[str, float] | None = None,
        cores: tuple[str, float, float] = ("", 0.0, 0.0),
    ) -> list[pe.PlannerAction]:
        """`cores`: the machine, its cores, and how many of them the node takes."""
        streams = {CAM: "chain"} if node == DEVICE else {}
        models = {"chain": digest}
        info = NodeInfo(node, TIERS[node].label, session, "1", "tf", "2", 1, "x86", models, streams, speed)
        machine, count, busy = cores
        return self(pe.InfoArrived(replace(info, machine=machine, cores=count, busy_cores=busy)))

    def profile(self, node: NodeId, seconds: float, *, blocks: int = len(GRAPH)) -> list[pe.PlannerAction]:
        times = (0.0, *[seconds] * (blocks - 1))
        return self(
            pe.ProfileArrived(node, Profile("chain", GRAPH.digest, "tf", "2", 1, "x86", times, times, 1.0, 0.0))
        )

    def link(self, node: NodeId, bytes_per_s: float = 1e6, round_trip_s: float = 2e-3) -> list[pe.PlannerAction]:
        return self(pe.LinkArrived(LinkReport(node, "one", bytes_per_s, bytes_per_s, round_trip_s)))

    def come(self, *nodes: NodeId, session: str = "one", digest: str = GRAPH.digest) -> list[pe.PlannerAction]:
        """All that nodes say of themselves when they start."""
        actions = []
        for node in nodes:
            actions += self(state(node, session=session))
            actions += self.info(node, session=session, digest=digest)
            actions += self.profile(node, SECONDS[node])
            actions += self.link(node)
        return actions + self(pe.ManifestArrived(GRAPH))

    def place(
        self, edge_from: str | None = None, cloud_from: str | None = None, *, stream: str = "cam", auto: bool = False
    ) -> tuple[list[Plan], Mapping[str, object]]:
        """What was published, and the answer."""
        request = pe.PlaceRequested(type(CAM)(stream), "ticket", edge_from, cloud_from, auto)
        *actions, reply = self(request)
        assert isinstance(reply, pe.Reply)
        assert reply.request == "ticket"
        return published(actions), reply.answer

    def lose(self, node: NodeId, life: LifeState = LifeState.LOST, *, session: str = "one") -> list[pe.PlannerAction]:
        """The node goes, and does not come back in a moment."""
        return self(state(node, life, session=session)) + self.tick(LOST_GRACE_S)

    def refusal(self, *nodes: NodeId, epoch: int = 1, session: str = "one") -> list[pe.PlannerAction]:
        said = [applied(node, seen=epoch, refused={epoch: "no memory"}, session=session) for node in nodes]
        return [action for event in said for action in self(event)]


def planning(*nodes: NodeId, prepare_timeout_s: float = 1e9, lost_after_s: float = 1e9) -> Planner:
    """The planner has published its first plan for these nodes."""
    planner = Planner(prepare_timeout_s=prepare_timeout_s, lost_after_s=lost_after_s)
    planner.come(*nodes)
    assert len(published(planner.tick(SETTLE_S))) == 1
    return planner


def published(actions: Sequence[pe.PlannerAction], *, stays: bool = False) -> list[Plan]:
    """Plans that are new or, with `stays`, those that say anew why they stay."""
    return [action.plan for action in actions if isinstance(action, pe.PublishPlan) and action.stays == stays]


def logged(actions: Sequence[pe.PlannerAction]) -> list[str]:
    return [action.text for action in actions if isinstance(action, Log)]


# The first plan.


def test_the_first_plan_is_the_best_with_its_price_and_that_of_each_tier_alone() -> None:
    planner = Planner()
    planner.come(DEVICE, EDGE, CLOUD)
    (first,) = published(planner.tick(SETTLE_S))
    assert (first.stream, first.epoch, first.model, first.digest) == (CAM, 1, "chain", GRAPH.digest)
    assert (first.placement, first.nodes) == (ON_CLOUD, {D: DEVICE, C: CLOUD})
    assert (first.planner, first.created_ts) == (EXACT, 1.0)
    predicted = f"predicted {first.predicted.seconds * 1e3:.1f} ms a frame"
    for part in ("first plan", predicted, "device alone 3003.0 ms", "edge alone 309.6 ms", "cloud alone"):
        assert part in first.reason


def test_nothing_is_decided_before_the_retained_messages_are_in() -> None:
    planner = Planner()
    assert published(planner.come(DEVICE, EDGE, CLOUD)) == []
    assert published(planner.tick(SETTLE_S - 0.01)) == []
    assert published(planner.tick(0.02))


def test_a_device_alone_gets_a_plan_on_itself() -> None:
    planner = Planner()
    planner.come(DEVICE)
    (first,) = published(planner.tick(SETTLE_S))
    assert (first.placement, first.nodes) == (ON_DEVICE, {D: DEVICE})


def test_without_its_device_a_stream_has_no_plan() -> None:
    planner = Planner()
    planner.come(EDGE, CLOUD)
    assert planner.tick(SETTLE_S) == []


def test_of_two_nodes_on_a_tier_the_faster_serves() -> None:
    planner = Planner()
    planner.come(DEVICE, EDGE_2, EDGE)
    assert published(planner.tick(SETTLE_S))[0].nodes == {D: DEVICE, E: EDGE}


@pytest.mark.parametrize("lacking", ["state", "info", "profile", "link"])
def test_a_node_that_has_not_said_all_of_itself_is_not_used_yet(lacking: str) -> None:
    planner = Planner()
    planner.come(DEVICE)
    tellings: dict[str, Callable[[], list[pe.PlannerAction]]] = {
        "state": lambda: planner(state(EDGE)),
        "info": lambda: planner.info(EDGE),
        "profile": lambda: planner.profile(EDGE, 0.1),
        "link": lambda: planner.link(EDGE),
    }
    for name, tell in tellings.items():
        if name != lacking:
            tell()
    assert published(planner.tick(SETTLE_S))[0].placement == ON_DEVICE
    tellings[lacking]()
    assert published(planner.tick(PATIENCE_S))[0].placement == ON_EDGE


def test_what_is_lacking_for_a_plan_is_said_once() -> None:
    planner = Planner()
    planner(state(DEVICE))
    planner.info(DEVICE)
    said = logged(planner.tick(SETTLE_S))
    assert said == [
        "no plan for stream cam yet: the manifest of model 'chain' (c0ffee00) has not arrived yet; try again"
    ]
    assert logged(planner.tick(1.0)) == []
    (then,) = logged(planner(pe.ManifestArrived(GRAPH)))
    assert "there is no usable device node (device-1 has not profiled 'chain' yet)" in then


# When it publishes again.


def test_without_news_nothing_is_solved_or_published_again() -> None:
    planner = planning(DEVICE, EDGE, CLOUD)
    with mock.patch.object(exact, "solve", wraps=exact.solve) as solve:
        for _ in range(5):
            assert planner.tick(10.0) == []
        planner.come(DEVICE, EDGE, CLOUD)
        assert planner(applied(EDGE, (1,))) == []
    assert solve.call_count == 0


def test_a_plan_that_is_hardly_better_is_not_published() -> None:
    planner = planning(DEVICE, EDGE)
    assert published(planner.come(CLOUD)) == []
    planner.profile(CLOUD, 0.095)
    assert published(planner.tick(100.0)) == []


def test_a_better_plan_waits_for_the_least_time_between_two() -> None:
    planner = planning(DEVICE, EDGE)
    assert published(planner.come(CLOUD)) == []
    assert published(planner.tick(PATIENCE_S - 0.1)) == []
    (better,) = published(planner.tick(0.1))
    assert (better.epoch, better.placement) == (2, ON_CLOUD)
    assert re.match(r"8\d% less than the present plan's 309\.6 ms; with 100% probability; predicted", better.reason)
    assert published(planner.tick(100.0)) == []


@pytest.mark.parametrize("life", [LifeState.LOST, LifeState.STOPPED, LifeState.DRAINING, LifeState.INIT])
def test_a_node_that_goes_is_planned_around_at_once(life: LifeState) -> None:
    planner = planning(DEVICE, EDGE, CLOUD)
    (without,) = published(planner.lose(CLOUD, life, session="two" if life is LifeState.INIT else "one"))
    assert (without.epoch, without.placement) == (2, ON_EDGE)
    assert without.reason.startswith(f"cloud-1 is {life.value}; ")


def test_a_node_that_is_lost_for_a_moment_only_is_not_planned_around() -> None:
    planner = planning(DEVICE, EDGE, CLOUD)
    assert published(planner(state(CLOUD, LifeState.LOST))) == []
    assert published(planner.tick(LOST_GRACE_S / 2)) == []
    assert published(planner(state(CLOUD, births=2))) == []
    assert published(planner.tick(100.0)) == []


@pytest.mark.parametrize("forged", [state(CLOUD, LifeState.INIT, session="two"), state(CLOUD, session="two")])
def test_what_somebody_says_in_a_nodes_name_is_not_planned_around_when_the_node_puts_it_right(
    forged: ev.PeerStateArrived,
) -> None:
    planner = planning(DEVICE, EDGE, CLOUD)
    assert published(planner(forged) + planner.tick(LOST_GRACE_S / 2) + planner(state(CLOUD))) == []
    assert published(planner(state(CLOUD, LifeState.INIT)) + planner.tick(100.0)) == []  # it was up before: an old one


def test_a_planner_that_is_cut_off_decides_nothing_until_it_knows_the_others_again() -> None:
    planner = planning(DEVICE, EDGE, CLOUD)
    planner(ev.ConnectionLost())
    assert published(planner.lose(CLOUD)) == []
    assert published(planner.tick(100.0)) == []
    planner(ev.ConnectionRestored())
    assert published(planner.tick(SETTLE_S - 0.1)) == []
    assert published(planner.tick(0.2))[0].placement == ON_EDGE


def test_a_node_that_restarts_is_used_again_when_it_has_introduced_itself() -> None:
    planner = planning(DEVICE, EDGE, CLOUD)
    (without,) = published(planner(state(CLOUD, session="two")) + planner.tick(LOST_GRACE_S))
    assert without.reason.startswith("cloud-1 has just started; ")
    planner.info(CLOUD, session="two")
    assert published(planner.tick(PATIENCE_S))[0].placement == ON_CLOUD


def test_a_node_that_goes_and_is_not_in_the_plan_changes_nothing() -> None:
    planner = planning(DEVICE, EDGE, CLOUD)
    assert published(planner.lose(EDGE)) == []


def test_a_lost_device_is_no_reason_for_a_new_plan() -> None:
    planner = planning(DEVICE, EDGE, CLOUD)
    assert published(planner.lose(DEVICE)) == []
    assert published(planner(state(DEVICE, births=2))) == []


def test_a_node_that_refuses_is_left_out_until_it_starts_anew() -> None:
    planner = planning(DEVICE, EDGE, CLOUD)
    actions = planner.refusal(CLOUD)
    assert "cloud-1 refuses epoch 1: no memory" in logged(actions)
    (without,) = published(actions)
    assert without.placement == ON_EDGE
    assert without.reason.startswith("cloud-1 refused an earlier plan, or did not prepare it in time; ")
    assert published(planner.tick(100.0)) == []
    planner(state(CLOUD, session="two"))
    assert published(planner.info(CLOUD, session="two"))[0].placement == ON_CLOUD


def test_the_refusal_of_an_older_plan_is_nothing_new() -> None:
    planner = planning(DEVICE, EDGE, CLOUD)
    planner.lose(CLOUD)
    assert published(planner.refusal(EDGE, epoch=1)) == []


# By hand.


def test_a_placement_by_hand_is_published_at_once_and_kept() -> None:
    planner = planning(DEVICE, EDGE, CLOUD)
    (forced,), answer = planner.place("b1", "b3")
    assert (forced.epoch, forced.placement, forced.planner) == (2, (D, E, E, C), FORCED)
    assert forced.reason.startswith("placed by hand; ")
    assert (answer["ok"], answer["epoch"], answer["plan"]) == (True, 2, forced.to_json(GRAPH))
    planner.profile(DEVICE, 1e-6)
    assert published(planner.tick(100.0)) == []


def test_a_stream_handed_back_gets_the_planners_own_at_once() -> None:
    planner = planning(DEVICE, EDGE, CLOUD)
    planner.place("b1", "b3")
    (own,), answer = planner.place(auto=True)
    assert (own.epoch, own.placement, own.planner) == (3, ON_CLOUD, EXACT)
    assert own.reason.startswith("handed back to the planner; ")
    assert answer["epoch"] == 3


def test_the_present_placement_by_hand_is_answered_with_the_present_plan() -> None:
    planner = planning(DEVICE, EDGE, CLOUD)
    planner.place("b1", "b3")
    plans, answer = planner.place("b1", "b3")
    assert (plans, answer["epoch"]) == ([], 2)


# Digests.


# Another planner's life.


def restarted(retained: Plan, *nodes: NodeId) -> Planner:
    planner = Planner()
    planner(pe.PlanSeen(retained))
    planner.come(*nodes)
    return planner


# Bugs.


# Nodes that hold a plan up.


# Nodes that say nothing.
