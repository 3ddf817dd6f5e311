"""The graphs of the zoo's networks, shipped: planning needs a network's shape, not its weights nor TensorFlow.

`python -m pipeline.models.graphs` renews what is shipped (it loads every network).
"""

from __future__ import annotations

import json
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

from pipeline.graph import ModelGraph
from pipeline.models import ZOO
from pipeline.models.source import ModelSource

_SHIPPED = Path(__file__).with_name("graphs.zip")
NO_WEIGHTS = "shape-only"
"""The digest of a graph without weights: no node's model equals it."""
_EPOCH = (1980, 1, 1, 0, 0, 0)


def graph_of(source: ModelSource) -> ModelGraph:
    """The graph of a source's prepared model: at once for the zoo, loaded with TensorFlow for a file.

    Raises UnknownModel, NotFunctional, ModelError.
    """
    if not source.is_file and source.source in ZOO:
        return replace(shipped_graph(source.source), name=source.name)
    from pipeline.models.load import load

    return load(source).graph


def shipped_graph(name: str) -> ModelGraph:
    """The graph of a network of the zoo, with the digest `NO_WEIGHTS`. Raises KeyError."""
    with zipfile.ZipFile(_SHIPPED) as archive:
        return ModelGraph.from_json(json.loads(archive.read(f"{name}.json")))


def ship() -> None:
    """Load every network of the zoo and write its graph. The same graphs give the same bytes."""
    from pipeline.models.load import load

    with zipfile.ZipFile(_SHIPPED, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(ZOO):
            graph = replace(load(ModelSource(name, name)).graph, digest=NO_WEIGHTS)
            member = zipfile.ZipInfo(f"{name}.json", _EPOCH)
            member.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(member, json.dumps(graph.to_json(), separators=(",", ":")))
            print(f"{name}: {len(graph)} blocks", file=sys.stderr, flush=True)


if __name__ == "__main__":
    ship()
