"""Seconds that count: without what other processes took, within a container's share."""
