"""A node's introduction: what it says of itself before it serves."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING

from broker import topics
from broker.topics import Namespace
from nodes.config.replay_section import REPLAY
from nodes.config.sections import Config
from nodes.protocol.messages import DirectAddress, NodeInfo, to_bytes
from nodes.session import link_probe
from nodes.session.last_run import this_machine
from nodes.session.packet_limit import check_packet_limit, chunk_bytes
from nodes.session.presence import Presence
from pipeline.engines.pictured import Pictured, network_of
from pipeline.frames.fingerprint import fingerprint, libraries
from pipeline.frames.input_blocks import network_input
from pipeline.plan import NodeId
from pipeline.timing import cpu_quota

if TYPE_CHECKING:
    from nodes.tier.served_models import ServedModels
    from pipeline.engines.base import Engine, Loaded

_log = logging.getLogger(__name__)


def answers_where_asked(config: Config, engine: Engine, models: Mapping[str, Loaded]) -> dict[str, str]:
    """Answers to seeded frames by model, where other engines' are compared with them; else none."""
    if config.exact != "close":
        return {}
    from pipeline.engines.answers import answers
    from pipeline.profiling import profile

    found = {}
    for name, model in ((name, network_of(model)) for name, model in models.items()):
        key = f"answers-{model.graph.digest}"
        known = profile.kept(key, engine, lambda value: str(value["answers"]))
        found[name] = known or answers(engine, model)
        profile.keep_if_possible(key, engine, {"answers": found[name]})
    return found


def pictures_of(models: Mapping[str, Loaded]) -> dict[str, str]:
    """Fingerprint of the test pictures by model, for the models that take pictures."""
    return {
        name: fingerprint(network_input(model.graph), model.preprocess)
        for name, model in models.items()
        if isinstance(model, Pictured)
    }


def node_info(
    config: Config, node: NodeId, session: str, served: ServedModels, direct: DirectAddress | None = None
) -> NodeInfo:
    """The retained message that says what a node is and can do; `session` names its process."""
    from pipeline.profiling import codec_speeds
    from pipeline.profiling.profile import hardware

    section, engine, promise, speed = config.nodes[node], served.engine, served.promise, served.speed
    models = dict(served.loaded)  # versions may join meanwhile
    cores = len(os.sched_getaffinity(0))
    return NodeInfo(
        node=node,
        tier=section.tier.label,
        session=session,
        version=version("trisect"),
        engine=engine.name,
        engine_version=engine.version,
        threads=engine.threads,
        hardware=hardware(),
        models={name: model.graph.digest for name, model in models.items()},
        streams=dict(served.versions.model_of),
        speed=speed.to_json() if speed else None,
        role=section.role,
        bits=promise.bits,
        tiles=promise.tiles,
        answers=answers_where_asked(config, engine, models),
        codecs=codec_speeds.measured_or_kept(engine),
        pictures=pictures_of(models),
        picture_libraries=libraries(),
        refused_versions=dict(served.versions.refused),
        direct=direct,
        machine="" if engine.name == REPLAY else this_machine(),  # what waits shares no processor
        cores=float(cores),
        busy_cores=min(float(engine.threads), cpu_quota.cores() or cores, cores),
    )


def say_link(config: Config, names: Namespace, presence: Presence) -> None:
    """Measure the node's way to the broker, and say it. Raises ConfigError for one that takes no chunks, ProbeError."""
    session = presence.session
    check_packet_limit(session)
    report = link_probe.measure(session, names, presence.node, chunk_bytes=chunk_bytes(config.transport, session))
    presence.words.keep(names.topic(topics.LINK, node=presence.node), to_bytes(report))
    _log.info("link: %s", report.describe())
