"""Cores that nodes of one machine share, from what they say of themselves. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from nodes.protocol.messages import NodeInfo
from pipeline.placement import Tier
from pipeline.shared_cores import SharedCores


def shared_cores(infos: Mapping[Tier, NodeInfo], workers: Iterable[NodeInfo] = ()) -> tuple[SharedCores, ...]:
    """The cores of each machine that several nodes of a set are on, or one and workers of tiles, by its name."""
    machines: dict[str, dict[Tier, NodeInfo]] = {}
    for tier, info in infos.items():
        if info.core_share:
            machines.setdefault(info.machine, {})[tier] = info
    able: dict[str, list[str]] = {}
    for worker in workers:
        if worker.core_share and worker.machine in machines:
            able.setdefault(worker.machine, []).append(worker.node)
    return tuple(
        SharedCores(
            machine,
            max(info.cores for info in there.values()),
            {tier: info.core_share for tier, info in there.items()},
            tuple(sorted(able.get(machine, ()))),
        )
        for machine, there in sorted(machines.items())
        if len(there) > 1 or machine in able
    )
