"""Pictures of profiles, placements and decisions: each a function from plain values to an SVG document.

Knows no TensorFlow, and no way to draw but strings. Colours are told apart with any colour vision; what is too small to
be written is in the titles, which browsers show as tooltips.
"""

from __future__ import annotations

from pipeline.pictures.bars import placement_bars
from pipeline.pictures.dag import placement_graph
from pipeline.pictures.front import FrontPoint, front_picture
from pipeline.pictures.heat import heat_map
from pipeline.pictures.profile import picture
from pipeline.pictures.tiles import tile_picture

__all__ = ["FrontPoint", "front_picture", "heat_map", "picture", "placement_bars", "placement_graph", "tile_picture"]
