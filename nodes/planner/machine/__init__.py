"""The planner's decisions, pure: from what nodes say of themselves to plans."""
