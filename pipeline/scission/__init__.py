"""Scission's procedure: every contiguous placement over all combinations of measured systems, filtered, best first.

Source: Lockhart et al., "Scission: Performance-driven and Context-aware Cloud-Edge Distribution of Deep Neural
Networks" (UCC 2020); its answers on its own data are reproduced. It goes by block times, sizes and a network table
alone: no graph, no TensorFlow, no broker.

What a placement takes is the sum of its blocks' seconds, and for each hop the ping of that pair of systems plus bytes
over bandwidth; device to cloud past the edge is one hop with its own row. What the device sends when it computes
nothing is the input file; what the last tier answers is not counted.
"""

from __future__ import annotations

from pipeline.scission.filters import Filter, tier_filters, time_filter, upload_filter
from pipeline.scission.folder import load_systems
from pipeline.scission.network import Network, read_network
from pipeline.scission.search import INPUT_BYTES, TOP, Answer, Query, explain, notes, search
from pipeline.scission.system import Blocks, System

__all__ = [
    "INPUT_BYTES",
    "TOP",
    "Answer",
    "Blocks",
    "Filter",
    "Network",
    "Query",
    "System",
    "explain",
    "load_systems",
    "notes",
    "read_network",
    "search",
    "tier_filters",
    "time_filter",
    "upload_filter",
]
