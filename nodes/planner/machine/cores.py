"""Cores that nodes of one machine share, from what they say of themselves. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from nodes.protocol.messages import NodeInfo
from pipeline.placement import Tier
from pipeline.shared_cores import SharedCores


def shared_cores(infos: Mapping[Tier, NodeInfo]) -> tuple[SharedCores, ...]:
    """The cores of each machine that several nodes of a set are on, by its name."""
    machines: dict[str, dict[Tier, NodeInfo]] = {}
    for tier, info in infos.items():
        if info.core_share:
            machines.setdefault(info.machine, {})[tier] = info
    return tuple(
        SharedCores(
            machine, max(info.cores for info in there.values()), {tier: info.core_share for tier, info in there.items()}
        )
        for machine, there in sorted(machines.items())
        if len(there) > 1
    )
