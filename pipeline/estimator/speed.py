"""A node's speed: the five numbers that a calibration measures. Knows no model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pipeline import ranges
from pipeline.errors import ModelError
from pipeline.ranges import Rate, Seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """Rates that one engine reaches on one machine, with its threads. Raises ModelError unless all are above 0.

    `macs_per_s` in a 3x3 convolution, `bytes_per_s` read and written by a sum of two tensors, `weight_bytes_per_s` of a
    dense layer larger than the caches; `operation_s` are the seconds of a layer that has nothing to compute.
    """

    macs_per_s: Rate
    depthwise_macs_per_s: Rate
    bytes_per_s: Rate
    weight_bytes_per_s: Rate
    operation_s: Seconds

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not (math.isfinite(value) and value > 0):
                raise ModelError(f"a node's speed: {name} is {value}, not above 0; calibrate again")

    def unit_seconds(self) -> dict[str, float]:
        """Seconds of one MAC, depthwise MAC, byte, weight byte and operation."""
        return {
            "mac": 1 / self.macs_per_s,
            "depthwise_mac": 1 / self.depthwise_macs_per_s,
            "byte": 1 / self.bytes_per_s,
            "weight_byte": 1 / self.weight_bytes_per_s,
            "operation": self.operation_s,
        }

    def to_json(self) -> dict[str, float]:
        """Plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Speed:
        """Read it back. Raises ModelError for anything else."""
        return ranges.read(cls, value, error=ModelError, what="a node's speed")
