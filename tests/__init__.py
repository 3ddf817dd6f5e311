"""The tests; a package so that `tests.graphs` is found before any other that may be installed."""
