"""`trisect watch`: the process, and what it shows."""
