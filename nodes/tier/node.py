"""A tier node's shell: device, edge and cloud alike. It feeds events to the machine and performs its actions.

Threads: the core takes every decision, one event after the other; around it, each with its own queue, one thread
decodes what arrives, one computes, one encodes and publishes, one prepares coming plans, and one makes frames inputs.

What a node has no profile of it measures right after it said that it is ready, in the thread that prepares plans and
before the first of them: a new process holds no epoch, so no frame can run there meanwhile, to be slowed by measuring
or to spoil what is measured. A stream that runs elsewhere goes on under its plan. Until then the node's speed tells
the planner what to expect.
"""

from __future__ import annotations

import logging
import math
import os
import queue
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from typing_extensions import assert_never

from broker import topics
from broker.session import Channel, Message
from broker.topics import Namespace
from nodes.config.model_settings import check_labels, labels_of, preprocess_of, source_of
from nodes.config.sections import Config
from nodes.protocol.commands import DRAIN
from nodes.protocol.messages import Applied, LifeState, MessageError, NodeInfo, parse_json, to_bytes
from nodes.protocol.reports import stream_metric
from nodes.session import link_probe, service
from nodes.session.guard import Guard
from nodes.session.last_run import LastRun
from nodes.session.link_monitor import LinkWatch
from nodes.session.packet_limit import check_packet_limit, chunk_bytes
from nodes.session.presence import IdCheck, Presence, wait_up
from nodes.session.worker_thread import Worker
from nodes.tier import sequences
from nodes.tier.codec_ratios import CodecTrials
from nodes.tier.compute import Compute
from nodes.tier.frame_ledger import FrameLedger
from nodes.tier.inbound import Inbound
from nodes.tier.introduction import answers_where_asked
from nodes.tier.loading import import_ahead, load
from nodes.tier.machine import actions as do
from nodes.tier.machine import events as ev
from nodes.tier.machine.stream import StreamSettings
from nodes.tier.machine.tier import TierMachine
from nodes.tier.meter import Meter
from nodes.tier.outbound import Outbound
from nodes.tier.ownership import Ownership
from nodes.tier.pending_frame import PendingFrame
from nodes.tier.pushed_models import Pushed, PushedModels
from nodes.tier.sources import Source
from nodes.tier.tensor_topics import tensor_subscriptions
from nodes.tier.versions import Versions
from pipeline.errors import ConfigError, FrameError, TrisectError
from pipeline.frames.inputs import to_inputs
from pipeline.models.host_memory import TooLarge
from pipeline.plan import NodeId, Plan, StreamId

if TYPE_CHECKING:
    from pipeline.profiling.profile import Profile

_log = logging.getLogger(__name__)

TICK_S = 0.05
DRAIN_S = 15.0
STAND_BY_AFTER_S = 10.0
"""After the first plan, so that first frames are not slowed by it."""


class TierNode:
    """One node of the configuration; `run` serves until `stop`. `state_dir` holds what outlives the process.

    `check` is that of its id, where it has begun already. Raises ConfigError for a node that it lacks, UnknownModel.
    """

    def __init__(self, config: Config, node: NodeId, *, state_dir: Path, check: IdCheck | None = None) -> None:
        if node not in config.nodes:
            raise ConfigError(f"no node {node!r} in the configuration; it has: {', '.join(config.nodes)}")
        self.config, self.node, self.section = config, node, config.nodes[node]
        self.names, self._check = Namespace(config.pipeline), check
        self.streams = {name: section for name, section in config.streams.items() if section.device == node}
        self.meter = Meter()
        used = sorted({stream.model for stream in config.streams.values()})
        self._of_files = [name for name in used if not config.models[name].is_pushed]
        self._of_broker = [name for name in used if config.models[name].is_pushed]
        self._preprocess = {name: preprocess_of(config.models[name]) for name in self._of_files}
        # only a device names classes, and it says what is wrong with a file before seconds of loading
        named = {s.model: config.models[s.model] for s in self.streams.values() if s.model in self._of_files}
        self._labels = {name: labels_of(model) for name, model in named.items() if model.labels is not None}
        self._state_dir = state_dir / config.pipeline
        self.is_serving = False
        self._why_stopped = ""
        self._inbox: queue.SimpleQueue[ev.Event | None] = queue.SimpleQueue()
        self._guard = Guard(_log, str(node))
        stands_by = self.section.standby and self.section.memory_mb is None
        self._to_stand_by = set(self.streams) if stands_by else set()
        self._stand_by_at = math.inf

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
        self._ownership = Ownership(self.presence, self.names, self.streams, gone=gone, on_lost=self.stop)
        self._pushed = PushedModels(
            self.config,
            self.node,
            self._of_broker,
            self.presence.border,
            on_version=self._version_arrived,
            on_whole=self._whole_arrived,
        )
        with LastRun(self._state_dir / f"{self.node}.running"), self._frame_ledger, self.presence, self._pushed:
            self._load()
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

    def _load(self) -> None:
        from pipeline.profiling import calibration, profile

        sources = {name: source_of(name, self.config.models[name]) for name in self._of_files}
        pushed = self._pushed.first()
        self._engine, self._models = load(
            self.config.engine_of(self.node),
            sources,
            self._threads,
            self.config.exact,
            {one.name: one.package for one in pushed},
        )
        self._versions = Versions(self.streams, pushed)
        for one in pushed:
            self._preprocess[one.name], self._labels[one.name] = one.preprocess, one.labels
        self._promise = self._engine.promise(self._models.values())
        _log.info("engine %s %s: %s", self._engine.name, self._engine.version, self._promise)
        self.graphs = {name: model.graph for name, model in self._models.items()}
        self._profiles = {name: profile.cached(self._engine, model) for name, model in self._models.items()}
        # nobody asks how fast a node is that has profiled all its models
        measured = calibration.calibrate_or_load if None in self._profiles.values() else calibration.load_cached
        self._speed = measured(self._engine)

    @property
    def _threads(self) -> int:
        return self.section.threads or os.cpu_count() or 1

    def _assemble(self) -> None:
        node, graphs, clock = self.node, self.graphs, self.presence.clock
        for name, names in self._labels.items():
            check_labels(name, names, graphs[name])
        named = {self._versions.model_of[name] for name in self.streams} - self._labels.keys()
        self._labels |= {name: labels_of(self.config.models[name]) for name in named}
        self.machine = TierMachine(node, graphs, [self._settings_of(name) for name in self.streams])
        border = self.presence.border
        self._inbound = Inbound(node, self.names, self.machine, self.streams, self.meter, self._inbox.put, border)
        self._outbound = Outbound(
            self.config, node, self.session, self._frame_ledger, graphs, self._labels, self.meter, clock
        )
        self._subscribed: dict[tuple[StreamId, int], list[str]] = {}
        self._watch = LinkWatch(self.config, self.names, self.presence)
        self._frames = Worker(f"{node}.frames", self._decode_frame, on_error=self._undecodable)
        tier = self.section.tier.label
        self._trials = CodecTrials(self.meter)
        self._prepare: Worker[Callable[[], None]] = Worker(f"{node}.prepare", lambda job: job())
        self._compute = Compute(
            node,
            tier,
            self._engine,
            self._models,
            self.meter,
            clock,
            self._inbox.put,
            is_compiling=lambda: self._prepare.is_busy,
        )
        for name, profile in self._profiles.items():
            if profile is None and self._pushed.is_whole(name):
                self._prepare.put(partial(self._measure, name))

    def _perform(self, action: do.Action) -> None:
        match action:
            case do.Prepare():
                self._fetch_then_prepare(action)
            case do.Release():
                self._pushed.drop((action.stream, action.epoch))
                self._prepare.put(partial(self._release_epoch, action))
            case do.AnnounceApplied():
                self._announce(action)
            case do.Run():
                self._compute.put(action)
            case do.SendTensor() | do.SendTile() | do.SendOutput() | do.SendFailure() | do.CloseFrame():
                self._outbound.worker.put(action)
            case do.DecodeFrame():
                self._frames.put(action)
            case do.DropFrame():
                action.pending_frame.done()
            case do.NoteTile():
                if not self._prepare.is_busy:
                    self.meter.tile(action)
            case do.Count():
                self._count(action)
            case do.Refuse():
                self.presence.border.refuse(action.about, action.why)
            case do.Log():
                _log.log(action.level, "%s", action.text)
            case _:
                assert_never(action)

    def _settings_of(self, name: StreamId) -> StreamSettings:
        section = self.streams[name]
        return StreamSettings(
            stream=name,
            model=self._versions.model_of[name],
            window=section.window,
            frame_timeout_s=section.frame_timeout_s,
            first_sequence=sequences.reserve(self._state_dir / f"{name}.sequence"),
        )

    def _introduce(self) -> None:
        """Say what this node is and can do: retained, and said again at each connect."""
        from pipeline.profiling import codec_speeds

        keep, topic = self.presence.words.keep, self.names.topic
        self._codecs = codec_speeds.measured_or_kept(self._engine)
        self._say_info()
        for profile in self._profiles.values():
            if profile is not None:
                self._publish_profile(profile)
        self._announce(do.AnnounceApplied({}))
        wait_up(self.session)
        check_packet_limit(self.session)
        most = chunk_bytes(self.config.transport, self.session)
        report = link_probe.measure(self.session, self.names, self.node, chunk_bytes=most)
        keep(topic(topics.LINK, node=self.node), to_bytes(report))
        _log.info("link: %s", report.describe())

    def _say_info(self) -> None:
        from pipeline.profiling.profile import hardware

        keep, topic = self.presence.words.keep, self.names.topic
        for graph in self.graphs.values():
            keep(topic(topics.MODEL, digest=graph.digest), to_bytes(graph.to_json()))
        info = NodeInfo(
            node=self.node,
            tier=self.section.tier.label,
            session=self.presence.token,
            version=version("trisect"),
            engine=self._engine.name,
            engine_version=self._engine.version,
            threads=self._engine.threads,
            hardware=hardware(),
            models={name: graph.digest for name, graph in self.graphs.items()},
            streams=dict(self._versions.model_of),
            speed=self._speed.to_json() if self._speed else None,
            role=self.section.role,
            bits=self._promise.bits,
            tiles=self._promise.tiles,
            answers=answers_where_asked(self.config, self._engine, self._models),
            codecs=self._codecs,
            refused_versions=self._versions.refused,
        )
        keep(topic(topics.INFO, node=self.node), to_bytes(info))

    def _publish_profile(self, profile: Profile) -> None:
        topic = self.names.topic(topics.PROFILE, node=self.node, model=profile.model)
        self.presence.words.keep(topic, to_bytes(profile.to_json()))

    # Serving.

    def _serve(self) -> None:
        self.is_serving = True
        sources = [
            Source(
                self.node,
                name,
                section.source,
                section.window,
                self._offer,
                start_at=self._frame_ledger.position(name),
                on_end=partial(self._frame_ledger.source_ended, name),
            )
            for name, section in self.streams.items()
            if section.source is not None
        ]
        workers = (self._frames, self._inbound.worker, self._compute.worker, self._outbound.worker, self._prepare)
        for worker in workers:
            worker.start()
        self._inbound.subscribe(self.session)
        self.presence.enter(LifeState.READY)
        for topic, handler in (
            (self.names.topic(topics.COMMAND, node=self.node, verb=DRAIN), self._on_drain),
            (self.names.topic(topics.TAKEN, node=self.node), self._on_taken_asked),
        ):
            self.session.subscribe([topic], handler)
        service.ready()
        _log.info("ready: %s", ", ".join(f"{name} {graph.digest[:12]}" for name, graph in self.graphs.items()))
        self._watch.start()
        for source in sources:
            source.start()
        self._loop(lambda: False)
        service.stopping()
        for source in sources:
            source.stop()
        self._drain()
        self._watch.stop()
        for worker in workers:
            worker.stop()

    def _drain(self) -> None:
        """Finish the open frames, those that can be, before leaving."""
        if not self.presence.is_taken and self._ownership.lost is None and self._open_frames():
            self.presence.enter(LifeState.DRAINING)
            give_up = time.monotonic() + DRAIN_S
            self._loop(lambda: not self._open_frames() or time.monotonic() > give_up)

    def _open_frames(self) -> int:
        return sum(len(owner.open) for owner in self.machine.owners.values())

    def _loop(self, ended: Callable[[], bool]) -> None:
        report_at = 0.0
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
            if isinstance(event, ev.ModelArrived):
                with self._guard.over(event):
                    self._say_info()
            if now >= report_at:
                # on a grid: a report that is a tick late does not make all later ones late
                report_at = max(report_at + self.config.telemetry.interval_s, now)
                with self._guard.over("report"):
                    self._report()
                    self._compute.probe()
            if now >= self._stand_by_at and self._to_stand_by:
                self._prepare.put(partial(self._stand_by, self._to_stand_by.pop()))

    def _on_drain(self, message: Message) -> None:
        """Take no part in new plans, or again; what is held goes on until the devices need it no more."""
        if self.streams:
            owned = ", ".join(self.streams)
            error = (
                f"{self.node} is the device of {owned}, which cannot go elsewhere; stop it instead: it finishes first"
            )
            self.presence.reply(message, {"ok": False, "error": error})
            return
        try:
            undo = parse_json(message.payload).get("undo") is True
        except MessageError as wrong:
            self.presence.reply(message, {"ok": False, "error": str(wrong)})
            return
        self.presence.enter(LifeState.READY if undo else LifeState.DRAINING)
        self.presence.reply(message, {"ok": True})

    def _on_taken_asked(self, message: Message) -> None:
        """How many frames of whoever asks have come here, and how many of them are answered."""
        counts = self._frame_ledger.taken(self.presence.border.reply_to(message)[0])
        self.presence.reply(message, {"ok": True, "session": self.presence.token, **counts})

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
        owners = self.machine.owners
        self.presence.words.say_again()
        report = {
            **self.meter.report(),
            **self.presence.clock.report(),
            **self._watch.report(),
            "refused_total": self.presence.border.total + self.session.refused_total,
            "missed_messages_total": self.session.missed_total,
            "internal_errors_total": self._internal_errors(),
            "in_flight": self._open_frames(),
            "backlog": sum(len(owner.backlog) for owner in owners.values()),
            **{stream_metric(name, "in_flight"): len(owner.open) for name, owner in owners.items()},
            **{stream_metric(name, "backlog"): len(owner.backlog) for name, owner in owners.items()},
            "queue_depth": len(self._compute.worker),
            "sent_bytes_total": self.session.sent_bytes_total,
            "received_bytes_total": self.session.received_bytes_total,
            "queued_bytes": self.session.queued_bytes,
            "reconnects_total": self.session.reconnects_total,
            **self.presence.certificate_report(),
            **self._pushed.report(),
        }
        if self.session.is_up:
            self.session.publish(
                self.names.topic(topics.TELEMETRY, node=self.node), to_bytes(report), qos=topics.TELEMETRY.qos
            )

    def _internal_errors(self) -> int:
        workers = (self._frames, self._inbound.worker, self._compute.worker, self._outbound.worker, self._prepare)
        threads = sum(worker.failures.total for worker in workers) + self._watch.failures.total
        threads += self._pushed.internal_errors_total
        return self._guard.total + self.session.internal_errors_total + threads

    # Work, each in its own thread.

    def _decode_frame(self, action: do.DecodeFrame) -> None:
        section = self.streams[action.stream]
        model, graph = action.model, self.graphs[action.model]
        pending_frame: PendingFrame = action.pending_frame
        began = time.perf_counter()
        if pending_frame.is_recorded is None:  # else it is made the input of another version of the model
            pending_frame.entered_at = time.monotonic()
            pending_frame.is_recorded = self._frame_ledger.entered(action.stream, action.sequence, pending_frame)
        try:
            if not pending_frame.is_recorded and section.unrecorded == "refuse":
                raise FrameError("the device cannot record frames on its disk, and its stream has unrecorded: refuse")
            inputs = to_inputs(pending_frame.payload, graph, self._preprocess[model], section.max_pixels)
        except FrameError as error:
            self._undecodable(action, error)
        else:
            seconds = time.perf_counter() - began
            self.meter.sample("decode_seconds", seconds, action.stream)
            self.meter.count_of(action.stream, "received_bytes_total", pending_frame.nbytes)
            self._inbox.put(ev.FrameDecoded(action.stream, action.sequence, inputs, seconds, model))
            for tensor, array in inputs.items():
                self._trials.consider(action.stream, tensor, array)

    def _undecodable(self, action: do.DecodeFrame, error: Exception) -> None:
        self._inbox.put(ev.FrameUndecodable(action.stream, action.sequence, str(error), action.model))

    def _measure(self, name: str) -> None:
        from pipeline.profiling.profile import measure_or_load

        began = time.monotonic()
        if self._profiles.get(name) is not None:
            return
        profile = self._profiles[name] = measure_or_load(self._engine, self._models[name])
        self._publish_profile(profile)
        _log.info("profiled %s in %.1f s: %.1f ms a frame", name, time.monotonic() - began, profile.total_seconds * 1e3)

    def _stand_by(self, stream: StreamId) -> None:
        name, began = self._versions.model_of[stream], time.monotonic()
        if not self._pushed.is_whole(name):
            _log.info("the whole of %s does not stand by: parts of its package are here only", name)
            return
        try:
            self._compute.stand_by(name)
        except TooLarge as error:
            _log.info("the whole of %s is compiled when a plan asks for it, not before: %s", name, error)
        else:
            _log.info("has the whole of %s standing by, compiled in %.1f s", name, time.monotonic() - began)

    def _release_epoch(self, action: do.Release) -> None:
        self._compute.release(action)
        self._inbound.forget_epoch(action.stream, action.epoch)
        self.meter.forget_segment(action.stream, action.epoch)
        self.session.unsubscribe(self._subscribed.pop((action.stream, action.epoch), []), channel=Channel.BULK)

    def _fetch_then_prepare(self, action: do.Prepare) -> None:
        """Compile once all that the epoch's blocks need is here; the epoch before runs on meanwhile."""
        plan, blocks = action.plan, set(action.stage.blocks if action.stage is not None else ())
        if action.tiled is not None:
            blocks |= set(action.tiled.stack.blocks)
        job = partial(self._prepare_epoch, action)
        failed = partial(self._not_prepared, plan)
        self._pushed.fetch((plan.stream, plan.epoch), plan.model, blocks, lambda: self._prepare.put(job), failed)

    def _not_prepared(self, plan: Plan, error: Exception) -> None:
        self._inbox.put(ev.PrepareFailed(plan.stream, plan.epoch, f"{type(error).__name__}: {error}"))
        owner = self.machine.owners.get(plan.stream)
        if owner is not None and owner.active_model != plan.model:
            back = self._versions.refuses(plan.stream, plan.model, error)
            if back is not None:
                _log.warning("stream %s goes back to %s: %s", plan.stream, back, error)
                self._inbox.put(ev.ModelArrived(back, self.graphs[back], (plan.stream,)))

    def _version_arrived(self, pushed: Pushed) -> None:
        """A new version was rolled out; its header is here. Streams go over to it when a plan of it is ready."""
        from pipeline.profiling import profile

        self._preprocess[pushed.name], self._labels[pushed.name] = pushed.preprocess, pushed.labels
        self._models[pushed.name], self.graphs[pushed.name] = pushed.package, pushed.package.graph
        self._profiles[pushed.name] = profile.cached(self._engine, pushed.package)
        self._promise = self._engine.promise(self._models.values())
        streams = self._versions.arrived(pushed)
        self._inbox.put(ev.ModelArrived(pushed.name, pushed.package.graph, streams))

    def _whole_arrived(self, name: str) -> None:
        if self.is_serving and self._profiles.get(name) is None:
            self._prepare.offer(partial(self._measure, name))

    def _prepare_epoch(self, action: do.Prepare) -> None:
        plan = action.plan
        self._stand_by_at = min(self._stand_by_at, time.monotonic() + STAND_BY_AFTER_S)
        self.meter.expect_segment(plan.stream, plan.epoch)
        try:
            self._compute.prepare(action)
            subscribed = self._subscribed.setdefault((plan.stream, plan.epoch), [])
            for subscription in tensor_subscriptions(self.names, self.node, self.graphs[plan.model], action):
                subscribed.append(subscription.topic)
                self._inbound.subscribe_bulk(self.session, subscription)
        except Exception as error:
            if not isinstance(error, TrisectError):  # which says all there is to say
                _log.exception("cannot prepare epoch %d of %s", plan.epoch, plan.stream)
            self._not_prepared(plan, error)
        else:
            self._inbox.put(ev.Prepared(plan.stream, plan.epoch))
            self._prepare.put(partial(self._compute.prepare_rest, action))
