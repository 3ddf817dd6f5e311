"""The thread that prepares a node's coming plans, and measures and compiles what is not urgent, one after the other.

What a node has no profile of is measured right after it said that it is ready, before the first plan: a new process
holds no epoch, so no frame can run there meanwhile, to be slowed by measuring or to spoil what is measured. A stream
that runs elsewhere goes on under its plan. Until then the node's speed indicates what to expect.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from broker.session import Channel, Session
from broker.topics import Namespace
from nodes.session.direct import Direct
from nodes.session.worker_thread import Worker
from nodes.tier.compute import Compute
from nodes.tier.inbound import Inbound
from nodes.tier.machine import actions as do
from nodes.tier.machine import events as ev
from nodes.tier.meter import Meter
from nodes.tier.pushed_models import PushedModels
from nodes.tier.tensor_topics import destinations, tensor_subscriptions
from pipeline.errors import TrisectError
from pipeline.graph import ModelGraph
from pipeline.models.host_memory import TooLarge
from pipeline.plan import NodeId, Plan, StreamId

if TYPE_CHECKING:
    from pipeline.engines import Engine, Loaded
    from pipeline.profiling.profile import Profile

_log = logging.getLogger(__name__)

STAND_BY_AFTER_S = 10.0
"""After the first plan, so that first frames are not slowed by it."""


class Preparation:
    """Performs `Prepare` and `Release`; what comes of it goes to `emit`.

    `stand_by` are streams whose models (`model_of`) are to be compiled whole some time after the first plan. What an
    epoch needs of a pushed model is fetched first; who is told of one that cannot be prepared is `not_prepared`.
    """

    def __init__(
        self,
        node: NodeId,
        names: Namespace,
        session: Session,
        direct: Direct,
        graphs: Mapping[str, ModelGraph],
        compute: Compute,
        inbound: Inbound,
        meter: Meter,
        emit: Callable[[ev.Event], None],
        *,
        pushed: PushedModels,
        not_prepared: Callable[[Plan, Exception], None],
        stand_by: Iterable[StreamId],
        model_of: Mapping[StreamId, str],
    ) -> None:
        self._pushed, self._not_prepared, self._model_of = pushed, not_prepared, model_of
        self._node, self._names, self._session, self._graphs = node, names, session, graphs
        self._direct = direct
        self._compute, self._inbound, self._meter, self._emit = compute, inbound, meter, emit
        self._subscribed: dict[tuple[StreamId, int], list[str]] = {}
        self._to_stand_by = set(stand_by)
        self._stand_by_at = math.inf
        self.worker: Worker[Callable[[], None]] = Worker(f"{node}.prepare", lambda job: job())

    def put(self, action: do.Prepare | do.Release) -> None:
        """Queue an epoch to be let go, or prepared once all that it needs is here; the one before runs on meanwhile."""
        if isinstance(action, do.Release):
            self._pushed.drop((action.stream, action.epoch))
            self.worker.put(partial(self._release, action))
            return
        plan, blocks = action.plan, set(action.stage.blocks if action.stage is not None else ())
        if action.tiled is not None:
            blocks |= set(action.tiled.stack.blocks)
        job: Callable[[], None] = partial(self._prepare, action)
        done, failed = partial(self.worker.put, job), partial(self._not_prepared, plan)
        self._pushed.fetch((plan.stream, plan.epoch), self._graphs[plan.model], plan.model, blocks, done, failed)

    def measure(self, engine: Engine, model: Loaded, name: str, publish: Callable[[Profile], None]) -> None:
        """Queue a model to be profiled, and its profile to be published."""
        self.worker.put(partial(_measure, engine, model, name, publish))

    def stand_by_when_due(self, now: float) -> None:
        """Queue the next model to be compiled whole, when the first plan has had its time."""
        if now >= self._stand_by_at and self._to_stand_by:
            self.worker.put(partial(self._stand_by, self._to_stand_by.pop()))

    def _stand_by(self, stream: StreamId) -> None:
        name, began = self._model_of[stream], time.monotonic()
        if not self._pushed.is_whole(name):
            _log.info("the whole of %s does not stand by: parts of its package are here only", name)
            return
        try:
            self._compute.stand_by(name)
        except TooLarge as error:
            _log.info("the whole of %s is compiled when a plan asks for it, not before: %s", name, error)
        else:
            _log.info("has the whole of %s standing by, compiled in %.1f s", name, time.monotonic() - began)

    def _release(self, action: do.Release) -> None:
        self._compute.release(action)
        self._inbound.forget_epoch(action.stream, action.epoch)
        self._meter.forget_segment(action.stream, action.epoch)
        self._session.unsubscribe(self._subscribed.pop((action.stream, action.epoch), []), channel=Channel.BULK)
        self._direct.forget((action.stream, action.epoch))

    def _prepare(self, action: do.Prepare) -> None:
        plan = action.plan
        self._direct.follow((plan.stream, plan.epoch), destinations(action))
        self._stand_by_at = min(self._stand_by_at, time.monotonic() + STAND_BY_AFTER_S)
        self._meter.expect_segment(plan.stream, plan.epoch)
        try:
            self._compute.prepare(action)
            subscribed = self._subscribed.setdefault((plan.stream, plan.epoch), [])
            for subscription in tensor_subscriptions(self._names, self._node, self._graphs[plan.model], action):
                subscribed.append(subscription.topic)
                self._inbound.subscribe_bulk(self._session, subscription)
        except Exception as error:
            if not isinstance(error, TrisectError):  # which says all there is to say
                _log.exception("cannot prepare epoch %d of %s", plan.epoch, plan.stream)
            self._not_prepared(plan, error)
        else:
            self._emit(ev.Prepared(plan.stream, plan.epoch))
            self.worker.put(partial(self._compute.prepare_rest, action))


def _measure(engine: Engine, model: Loaded, name: str, publish: Callable[[Profile], None]) -> None:
    from pipeline.profiling.profile import measure_or_load

    began = time.monotonic()
    profile = measure_or_load(engine, model)
    publish(profile)
    _log.info("profiled %s in %.1f s: %.1f ms a frame", name, time.monotonic() - began, profile.total_seconds * 1e3)
