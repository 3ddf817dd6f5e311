"""The thread that computes on a tier node: whole stages, tiles, and what a coordinator does before and after
its tiles.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from nodes.config.replay_section import REPLAY
from nodes.protocol.reports import FRAME_WORK
from nodes.protocol.work import Work
from nodes.session.clock import PipelineClock
from nodes.session.worker_thread import Worker
from nodes.tier.codec_ratios import CodecTrials
from nodes.tier.machine import actions as do
from nodes.tier.machine import events as ev
from nodes.tier.meter import Meter
from nodes.tier.segment_store import SegmentStore
from nodes.tier.tile_store import TileStore
from nodes.tier.waiting_runs import WaitingRun, WaitingRuns
from pipeline.engines.batched import Begun, batch_of, begin, finish
from pipeline.engines.pictured import PicturedSegment
from pipeline.errors import FrameError, PlanError, TrisectError
from pipeline.frames.decode import MAX_PIXELS
from pipeline.placement import NodeId
from pipeline.plan import StreamId
from pipeline.tiles.arrays import merge
from pipeline.tiles.tiling import TiledStage
from pipeline.timing import cpu_quota
from pipeline.wire import Array, FrameKey, Hop, Trace

if TYPE_CHECKING:
    from pipeline.engines import Engine, Loaded, Segment
    from pipeline.profiling.cpu_probe import ProcessorProbe

_log = logging.getLogger(__name__)

IDLE_S = 1.0
PROBE_SHARE, PROBE_S = 0.05, 0.7
"""Of what this process may use of a core, for probes of the processor, and the least time between two."""


class Compute:
    """Performs `Run`; what comes of it goes to `emit`. `prepare` and `release` are for the thread that compiles, of
    which `is_compiling` says whether it is at it. A stream's frames are decoded up to its `max_pixels`.
    `keeps_replaced` is for `SegmentStore`.
    """

    def __init__(
        self,
        node: NodeId,
        tier: str,
        engine: Engine,
        models: Mapping[str, Loaded],
        meter: Meter,
        clock: PipelineClock,
        emit: Callable[[ev.Event], None],
        *,
        is_compiling: Callable[[], bool],
        max_pixels: Mapping[StreamId, int],
        batch_wait_s: float = 0.0,
        keeps_replaced: bool = False,
    ) -> None:
        from pipeline.profiling.cpu_probe import (
            ProcessorProbe,  # it and the engine load the framework, this module does not
        )

        self._is_compiling, self._max_pixels, self._trials = is_compiling, max_pixels, CodecTrials(meter)
        self._node, self._tier, self._meter, self._clock, self._emit = node, tier, meter, clock, emit
        self._segments = SegmentStore(engine, models, keeps_replaced=keeps_replaced)
        self._tiles = TileStore(engine, models)
        self._coordinated: dict[tuple[str, int], tuple[str, TiledStage]] = {}
        self._waiting = WaitingRuns(batch_wait_s)
        self._merging: dict[FrameKey, float] = {}  # seconds in which the frames at hand had their tiles put together
        self._input_s: dict[FrameKey, float] = {}  # in which their input was made
        # a replay's seconds are of another processor than this machine's
        self._processor = ProcessorProbe(engine) if engine.name != REPLAY else None
        self._worked_at, self._probe_at, self._is_doubted = time.monotonic(), 0.0, False
        self._probe_share = PROBE_SHARE * min(1.0, cpu_quota.cores() or 1.0)
        self.worker: Worker[Callable[[], None]] = Worker(f"{node}.compute", lambda job: job())

    def put(self, run: do.Run) -> None:
        """Queue some work."""
        self._worked_at = time.monotonic()
        self._waiting.put(WaitingRun(run, self._clock.now(), time.perf_counter()))
        self.worker.put(self._run_next)

    def probe(self) -> None:
        """See what is left of the processor, if nothing has been computed here for a while: frames tell by themselves.

        Takes a twentieth of its quota, three hundredths of a core at most; twice that where every other probe is unlike
        the one before: then the next one follows at once.
        """
        now = time.monotonic()
        is_idle = now - self._worked_at >= IDLE_S and not self.worker.is_busy and not self._is_compiling()
        if is_idle and now >= self._probe_at and self._processor is not None:
            self._probe_at = now + PROBE_S
            self.worker.offer(partial(self._probe, self._processor))

    def _probe(self, processor: ProcessorProbe) -> None:
        before_s = time.process_time()
        seconds = processor.seconds()
        # what it took of the processor: where that is short, most of the seconds were waited for it
        self._probe_at = time.monotonic() + max((time.process_time() - before_s) / self._probe_share, PROBE_S)
        if self._is_compiling():
            return
        self._meter.processor(seconds)
        self._is_doubted = self._meter.is_probe_in_doubt and not self._is_doubted
        if self._is_doubted:
            self._probe_at = 0.0

    def prepare(self, action: do.Prepare) -> None:
        """Compile what the epoch needs here from its first frame on. Raises what the engine raises."""
        plan, stage, tiled = action.plan, action.stage, action.tiled
        epoch = plan.stream, plan.epoch, plan.model
        if tiled is None and stage is not None:
            self._segments.hold(*epoch, stage)
        if tiled is not None and stage is not None:
            self._segments.hold(*epoch, tiled.before, Work.BEFORE)
            self._segments.hold(*epoch, tiled.after, Work.AFTER)
            self._coordinated[plan.stream, plan.epoch] = plan.model, tiled
        if tiled is not None:
            self._tiles.hold(*epoch, tiled, self._own_tiles(action))

    def prepare_rest(self, action: do.Prepare) -> None:
        """Compile the tiles for which this node is asked first when their worker is lost."""
        plan, tiled = action.plan, action.tiled
        if tiled is None or plan.tiles is None:
            return
        backup_tiles = [n for n in range(1, len(plan.tiles) + 1) if plan.tiles.backup(n) == self._node]
        if self._tiles.holds(plan.stream, plan.epoch):
            self._tiles.hold(plan.stream, plan.epoch, plan.model, tiled, backup_tiles)

    def stand_by(self, model: str) -> None:
        """Have the whole network compiled, whatever epoch comes. Raises TooLarge, and what the engine raises."""
        self._segments.stand_by(model)

    def release(self, action: do.Release) -> None:
        """Let go what the epoch had compiled."""
        self._segments.release(action.stream, action.epoch)
        self._tiles.release(action.stream, action.epoch)
        self._coordinated.pop((action.stream, action.epoch), None)

    def _own_tiles(self, action: do.Prepare) -> list[int]:
        workers = action.plan.tiles.workers if action.plan.tiles else ()
        return [number for number, worker in enumerate(workers, start=1) if worker == self._node]

    def _run_next(self) -> None:
        """Compute the frame that has waited longest, with those that end together with it."""
        taken = self._waiting.take(self._kind_of)
        if not taken:
            return  # they were computed with others
        self._merging.clear()
        self._input_s.clear()
        began, was_compiling = time.perf_counter(), self._is_compiling()
        done = [
            (each, outputs) for each, outputs in zip(taken, self._computed(taken), strict=True) if outputs is not None
        ]
        share_s = (time.perf_counter() - began) / max(len(done), 1)
        if len(done) > 1:
            self._meter.count("batched_frames_total", len(done))
        for each, outputs in done:
            run, compute_s = each.run, time.perf_counter() - began
            trace = self._traced(run, each.arrived_ts, began - each.arrived, compute_s, share_s, was_compiling)
            self._emit(ev.SegmentRan(run.key, outputs, trace, run.work))

    def _kind_of(self, run: do.Run) -> tuple[object, int]:
        """The segment, and how many frames it ends together."""
        segment = None
        if run.work is not Work.TILE:
            segment = self._segments.segment_of(run.key.stream, run.key.epoch, run.work)
        return segment if segment is not None else run, batch_of(segment)

    def _computed(self, taken: Sequence[WaitingRun]) -> list[dict[int, Array] | None]:
        """The outputs of each, None for what is stale or has failed, and was said so."""
        if taken[0].run.work is Work.TILE:
            return [self._tried(taken[0].run, self._tile)]
        held = [self._segment_of(each.run) for each in taken]  # looked up once: epochs may be released meanwhile
        segment = next((one for one in held if one is not None), None)  # the same for all
        begun = [
            self._tried(each.run, partial(self._begun, segment=one)) for each, one in zip(taken, held, strict=True)
        ]
        going = [(each.run, one) for each, one in zip(taken, begun, strict=True) if one is not None]
        if not going or segment is None:
            return [None for _ in taken]
        finished = iter(self._finished(segment, going))
        return [next(finished) if one is not None else None for one in begun]

    def _finished(self, segment: Segment, going: Sequence[tuple[do.Run, Begun]]) -> list[dict[int, Array] | None]:
        if len(going) > 1:
            try:
                return [*finish(segment, [begun for _, begun in going])]
            except Exception as error:
                _log.warning("%d frames could not be finished together, so they are one by one: %s", len(going), error)
        return [self._tried(run, lambda _: finish(segment, [begun])[0]) for run, begun in going]  # noqa: B023 - called at once

    def _tried(self, run: do.Run, work: Callable[[do.Run], dict[int, Array] | None]) -> dict[int, Array] | None:
        """Do a run's work; None, after saying so, where it fails or nothing holds it any more."""
        try:
            outputs = work(run)
        except Exception as error:
            is_known, of_frame = isinstance(error, TrisectError), isinstance(error, FrameError)
            if not of_frame:  # which its answer says; anybody may send such
                _log.warning("frame %d of %s: %s", run.key.sequence, run.key.stream, error, exc_info=not is_known)
            text = str(error) if of_frame else f"{self._node}: {type(error).__name__}: {error}"
            self._emit(ev.SegmentFailed(run.key, text, run.trace, of_frame))
            return None
        if outputs is None:
            self._meter.count("stale_tensors_total")
        return outputs

    def _segment_of(self, run: do.Run) -> Segment | None:
        return self._segments.segment_of(run.key.stream, run.key.epoch, run.work)

    def _begun(self, run: do.Run, segment: Segment | None) -> Begun | None:
        if segment is None:
            return None
        inputs = dict(run.inputs)
        coordinated = self._coordinated.get((run.key.stream, run.key.epoch))
        if run.work is Work.AFTER and coordinated is not None:
            _, tiled = coordinated
            began = time.perf_counter()
            inputs[tiled.stack.output] = merge(tiled.tile_map, run.parts)
            self._merging[run.key] = time.perf_counter() - began
        if not isinstance(segment, PicturedSegment):
            return begin(segment, inputs)
        stream = StreamId(run.key.stream)
        segment.max_pixels = self._max_pixels.get(stream, MAX_PIXELS)
        begun = segment.begin(inputs)
        self._input_s[run.key] = segment.input_seconds
        if segment.work > 0:
            self._meter.ratio(stream, segment.frame, FRAME_WORK, 1 / segment.work)
        for tensor, array in segment.made.items():
            self._trials.consider(stream, tensor, array)
        segment.made = {}
        return begun

    def _tile(self, run: do.Run) -> dict[int, Array] | None:
        """Raises PlanError for a tile that is not compiled here yet, except at a coordinator, which is asked last."""
        stream, epoch, tile = run.key.stream, run.key.epoch, run.key.tile
        segment = self._tiles.segment_of(stream, epoch, tile)
        if segment is None and self._tiles.holds(stream, epoch):
            coordinated = self._coordinated.get((stream, epoch))
            if coordinated is None:
                raise PlanError(f"tile {tile} of epoch {epoch} is not compiled here yet; another node has to do it")
            self._tiles.hold(stream, epoch, *coordinated, [tile])
            segment = self._tiles.segment_of(stream, epoch, tile)
        if segment is None:
            return None
        return {segment.output: segment.run({t: np.ascontiguousarray(array) for t, array in run.inputs.items()})}

    def _traced(
        self, run: do.Run, arrived_ts: float, queue_s: float, compute_s: float, share_s: float, was_compiling: bool
    ) -> Trace:
        """The run's trace with this node's hop, which at a coordinator spans from its first part to its last.

        `share_s` is the frame's part of `compute_s`, where others were computed with it: so much it keeps the node.

        The seconds that a coordinator waits for its tiles count as computing: they are the stack's.
        """
        ended_ts, is_compiling = self._clock.now(), was_compiling or self._is_compiling()
        stream, epoch = StreamId(run.key.stream), run.key.epoch
        self._meter.sample("queue_seconds", queue_s, stream)
        self._meter.sample("decode_seconds", run.decode_seconds, stream)
        if run.work is Work.AFTER:
            *before, first = run.trace
            gather_s, merging_s = max(0.0, arrived_ts - first.sent_ts), self._merging.pop(run.key, 0.0)
            self._meter.sample("gather_seconds", gather_s, stream)
            hop = replace(
                first,
                queue_seconds=first.queue_seconds + queue_s,
                compute_seconds=first.compute_seconds + gather_s + compute_s,
                sent_ts=ended_ts,
                is_compiling=is_compiling or first.is_compiling,
            )
            own_s = first.compute_seconds + max(0.0, share_s - merging_s)
            self._note_frame(stream, epoch, own_s, is_usual=not hop.is_compiling)  # its input was made for its tiles
            if run.was_alone and not hop.is_compiling:
                self._meter.gather(stream, epoch, gather_s + merging_s)
            return (*before, hop)
        if run.work is Work.STAGE:
            input_s = min(self._input_s.get(run.key, 0.0), share_s)
            self._note_frame(stream, epoch, share_s, input_s, is_usual=not is_compiling)
        if run.work is Work.TILE:
            self._meter.count("tiles_total")
            self._meter.sample("tile_seconds", compute_s, stream)
        hop = Hop(
            node=self._node,
            tier=self._tier,
            arrived_ts=arrived_ts,
            decode_seconds=run.decode_seconds,
            queue_seconds=queue_s,
            compute_seconds=compute_s,
            sent_ts=ended_ts,
            is_compiling=is_compiling,
        )
        return (*run.trace, hop)

    def _note_frame(
        self, stream: StreamId, epoch: int, compute_s: float, input_s: float = 0.0, *, is_usual: bool
    ) -> None:
        self._meter.count("frames_total")
        self._meter.count_of(stream, "frames_total")
        self._meter.sample("compute_seconds", compute_s, stream)
        if is_usual:
            self._meter.segment(stream, epoch, compute_s, input_s)
