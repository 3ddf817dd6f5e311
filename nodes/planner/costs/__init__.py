"""Costs that the planner learns: nodes' seconds, links' rates, and their drift. Pure."""
