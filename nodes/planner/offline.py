"""Planning without a running pipeline: node sets from a configuration's nodes and links, and from what nodes left
on the broker where the configuration does not say it. No TensorFlow.
"""

from __future__ import annotations

import json
import queue
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from broker import topics
from broker.complaints import shortened
from broker.session import Message
from broker.topics import Namespace
from nodes.config.loader import load_config
from nodes.config.plan_request import DEVICE_STAYS
from nodes.config.power_section import PowerSection
from nodes.config.sections import Config, LinkSection, NodeSection, SpeedSection
from nodes.planner.costs.node_costs import prior_deviation
from nodes.planner.costs.ratios import Ratios
from nodes.planner.costs.transfers import link_between
from nodes.planner.machine.cores import shared_cores
from nodes.planner.machine.static_costs import StaticCosts, combinations
from nodes.planner.machine.worker_pools import WorkerPools
from nodes.protocol.border import Border
from nodes.protocol.messages import LinkReport, NodeInfo
from nodes.session.presence import guest_session
from pipeline.coding import CodecCosts, CodecSpeed
from pipeline.cost import LINKS, Costs, Link, link_label
from pipeline.energy import Draw
from pipeline.errors import ConfigError, ModelError, PlanError, TrisectError
from pipeline.estimator import Speed, estimate
from pipeline.files import read_bounded
from pipeline.graph import ModelGraph
from pipeline.partition.priced_plan import NodeSet, PricedPlan
from pipeline.placement import Tier
from pipeline.plan import NodeId
from pipeline.profiling.profile import Profile
from pipeline.tiles.worker_pool import TileNode

CONNECT_WAIT_S = 5.0
MOST_PROFILE_BYTES = 64 << 20
QUIET_S = 0.5
_MEGABIT_BYTES = 125_000.0
_MEGABYTE = 1e6


@dataclass(slots=True)
class Measured:
    """Measurements of nodes: speeds, also of codecs, profiles of the model, links; and what they say of themselves."""

    speeds: dict[NodeId, Speed] = field(default_factory=dict)
    profiles: dict[NodeId, Profile] = field(default_factory=dict)
    codecs: dict[NodeId, Mapping[str, CodecSpeed]] = field(default_factory=dict)
    reports: dict[NodeId, LinkReport] = field(default_factory=dict)
    infos: dict[NodeId, NodeInfo] = field(default_factory=dict)


def find_config(name: str) -> Config:
    """The configuration at a path, or one of those that come with trisect, by name. Raises ConfigError."""
    path = Path(name)
    if path.suffix in {".yaml", ".yml"} or "/" in name or path.exists():
        return load_config(path, runs=False)
    home = Path(__file__).resolve().parents[1]
    folders = (home / "configs", home.parent / "configs")  # as installed, and in a checkout
    known = {found.stem: found for folder in folders for found in sorted(folder.glob("*.yaml"))}
    if name not in known:
        raise ConfigError(f"no configuration {name!r}: a path, or one of {', '.join(known)}")
    return load_config(known[name], runs=False)


def static_costs_of(config: Config) -> StaticCosts:
    """Prices, power, memory and given links of the configuration."""
    return StaticCosts(
        prices={id_: node.price_per_s for id_, node in config.nodes.items() if node.price_per_s},
        memory_bytes={
            id_: node.memory_mb * _MEGABYTE for id_, node in config.nodes.items() if node.memory_mb is not None
        },
        links={lower: _link(section) for lower, section in config.links.items()},
        draws={id_: _draw(node) for id_, node in config.nodes.items() if node.power_w or node.joules_per_mb},
    )


def _draw(node: NodeSection) -> Draw:
    """What is configured; measured watts come from the node."""
    watts = node.power_w.busy - node.power_w.idle if isinstance(node.power_w, PowerSection) else 0.0
    return Draw(watts, node.joules_per_mb / _MEGABYTE)


def node_sets(config: Config, graph: ModelGraph, excluded: tuple[NodeId, ...] = ()) -> list[NodeSet]:
    """Every combination of the configuration's nodes, each device with each edge and cloud node or without.

    A node's times come from its `profiles`, else from what it left on the broker, else are estimated from its `speed`.
    Raises ConfigError when something is neither given nor measured, an excluded node is not there or no device left,
    PlanError for a profile that does not fit.
    """
    tiers = {tier: [node for node in config.nodes_of(tier) if node not in excluded] for tier in Tier}
    if not config.nodes_of(Tier.DEVICE):
        raise ConfigError("no node of tier device in the configuration; frames enter on one")
    if unknown := set(excluded) - config.nodes.keys():
        raise ConfigError(
            f"exclude_nodes: no node {shortened(', '.join(sorted(unknown)))}; those of the configuration are "
            f"{shortened(', '.join(sorted(config.nodes)))}"
        )
    if not tiers[Tier.DEVICE]:
        raise ConfigError(f"exclude_nodes: {config.nodes_of(Tier.DEVICE)[-1]} {DEVICE_STAYS}")
    measured = measured_by(config, graph.name) if _is_lacking(config, excluded) else Measured()
    seconds = {node: _seconds(config, node, graph, measured) for tier in Tier for node in tiers[tier]}
    workers = [node for node in config.tile_workers if node not in excluded]
    seconds |= {node: _seconds(config, node, graph, measured) for node in workers}
    static_costs, (ratios, speeds) = static_costs_of(config), _codecs(config, graph, measured)
    found = []
    for nodes in combinations(tiers):
        links = [_link_of(config, lower, nodes, measured) for lower in LINKS]
        codecs = CodecCosts(ratios, {tier: speeds.get(node, {}) for tier, node in nodes.items()})
        infos = {tier: measured.infos[node] for tier, node in nodes.items() if node in measured.infos}
        of_nodes = {tier: seconds[node] for tier, node in nodes.items()}
        costs = Costs(of_nodes, links[0], links[1], codecs=codecs, cores=shared_cores(infos))
        costs.check(graph)
        found.append(static_costs.node_set(nodes, costs))
    if not workers:
        return found
    able = [*workers, *tiers[Tier.EDGE]]
    tile_nodes = {node: _tile_node(config, node, seconds[node], measured) for node in able}
    tile_nodes = {node: replace(tile_node, codecs=speeds.get(node, {})) for node, tile_node in tile_nodes.items()}
    pools = WorkerPools(tile_nodes.__getitem__, workers, able, ratios=ratios, draws=static_costs.draws)
    return [pools.joined(graph, node_set, choose=True) for node_set in found]


def deviation(config: Config, best: PricedPlan) -> float:
    """Standard deviation of the logarithm of a frame's seconds, before anything but profiles was measured.

    Nodes without profiles in the configuration are taken for estimated.
    """
    estimated = {
        tier.label
        for tier, node in best.nodes.items()
        if NodeId(node) not in config.nodes or config.nodes[NodeId(node)].profiles is None
    }
    return prior_deviation(best.predicted, estimated)


def measured_by(config: Config, model: str) -> Measured:
    """Read what the pipeline's nodes have retained on the broker. Raises BrokerError when there is none."""
    names = Namespace(config.pipeline)
    found, arrived, border = Measured(), queue.SimpleQueue[Message](), Border(names)
    with guest_session(config, "plan") as session:
        session.start(CONNECT_WAIT_S)
        session.subscribe([names.filter(kind) for kind in (topics.INFO, topics.LINK, topics.PROFILE)], arrived.put)
        while True:
            try:
                message = arrived.get(timeout=QUIET_S)
            except queue.Empty:
                return found
            try:
                _learn(found, border, message, model)
            except TrisectError as error:
                border.refuse(message.topic, str(error))


def _learn(found: Measured, border: Border, message: Message, model: str) -> None:
    match border.read(message):
        case NodeInfo() as info:
            if info.speed is not None:
                found.speeds[info.node] = Speed.from_json(info.speed)
            found.codecs[info.node] = info.codecs
            found.infos[info.node] = info
        case LinkReport() as report:
            found.reports[report.node] = report
        case Profile() as profile if profile.model == model:
            found.profiles[border.sender(message)] = profile


def _is_lacking(config: Config, excluded: tuple[NodeId, ...]) -> bool:
    """True when the configuration leaves something to be measured."""
    nodes = [node for id_, node in config.nodes.items() if id_ not in excluded]
    tiers = {node.tier for node in nodes}
    needed = {lower for lower in LINKS if max(tiers) > lower}
    tiling = [node for node in nodes if node.tier is Tier.EDGE and any(other.is_worker for other in nodes)]
    return (
        any(node.speed is None and node.profiles is None for node in nodes)
        or any(node.link is None for node in tiling)
        or not needed <= config.links.keys()
    )


def _seconds(config: Config, node: NodeId, graph: ModelGraph, measured: Measured) -> tuple[float, ...]:
    section = config.nodes[node]
    if section.profiles is not None and (path := section.profiles / f"{graph.name}.json").exists():
        return read_profile(path, graph)
    profile = measured.profiles.get(node)
    if profile is not None and len(profile.seconds) == len(graph):
        return profile.seconds
    speed = _speed(section.speed) if section.speed is not None else measured.speeds.get(node)
    if speed is None:
        where = f"no {graph.name}.json in {section.profiles}" if section.profiles else "no profiles"
        raise ConfigError(
            f"nodes.{node}: {where}, no speed, and it has left none on the broker {config.broker.host}:"
            f"{config.broker.port}; run `trisect profile {graph.name} -o DIR` on it and give profiles: DIR, or start it"
        )
    return estimate(graph, speed)


def _codecs(
    config: Config, graph: ModelGraph, measured: Measured
) -> tuple[Mapping[int, Mapping[str, float]], Mapping[NodeId, Mapping[str, CodecSpeed]]]:
    """How far codecs shrink tensors, as the first node has it that has profiled the model, and nodes' speeds."""
    files = {node: read_codecs(path) for node in config.nodes if (path := _profile_path(config, node, graph)).exists()}
    profiles = [profile for profile, _ in files.values()] + [*measured.profiles.values()]
    ratios = Ratios()
    ratios.assume(graph, next((p for p in profiles if p.ratios and p.digest == graph.digest), None), band=0.0)
    speeds = {**measured.codecs, **{node: speeds for node, (_, speeds) in files.items()}}
    return ratios.assumed, speeds


def _profile_path(config: Config, node: NodeId, graph: ModelGraph) -> Path:
    return (config.nodes[node].profiles or Path()) / f"{graph.name}.json"


def read_codecs(path: Path) -> tuple[Profile, dict[str, CodecSpeed]]:
    """A profile as `trisect profile` has written it, with the speeds of codecs. Raises PlanError."""
    try:
        report = json.loads(read_bounded(path, MOST_PROFILE_BYTES))
        speeds = {str(name): CodecSpeed.from_json(speed) for name, speed in report.get("codecs", {}).items()}
        return Profile.from_json(report["profile"]), speeds
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, ModelError) as error:
        raise PlanError(f"{path}: not a profile: {error}; write it anew with `trisect profile`") from error


def _tile_node(config: Config, node: NodeId, seconds: tuple[float, ...], measured: Measured) -> TileNode:
    section, report = config.nodes[node].link, measured.reports.get(node)
    if section is not None:
        link = _link(section)
        return TileNode(node, seconds, link.bandwidth_bytes_per_s, link.bandwidth_bytes_per_s, link.latency_s)
    if report is None:
        raise ConfigError(
            f"nodes.{node}: no link is given, and it left no measurement on the broker {config.broker.host}:"
            f"{config.broker.port}; tiles need one: give link: {{bandwidth_mbit_s: ...}}, or start the node"
        )
    return TileNode(node, seconds, report.up_bytes_per_s, report.down_bytes_per_s, report.round_trip_s / 2)


def read_profile(path: Path, graph: ModelGraph) -> tuple[float, ...]:
    """Seconds of the graph's blocks, as `trisect profile` has written them. Raises PlanError, naming file and block."""
    try:
        report = json.loads(read_bounded(path, MOST_PROFILE_BYTES))
        profile = Profile.from_json(report["profile"])
        names = [str(block["name"]) for block in report["graph"]["blocks"]]
    except (OSError, ValueError, KeyError, TypeError, RecursionError, ModelError) as error:
        raise PlanError(f"{path}: not a profile: {error}; write it again with `trisect profile`") from error
    wanted = [block.name for block in graph.blocks]
    if names != wanted or len(profile.seconds) != len(graph):
        lacking = next((name for name in wanted if name not in names), None)
        what = f"lacks block {lacking!r}" if lacking else f"has {len(names)} blocks and {len(profile.seconds)} times"
        raise PlanError(
            f"{path}: {what}; model {graph.name!r} has {len(graph)} blocks; "
            f"write it again with `trisect profile {graph.name}`"
        )
    return profile.seconds


def _speed(section: SpeedSection) -> Speed:
    return Speed(**section.model_dump())


def _link(section: LinkSection) -> Link:
    return Link(section.bandwidth_mbit_s * _MEGABIT_BYTES, section.latency_ms / 1e3)


def _link_of(config: Config, lower: Tier, nodes: Mapping[Tier, NodeId], measured: Measured) -> Link:
    if lower in config.links:
        return _link(config.links[lower])
    reports = [measured.reports.get(nodes[tier]) if tier in nodes else None for tier in (lower, Tier(lower + 1))]
    lacking = [nodes[t] for t, r in zip((lower, Tier(lower + 1)), reports, strict=True) if t in nodes and r is None]
    if lacking and max(nodes) > lower:
        raise ConfigError(
            f"links.{link_label(lower)}: not given, and {' and '.join(lacking)} left no measurement on the broker "
            f"{config.broker.host}:{config.broker.port}; give bandwidth_mbit_s, or start the nodes"
        )
    return link_between(*reports)
