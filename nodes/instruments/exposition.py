"""Metric families as text: OpenMetrics 1.0, or Prometheus's text format 0.0.4.

prometheus_client checks names and sorts labels again for each sample at every scrape, which takes most of its time.
Here tables fix both, so only values of labels are escaped, once for all samples that share them.
Source: https://prometheus.io/docs/specs/om/open_metrics_spec/
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, Literal

Kind = Literal["counter", "gauge", "histogram", "info", "stateset"]

_SUFFIXES: Final[dict[Kind, str]] = {"counter": "_total", "info": "_info"}
_IN_TEXT_FORMAT: Final[dict[Kind, str]] = {"info": "gauge", "stateset": "gauge"}


@dataclass(slots=True)
class Family:
    """A family and its samples' lines; `name` has no suffix for counters and infos, and ends with `unit`."""

    name: str
    kind: Kind
    help: str
    unit: str = ""
    lines: list[str] = field(default_factory=list)
    sample_name: str = field(init=False)

    def __post_init__(self) -> None:
        self.sample_name = self.name + _SUFFIXES.get(self.kind, "")

    def add(self, labels: str, value: float) -> None:
        """Add a sample; `labels` come from `label_text`."""
        self.lines.append(f"{self.sample_name}{{{labels}}} {_number(value)}\n")

    def add_histogram(self, labels: str, cumulative: Iterable[tuple[str, float]], total: float) -> None:
        """Add a histogram: counts up to each upper bound, the last of which is `+Inf`, and the sum of all values."""
        count = 0.0
        for bound, count in cumulative:
            self.lines.append(f'{self.name}_bucket{{{labels},le="{bound}"}} {_number(count)}\n')
        self.lines.append(f"{self.name}_count{{{labels}}} {_number(count)}\n")
        self.lines.append(f"{self.name}_sum{{{labels}}} {_number(total)}\n")


def label_text(**labels: str) -> str:
    """Labels as they stand between braces."""
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())


def exposition(families: Iterable[Family], *, open_metrics: bool) -> bytes:
    """The body of an answer to a scrape; families without a sample are left out."""
    parts: list[str] = []
    for family in families:
        if family.lines:
            parts.append(_open_metrics_head(family) if open_metrics else _text_head(family))
            parts += family.lines
    if open_metrics:
        parts.append("# EOF\n")
    # a lone surrogate, which JSON can bring, has no UTF-8
    return "".join(parts).encode("utf-8", "replace")


def _open_metrics_head(family: Family) -> str:
    unit = f"# UNIT {family.name} {family.unit}\n" if family.unit else ""
    return f"# HELP {family.name} {_escaped(family.help)}\n# TYPE {family.name} {family.kind}\n{unit}"


def _text_head(family: Family) -> str:
    kind = _IN_TEXT_FORMAT.get(family.kind, family.kind)
    help_ = family.help.replace("\\", r"\\").replace("\n", r"\n")
    return f"# HELP {family.sample_name} {help_}\n# TYPE {family.sample_name} {kind}\n"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _number(value: float) -> str:
    if math.isfinite(value):
        return repr(value)
    return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
