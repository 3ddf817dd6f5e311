"""The network table: ping and bandwidth between systems, from a CSV file."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from pipeline.cost import Link
from pipeline.errors import ConfigError
from pipeline.scission.system import bounded

COLUMNS = ("source", "destination", "ping(ms)", "bandwidth(mbps)")
BYTES_PER_S = 125_000
"""In a Mbit/s."""
_MOST_PING_MS = 1e9
_LEAST_MBPS, _MOST_MBPS = 1e-6, 1e9

Pair: TypeAlias = tuple[str, str]


@dataclass(frozen=True)
class Network:
    """Links by the names of source and destination; `source` is the file that error messages name."""

    links: Mapping[Pair, Link]
    source: str = "the network table"

    def link(self, source: str, destination: str) -> Link:
        """The link of two systems, in this direction. Raises ConfigError."""
        try:
            return self.links[source, destination]
        except KeyError:
            raise ConfigError(
                f"{self.source}: no row from {source!r} to {destination!r}; add {source},{destination},PING,BANDWIDTH"
                " with the ping in ms and the bandwidth in Mbit/s"
            ) from None


def read_network(path: Path) -> Network:
    """Read a table with the columns source, destination, ping(ms), bandwidth(mbps). Raises ConfigError."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return Network(dict(_links(str(path), csv.reader(file, strict=True))), str(path))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(
            f"{path}: {reason}; give a network table, a CSV file of {', '.join(COLUMNS)}", file=path
        ) from None


def _links(source: str, lines: Iterable[list[str]]) -> Iterator[tuple[Pair, Link]]:
    rows = ((number, [cell.strip() for cell in row]) for number, row in enumerate(lines, start=1))
    filled = ((number, row) for number, row in rows if any(row))
    number, header = next(filled, (1, []))
    names = [name.lower() for name in header]
    if missing := [column for column in COLUMNS if column not in names]:
        raise ConfigError(f"{source}: row {number} names no {', '.join(missing)}; begin with {','.join(COLUMNS)}")
    seen: dict[Pair, int] = {}
    for number, row in filled:
        where = f"{source}: row {number} ({','.join(row)})"
        if len(row) != len(names):
            raise ConfigError(f"{where} has {len(row)} cells for {len(names)} columns; give {','.join(names)}")
        cells = dict(zip(names, row, strict=True))
        pair = cells["source"], cells["destination"]
        if not all(pair):
            raise ConfigError(f"{where} lacks a system's name; give a source and a destination")
        if pair in seen:
            raise ConfigError(f"{where} gives {pair[0]} to {pair[1]} again, after row {seen[pair]}; keep one of them")
        seen[pair] = number
        yield pair, _link(where, cells)


def _link(where: str, cells: Mapping[str, str]) -> Link:
    ping_ms = _number(where, cells, "ping(ms)", 0, _MOST_PING_MS)
    mbps = _number(where, cells, "bandwidth(mbps)", _LEAST_MBPS, _MOST_MBPS)
    return Link(bandwidth_bytes_per_s=mbps * BYTES_PER_S, latency_s=ping_ms / 1000)


def _number(where: str, cells: Mapping[str, str], column: str, least: float, most: float) -> float:
    try:
        return bounded(float(cells[column]), least, most)
    except ValueError:
        raise ConfigError(
            f"{where}: {column} {cells[column]!r} is not a number from {least:g} to {most:g}; measure it again"
        ) from None
