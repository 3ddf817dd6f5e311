"""A tier node's decisions, as pure state machines: events in, actions out."""
