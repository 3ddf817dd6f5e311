"""The streams whose device a node is: their settings for the machine, and their own sources of frames."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from nodes.config.sections import StreamSection
from nodes.tier import sequences
from nodes.tier.frame_ledger import FrameLedger
from nodes.tier.machine.stream import StreamSettings
from nodes.tier.sources import Offer, Source
from pipeline.plan import NodeId, StreamId


def settings_of(
    streams: Mapping[StreamId, StreamSection], model_of: Mapping[StreamId, str], state_dir: Path
) -> list[StreamSettings]:
    """The machine's settings, each with its present model; sets sequence numbers aside below `state_dir`."""
    return [
        StreamSettings(
            stream=name,
            model=model_of[name],
            window=section.window,
            frame_timeout_s=section.frame_timeout_s,
            first_sequence=sequences.reserve(state_dir / f"{name}.sequence"),
        )
        for name, section in streams.items()
    ]


def sources_of(
    node: NodeId, streams: Mapping[StreamId, StreamSection], offer: Offer, frame_ledger: FrameLedger
) -> list[Source]:
    """The streams' sources, not started; each begins after what the ledger has."""
    return [
        Source(
            node,
            name,
            section.source,
            section.window,
            offer,
            start_at=frame_ledger.position(name),
            on_end=partial(frame_ledger.source_ended, name),
        )
        for name, section in streams.items()
        if section.source is not None
    ]
