"""What `trisect init` begins a pipeline with: a configuration that says what can be changed, photos, a bridge."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from broker.topics import valid_id
from nodes.config.loader import load_config
from nodes.config.sections import Config
from pipeline.errors import ConfigError

_HEAD = """\
# The pipeline {pipeline}. `trisect enrol` and `trisect renew` put it into each member's file as it is then; there is no
# broker section, since each member's file has the way to it. configs/three-machines.yaml explains every key.
pipeline: {pipeline}

models:
  {key}:
    source: {source}
{weights}
streams:
  camera:
    device: {device}
    model: {key}
{photos}
nodes:
{nodes}"""


_LINKS = """
links:                           # across the bridge no node can measure it: say what the line between the sites has
  edge_cloud: {bandwidth_mbit_s: 50.0, latency_ms: 20.0}
"""


def configuration(
    pipeline: str,
    model: str,
    weights: str,
    nodes: Mapping[str, Sequence[str]],
    *,
    photos: bool = False,
    bridged: bool = False,
) -> str:
    """The text of a first configuration, for `nodes` by tier. Raises ConfigError for names that cannot be."""
    for name in (pipeline, *(one for ids in nodes.values() for one in ids)):
        if not valid_id(name):
            raise ConfigError(f"{name!r} is no name for a pipeline or node; allowed: 1 to 128 of a-z, 0-9 and -")
    if not nodes.get("device"):
        raise ConfigError("a pipeline needs a device, where frames enter; give --device")
    is_file = model.endswith((".keras", ".trisect"))
    lines = [f"  {one}: {{tier: {tier}}}" for tier in ("device", "edge", "cloud") for one in nodes.get(tier, ())]
    source = (
        "    source:\n      images: photos/             # on the device, beside its enrolment\n      rate_hz: 2.0\n"
    )
    return _HEAD.format(
        pipeline=pipeline,
        key=Path(model).stem.lower() if is_file else model,
        source=model,
        weights="" if is_file else f"    weights: {weights}\n",
        device=nodes["device"][0],
        photos=f"{source}      loop: true\n" if photos else "",
        nodes="\n".join(lines) + "\n" + (_LINKS if bridged else ""),
    )


def adopted(path: Path, pipeline: str | None) -> str:
    """The text of a configuration that is there already. Raises ConfigError."""
    config = load_config(path)
    if pipeline is not None and pipeline != config.pipeline:
        raise ConfigError(
            f"{path} is the configuration of {config.pipeline!r}; leave out --pipeline, or change it there"
        )
    return path.read_text(encoding="utf-8")


def files_beside(config: Config, name: str, folder: Path) -> Iterator[str]:
    """Files of the configuration that a node reads from its own disk, as they are named there."""
    node = config.nodes.get(name)  # type: ignore[call-overload]  # names are ids of nodes, or nobody's
    if node is None:
        return
    used = {stream.model for stream in config.streams.values()}
    for key in sorted(used):
        model = config.models[key]
        if model.is_file:
            yield _relative(Path(model.source), folder)
        elif model.weights is not None and model.weights.endswith((".h5", ".keras")):
            yield _relative(Path(model.weights), folder)
    owned = [stream for stream in config.streams.values() if stream.device == name]
    for model in {stream.model: config.models[stream.model] for stream in owned}.values():
        if model.labels is not None:
            yield _relative(model.labels, folder)
    for stream in owned:
        if stream.source is not None and stream.source.images is not None:
            yield _relative(stream.source.images, folder)


def _relative(path: Path, folder: Path) -> str:
    return str(path.relative_to(folder.resolve())) if path.is_relative_to(folder.resolve()) else str(path)
