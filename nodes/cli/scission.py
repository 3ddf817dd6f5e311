"""`trisect scission`: Scission's queries over measured systems. Starts nothing, needs no TensorFlow."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.table import Table
from rich.text import Text

from nodes.cli.options import STDOUT
from nodes.display.screen import wide_screen
from pipeline import scission
from pipeline.errors import ConfigError
from pipeline.placement import Tier
from pipeline.scission.candidates import HOPS
from pipeline.scission.filters import MEGABYTE
from pipeline.scission.search import Stage

_CAPTION = "layers inclusive, as in filters (half-open in --json); an unused device is where the input comes from"


def run(
    profiles: Path,
    network: Path,
    model: str,
    *,
    device: Sequence[str] | None = None,
    edge: Sequence[str] | None = None,
    cloud: Sequence[str] | None = None,
    top: int = scission.TOP,
    input_mb: float = scission.INPUT_BYTES / MEGABYTE,
    device_upload: float | None = None,
    edge_upload: float | None = None,
    device_time: str | None = None,
    edge_time: str | None = None,
    cloud_time: str | None = None,
    json_path: str | Path | None = None,
) -> int:
    """Print the best placements, and write them as a JSON list; the exit code, 1 when the filters leave none.

    `profiles` is laid out as `pipeline.scission.folder` says, filters are as `pipeline.scission.filters` says, uploads
    in MB, times in seconds or as a share such as 30%. In the JSON layers are half-open, null for an unused tier, and
    so is the system of an unused edge or cloud; `predicted` has the parts that add up. Raises ConfigError for files,
    PlanError for what is asked.
    """
    systems = scission.load_systems(profiles)
    table = scission.read_network(network)
    given = ((Tier.DEVICE, device), (Tier.EDGE, edge), (Tier.CLOUD, cloud))
    filters = [one for tier, words in given for one in scission.tier_filters(tier, words or ())]
    for tier, megabytes in ((Tier.DEVICE, device_upload), (Tier.EDGE, edge_upload)):
        if megabytes is not None:
            filters.append(scission.upload_filter(tier, megabytes))
    for tier, limit in ((Tier.DEVICE, device_time), (Tier.EDGE, edge_time), (Tier.CLOUD, cloud_time)):
        if limit is not None:
            filters.append(scission.time_filter(tier, limit))
    query = scission.Query(model, tuple(filters), input_mb * MEGABYTE, top)
    answers = scission.search(systems, table, query)
    printed = json_path == STDOUT
    if json_path is not None:
        text = json.dumps([answer.to_json() for answer in answers], indent=1) + "\n"
        if printed:
            print(text, end="")
        else:
            _write(Path(json_path), text)
    console = wide_screen(stderr=printed)
    if answers:
        console.print(_table(model, answers))
    else:
        reason = _nothing_left(scission.explain(systems, table, query))
        console.print(f"no result for {model}: {reason}", markup=False, highlight=False, soft_wrap=True)
    for note in scission.notes(systems, query):
        console.print(f"note: {note}", markup=False, highlight=False, soft_wrap=True)
    return 0 if answers else 1


def _nothing_left(filters: Sequence[scission.Filter]) -> str:
    texts = [f"`{one.text}`" for one in filters]
    if len(texts) == 1:
        return f"{texts[0]} alone excludes every placement; change or drop it"
    together = f"{', '.join(texts[:-1])} and {texts[-1]}"
    return f"{together} together exclude every placement; change or drop one of them"


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; give --json a file that can be written", file=path) from None


def _table(model: str, answers: Sequence[scission.Answer]) -> Table:
    table = Table(title=f"{len(answers)} best of {model}", title_justify="left", caption_justify="left")
    table.caption = _CAPTION
    for heading in ("#", "total s", "MB"):
        table.add_column(heading, justify="right")
    for heading in ("tier", "system", "layers"):
        table.add_column(heading)
    for heading in ("s", "MB"):
        table.add_column(heading, justify="right")
    for rank, answer in enumerate(answers, start=1):
        total = (str(rank), f"{answer.seconds:.4f}", f"{answer.megabytes:.4f}")
        for row in _rows(answer):
            table.add_row(*total, *(Text(cell) for cell in row), style="dim" if row[0].startswith(" ") else None)
            total = ("", "", "")
        table.add_section()
    return table


def _rows(answer: scission.Answer) -> Iterator[tuple[str, str, str, str, str]]:
    """The stages in use, and the input's source, with the hop that follows each."""
    for tier, stage in answer.stages.items():
        if stage.layers or tier == Tier.DEVICE:
            yield tier.label, stage.system or "", _layers(stage), f"{stage.seconds:.4f}" if stage.layers else "", ""
        for lower, upper in HOPS:
            hop = answer.hops[lower, upper]
            if lower == tier and hop.seconds:
                yield f"  → {upper.label}", "", "", f"{hop.seconds:.4f}", f"{hop.megabytes:.4f}"


def _layers(stage: Stage) -> str:
    return f"{stage.layers[0]} to {stage.layers[1] - 1}" if stage.layers else "unused"
