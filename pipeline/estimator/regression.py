"""Coefficients from measured times: non-negative, so that more work never takes less time; small blocks count too."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.estimator.features import UNITS, Amounts
from pipeline.estimator.speed import Speed

_FLOOR = 0.02
"""A sample's error counts relative to its own seconds plus this share of its model's."""
_RIDGE = 1e-3
"""Keeps two features that always come together from taking all of each other's share."""


@dataclass(frozen=True, slots=True)
class Sample:
    """The amounts of one or several blocks of a model, and their seconds on a node."""

    model: str
    amounts: Amounts
    seconds: float


Coefficients = Mapping[str, float]
"""By feature: the factor between what a node's speed prices it at and what it takes."""


def price(amounts: Amounts, coefficients: Coefficients, unit_seconds: Mapping[str, float]) -> float:
    """Estimated seconds: amounts times coefficients times the node's seconds per unit, summed."""
    return sum(
        amount * coefficients.get(name, 0.0) * unit_seconds[UNITS[name]] for name, amount in sorted(amounts.items())
    )


def fit(nodes: Iterable[tuple[Speed, Sequence[Sample]]]) -> dict[str, float]:
    """Coefficients from the samples of one node or several, each with its own speed."""
    from scipy.optimize import nnls

    names = list(UNITS)
    rows, targets = [], []
    for speed, samples in nodes:
        units = speed.unit_seconds()
        scale = np.array([units[UNITS[name]] for name in names])
        for model in sorted({sample.model for sample in samples}):
            own = [sample for sample in samples if sample.model == model]
            priced = np.array([[sample.amounts[name] for name in names] for sample in own]) * scale
            seconds = np.array([sample.seconds for sample in own])
            weights = 1 / (seconds + _FLOOR * seconds.sum()) / np.sqrt(len(own))
            rows += [priced * weights[:, None], priced.sum(axis=0, keepdims=True) / seconds.sum()]
            targets += [seconds * weights, np.ones(1)]
    matrix = np.vstack(rows)
    size = np.sqrt((matrix**2).sum(axis=0))
    ridge = _RIDGE * np.diag(size)
    solution, _ = nnls(np.vstack([matrix, ridge]), np.concatenate([*targets, np.zeros(len(names))]))
    return {name: float(value) for name, value in zip(names, solution, strict=True)}
