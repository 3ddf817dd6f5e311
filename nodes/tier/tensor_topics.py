"""Tensor topics that a node reads for an epoch: inputs of its stage, its tiles, and outputs of workers' tiles."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from broker import topics
from broker.topics import Namespace
from nodes.tier.machine.actions import Prepare
from pipeline.graph import ModelGraph
from pipeline.placement import Tier
from pipeline.plan import NodeId


@dataclass(frozen=True, slots=True)
class TensorSubscription:
    """A topic and who writes on it; `of_tiles` are workers' outputs for the tiles that this node shares out."""

    topic: str
    sender: NodeId
    of_tiles: bool = False


def tensor_subscriptions(
    names: Namespace, me: NodeId, graph: ModelGraph, part: Prepare
) -> Iterator[TensorSubscription]:
    """Yield the subscriptions of this node's part in a plan."""
    plan, stage = part.plan, part.stage
    epoch: dict[str, str | int] = {"stream": plan.stream, "epoch": plan.epoch}
    if stage is None:
        coordinator = plan.nodes[Tier.EDGE]
        yield TensorSubscription(names.topic(topics.TILE, node=coordinator, worker=me, **epoch), coordinator)
        return
    for tensor in stage.inputs:
        sender = plan.nodes[plan.placement[graph.producer[tensor]]]
        yield TensorSubscription(names.topic(topics.OUT, node=sender, tensor=tensor, **epoch), sender)
    for worker in plan.workers if part.tiled is not None else ():
        yield TensorSubscription(names.topic(topics.TILED, node=worker, **epoch), worker, of_tiles=True)


def destinations(part: Prepare) -> set[NodeId]:
    """The nodes that this node may have something for under a plan, itself perhaps among them."""
    plan = part.plan
    if part.stage is None:
        return {plan.nodes[Tier.EDGE]}
    return {*plan.nodes.values(), *(plan.workers if part.tiled is not None else ())}
