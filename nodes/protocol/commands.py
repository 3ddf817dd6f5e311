"""The verbs of commands (`cmd/<node>/<verb>`), which whoever asks and whoever answers share."""

from __future__ import annotations

PING_TIMEOUT_S = 1.5
"""Of a ping, which every process answers."""
DRAIN = "drain"
"""Of a tier node: to finish what it holds and take nothing new, or to be back."""
PLACE = "place"
"""Of the planner: to place a stream by hand, or to hand it back."""
OBJECTIVE = "objective"
"""Of the planner: what a stream is planned for."""
