"""A process on the broker: its presence, its clock, its way there, and the threads that network threads hand over to."""
