"""The verbs of requests, which whoever asks and whoever answers share: topics of commands end in them."""

from __future__ import annotations

PING = "ping"
"""Of every process: that it is there. Has a topic of its own, since whoever may ping may not command."""
PING_TIMEOUT_S = 1.5
"""Of a ping, which every process answers."""
DRAIN = "drain"
"""Of a tier node: to finish what it holds and take nothing new, or to be back."""
TAKEN = "taken"
"""Of a device: how many frames have come from whoever asks, and how many of them are answered. Has its own topic."""
PLACE = "place"
"""Of the planner: to place a stream by hand, or to hand it back."""
OBJECTIVE = "objective"
"""Of the planner: what a stream is planned for."""
PRICE = "price"
"""Of the planner: what a placement or a plan request would cost; changes nothing."""
