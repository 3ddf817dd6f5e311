"""The library: graphs, prepared models, segments, partitioning, wire format, costs. No sockets, no argv, no MQTT."""
