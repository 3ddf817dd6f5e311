"""`trisect doctor` and `trisect check`: what is wrong with a machine, its way to the broker, or a configuration."""
