"""A placement as its model's DAG: blocks in the colour of their tier, the tensors that cross a link thick."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pipeline.cost import Prediction
from pipeline.graph import Block, ModelGraph
from pipeline.pictures.folded_layout import FoldedLayout, Spacing, fold
from pipeline.pictures.layers import EdgePath, Layers, arrange
from pipeline.pictures.svg import (
    INK,
    Key,
    counted,
    document,
    escaped,
    legend,
    rect,
    shortened,
    size_text,
    text,
    text_width,
)
from pipeline.pictures.tiers import COLOURS, ON_COLOURS, heading, link_text, tier_text
from pipeline.placement import Crossing, Placement, Tier, check, crossings

_LEFT, _TOP = 18.0, 26.0
_LEAST_WIDTH = 620.0
_MOST_HEIGHT = 1200.0
_THIN, _THIN_COLOUR = 1.0, "#999"
_THICK = 2.8


@dataclass(frozen=True, slots=True)
class _Style:
    """Boxes that hold names of at most `letters`, or, if that is 0, the indices of blocks. All else in pixels."""

    spacing: Spacing
    letters: int
    size: float
    box: float
    least_width: float
    label_size: float
    label: float
    arrow: float

    def caption(self, block: Block) -> str:
        return shortened(block.name, self.letters) if self.letters else str(block.index)

    def width(self, block: Block) -> float:
        return max(self.least_width, text_width(self.caption(block), self.size) + (10 if self.letters else 4))


_NAMED = _Style(
    spacing=Spacing(lane=25, row=22, gap=26, turn=12, turn_step=8),
    letters=26,
    size=10,
    box=18,
    least_width=30,
    label_size=10,
    label=15,
    arrow=6,
)
_NUMBERED = _Style(
    spacing=Spacing(lane=15, row=18, gap=17, turn=9, turn_step=5),
    letters=0,
    size=8,
    box=12,
    least_width=19,
    label_size=9,
    label=13,
    arrow=4,
)


def placement_graph(graph: ModelGraph, placement: Placement, prediction: Prediction) -> str:
    """The SVG document; a block's title has its name, kind and tier, a line's its tensor and bytes.

    Data flows along rows, the first from left to right, the next back, and so on. Boxes hold names as long as the
    picture stays within bounds with them, else indices. Raises PlanError when the placement does not fit the graph.
    """
    check(graph, placement)
    drawing = _drawing(graph, placement, _NAMED)
    if drawing.folded.height > _MOST_HEIGHT:
        drawing = _drawing(graph, placement, _NUMBERED)
    width = max(drawing.folded.width, _LEAST_WIDTH)
    keys = [Key(tier_text(tier, placement, prediction), COLOURS[tier]) for tier in Tier]
    keys += [Key(link_text(label, cost), INK, _THICK) for label, cost in prediction.links.items()]
    shown, below = legend(keys, _LEFT, _TOP + 4, width)
    top = below + 12
    parts = [text(_LEFT, _TOP - 6, heading(graph, prediction), size=14), *shown]
    parts += [f'<g transform="translate({_LEFT:g} {top:.1f})">', *drawing.parts(), "</g>"]
    return document(width + 2 * _LEFT, top + drawing.folded.height + 14, parts)


def _drawing(graph: ModelGraph, placement: Placement, style: _Style) -> _Drawing:
    crossing = {c.tensor: c for c in crossings(graph, placement)}
    sent = tuple(tuple(t for t in block.outputs if t in crossing) for block in graph.blocks)
    layers = arrange(graph, [max(1.0, (len(tensors) * style.label + 6) / style.spacing.lane) for tensors in sent])
    widths = tuple(map(style.width, graph.blocks))
    folded = _folded(graph, layers, sent, widths, style)
    return _Drawing(graph, placement, style, crossing, sent, widths, folded)


def _folded(
    graph: ModelGraph, layers: Layers, sent: Sequence[Sequence[int]], widths: Sequence[float], style: _Style
) -> FoldedLayout:
    boxes, labels = [0.0] * len(layers.order), [0.0] * len(layers.order)
    for block in graph.blocks:
        at = layers.layer[block.index]
        boxes[at] = max(boxes[at], widths[block.index])
        labels[at] = max([labels[at], *(_label_width(graph, tensor, style) + 16 for tensor in sent[block.index])])
    return fold(layers, boxes, labels, style.spacing)


def _label_width(graph: ModelGraph, tensor: int, style: _Style) -> float:
    return text_width(size_text(graph.tensors[tensor]), style.label_size) * 1.1 + 6


@dataclass(frozen=True, slots=True)
class _Drawing:
    """State for drawing lines; `sent` are the crossing tensors of each block, `widths` the boxes' widths in pixels."""

    graph: ModelGraph
    placement: Placement
    style: _Style
    crossing: dict[int, Crossing]
    sent: tuple[tuple[int, ...], ...]
    widths: tuple[float, ...]
    folded: FoldedLayout

    def parts(self) -> Iterator[str]:
        """Thin lines, thick lines above them, boxes above these, labels on top."""
        edge_paths = self.folded.layers.edge_paths
        thick = [edge_path for edge_path in edge_paths if edge_path.tensor in self.crossing]
        yield from (self.within(edge_path) for edge_path in edge_paths)
        yield from (self.beyond(edge_path) for edge_path in thick)
        for tier in Tier:
            yield from self.boxes(tier)
        yield from (self.label(edge_path) for edge_path in thick)

    def later(self, edge_path: EdgePath) -> set[tuple[int, int]]:
        """The steps of a tensor's path that lead to a later tier."""
        here = self.placement[edge_path.source]
        readers = (block for block in self.graph.consumers[edge_path.tensor] if self.placement[block] > here)
        return {step for block in readers for step in edge_path.to(block)}

    def within(self, edge_path: EdgePath) -> str:
        """The thin lines to readers on the same tier."""
        later = self.later(edge_path)
        steps = [step for step in edge_path.parents if step not in later]
        return self.lines(edge_path, steps, _THIN_COLOUR, _THIN, self.title(edge_path), 0.0) if steps else ""

    def beyond(self, edge_path: EdgePath) -> str:
        """The thick lines to readers on later tiers."""
        later = self.later(edge_path)
        steps = [step for step in edge_path.parents if step in later]
        tiers = " and ".join(tier.label for tier in self.crossing[edge_path.tensor].readers)
        return self.lines(
            edge_path, steps, INK, _THICK, f"{self.title(edge_path)}, to the {tiers}", self.shift(edge_path)
        )

    def lines(
        self, edge_path: EdgePath, steps: Sequence[tuple[int, int]], colour: str, width: float, title: str, shift: float
    ) -> str:
        data, heads = [], []
        for parent, point in steps:
            out = self.widths[parent] / 2 if parent == edge_path.source else 0.0
            into = self.widths[point] / 2 if point < len(self.graph) else 0.0
            from_block = shift if parent == edge_path.source else 0.0
            data.append(self.folded.path(parent, point, out=out, into=into, shift=from_block))
            if point < len(self.graph):
                heads.append(self.folded.arrow(point, into, self.style.arrow + width))
        return (
            f'<g stroke="{colour}"><title>{escaped(title)}</title><path d="{" ".join(data)}" fill="none" '
            f'stroke-width="{width:g}"/><path d="{" ".join(heads)}" fill="{colour}" stroke="none"/></g>'
        )

    def shift(self, edge_path: EdgePath) -> float:
        """Vertical offset in pixels: tensors that leave one block for other tiers start one below the other."""
        sent = self.sent[edge_path.source]
        return (sent.index(edge_path.tensor) - (len(sent) - 1) / 2) * self.style.label

    def title(self, edge_path: EdgePath) -> str:
        tensor, readers = self.graph.tensors[edge_path.tensor], self.graph.consumers[edge_path.tensor]
        to = self.graph.blocks[readers[0]].name if len(readers) == 1 else counted(len(readers), "block")
        return f"{tensor.name}: {size_text(tensor)} from {self.graph.blocks[edge_path.source].name} to {to}"

    def boxes(self, tier: Tier) -> Iterator[str]:
        """All boxes of a tier, then what is written on them."""
        captions = []
        for block in self.graph.blocks:
            if self.placement[block.index] != tier:
                continue
            x, y = self.folded.centre(self.folded.layers.layer[block.index]), self.folded.y[block.index]
            width = self.widths[block.index]
            height = max(self.style.box, len(self.sent[block.index]) * self.style.label)
            title = f"{block.index} {block.name} ({block.kind}) on the {tier.label}"
            look = 'class="block" rx="3"'
            yield rect(x - width / 2, y - height / 2, width, height, COLOURS[tier], title=title, more=look)
            caption, baseline = escaped(self.style.caption(block)), y + 0.35 * self.style.size
            captions.append(f'<text x="{x:.1f}" y="{baseline:.1f}">{caption}</text>')
        look = f'text-anchor="middle" font-size="{self.style.size:g}" fill="{ON_COLOURS[tier]}" pointer-events="none"'
        yield from (f"<g {look}>", *captions, "</g>") if captions else ()

    def label(self, edge_path: EdgePath) -> str:
        """The bytes of a tensor that crosses, on the line that all its readers share."""
        layer, size, height = self.folded.layers.layer[edge_path.source], self.style.label_size, self.style.label - 1
        column, width = self.folded.columns[layer], _label_width(self.graph, edge_path.tensor, self.style)
        x, y = (
            self.folded.x(layer, (column.end + column.bend) / 2),
            self.folded.y[edge_path.source] + self.shift(edge_path),
        )
        look = f'class="bytes" rx="4" stroke="{INK}"'
        nbytes = size_text(self.graph.tensors[edge_path.tensor])
        return rect(x - width / 2, y - height / 2, width, height, "white", more=look) + text(
            x, y + 0.36 * size, nbytes, anchor="middle", size=size, bold=True
        )
