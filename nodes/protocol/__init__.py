"""The protocol between processes: messages, the names in telemetry, commands, who is alive, kinds of work."""
