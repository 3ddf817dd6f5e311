"""What other people's instruments read: Prometheus, Home Assistant, OpenTelemetry, AsyncAPI; and recordings."""
