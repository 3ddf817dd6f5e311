"""A tier node's shell: device, edge and cloud alike. It feeds events to the machine and performs its actions.

Threads: the core takes every decision, one event after the other; around it, each with its own queue, one thread
decodes what arrives, one computes, one encodes and publishes, one prepares coming plans, and one makes frames inputs.
"""

from __future__ import annotations

import logging
import queue
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from typing_extensions import assert_never

from broker import topics
from broker.session import Channel
from broker.topics import Namespace
from nodes.config.loader import require_node
from nodes.config.power_section import MEASURED
from nodes.config.sections import Config
from nodes.instruments import home_assistant
from nodes.instruments.node_metrics import NodeMetrics
from nodes.protocol.messages import Applied, LifeState, NodeInfo, to_bytes
from nodes.session import service
from nodes.session.direct import Direct
from nodes.session.guard import Guard
from nodes.session.last_run import LastRun
from nodes.session.link_monitor import LinkWatch
from nodes.session.presence import IdCheck, Presence, wait_up
from nodes.session.worker_thread import Worker
from nodes.tier import telemetry
from nodes.tier.commands import Commands
from nodes.tier.compute import Compute
from nodes.tier.frame_decoder import FrameDecoder
from nodes.tier.frame_ledger import FrameLedger
from nodes.tier.frame_tracing import traces_of
from nodes.tier.inbound import Inbound
from nodes.tier.introduction import node_info, say_link
from nodes.tier.loading import import_ahead
from nodes.tier.machine import actions as do
from nodes.tier.machine import events as ev
from nodes.tier.machine.tier import TierMachine
from nodes.tier.meter import Meter
from nodes.tier.outbound import Outbound
from nodes.tier.owned_streams import settings_of, sources_of
from nodes.tier.ownership import Ownership
from nodes.tier.pending_frame import PendingFrame
from nodes.tier.power import power_meter
from nodes.tier.preparation import Preparation
from nodes.tier.previews import Previews
from nodes.tier.pushed_models import PushedModels
from nodes.tier.roll_outs import RollOuts
from nodes.tier.served_models import ModelSettings, ServedModels, check_fit
from pipeline.plan import NodeId, Plan, StreamId

if TYPE_CHECKING:
    from pipeline.profiling.profile import Profile

_log = logging.getLogger(__name__)

TICK_S = 0.05
DRAIN_S = 15.0


class TierNode:
    """One node of the configuration; `run` serves until `stop`. `state_dir` holds what outlives the process.

    `check` is that of its id, where it has begun already. Raises ConfigError for a node that it lacks, UnknownModel.
    """

    def __init__(self, config: Config, node: NodeId, *, state_dir: Path, check: IdCheck | None = None) -> None:
        require_node(config, node)
        self.config, self.node, self.section = config, node, config.nodes[node]
        self.names, self._check = Namespace(config.pipeline), check
        self.streams = {name: section for name, section in config.streams.items() if section.device == node}
        self.meter = Meter(power_meter(self.section.power_w == MEASURED))
        self._metrics = NodeMetrics(self.section.metrics, node, self.section.tier.label)
        self._traces = traces_of(config, is_device=bool(self.streams))
        # what is wrong with a file of labels is said before seconds of loading
        self._settings = ModelSettings.read(config, self.streams)
        self._state_dir = state_dir / config.pipeline
        self.is_serving = False
        self._why_stopped = ""
        self._inbox: queue.SimpleQueue[ev.Event | None] = queue.SimpleQueue()
        self._guard = Guard(_log, str(node))
        self._stands_by = self.section.standby and self.section.memory_mb is None

    def run(self) -> None:
        """Come up, serve, leave. Raises IdInUse, StreamOwned, SessionTaken, ModelError, ConfigError, BrokerError."""
        check = self._check or IdCheck(self.config, self.names, self.node, self.streams)
        import_ahead(self.config.engine_of(self.node))
        gone = check.result()
        self.presence = Presence(
            self.config,
            self.names,
            self.node,
            self.section.tier.label,
            takes_frames=bool(self.streams),
            on_up=self._on_up,
            on_down=lambda _: self._ownership.disconnected(),
            on_taken=self.stop,
            why_stopped=lambda: self._why_stopped,
            on_missed=self._on_missed,
        )
        self.session = self.presence.session
        self._frame_ledger = FrameLedger(
            self.session,
            self.names,
            self.node,
            self.streams,
            token=self.presence.token,
            border=self.presence.border,
            directory=self._state_dir,
            offer=self._inbox.put,
        )
        self._direct = Direct(self.config, self.names, self.presence)
        self._ownership = Ownership(self.presence, self.names, self.streams, gone=gone, on_lost=self.stop)
        self._pushed = PushedModels(
            self.config,
            self.node,
            self._settings.pushed,
            self.presence.border,
            check=partial(check_fit, self.config),
            on_whole=self._whole_arrived,
        )
        last_run = LastRun(self._state_dir / f"{self.node}.running")
        with last_run, self._frame_ledger, self._metrics, self.presence, self._pushed, self._direct:
            self._models = ServedModels(self.config, self.node, self.streams, self._settings, self._pushed.first())
            self._assemble()
            self._introduce()
            self._serve()
            self.presence.final = self._ownership.farewell()
            if self._ownership.lost is not None:
                self.presence.comes_back = False
                raise self._ownership.lost

    def stop(self, why: str = "") -> None:
        """End, and say why; from any thread or a signal handler."""
        self._why_stopped = why
        self._inbox.put(None)

    def _on_up(self) -> None:
        self._inbox.put(ev.ConnectionRestored())
        self._frame_ledger.connected()

    def _on_missed(self, channel: Channel) -> None:
        """The broker has dropped tensors: their frames come back no sooner than they are submitted again."""
        if channel is Channel.BULK:
            self._inbox.put(ev.ConnectionRestored())
            self.presence.renew()

    # Coming up.

    def _assemble(self) -> None:
        node, models, clock = self.node, self._models, self.presence.clock
        model_of = models.versions.model_of
        self.machine = TierMachine(node, models.graphs, settings_of(self.streams, model_of, self._state_dir))
        border, traces, emit = self.presence.border, self._traces, self._inbox.put
        self._inbound = Inbound(node, self.names, self.machine, self.streams, self.meter, emit, border, traces)
        self._outbound = Outbound(
            self.config,
            node,
            self.session,
            self._direct,
            self._frame_ledger,
            models.answers,
            self.meter,
            clock,
            self._metrics,
            traces,
        )
        self._watch = LinkWatch(self.config, self.names, self.presence)
        self._previews = Previews(self.session, self.names, self.streams)
        self._decoder = FrameDecoder(
            node,
            self.streams,
            models.graphs,
            models.preprocess,
            self._frame_ledger,
            self.meter,
            self._inbox.put,
            traces=traces,
            previews=self._previews,
        )
        tier = self.section.tier.label
        self._compute = Compute(
            node,
            tier,
            models.engine,
            models.loaded,
            self.meter,
            clock,
            self._inbox.put,
            is_compiling=lambda: self._preparation.worker.is_busy,
            max_pixels={name: section.max_pixels for name, section in self.config.streams.items()},
            batch_wait_s=self.section.batch_wait_ms / 1e3,
            keeps_replaced=self._stands_by,
        )
        self._preparation = Preparation(
            node,
            self.names,
            self.session,
            self._direct,
            models.graphs,
            self._compute,
            self._inbound,
            self.meter,
            self._inbox.put,
            pushed=self._pushed,
            not_prepared=self._not_prepared,
            stand_by=self.streams if self._stands_by else (),
            model_of=model_of,
        )
        for name, profile in models.profiles.items():
            if profile is None and self._pushed.is_whole(name):
                self._measure(name)

    def _perform(self, action: do.Action) -> None:
        match action:
            case do.Prepare():
                self._previews.planned(action.plan)
                self._preparation.put(action)
            case do.Release():
                self._preparation.put(action)
            case do.AnnounceApplied():
                self._announce(action)
            case do.Run():
                self._compute.put(action)
            case do.SendTensor() | do.SendTile() | do.SendOutput() | do.SendFailure() | do.CloseFrame():
                self._outbound.worker.put(action)
            case do.DecodeFrame():
                self._decoder.worker.put(action)
            case do.DropFrame():
                action.pending_frame.done()
            case do.NoteTile():
                if not self._preparation.worker.is_busy:
                    self.meter.tile(action)
            case do.Count():
                self._count(action)
            case do.Refuse():
                self.presence.border.refuse(action.about, action.why)
            case do.Log():
                _log.log(action.level, "%s", action.text)
            case _:
                assert_never(action)

    def _introduce(self) -> None:
        """Say what this node is and can do: retained, and said again at each connect."""
        wait_up(self.session)  # which shows this machine's address
        info = self._say_info()
        for profile in self._models.profiles.values():
            if profile is not None:
                self._publish_profile(profile)
        self._announce(do.AnnounceApplied({}))
        remembered = self._state_dir / f"{self.node}.home-assistant"
        home_assistant.announce(self.config, self.presence, info.version, remembered)
        say_link(self.config, self.names, self.presence)

    def _say_info(self) -> NodeInfo:
        keep, topic = self.presence.words.keep, self.names.topic
        for digest, graph in self._models.manifests().items():
            keep(topic(topics.MODEL, digest=digest), to_bytes(graph.to_json()))
        info = node_info(self.config, self.node, self.presence.token, self._models, self._direct.address())
        keep(topic(topics.INFO, node=self.node), to_bytes(info))
        self._metrics.info(info)
        return info

    # Versions of pushed models.

    def _whole_arrived(self, name: str) -> None:
        if self.is_serving and self._models.profiles.get(name) is None:
            self._measure(name)

    def _not_prepared(self, plan: Plan, error: Exception) -> None:
        """Say so; and go back to the version before where this device cannot run the new one."""
        self._inbox.put(ev.PrepareFailed(plan.stream, plan.epoch, f"{type(error).__name__}: {error}"))
        owner = self.machine.owners.get(plan.stream)
        if owner is not None and owner.active_model != plan.model:
            back = self._models.versions.refuses(plan.stream, plan.model, error)
            if back is not None:
                _log.warning("stream %s goes back to %s: %s", plan.stream, back, error)
                self._inbox.put(ev.ModelArrived(back, self._models.graphs[back], (plan.stream,)))

    def _measure(self, name: str) -> None:
        self._preparation.measure(self._models.engine, self._models.loaded[name], name, self._publish_profile)

    def _publish_profile(self, profile: Profile) -> None:
        topic = self.names.topic(topics.PROFILE, node=self.node, model=profile.model)
        self.presence.words.keep(topic, to_bytes(profile.to_json()))

    # Serving.

    def _serve(self) -> None:
        self.is_serving = True
        sources = sources_of(self.node, self.streams, self._offer, self._frame_ledger)
        for worker in self._workers():
            worker.start()
        self._inbound.subscribe(self.session)
        self.presence.enter(LifeState.READY)
        Commands(self.node, list(self.streams), self.presence, self._frame_ledger).subscribe(self.names)
        service.ready()
        _log.info("ready: %s", ", ".join(f"{name} {graph.digest[:12]}" for name, graph in self._models.graphs.items()))
        self._pushed.follow(RollOuts(self._models, self._guard, self._inbox.put, self._say_info))
        self._watch.start()
        for source in sources:
            source.start()
        self._loop(lambda: False)
        service.stopping()
        for source in sources:
            source.stop()
        self._drain()
        self._watch.stop()
        for worker in self._workers():
            worker.stop()
        self._traces.close()

    def _workers(self) -> tuple[Worker[Any], ...]:
        """The threads, in the order of a frame's way through them."""
        shells = (self._decoder, self._inbound, self._compute, self._outbound, self._preparation)
        return tuple(shell.worker for shell in shells)

    def _drain(self) -> None:
        """Finish the open frames, those that can be, before leaving."""
        if not self.presence.is_taken and self._ownership.lost is None and self.machine.open_frames:
            self.presence.enter(LifeState.DRAINING)
            give_up = time.monotonic() + DRAIN_S
            self._loop(lambda: not self.machine.open_frames or time.monotonic() > give_up)

    def _loop(self, ended: Callable[[], bool]) -> None:
        schedule, turns = telemetry.ReportSchedule(self.config.telemetry.interval_s), 0
        while not ended():
            event = self._next_event()
            if event is None:
                return
            service.alive()
            now = time.monotonic()
            actions: list[do.Action] = []
            with self._guard.over(event):
                actions = self.machine.handle(event, now)
            for action in actions:
                with self._guard.over(action):
                    self._perform(action)
            is_restored = isinstance(event, ev.ConnectionRestored)
            if isinstance(event, ev.ModelArrived) or (is_restored and self._direct.has_moved()):
                with self._guard.over(event):
                    self._say_info()
            if schedule.is_due(now, has_news=self.meter.has_news or self._watch.turns != turns):
                turns = self._watch.turns
                with self._guard.over("report"):
                    self._report()
            self._compute.probe()
            self._preparation.stand_by_when_due(now)

    def _next_event(self) -> ev.Event | None:
        try:
            return self._inbox.get(timeout=TICK_S)
        except queue.Empty:
            return ev.Tick()

    def _offer(self, stream: StreamId, pending_frame: PendingFrame, live: bool) -> None:
        self._inbox.put(ev.FrameOffered(stream, pending_frame, live))

    def _count(self, action: do.Count) -> None:
        self.meter.count(action.name)
        if action.stream is not None:
            self.meter.count_of(action.stream, action.name)

    def _announce(self, action: do.AnnounceApplied) -> None:
        applied = Applied(self.node, self.presence.token, action.streams)
        self.presence.words.keep(self.names.topic(topics.APPLIED, node=self.node), to_bytes(applied))

    def _report(self) -> None:
        self.presence.words.say_again()
        report = telemetry.report(
            self.machine,
            self.meter,
            self.presence,
            self._direct,
            self._watch,
            queue_depth=len(self._compute.worker),
            internal_errors=self._internal_errors(),
        )
        report |= self._pushed.report()
        self._metrics.report(report, self.presence.state)
        if self.session.is_up:
            self.session.publish(
                self.names.topic(topics.TELEMETRY, node=self.node), to_bytes(report), qos=topics.TELEMETRY.qos
            )

    def _internal_errors(self) -> int:
        threads = sum(worker.failures.total for worker in self._workers()) + self._watch.failures.total
        threads += self._pushed.internal_errors_total + self._direct.internal_errors_total
        return self._guard.total + self.session.internal_errors_total + threads
