"""The Python client of a running pipeline: requests, a stream's frames and results, and trisect's own processes."""
