"""The configuration file: read, checked, and what its sections mean."""
