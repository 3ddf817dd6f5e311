"""Laws 1 and 3 under faults: every frame that entered is closed once, with the unsplit model's output; nothing leaks.

Nodes, planner and broker die, hang and come back at any moment; messages are late, lost or repeated; plans change.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import wraps
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from nodes.planner.machine import events as pe
from nodes.protocol.messages import Applied, from_bytes, parse_json
from nodes.tier.machine.stream import MAX_TIMEOUT_S
from pipeline.graph import ModelGraph
from pipeline.plan import NodeId, Plan
from pipeline.tiles import Grid, stacks
from tests.effort import examples
from tests.graphs import chain, graphs
from tests.properties.cluster import Cluster
from tests.properties.symbolic import planned_anyhow, symbolic
from tests.properties.tier_shell import DEVICE, STREAM, WINDOW, TierShell

T = TypeVar("T")

QUIET_S = 6.0
"""Longer than the planner's settling and the least time between two plans."""
LIMIT_S = 2 * MAX_TIMEOUT_S

walks = st.tuples(st.integers(0, 60), st.integers(0, 9999))
"""How many steps follow, and the seed that chooses them."""
which = st.integers(0, 10)
grids = st.sampled_from(["1x2", "2x1", "3x2", "1,2x1"])


def event(**drawn: st.SearchStrategy[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A rule after which the pipeline goes on for some steps, chosen freely among all that are possible then."""

    def decorate(happens: Callable[..., None]) -> Callable[..., None]:
        @wraps(happens)
        def and_goes_on(self: Pipeline, then: tuple[int, int], **values: Any) -> None:
            happens(self, **values)
            self.cluster.go_on(*then)

        decorated: Callable[..., None] = rule(then=walks, **drawn)(and_goes_on)  # type: ignore[call-overload]  # **drawn
        return decorated

    return decorate


class Faults(RuleBasedStateMachine):
    """One device, some edges and clouds, a planner, a broker, and everything that befalls them."""

    cluster: Cluster

    def start(self, cluster: Cluster) -> None:
        self.plans = ExitStack()
        self.plans.enter_context(planned_anyhow())
        self.cluster = cluster

    # What is always going on.

    @event()
    def nothing_special_happens(self) -> None:
        pass

    @rule()
    def all_that_is_under_way_arrives(self) -> None:
        self.cluster.drain()

    @event(seconds=st.sampled_from([2.0, 6.0, 100.0]))
    def time_passes(self, seconds: float) -> None:
        self.cluster.advance(seconds)

    @event(count=st.integers(1, 3), broken=st.booleans())
    def frames_come(self, count: int, broken: bool) -> None:
        for _ in range(count):
            self.cluster.offer()
        if broken:
            self.cluster.offer(broken=True)

    @event(count=st.integers(1, 3))
    def live_frames_come(self, count: int) -> None:
        for _ in range(count):
            self.cluster.offer(live=True)

    # Plans change.

    @event(pick=which, speed=st.sampled_from([0.003, 0.03, 0.3]))
    def a_node_measures_again(self, pick: int, speed: float) -> None:
        shell = self._pick(
            [shell for shell in self.cluster.tiers.values() if shell.running and not shell.loading], pick
        )
        if shell is not None:
            shell.speed = speed
            shell.introduce_profile()

    @event(pick=which, load=st.sampled_from([1.0, 1.3, 5.0]), times=st.integers(1, 4))
    def a_node_reports(self, pick: int, load: float, times: int) -> None:
        shells = [shell for shell in self.cluster.tiers.values() if shell.connected and not shell.loading]
        shell = self._pick(shells, pick)
        if shell is not None:
            for _ in range(times):
                shell.report(load)

    # Faults.

    @event(pick=which)
    def a_node_is_killed(self, pick: int) -> None:
        client = self._pick([client for client in self.cluster.clients if client.running], pick)
        if client is not None:
            client.crash()
            if client is self.cluster.device:
                self.cluster.device_died()

    @event(pick=which)
    def a_node_leaves(self, pick: int) -> None:
        shells = [shell for shell in self.cluster.tiers.values() if shell.connected and shell.node != DEVICE]
        shell = self._pick(shells, pick)
        if shell is not None:
            shell.leave()

    @event(pick=which)
    def a_node_starts_again(self, pick: int) -> None:
        client = self._pick([client for client in self.cluster.clients if not client.running], pick)
        if client is not None:
            client.start()

    @event(pick=which)
    def a_connection_breaks(self, pick: int) -> None:
        client = self._pick([client for client in self.cluster.clients if client.connected], pick)
        if client is not None:
            client.disconnect()

    @event(pick=which, expired=st.booleans(), resent=st.integers(0, 3))
    def a_connection_comes_back(self, pick: int, expired: bool, resent: int) -> None:
        down = [client for client in self.cluster.clients if client.running and not client.connected]
        client = self._pick(down, pick)
        if client is not None:
            client.connect(resent=resent, expired=expired)

    @event(pick=which)
    def a_process_hangs(self, pick: int) -> None:
        client = self._pick(self.cluster.clients, pick)
        if client is not None:
            client.hung = True

    @precondition(lambda self: any(client.hung for client in self.cluster.clients))
    @event()
    def hung_processes_wake(self) -> None:
        for client in self.cluster.clients:
            client.hung = False

    @event(remembers=st.booleans())
    def the_broker_restarts(self, remembers: bool) -> None:
        for client in self.cluster.clients:
            if client.connected:
                client.disconnect(will=False)
            client.will_pending = False
            client.queues = {}
        if not remembers:
            self.cluster.broker.retained.clear()

    @event(pick=which)
    def a_tensor_is_lost(self, pick: int) -> None:
        waiting = [
            (client, topic)
            for client in self.cluster.clients
            for topic, queue in client.queues.items()
            if queue and client.is_bulk(topic)
        ]
        if waiting:
            client, topic = waiting[pick % len(waiting)]
            client.lose(topic)

    @event(pick=which, later=st.booleans())
    def a_bridge_repeats_a_message(self, pick: int, later: bool) -> None:
        waiting = [
            queue for client in self.cluster.clients if client.connected for queue in client.queues.values() if queue
        ]
        queue = self._pick(waiting, pick)
        if queue is not None:
            queue.insert(len(queue) if later else 1, queue[0])

    @event(pick=which, sender=which, epoch=st.integers(-1, 1), attempt=st.integers(-1, 2), fails=st.booleans())
    def a_stranger_answers(self, pick: int, sender: int, epoch: int, attempt: int, fails: bool) -> None:
        """For a frame that is open, but not as the node, under the epoch and the attempt that are asked for."""
        device = self.cluster.device
        if device.running and not device.loading:
            node = self._pick([*self.cluster.tiers], sender)
            assert node is not None
            self.cluster.forge(pick, node, epoch, attempt, fails=fails)

    @event(pick=which, times=st.integers(1, 4))
    def a_node_will_fail_to_compute(self, pick: int, times: int) -> None:
        shell = self._pick([shell for shell in self.cluster.tiers.values() if shell.running], pick)
        if shell is not None:
            shell.failing += times

    @event(pick=which)
    def a_node_will_refuse_a_plan(self, pick: int) -> None:
        others = [shell for shell in self.cluster.tiers.values() if shell.running and shell.node != DEVICE]
        shell = self._pick(others, pick)
        if shell is not None:
            shell.refusing += 1

    @staticmethod
    def _pick(options: Sequence[T], pick: int) -> T | None:
        return options[pick % len(options)] if options else None

    # Laws. Those of single frames are checked as each is closed, in `Cluster.closed`.

    @invariant()
    def no_more_frames_are_open_than_the_window_allows(self) -> None:
        if hasattr(self, "cluster"):
            assert len(self.cluster.device.machine.owners[STREAM].open) <= WINDOW

    def teardown(self) -> None:
        if not hasattr(self, "cluster"):
            return
        try:
            self.cluster.heal()
            self.cluster.settle(LIMIT_S, at_least_s=QUIET_S)
            self.cluster.offer()  # its low-water mark tells all nodes that nothing older is open
            self.cluster.settle(LIMIT_S)
            self._every_frame_was_closed_once()
            self._every_node_holds_the_newest_epoch_and_nothing_else()
        finally:
            self.plans.close()

    def _every_frame_was_closed_once(self) -> None:
        for sequence, frame in self.cluster.frames.items():
            assert frame.closes == (0 if frame.abandoned else 1), f"frame {sequence}: {frame}"

    def _every_node_holds_the_newest_epoch_and_nothing_else(self) -> None:
        retained = self.cluster.broker.retained
        plan = Plan.from_json(parse_json(retained[f"plan/{STREAM}"]), self.cluster.graph)
        for shell in self.cluster.tiers.values():
            wanted = (plan.epoch,) if shell.node in plan.members else ()
            said = from_bytes(Applied, retained[f"applied/{shell.node}"])
            assert tuple(shell.held) == wanted, f"{shell.node} holds {list(shell.held)}, the plan is {plan.epoch}"
            assert said.session == shell.token
            assert (said.streams[STREAM].seen, said.streams[STREAM].ready) == (plan.epoch, wanted)
            assert len(shell.machine.joins) == 0
            assert shell.inputs.pending_bytes == shell.tiles.pending_bytes == 0
            if shell is self.cluster.device:
                assert (said.streams[STREAM].active, said.streams[STREAM].holds) == (plan.epoch, wanted)


class Pipeline(Faults):
    """Plans that give each tier blocks of its own, by the planner or by hand."""

    @initialize(
        graph=graphs(max_blocks=6),
        edges=st.integers(1, 2),
        clouds=st.integers(1, 2),
        quiet=st.booleans(),
        cached=st.booleans(),
    )
    def begin(self, graph: ModelGraph, edges: int, clouds: int, quiet: bool, cached: bool) -> None:
        self.start(Cluster(symbolic(graph), edges, clouds, cached))
        if quiet:
            self.cluster.settle(LIMIT_S, at_least_s=1.0)

    @event()
    def a_person_hands_the_stream_back(self) -> None:
        if self.cluster.planner.running:
            self.cluster.planner.handle(pe.PlaceRequested(STREAM, None, auto=True))

    @event(edge=st.none() | which, cloud=st.none() | which)
    def a_person_places(self, edge: int | None, cloud: int | None) -> None:
        size = len(self.cluster.graph)
        if self.cluster.planner.running:
            if edge is not None and cloud is not None:
                edge, cloud = sorted((edge % size, cloud % size))
            edge_from, cloud_from = (None if block is None else str(block % size) for block in (edge, cloud))
            self.cluster.planner.handle(pe.PlaceRequested(STREAM, None, edge_from, cloud_from))


class TiledPipeline(Faults):
    """Plans by hand in which an edge shares blocks out among workers, which may be gone, or the edge itself."""

    @initialize(
        graph=graphs(max_blocks=6),
        helpers=st.integers(1, 3),
        pick=which,
        edge=which,
        grid=grids,
    )
    def begin(self, graph: ModelGraph, helpers: int, pick: int, edge: int, grid: str) -> None:
        self.start(Cluster(symbolic(graph), 1, 1, helpers=helpers))
        self.cluster.settle(LIMIT_S, at_least_s=1.0)
        self._share_out(pick, edge, grid, "")

    @event(pick=which, edge=which, grid=grids, also=st.sampled_from(["", "edge-1", "worker-1"]))
    def a_person_shares_a_stack_out(self, pick: int, edge: int, grid: str, also: str) -> None:
        self._share_out(pick, edge, grid, also)

    @event(pick=which)
    def a_worker_is_killed(self, pick: int) -> None:
        shell = self._pick([shell for shell in self._workers() if shell.running], pick)
        if shell is not None:
            shell.crash()

    @event(pick=which)
    def a_worker_starts_again(self, pick: int) -> None:
        shell = self._pick([shell for shell in self._workers() if not shell.running], pick)
        if shell is not None:
            shell.start()

    @event(pick=which, times=st.integers(1, 2))
    def a_worker_will_fail_to_compute(self, pick: int, times: int) -> None:
        shell = self._pick([shell for shell in self._workers() if shell.running], pick)
        if shell is not None:
            shell.failing += times

    def _workers(self) -> list[TierShell]:
        return [self.cluster.tiers[node] for node in self.cluster.workers]

    def _share_out(self, pick: int, edge: int, grid: str, also: str) -> None:
        stack = self._pick(list(stacks(self.cluster.graph)), pick)
        if stack is None or not self.cluster.planner.running:
            return
        edge_from, after = 1 + edge % stack.first, stack.last + 1
        cloud_from = str(after) if edge % 2 and after < len(self.cluster.graph) else None
        workers = [*self.cluster.workers, *([NodeId(also)] if also else [])]
        tiles = pe.TilesByHand(grid, f"{stack.first}:{stack.last}", tuple(workers[-len(Grid.parse(grid)) :]))
        self.cluster.planner.handle(pe.PlaceRequested(STREAM, None, str(edge_from), cloud_from, tiles=tiles))


def test_the_plans_of_these_runs_are_any_placement_and_not_the_best() -> None:
    with planned_anyhow() as asked:
        Cluster(symbolic(chain(8, 8, 8)), 1, 1).settle(LIMIT_S, at_least_s=2.0)
    assert asked.called


SHRINK = bool(os.environ.get("SHRINK"))
"""Whether a failing run is made as short as can be, which takes up to five minutes; its events are printed anyway."""

AS_HERE = settings(
    max_examples=examples(20),
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    print_blob=False,
    report_multiple_bugs=False,
    phases=[phase for phase in Phase if SHRINK or phase is not Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)

TestPipeline = pytest.mark.timeout(600)(Pipeline.TestCase)
TestPipeline.settings = AS_HERE
TestTiledPipeline = pytest.mark.timeout(600)(TiledPipeline.TestCase)
TestTiledPipeline.settings = settings(AS_HERE, max_examples=examples(7))
