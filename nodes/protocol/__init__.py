"""What processes tell each other: messages, the names in telemetry, commands, who is alive, kinds of work."""
