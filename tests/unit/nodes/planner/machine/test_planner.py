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
from nodes.tier.machine.actions import Log, Refuse
from pipeline.partition import exact
from pipeline.placement import Placement
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
    plan,
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
    ) -> list[pe.PlannerAction]:
        streams = {CAM: "chain"} if node == DEVICE else {}
        models = {"chain": digest}
        info = NodeInfo(node, TIERS[node].label, session, "1", "tf", "2", 1, "x86", models, streams, speed)
        return self(pe.InfoArrived(info))

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

    def lose(self, node: NodeId, life: LifeState = LifeState.LOST) -> list[pe.PlannerAction]:
        """The node goes, and does not come back in a moment."""
        return self(state(node, life)) + self.tick(LOST_GRACE_S)

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
    for part in ("first plan", predicted, "device alone 3000.0 ms", "edge alone 304.0 ms", "cloud alone"):
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
    assert re.match(r"8\d% less than the present plan's 304\.0 ms; predicted", better.reason)
    assert published(planner.tick(100.0)) == []


@pytest.mark.parametrize("life", [LifeState.LOST, LifeState.STOPPED, LifeState.DRAINING, LifeState.INIT])
def test_a_node_that_goes_is_planned_around_at_once(life: LifeState) -> None:
    planner = planning(DEVICE, EDGE, CLOUD)
    (without,) = published(planner.lose(CLOUD, life))
    assert (without.epoch, without.placement) == (2, ON_EDGE)
    assert without.reason.startswith(f"cloud-1 is {life.value}; ")


def test_a_node_that_is_lost_for_a_moment_only_is_not_planned_around() -> None:
    planner = planning(DEVICE, EDGE, CLOUD)
    assert published(planner(state(CLOUD, LifeState.LOST))) == []
    assert published(planner.tick(LOST_GRACE_S / 2)) == []
    assert published(planner(state(CLOUD, births=2))) == []
    assert published(planner.tick(100.0)) == []


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
    (without,) = published(planner(state(CLOUD, session="two")))
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


def test_a_placement_by_hand_gives_way_while_its_node_is_gone() -> None:
    planner = planning(DEVICE, EDGE, CLOUD)
    planner.place("b1", "b3")
    (without,) = published(planner.lose(EDGE))
    assert (without.placement, without.planner) == (ON_CLOUD, EXACT)
    assert "not as placed by hand, since there is no usable edge node (edge-1 is lost)" in without.reason
    (again,) = published(planner(state(EDGE, births=2)))
    assert (again.placement, again.planner) == ((D, E, E, C), FORCED)


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({"stream": "porch"}, "unknown stream 'porch'; known: cam"),
        ({"edge_from": "conv9"}, "model 'chain' has no block 'conv9'"),
        ({"edge_from": "b3", "cloud_from": "b1"}, "the cloud would begin at block 1, before the edge at 3"),
        ({"cloud_from": "b1"}, "stream 'cam' cannot be placed so: there is no usable cloud node (none has come)"),
    ],
)
def test_an_impossible_placement_is_answered_with_the_reason_and_changes_nothing(
    request_: dict[str, str], said: str
) -> None:
    planner = planning(DEVICE, EDGE)
    plans, answer = planner.place(**request_)  # type: ignore[arg-type]  # names of text arguments
    assert plans == []
    assert answer["ok"] is False
    assert said in str(answer["error"])
    assert published(planner.tick(100.0)) == []


def test_a_placement_before_the_model_is_known_is_answered_with_what_to_do() -> None:
    planner = Planner()
    planner.info(DEVICE)
    _, answer = planner.place("b1")
    assert "has not arrived yet; try again" in str(answer["error"])


# Digests.


def test_a_node_with_other_weights_is_left_out_and_named_once() -> None:
    planner = Planner()
    planner.come(DEVICE, EDGE)
    planner.come(CLOUD, digest="beef")
    actions = planner.tick(SETTLE_S)
    assert published(actions)[0].placement == ON_EDGE
    mismatch = "model 'chain' differs between nodes: device-1 has c0ffee00, cloud-1 has beef; give all nodes the same"
    assert sum(mismatch in text for text in logged(actions)) == 1
    assert planner.tick(1.0) == []


# Another planner's life.


def restarted(retained: Plan, *nodes: NodeId) -> Planner:
    planner = Planner()
    planner(pe.PlanSeen(retained))
    planner.come(*nodes)
    return planner


def test_a_restarted_planner_goes_on_with_the_retained_plan() -> None:
    planner = restarted(plan(7, ON_CLOUD), DEVICE, EDGE, CLOUD)
    planner.tick(SETTLE_S)
    assert planner.machine.inventory.streams[CAM].plan == plan(7, ON_CLOUD)
    (next_,) = published(planner.lose(CLOUD))
    assert next_.epoch == 8


def test_a_restarted_planner_keeps_what_a_person_had_placed() -> None:
    by_hand = replace(plan(7, (D, E, E, C)), planner=FORCED)
    planner = restarted(by_hand, DEVICE, EDGE, CLOUD)
    assert all(found == by_hand for found in published(planner.tick(SETTLE_S)))
    assert planner.place(auto=True)[0][0].epoch == 8


def test_a_retained_plan_of_other_weights_is_replaced_with_a_higher_epoch() -> None:
    planner = restarted(plan(7, graph=replace(GRAPH, digest="beef")), DEVICE, EDGE, CLOUD)
    (first,) = published(planner.tick(SETTLE_S))
    assert (first.epoch, first.placement) == (8, ON_CLOUD)


def test_the_planner_does_not_take_its_own_publication_for_an_earlier_one() -> None:
    planner = planning(DEVICE, EDGE, CLOUD)
    (forced,), _ = planner.place("b1", "b3")
    assert planner(pe.PlanSeen(forced)) == []
    assert published(planner.lose(EDGE))[0].epoch == 3


def test_an_epoch_is_above_everything_that_any_node_has_seen() -> None:
    planner = Planner()
    planner.come(DEVICE, EDGE)
    planner(applied(EDGE, seen=41))
    assert published(planner.tick(SETTLE_S))[0].epoch == 42


# Bugs.


def test_a_restarted_planner_heeds_a_refusal_that_it_reads_before_the_plan() -> None:
    planner = Planner()
    planner(applied(CLOUD, seen=7, refused={7: "no memory"}))
    planner(pe.PlanSeen(plan(7, ON_CLOUD)))
    planner.come(DEVICE, EDGE, CLOUD)
    (next_,) = published(planner.tick(SETTLE_S))
    assert (next_.epoch, next_.placement) == (8, ON_EDGE)


def test_a_restarted_planner_publishes_the_adopted_plan_again_so_that_it_outlives_the_broker() -> None:
    planner = restarted(plan(7, ON_CLOUD), DEVICE, EDGE, CLOUD)
    assert published(planner.tick(SETTLE_S)) == [plan(7, ON_CLOUD)]
    assert planner.tick(1.0) == []


def test_a_plan_is_numbered_anew_when_a_node_turns_out_to_have_seen_a_higher_epoch() -> None:
    planner = planning(DEVICE, EDGE, CLOUD)
    (again,) = published(planner(applied(CLOUD, (7,))))
    assert (again.epoch, again.placement) == (8, ON_CLOUD)
    assert planner(applied(CLOUD, (7, 8))) == []


@pytest.mark.parametrize("placement", [(D, E, E), (D, C, E, C)])
def test_a_retained_plan_that_does_not_fit_the_graph_is_replaced(placement: Placement) -> None:
    planner = restarted(plan(7, placement), DEVICE, EDGE, CLOUD)
    assert published(planner.tick(SETTLE_S))[0].placement == ON_CLOUD


@pytest.mark.parametrize("bytes_per_s", [-1.0, float("nan")])
def test_a_node_with_a_link_that_cannot_be_is_left_out(bytes_per_s: float) -> None:
    planner = Planner()
    planner.come(DEVICE, EDGE, CLOUD)
    planner.link(CLOUD, bytes_per_s)
    assert published(planner.tick(SETTLE_S))[0].placement == ON_EDGE


@pytest.mark.parametrize("blocks", [2, 5])
def test_a_node_with_a_profile_of_another_size_is_left_out(blocks: int) -> None:
    planner = Planner()
    planner.come(DEVICE, EDGE, CLOUD)
    planner.profile(CLOUD, 0.01, blocks=blocks)
    assert published(planner.tick(SETTLE_S))[0].placement == ON_EDGE


def test_a_slow_edge_node_does_not_keep_the_stream_from_a_fast_cloud() -> None:
    planner = Planner()
    planner.come(DEVICE, EDGE, CLOUD)
    planner.link(EDGE, 1.0, 10.0)
    assert published(planner.tick(SETTLE_S))[0].placement == ON_CLOUD


def test_what_was_placed_by_hand_or_handed_back_is_so_after_a_restart_even_if_nothing_moved() -> None:
    planner = planning(DEVICE, EDGE, CLOUD)
    (forced,), _ = planner.place(None, "b1")
    assert (forced.placement, forced.planner) == (ON_CLOUD, FORCED)
    (own,), _ = planner.place(auto=True)
    assert (own.placement, own.planner) == (ON_CLOUD, EXACT)


def test_nothing_is_solved_again_while_a_placement_by_hand_gives_way() -> None:
    planner = planning(DEVICE, EDGE, CLOUD)
    planner.place("b1", "b3")
    planner.lose(EDGE)
    with mock.patch.object(exact, "solve", wraps=exact.solve) as solve:
        planner.tick(1.0)
    assert solve.call_count == 0


def test_a_plan_that_is_hardly_better_is_not_published_while_a_placement_by_hand_gives_way() -> None:
    planner = planning(DEVICE, EDGE, EDGE_2, CLOUD)
    planner.place("b1", "b3")
    planner.profile(EDGE, 0.2)
    planner.lose(CLOUD)
    assert published(planner.profile(EDGE, 0.199)) + published(planner.profile(EDGE_2, 0.198)) == []


# Nodes that hold a plan up.


def test_a_living_node_that_never_prepares_is_left_out_after_the_deadline() -> None:
    planner = planning(DEVICE, EDGE, CLOUD, prepare_timeout_s=120.0)
    planner.tick(0.0)
    assert published(planner.tick(119.0)) == []
    actions = planner.tick(1.0)
    assert "cloud-1 has not prepared epoch 1 within 120 s: it is left out until it starts anew" in logged(actions)
    (without,) = published(actions)
    assert without.placement == ON_EDGE


def test_a_node_that_has_prepared_is_not_overdue() -> None:
    planner = planning(DEVICE, EDGE, CLOUD, prepare_timeout_s=120.0)
    planner(applied(CLOUD, (1,)))
    assert published(planner.tick(1000.0)) == []


# Nodes that say nothing.


def test_a_node_that_falls_silent_is_out_of_plans_until_it_is_heard_again() -> None:
    planner = planning(DEVICE, EDGE, CLOUD, lost_after_s=4.0)
    for _ in range(10):
        assert published([a for node in (DEVICE, EDGE, CLOUD) for a in planner(pe.TelemetryArrived(node))]) == []
        planner.tick(1.0)
    for _ in range(3):
        assert published([a for node in (DEVICE, EDGE) for a in planner(pe.TelemetryArrived(node))]) == []
        assert published(planner.tick(1.0)) == []
    actions = [a for node in (DEVICE, EDGE) for a in planner(pe.TelemetryArrived(node), 0.1)]
    assert "nothing from cloud-1 for 4 s" in logged(actions)
    (without,) = published(actions)
    assert (without.placement, without.reason.partition(";")[0]) == (ON_EDGE, "cloud-1 has fallen silent")
    assert "cloud-1 is heard again" in logged(planner(pe.TelemetryArrived(CLOUD)))
    planner(pe.TelemetryArrived(EDGE), PATIENCE_S - 1.0)
    planner(pe.TelemetryArrived(DEVICE))
    (back,) = published(planner(pe.TelemetryArrived(CLOUD), 1.0))
    assert back.placement == ON_CLOUD


def test_a_planner_that_was_cut_off_itself_takes_nobody_for_silent() -> None:
    planner = planning(DEVICE, EDGE, CLOUD, lost_after_s=4.0)
    planner(ev.ConnectionLost(), 1.0)
    planner(ev.ConnectionRestored(), 60.0)
    assert published(planner.tick(9.0)) == []
    (without,) = published(planner(pe.TelemetryArrived(DEVICE), 1.1))
    assert without.placement == ON_DEVICE


def test_a_plan_that_its_device_refuses_gives_way_to_the_one_before_and_is_not_asked_again() -> None:
    planner = planning(DEVICE, EDGE, CLOUD)
    planner(applied(DEVICE, (1,), seen=1, active=1))
    planner(applied(CLOUD, (1,)))
    (by_hand,), _ = planner.place("1", None)
    assert by_hand.epoch == 2
    actions = planner(applied(DEVICE, (1,), seen=2, active=1, refused={2: "no memory"}))
    (back,) = published(actions)
    assert (back.epoch, back.placement) == (3, ON_CLOUD)
    assert back.reason.startswith("device-1 refuses epoch 2")
    planner(applied(DEVICE, (1, 3), seen=3, active=3))
    planner(applied(CLOUD, (1, 3), seen=3))
    assert published(planner.tick(100.0)) == []


def test_a_first_plan_that_its_device_refuses_gives_way_to_another_way() -> None:
    planner = planning(DEVICE, EDGE, CLOUD)
    (other,) = published(planner.refusal(DEVICE))
    assert other.epoch == 2
    assert other.placement != ON_CLOUD


def test_a_decision_waits_for_events_that_wait_to_be_known() -> None:
    planner = Planner()
    planner.come(DEVICE, EDGE)
    told = planner.machine.handle(ev.Tick(), SETTLE_S, SETTLE_S, more_wait=True)
    assert published(told) == []
    assert len(published(planner.machine.handle(ev.Tick(), SETTLE_S, SETTLE_S))) == 1


def test_a_placement_that_the_device_has_refused_is_not_answered_with_ok() -> None:
    planner = planning(DEVICE, EDGE, CLOUD)
    planner(applied(DEVICE, [1], active=1))
    (plan,), _ = planner.place(cloud_from="3")
    planner.refusal(DEVICE, epoch=plan.epoch)
    planner.tick(2 * PATIENCE_S)
    published_again, answer = planner.place(cloud_from="3")
    assert not published_again
    assert not answer["ok"]
    assert f"{DEVICE} has refused this placement" in str(answer["error"])
    (other,), answer = planner.place(cloud_from="2")
    assert answer["ok"], "the stream is not stuck"
    assert answer["epoch"] == other.epoch


def test_a_placement_while_a_node_blinks_is_not_answered_with_the_old_plan() -> None:
    planner = planning(DEVICE, EDGE, CLOUD)
    planner(applied(DEVICE, [1], active=1))
    planner(state(CLOUD, LifeState.LOST))
    published_plans, answer = planner.place(edge_from="1")
    assert not published_plans
    assert not answer["ok"]
    assert f"{CLOUD} was lost a moment ago" in str(answer["error"])
    planner(state(CLOUD))
    _, answer = planner.place(edge_from="1")
    assert answer["ok"]


def test_the_first_of_two_devices_keeps_a_stream_and_the_other_is_told_of() -> None:
    planner = planning(DEVICE, EDGE, CLOUD)
    other = NodeId("device-2")
    planner(ev.PeerStateArrived(replace(state(DEVICE).state, node=other)))
    info = NodeInfo(other, "device", "one", "1", "tf", "2", 1, "x86", {"chain": GRAPH.digest}, {CAM: "chain"})
    said = logged(planner(pe.InfoArrived(info)))
    assert any(f"stream cam is of {DEVICE}, and {other} takes its frames as well" in text for text in said)
    assert not logged(planner.tick(1.0)), "once"
    assert planner.machine.inventory.streams[CAM].binding.device == DEVICE
    planner(state(DEVICE, LifeState.LOST))
    assert planner.machine.inventory.streams[CAM].binding.device == other


def test_an_epoch_out_of_nowhere_is_not_followed() -> None:
    planner = planning(DEVICE, EDGE, CLOUD)
    planner(applied(DEVICE, seen=10**12))
    planner.tick(2 * PATIENCE_S)
    (plan,), _ = planner.place(edge_from="1")
    assert plan.epoch < 10


def test_a_manifest_never_replaces_another_one_of_its_digest() -> None:
    planner = planning(DEVICE, EDGE, CLOUD)
    forged = replace(GRAPH, name="forged")
    (refused,) = planner(pe.ManifestArrived(forged))
    assert isinstance(refused, Refuse)
    assert planner.machine.inventory.registry.graphs[GRAPH.digest] == GRAPH


def test_nobody_falls_silent_while_reports_wait_behind_a_long_decision() -> None:
    planner = planning(DEVICE, EDGE, CLOUD, lost_after_s=4.0)
    planner.now += 30.0  # the decision took so long
    said = []
    for node in (DEVICE, EDGE, CLOUD):
        event = pe.TelemetryArrived(node)
        said += planner.machine.handle(event, planner.now, planner.now, more_wait=node != CLOUD)
    assert not [text for text in logged(said) if "nothing from" in text]


def test_a_node_that_starts_again_on_another_tier_is_out_of_the_plan() -> None:
    planner = planning(DEVICE, EDGE, CLOUD)
    planner.tick(2 * PATIENCE_S)
    info = NodeInfo(CLOUD, "edge", "one", "1", "tf", "2", 1, "x86", {"chain": GRAPH.digest})
    plans = published(planner(pe.InfoArrived(info)))
    assert "cloud-1 is no node of the cloud any more" in plans[0].reason
    assert C not in plans[0].nodes
