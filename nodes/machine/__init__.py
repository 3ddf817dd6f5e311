"""Every decision of a node, as pure state machines: events in, actions out; no socket, no clock, no thread."""
