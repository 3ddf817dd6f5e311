"""Two reports of a node as one, for who has not come to the first when the second arrives."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import replace
from typing import TypeVar

from nodes.protocol.messages import LinkMeasured, Report, SegmentSeconds

T = TypeVar("T")


def joined(before: Report, newer: Report) -> Report:
    """One report of both: what both say of the same, the newer says; the frames of a segment are those of both."""
    links = {name: getattr(newer.link, name) or getattr(before.link, name) for name in LinkMeasured.__slots__}
    return Report(
        segments=tuple(_segments(before.segments, newer.segments)),
        tiles=_newest(before.tiles, newer.tiles, lambda tile: (tile.stream, tile.epoch, tile.tile, tile.worker)),
        legs=_newest(before.legs, newer.legs, lambda leg: (leg.stream, leg.epoch)),
        frame_overheads={**before.frame_overheads, **newer.frame_overheads},
        link=LinkMeasured(**links),
        probe_seconds=before.probe_seconds if newer.probe_seconds is None else newer.probe_seconds,
        ratios=_newest(before.ratios, newer.ratios, lambda ratio: (ratio.stream, ratio.tensor, ratio.codec)),
        direct=newer.direct,
        gathers=_newest(before.gathers, newer.gathers, lambda gather: (gather.stream, gather.epoch)),
        work_watts=before.work_watts if newer.work_watts is None else newer.work_watts,
    )


def _segments(before: Iterable[SegmentSeconds], newer: Iterable[SegmentSeconds]) -> Iterator[SegmentSeconds]:
    known = {(segment.stream, segment.epoch): segment for segment in before}
    for segment in newer:
        same = known.pop((segment.stream, segment.epoch), None)
        yield segment if same is None else replace(segment, frames=same.frames + segment.frames)
    yield from known.values()


def _newest(before: Iterable[T], newer: Iterable[T], what: Callable[[T], Hashable]) -> tuple[T, ...]:
    return tuple({**{what(one): one for one in before}, **{what(one): one for one in newer}}.values())
