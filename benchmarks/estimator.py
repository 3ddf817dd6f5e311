"""How far the estimator is off for a model that it never saw, beside the plain guess that time is proportional to MACs.

Each model in turn is left out of the fit and then estimated: on this machine's own profiles, and on the five systems
that Scission published; then each family of models (all ResNets, all DenseNets ...), which is harder. With --write the
coefficients that trisect ships are fitted to all own profiles.

Run: trisect profile all -o DIR --threads 2; python benchmarks/estimator.py --profiles DIR [DIR ...] [--scission DIR]
     [--write] [--json PATH]
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from pipeline.estimator import Speed, fit, price, shipped_coefficients
from pipeline.estimator.features import Amounts, amounts
from pipeline.estimator.regression import Sample
from pipeline.graph import ModelGraph
from pipeline.profiling.profile import Profile

SCISSION = Path("../shared/data/scission")
SHIPPED = Path(__file__).parents[1] / "pipeline" / "estimator" / "coefficients.json"
ANY_SPEED = Speed(
    macs_per_s=1e11, depthwise_macs_per_s=1e10, bytes_per_s=2e10, weight_bytes_per_s=2e10, operation_s=1e-5
)
"""Scission published no calibration: each of its systems has coefficients of its own, which hold its speed."""


FAMILIES = (
    *("alexnet", "vgg", "resnet", "darknet", "inception", "xception", "mobilenet", "densenet", "nasnet"),
    "",
)


@dataclass(frozen=True)
class Node:
    """What was measured on one system: samples of all models, and each model's MACs."""

    name: str
    speed: Speed
    samples: tuple[Sample, ...]
    macs: Mapping[str, int]


def main() -> None:
    """Measure, print, and write what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profiles", type=Path, nargs="+", required=True, help="what `trisect profile` wrote")
    parser.add_argument("--scission", type=Path, default=SCISSION)
    parser.add_argument("--write", action="store_true", help=f"write {SHIPPED.name}")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 140)
    own = [own_node(directory) for directory in arguments.profiles]
    found = {}
    for node in own:
        found[node.name] = left_out(node)
        found[f"{node.name}, family left out"] = left_out(node, family_too=True)
    if len(own) > 1:
        for node in own:
            others = [other for other in own if other is not node]
            found[f"{node.name}, coefficients of the others"] = elsewhere(node, others)
    if arguments.scission.is_dir():
        for node in scission_nodes(arguments.scission):
            found[f"Scission {node.name}"] = left_out(node)
            found[f"Scission {node.name}, family left out"] = left_out(node, family_too=True)
    else:
        console.print(f"no Scission data in {arguments.scission}: left out")
    console.print(table(found))
    if arguments.write:
        write(own)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")


def own_node(directory: Path) -> Node:
    """The reports of one `trisect profile` run, all on one machine with one number of threads."""
    samples, macs = [], {}
    reports = [json.loads(path.read_text()) for path in sorted(directory.glob("*.json"))]
    reports = [report for report in reports if "graph" in report]
    speeds = []
    for report in reports:
        graph, profile = ModelGraph.from_json(report["graph"]), Profile.from_json(report["profile"])
        speeds.append(Speed.from_json(report["speed"]))
        macs[graph.name] = sum(block.macs for block in graph.blocks)
        samples += [
            Sample(graph.name, amounts(graph, block), profile.seconds[block.index])
            for block in graph.blocks[1:]
            if profile.seconds[block.index] > 0
        ]
    names = Speed.__slots__
    middle = Speed(**{name: statistics.median(getattr(speed, name) for speed in speeds) for name in names})
    return Node(f"{profile.engine}, {profile.threads} threads", middle, tuple(samples), macs)


def left_out(node: Node, *, family_too: bool = False) -> dict[str, Any]:
    """Each model's total estimated from the other models on this node, or from those of other families."""
    ours, plain = {}, {}
    for model in node.macs:
        known = [m for m in node.macs if m != model and not (family_too and family(m) == family(model))]
        coefficients = fit([(node.speed, [sample for sample in node.samples if sample.model in known])])
        ours[model] = error(node, model, coefficients)
        rate = statistics.median(total(node, m) / node.macs[m] for m in known)
        plain[model] = node.macs[model] * rate / total(node, model) - 1
    return {"estimator": ours, "by_macs": plain}


def family(model: str) -> str:
    """All ResNets, all Inceptions..."""
    return next(name for name in FAMILIES if model.startswith(name))


def elsewhere(node: Node, others: Sequence[Node]) -> dict[str, Any]:
    """Each model's total from other nodes' profiles of other models, and this node's calibration alone.

    The plain guess gets the same: seconds in proportion to MACs over the calibrated MACs per second.
    """
    ours, plain = {}, {}
    for model in node.macs:
        known = [(other.speed, [s for s in other.samples if s.model != model]) for other in others]
        ours[model] = error(node, model, fit(known))
        ratio = statistics.median(
            total(other, m) * other.speed.macs_per_s / other.macs[m]
            for other in others
            for m in other.macs
            if m != model
        )
        plain[model] = ratio * node.macs[model] / node.speed.macs_per_s / total(node, model) - 1
    return {"estimator": ours, "by_macs": plain}


def total(node: Node, model: str) -> float:
    """Measured seconds."""
    return sum(sample.seconds for sample in node.samples if sample.model == model)


def error(node: Node, model: str, coefficients: Mapping[str, float]) -> float:
    """Of the estimated total, relative to the measured one."""
    units = node.speed.unit_seconds()
    own = [sample for sample in node.samples if sample.model == model]
    return sum(price(sample.amounts, coefficients, units) for sample in own) / total(node, model) - 1


def scission_nodes(directory: Path) -> list[Node]:
    """The published systems; their blocks are ranges of Keras layers, unfolded, each started by itself."""
    systems = [json.loads(path.read_text()) for path in sorted(directory.glob("*-*.json"))]
    layers = {model: scission_layers(model) for model in systems[0]["models"]}
    macs = {model: sum(found.pop("macs", 0) for found in counted) for model, counted in layers.items()}
    nodes = []
    for system in systems:
        samples = []
        for model, pieces in system["models"].items():
            for piece in pieces:
                within = layers[model][piece["first_layer"] : piece["last_layer"] + 1]
                counted = sum(within, Counter({"segment": 1}))
                if piece["seconds"] > 0:
                    samples.append(Sample(model, counted, piece["seconds"]))
        nodes.append(Node(system["system"], ANY_SPEED, tuple(samples), macs))
    return nodes


def scission_layers(model: str) -> list[Amounts]:
    """Amounts (and MACs) of each Keras layer, at the index that it had in 2020.

    Since then MobileNets lost the padding before their first convolution, and MobileNet a Reshape after its pooling.
    """
    from pipeline.models import ZOO
    from pipeline.prepare.blocks import describe
    from pipeline.prepare.flatten import flatten
    from pipeline.tensorflow_runtime import keras

    plain = model.replace("_", "")
    zoo = next(zoo for name, zoo in ZOO.items() if name.replace("_", "") == plain)
    with keras.StatelessScope():
        network = getattr(keras.applications, zoo.build.split(":")[1])(weights=None)
    places = {layer.name: place for place, layer in enumerate(network.layers)}
    names = [layer.name for layer in network.layers]
    flat = flatten(network, model, renumber=False)
    tensors, blocks, _ = describe(flat, [[call] for call in flat.calls])
    inputs = tuple(range(len(flat.inputs)))
    graph = ModelGraph(model, "", tuple(tensors), tuple(blocks), inputs, (len(tensors) - 1,))
    found: list[Amounts] = [Counter() for _ in names]
    for block in graph.blocks[1:]:
        found[places[block.layers[0]]] += amounts(graph, block) + Counter(macs=block.macs)
    if plain.startswith("mobilenet"):
        found.insert(1, Counter(move_bytes=2 * 4 * 225 * 225 * 3, move_operation=1))
    if plain == "mobilenet":
        # Keras counts its automatic names on from the models built before
        pooled = next(i for i, name in enumerate(names) if name.startswith("global_average_pooling2d"))
        found.insert(pooled + 2, Counter())
    return found


def table(found: Mapping[str, Any]) -> Table:
    """Median and worst absolute error of a model's total, ours and the plain guess's."""
    view = Table(title="error of an unseen model's total")
    for name in ("node", "models", "median", "worst", "MACs: median", "MACs: worst", "of the plain guess's"):
        view.add_column(name, justify="left" if name == "node" else "right")
    for name, errors in found.items():
        ours, plain = ([abs(e) for e in errors[kind].values()] for kind in ("estimator", "by_macs"))
        worst = max(errors["estimator"], key=lambda model: abs(errors["estimator"][model]))
        view.add_row(
            name,
            str(len(ours)),
            f"{statistics.median(ours):.1%}",
            f"{max(ours):.0%} {worst}",
            f"{statistics.median(plain):.1%}",
            f"{max(plain):.0%}",
            f"{statistics.median(ours) / statistics.median(plain):.2f}",
        )
    return view


def write(own: Sequence[Node]) -> None:
    """Fit the coefficients that are shipped."""
    coefficients = fit([(node.speed, node.samples) for node in own])
    seen = {feature for node in own for sample in node.samples for feature in sample.amounts}
    # profiles of networks alone say nothing of decoding
    coefficients |= {name: factor for name, factor in shipped_coefficients().items() if name not in seen}
    about = {
        "nodes": {node.name: {"models": sorted(node.macs), "speed": node.speed.to_json()} for node in own},
        "samples": sum(len(node.samples) for node in own),
    }
    SHIPPED.write_text(json.dumps({"fitted_to": about, "coefficients": coefficients}, indent=1) + "\n")


if __name__ == "__main__":
    main()
