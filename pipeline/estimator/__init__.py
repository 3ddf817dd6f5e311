"""Seconds per block of a model that a node has not measured yet, from its graph and the node's speed.

Needs no TensorFlow. An estimate serves a first plan; a profile, once there, is always better.
"""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files

from pipeline.estimator.features import amounts
from pipeline.estimator.regression import Coefficients, fit, price
from pipeline.estimator.speed import Speed
from pipeline.graph import ModelGraph

__all__ = ["Coefficients", "Speed", "estimate", "fit", "price", "shipped_coefficients"]


@cache
def shipped_coefficients() -> Coefficients:
    """Load the coefficients that `benchmarks/estimator.py` fitted to our own profiles."""
    text = files("pipeline.estimator").joinpath("coefficients.json").read_text(encoding="utf-8")
    return {str(name): float(value) for name, value in json.loads(text)["coefficients"].items()}


def estimate(graph: ModelGraph, speed: Speed, coefficients: Coefficients | None = None) -> tuple[float, ...]:
    """Seconds of each block by index on a node of this speed; 0.0 for block 0, the input."""
    factors = shipped_coefficients() if coefficients is None else coefficients
    units = speed.unit_seconds()
    return tuple(price(amounts(graph, block), factors, units) for block in graph.blocks)
