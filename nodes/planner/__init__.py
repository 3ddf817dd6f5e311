"""The planner: its process, and planning without a running pipeline."""
