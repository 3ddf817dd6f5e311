"""What the planner learns of nodes and ways: seconds, rates, and when they have changed. Pure."""
