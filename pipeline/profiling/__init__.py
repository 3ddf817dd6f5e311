"""Measured speed: profiles of models, calibration of engines, a probe of the processor."""
