"""A process on the broker: its presence, its clock, its way there, and threads for what network threads hand over."""
