"""The planner's machine, continued: how plans follow one another."""

from __future__ import annotations

import json
from dataclasses import replace
from unittest import mock

import pytest

from nodes.planner.machine import events as pe
from nodes.planner.machine.allowance import EVERY_S, MOST_IN_A_ROW
from nodes.planner.machine.problem import EXACT
from nodes.planner.machine.stream import FORCED
from nodes.protocol.messages import LifeState, NodeInfo, NodeState
from nodes.tier.machine import events as ev
from nodes.tier.machine.actions import Refuse
from pipeline.partition import exact
from pipeline.placement import Placement
from pipeline.plan import ByHand, NodeId, Plan
from tests.unit.nodes.planner.machine.test_planner import (
    ON_CLOUD,
    ON_DEVICE,
    ON_EDGE,
    PATIENCE_S,
    SETTLE_S,
    Planner,
    logged,
    planning,
    published,
    restarted,
)
from tests.unit.nodes.tier.machine.test_tier import (
    CAM,
    CLOUD,
    DEVICE,
    EDGE,
    EDGE_2,
    GRAPH,
    C,
    D,
    E,
    applied,
    plan,
    state,
)


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


def test_a_node_with_other_weights_is_left_out_and_named_once() -> None:
    planner = Planner()
    planner.come(DEVICE, EDGE)
    planner.come(CLOUD, digest="beef")
    actions = planner.tick(SETTLE_S)
    assert published(actions)[0].placement == ON_EDGE
    mismatch = "model 'chain' differs between nodes: device-1 has c0ffee00, cloud-1 has beef; give all nodes the same"
    assert sum(mismatch in text for text in logged(actions)) == 1
    assert planner.tick(1.0) == []


def test_a_restarted_planner_goes_on_with_the_retained_plan() -> None:
    planner = restarted(plan(7, ON_CLOUD), DEVICE, EDGE, CLOUD)
    planner.tick(SETTLE_S)
    assert planner.machine.inventory.streams[CAM].plan == plan(7, ON_CLOUD)
    (next_,) = published(planner.lose(CLOUD))
    assert next_.epoch == 8


def test_a_restarted_planner_keeps_what_a_person_had_placed() -> None:
    by_hand = replace(plan(7, (D, E, E, C)), planner=FORCED, by_hand=ByHand((D, E, E, C)))
    planner = restarted(by_hand, DEVICE, EDGE, CLOUD)
    assert all(found == by_hand for found in published(planner.tick(SETTLE_S)))
    assert planner.place(auto=True)[0][0].epoch == 8


def test_a_restarted_planner_keeps_what_a_person_had_placed_though_a_node_of_it_is_away() -> None:
    planner = planning(DEVICE, EDGE, CLOUD)
    planner.place("b1", "b3")
    (meanwhile,) = published(planner.lose(EDGE))
    assert (meanwhile.planner, meanwhile.by_hand) == (EXACT, ByHand((D, E, E, C)))
    retained = Plan.from_json(json.loads(json.dumps(meanwhile.to_json(GRAPH))), GRAPH)
    again = restarted(retained, DEVICE, CLOUD)
    again.tick(SETTLE_S)
    again.come(EDGE)
    again.tick(1.0)
    back = again.machine.inventory.streams[CAM].plan
    assert back is not None
    assert (back.placement, back.planner) == ((D, E, E, C), FORCED)
    assert again.place(auto=True)[0][0].by_hand is None


def test_what_was_placed_by_hand_and_is_handed_back_while_a_node_is_away_stays_so_after_a_restart() -> None:
    planner = planning(DEVICE, EDGE, CLOUD)
    planner.place("b1", "b3")
    (meanwhile,) = published(planner.lose(EDGE))
    (own,), _ = planner.place(auto=True)
    assert (own.placement, own.by_hand) == (meanwhile.placement, None)


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


def test_a_forgotten_node_makes_room_and_a_living_one_is_not_forgotten() -> None:
    planner = planning(DEVICE, EDGE, CLOUD)
    assert planner(ev.PeerForgotten(EDGE)) == []
    planner.lose(EDGE)
    assert logged(planner(ev.PeerForgotten(EDGE))) == ["edge-1 is forgotten"]
    assert EDGE not in planner.machine.inventory.nodes
    planner(state(EDGE, session="two"))
    planner.lose(CLOUD)
    planner.come(EDGE, session="two")
    assert published(planner.tick(PATIENCE_S))[0].placement == ON_EDGE
    planner.lose(DEVICE)
    assert planner(ev.PeerForgotten(DEVICE)) == []  # its streams' epochs go on


def test_a_node_that_falls_silent_is_out_of_plans_until_it_is_heard_again() -> None:
    planner = planning(DEVICE, EDGE, CLOUD, lost_after_s=4.0)
    for _ in range(10):
        assert published([a for node in (DEVICE, EDGE, CLOUD) for a in planner(pe.TelemetryArrived(node))]) == []
        planner.tick(1.0)
    for _ in range(3):
        assert published([a for node in (DEVICE, EDGE) for a in planner(pe.TelemetryArrived(node))]) == []
        assert published(planner.tick(1.0)) == []
    actions = [a for node in (DEVICE, EDGE) for a in planner(pe.TelemetryArrived(node), 0.15)]
    assert "nothing from cloud-1 for 4 s" in logged(actions)
    (without,) = published(actions)
    assert (without.placement, without.reason.partition(";")[0]) == (ON_EDGE, "cloud-1 has fallen silent")
    assert "cloud-1 is heard again" in logged(planner(pe.TelemetryArrived(CLOUD)))
    planner(pe.TelemetryArrived(EDGE), PATIENCE_S - 1.0)
    planner(pe.TelemetryArrived(DEVICE))
    (back,) = published(planner(pe.TelemetryArrived(CLOUD), 1.0))
    assert back.placement == ON_CLOUD


def test_a_planner_does_not_say_that_it_hears_nothing_from_itself() -> None:
    planner = planning(DEVICE, EDGE, CLOUD, lost_after_s=4.0)
    planner(ev.PeerStateArrived(NodeState(NodeId("planner"), "planner", LifeState.READY, "one", 1)))
    said = [a for _ in range(6) for n in (DEVICE, EDGE, CLOUD) for a in planner(pe.TelemetryArrived(n), 0.4)]
    assert not [text for text in logged(said) if "nothing from" in text]
    assert any("nothing from edge-1" in text for text in logged(planner(pe.TelemetryArrived(DEVICE), 4.5)))
    assert not [text for text in logged(planner.tick(1.0)) if "nothing from planner" in text]


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


def test_people_may_change_a_plan_many_times_in_a_row_and_then_now_and_then() -> None:
    planner = planning(DEVICE, EDGE, CLOUD)
    for number in range(MOST_IN_A_ROW):
        plans, answer = planner.place(cloud_from="23"[number % 2])
        assert (len(plans), answer["ok"]) == (1, True)
    plans, answer = planner.place(auto=True)
    assert not plans
    assert "ask again in 5 s" in str(answer["error"])
    planner.tick(EVERY_S)
    assert len(planner.place(auto=True)[0]) == 1
    assert not planner.place(cloud_from="2")[1]["ok"]
