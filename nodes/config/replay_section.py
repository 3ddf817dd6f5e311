"""The section of a replay: an experiment whose nodes wait recorded seconds instead of computing."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import Field

from nodes.config.base import Section, Table
from nodes.config.values import LocalPath, NodeKey
from pipeline.plan import NodeId
from pipeline.ranges import Name

REPLAY = "replay"
"""The engine's name in a configuration."""


class ReplaySection(Section):
    """What `engine: replay` waits in place of computing."""

    recording: LocalPath = Field(description="the path of a recording of block times")
    machines: Table[NodeKey, Name] = Field(
        description="a table of all nodes and the class of machines, of those in the recording, that each one is"
    )


def check_replay(replay: ReplaySection | None, engine: str, exact: str, nodes: Iterable[NodeId]) -> None:
    """Raise ValueError for half of a replay: it computes nothing, so it has to be asked for twice, for all nodes."""
    if (engine == REPLAY) != (replay is not None):
        there = "missing" if replay is None else "there"
        raise ValueError(
            f"engine is {engine} and the section replay is {there}; a replay computes nothing, so it takes both: give "
            "both, or neither"
        )
    if replay is None:
        return
    if exact == "close":
        raise ValueError("engine is replay and exact is close; its answers mean nothing, so leave exact out")
    if missing := [node for node in nodes if node not in replay.machines]:
        raise ValueError(f"replay.machines lacks node {missing[0]}; say which machine of the recording it is")
