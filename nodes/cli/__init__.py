"""The command line: one module per command that is more than a request, and what they print."""
