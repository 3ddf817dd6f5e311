"""How fast a machine runs a model, and any model: profiles, calibration, a probe of the processor."""
