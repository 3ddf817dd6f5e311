"""A measured system and its models' blocks, checked once. Knows no file format."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from pipeline.errors import ConfigError
from pipeline.placement import Tier

MOST_SECONDS = 1e9
MOST_BYTES = 10**15
MOST_LAYERS = 10**9


def bounded(value: object, least: float, most: float) -> float:
    """Check that a value is a number from `least` to `most`. Raises ValueError for anything else, NaN included.

    The bounds keep every sum finite; they are far beyond what can be measured.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise ValueError(f"{reprlib.repr(value)} is not a number from {least:g} to {most:g}")
    return float(value)


@dataclass(frozen=True, slots=True)
class Blocks:
    """One model's blocks on one system, each an entry in all four tuples: between any two of them it may be cut.

    Layers count from 0, `last_layer` is inclusive, and each layer is in one block, in order. `output_bytes` is what
    crosses a link after a block. `source` is the file and model that error messages name. Raises ConfigError.
    """

    first_layer: tuple[int, ...]
    last_layer: tuple[int, ...]
    seconds: tuple[float, ...]
    output_bytes: tuple[int, ...]
    source: str = field(default="a profile", compare=False)

    def __post_init__(self) -> None:
        columns = (self.first_layer, self.last_layer, self.seconds, self.output_bytes)
        if len({len(column) for column in columns}) != 1 or not self.first_layer:
            raise ConfigError(f"{self.source}: has no blocks, or not four values for each; profile it again")
        for index in range(len(self)):
            try:
                self._check(index)
            except ValueError as error:
                raise ConfigError(f"{self.source}: block {index} {error}; profile it again") from None

    def __len__(self) -> int:
        return len(self.first_layer)

    def _check(self, index: int) -> None:
        first, last, nbytes = self.first_layer[index], self.last_layer[index], self.output_bytes[index]
        due = self.last_layer[index - 1] + 1 if index else 0
        if any(isinstance(value, bool) or not isinstance(value, int) for value in (first, last, nbytes)):
            raise ValueError(f"has layers and output bytes {reprlib.repr((first, last, nbytes))}, not whole numbers")
        if first > due:
            raise ValueError(f"begins at layer {first}: layers {due} to {first - 1} are missing")
        if first < due:
            raise ValueError(f"begins at layer {first}, but layers up to {due - 1} are in blocks before it")
        if last < first:
            raise ValueError(f"ends at layer {last}, before its first, {first}")
        if last > MOST_LAYERS:
            raise ValueError(f"ends at layer {reprlib.repr(last)}; no network has more than {MOST_LAYERS:g}")
        for name, value, most in (("seconds", self.seconds[index], MOST_SECONDS), ("bytes", nbytes, MOST_BYTES)):
            try:
                bounded(value, 0, most)
            except ValueError as error:
                raise ValueError(f"(layers {first} to {last}): {name} {error}") from None


@dataclass(frozen=True)
class System:
    """A machine on a tier, with its measured blocks by model."""

    name: str
    tier: Tier
    models: Mapping[str, Blocks]
