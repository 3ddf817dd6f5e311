"""`trisect models` and `trisect verify`: tables and progress for people, JSON for scripts."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from nodes.display.screen import Screen
from pipeline.errors import ConfigError, TileError, TrisectError
from pipeline.models import PAPERS, ZOO, lookup
from pipeline.models.facts import ModelFacts, NamedBytes, shipped
from pipeline.models.source import ModelSource, named

if TYPE_CHECKING:
    from pipeline.lite.package import Package

_SHOWN_UNEQUAL = 3


def show_models(
    names: Sequence[str],
    *,
    everything: bool,
    load: bool,
    as_json: bool,
    input_size: str = "",
    imports: Sequence[str] = (),
) -> None:
    """Print the facts of models: by name or path, or of both papers' networks, or of the whole zoo.

    What is shipped is printed at once; files, and all with `load`, are loaded first. Raises ModelError.
    """
    chosen = list(names) or list(ZOO if everything else PAPERS)
    sources = [named(name, None, input_size, imports) for name in chosen]
    for source in sources:
        if not source.is_file:
            lookup(source.source)
    found = list(_facts(sources, load))
    if as_json:
        print(json.dumps([facts.to_json() for facts in found], indent=1, ensure_ascii=False))
        return
    Screen().print(_facts_table(found))
    if not names and not everything:
        print(f"the networks of D3 and Scission; --all lists the zoo's {len(ZOO)}, and a .keras file may be named")


def _facts(sources: Sequence[ModelSource], load: bool) -> Iterator[ModelFacts]:
    known = {} if load else shipped()
    if all(source.source in known for source in sources):
        yield from (known[source.source] for source in sources)
        return
    from pipeline.models.measure import measure

    with _progress() as progress:
        task = progress.add_task("", total=len(sources))
        for source in sources:
            progress.update(task, description=source.name)
            yield known[source.source] if source.source in known else measure(source)
            progress.advance(task)


def _facts_table(found: Sequence[ModelFacts]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("model", no_wrap=True)
    for heading in ("blocks", "tensors", "parameters", "MACs"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("input", no_wrap=True)
    table.add_column("largest tensor")
    table.add_column("narrowest cut of one tensor")
    for facts in found:
        table.add_row(
            facts.name,
            str(facts.blocks),
            str(facts.tensors),
            f"{facts.parameters / 1e6:,.2f} M",
            f"{facts.macs / 1e6:,.0f} M",
            " ".join(facts.inputs),
            _first(facts.largest),
            _first(facts.narrowest),
        )
    return table


def _first(tensors: Sequence[NamedBytes]) -> str:
    return f"{tensors[0].nbytes / 1e3:,.1f} kB {tensors[0].name}" if tensors else "-"


def run_verify(
    names: Sequence[str],
    *,
    weights: str | None,
    placements: int,
    seed: int,
    engine: str,
    threads: int,
    json_path: Path | None,
    tiles: Sequence[str] = (),
    stack: str | None = None,
    exact: str = "everywhere",
    input_size: str = "",
    imports: Sequence[str] = (),
) -> int:
    """Verify models one after another, print a table and write `json_path`; the exit code, 1 if a law fails anywhere.

    With `tiles`, grids as Grid.parse reads them, stacks are cut into tiles instead of models into segments: the one
    named `stack`, or `placements` random ones. Raises ModelError for a model that cannot be loaded and TileError, after
    the report of those before it is written.
    """
    from pipeline.engines import create
    from pipeline.tiles import Grid

    if stack and not tiles:
        raise TileError("--stack says what is cut into tiles; give --tiles, too, as in --tiles 2x2")
    grids = [Grid.parse(text) for text in tiles]
    runs = create(engine, threads, everywhere=exact == "everywhere")
    verdicts: list[dict[str, Any]] = []
    table = _verdict_table("tilings" if grids else "placements")
    holds = True
    try:
        for name in names:
            source = named(name, weights, input_size, imports)
            made = (
                _tiled(source, runs, grids, stack, placements, seed)
                if grids
                else _verified(source, runs, placements, seed)
            )
            holds = holds and made.holds
            verdicts.append(asdict(made) | {"holds": made.holds, "threads": threads, "engine_version": runs.version})
            table.add_row(*_verdict_row(made))
    finally:
        if json_path is not None:
            json_path.write_text(json.dumps(verdicts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        if verdicts:
            Screen().print(table)
            _print_unequal(verdicts)
    return 0 if holds else 1


def run_fingerprint(
    names: Sequence[str],
    *,
    weights: str | None,
    engine: str,
    threads: int,
    exact: str,
    frames: int,
    input_size: str = "",
    imports: Sequence[str] = (),
) -> int:
    """Print a line for each model: the hash of its answers to so many frames, its name and digest, and the promise.

    Raises UnknownModel, ModelError, ConfigError.
    """
    from nodes.tier.loading import load
    from pipeline.verify.fingerprint import fingerprint

    for name in names:
        source = named(name, weights, input_size, imports)
        runs, models = load(engine, {source.name: source}, threads, exact)
        model = models[source.name]
        promise = runs.promise([model])
        print(f"{fingerprint(runs, model, frames)}  {source.name} {model.graph.digest}  {promise.bits}", flush=True)
    return 0


def run_pack(source: ModelSource, output: Path, carried: Mapping[str, Any]) -> int:
    """Pack a model and say what became of it. Raises UnknownModel, NotFunctional, ModelError, ConfigError."""
    from pipeline.lite.package import SUFFIX, Package

    if output.suffix != SUFFIX:
        raise ConfigError(f"{output} must end in {SUFFIX}, by which a configuration knows a package")
    from pipeline.models import store

    began = time.monotonic()
    store.make(source, output, carried)
    package = Package(output)
    try:
        check_carried(package, carried)
    except TrisectError:
        output.unlink()
        raise
    blocks, foreign = len(package.graph), package.program.foreign
    print(
        f"{output}: {source.name} {package.graph.digest}, {blocks} blocks, {output.stat().st_size / 1e6:,.1f} MB, "
        f"packed in {time.monotonic() - began:.1f} s"
    )
    if foreign:
        kinds = sorted({package.graph.blocks[index].kind for index in foreign})
        print(
            f"{len(foreign)} of them run as TensorFlow's converter made them ({', '.join(kinds)}): "
            "not in tiles, and with the same bits on one kind of processor only"
        )
    return 0


def check_carried(package: Package, carried: Mapping[str, Any]) -> None:
    """Hold a network's outputs against the task and labels that its package carries. Raises ModelError, ConfigError."""
    from nodes.config.model_settings import check_labels
    from pipeline.answers.task import read_task
    from pipeline.engines.answering import answering, classes_of

    task = read_task(carried["task"]) if "task" in carried else None
    check_labels(package.graph.name, carried.get("labels"), classes_of(answering(package, task), task))


def _verified(source: ModelSource, engine: Any, placements: int, seed: int) -> Any:
    from pipeline.verify.cuts import Prepared, Split, verdict, verify

    steps = []
    with _progress() as progress:
        task = progress.add_task(f"{source.name}: loading", total=placements)
        for step in verify(engine, source, placements=placements, seed=seed):
            steps.append(step)
            doing = "unsplit" if isinstance(step, Prepared) else "placements"
            progress.update(task, description=f"{source.name}: {doing}", advance=isinstance(step, Split))
    return verdict(steps, engine)


def _tiled(source: ModelSource, engine: Any, grids: Sequence[Any], stack: str | None, count: int, seed: int) -> Any:
    from pipeline.verify.cuts import Prepared
    from pipeline.verify.tiles import Tiled, tile_verdict, verify_tiles

    steps = []
    with _progress() as progress:
        task = progress.add_task(f"{source.name}: loading", total=len(grids) * (1 if stack else count))
        for step in verify_tiles(engine, source, grids, stack=stack, count=count, seed=seed):
            steps.append(step)
            doing = "unsplit" if isinstance(step, Prepared) else "tiles"
            progress.update(task, description=f"{source.name}: {doing}", advance=isinstance(step, Tiled))
    return tile_verdict(steps, engine)


def _verdict_table(what: str) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("model", no_wrap=True)
    for heading in ("blocks", what, "bit-equal", "error", "same top", "seconds"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("laws")
    return table


def _verdict_row(made: Any) -> list[str | Text]:
    return [
        made.model,
        str(made.blocks),
        str(made.tilings if hasattr(made, "tilings") else made.placements),
        str(made.equal),
        f"{made.relative_error:.1e}",
        "yes" if made.same_top else "no",
        f"{made.seconds:.1f}",
        "hold" if made.holds else Text("FAIL", "red"),
    ]


def _print_unequal(verdicts: Sequence[dict[str, Any]]) -> None:
    for made in verdicts:
        for split in made["unequal"][:_SHOWN_UNEQUAL]:
            if "tiers" in split:
                print(f"{made['model']}: {', '.join(split['differing'])} differ when cut as {split['tiers']}")
            else:
                print(
                    f"{made['model']}: stack {split['stack']} in {split['grid']} tiles differs from block "
                    f"{split['differing']} on, by {split['relative_error']:.1e}"
                )


def _progress() -> Progress:
    """On stderr, so that stdout can be piped; gone when done."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=Screen(stderr=True), transient=True)
