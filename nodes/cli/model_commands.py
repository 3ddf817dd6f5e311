"""Commands for models: what they are, how fast they run, where they would be cut, whether cutting changes a bit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from nodes.cli.options import (
    EngineOption,
    ImportOption,
    InputSizeOption,
    JsonFile,
    JsonFlag,
    ModelsArgument,
    PixelMode,
    ReportOption,
    TaskKind,
    ThreadsOption,
    TierFilters,
    TimeFilter,
    WeightsOption,
    json_target,
    output_file,
)


def scission(
    profiles: Annotated[Path, typer.Option(help="A folder of measured systems, see above.")],
    network: Annotated[Path, typer.Option(help="CSV: source,destination,ping(ms),bandwidth(mbps).")],
    model: Annotated[str, typer.Option(help="The model, as the profiles call it.")],
    file: JsonFile = None,
    device: TierFilters = None,
    edge: TierFilters = None,
    cloud: TierFilters = None,
    top: Annotated[int, typer.Option(help="How many answers.", min=1)] = 5,
    input_mb: Annotated[float, typer.Option(help="Megabytes of a frame.")] = 0.15,
    device_upload: Annotated[float | None, typer.Option(help="Megabytes a frame that may leave this tier.")] = None,
    edge_upload: Annotated[float | None, typer.Option(help="Megabytes a frame that may leave this tier.")] = None,
    device_time: TimeFilter = None,
    edge_time: TimeFilter = None,
    cloud_time: TimeFilter = None,
    as_json: JsonFlag = False,
) -> None:
    """Answer Scission's queries over measured systems: the best placements that its filters allow.

    --profiles has TIER/SYSTEM/MODEL.json as `trisect profile -o DIR/TIER/SYSTEM` writes them, Scission's
    TIER-SYSTEM.dat, or its measurements as JSON. Filters: a number pins that layer to the tier, !number forbids it, -1
    leaves the tier unused, !-1 uses it, NAME or !NAME selects systems (@2500 if the name is a number). In the JSON,
    layers are half-open, and null for an unused tier.
    """
    from nodes.cli import scission as scission_commands

    code = scission_commands.run(
        profiles,
        network,
        model,
        device=device,
        edge=edge,
        cloud=cloud,
        top=top,
        input_mb=input_mb,
        device_upload=device_upload,
        edge_upload=edge_upload,
        device_time=device_time,
        edge_time=edge_time,
        cloud_time=cloud_time,
        json_path=json_target(as_json, file),
    )
    raise typer.Exit(code)


def profile(
    models: Annotated[list[str], typer.Argument(help="Models of the zoo, .keras files, or `all`: the papers' 22.")],
    directory: Annotated[Path, typer.Option("-o", "--output", help="The folder to write into.")] = Path("profiles"),
    threads: ThreadsOption = None,
    repeats: Annotated[int, typer.Option(help="Runs at most; a slow model takes fewer.", min=1)] = 10,
    engine: EngineOption = "litert",
    weights: WeightsOption = None,
    input_size: InputSizeOption = "",
    imports: ImportOption = None,
) -> None:
    """Measure models block by block on this machine; writes a JSON file and a picture of each."""
    from nodes.cli import profile as profile_commands

    code = profile_commands.run(
        models,
        directory=directory,
        engine=engine,
        threads=threads,
        repeats=repeats,
        weights=weights,
        input_size=input_size,
        imports=imports or (),
    )
    raise typer.Exit(code)


def models(
    names: Annotated[list[str] | None, typer.Argument(help="Names of the zoo, or .keras files.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="The whole zoo, not only both papers' networks.")] = False,
    load: Annotated[bool, typer.Option("--load", help="Load each model instead of printing what is known.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")] = False,
    input_size: InputSizeOption = "",
    imports: ImportOption = None,
) -> None:
    """List models: blocks, tensors, parameters, MACs, input, the largest and the narrowest tensors."""
    from nodes.cli.models import show_models

    show_models(
        names or [], everything=everything, load=load, as_json=as_json, input_size=input_size, imports=imports or ()
    )


def verify(
    names: ModelsArgument,
    weights: WeightsOption = None,
    placements: Annotated[int, typer.Option(help="How many random placements, or stacks of blocks.", min=1)] = 20,
    tiles: Annotated[
        list[str] | None,
        typer.Option(
            help="Cut stacks into tiles, not models: rows x columns, 2x2, or shares, 3,5,8x1. May be repeated."
        ),
    ] = None,
    stack: Annotated[
        str | None, typer.Option(metavar="FROM:TO", help="Tile only this one: its first and last block, both in it.")
    ] = None,
    seed: Annotated[int, typer.Option(help="The seed of placements, stacks and the frame.", min=0)] = 0,
    engine: EngineOption = "litert",
    threads: Annotated[int, typer.Option(help="The engine's threads.", min=1)] = 1,
    json_path: ReportOption = None,
    fingerprint: Annotated[
        bool, typer.Option("--fingerprint", help="Only print a hash of the answers to seeded frames.")
    ] = False,
    frames: Annotated[int, typer.Option(help="Frames that --fingerprint hashes.", min=1)] = 8,
    exact: Annotated[
        Literal["everywhere", "machine"], typer.Option(help="everywhere (the same bits on x86 and ARM) or machine.")
    ] = "everywhere",
    input_size: InputSizeOption = "",
    imports: ImportOption = None,
) -> None:
    """Cut models at random places and compare them bit for bit with the unsplit model; exits with 1 if they differ."""
    from nodes.cli.models import run_fingerprint, run_verify

    if fingerprint:
        raise typer.Exit(
            run_fingerprint(
                names,
                weights=weights,
                engine=engine,
                threads=threads,
                exact=exact,
                frames=frames,
                input_size=input_size,
                imports=imports or (),
            )
        )
    raise typer.Exit(
        run_verify(
            names,
            weights=weights,
            placements=placements,
            seed=seed,
            engine=engine,
            threads=threads,
            json_path=json_path,
            tiles=tiles or (),
            stack=stack,
            exact=exact,
            input_size=input_size,
            imports=imports or (),
        )
    )


def pack(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A name of the zoo, or a .keras file.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The package to write: FILE.trisect.", callback=output_file)
    ],
    weights: WeightsOption = None,
    input_size: InputSizeOption = "",
    imports: ImportOption = None,
    task: Annotated[TaskKind | None, typer.Option(help="Meaning of its outputs, see docs/answers.md.")] = None,
    labels: Annotated[Path | None, typer.Option(help="Names of its classes, one a line.")] = None,
    preprocess: Annotated[PixelMode | None, typer.Option(help="Preprocessing of pixels, by Keras's names.")] = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", "-c", help="Take MODEL, with all of its keys, from this file's models section."),
    ] = None,
) -> None:
    """Write a model into one file that nodes load without TensorFlow; only packing needs TensorFlow.

    The file carries labels, preprocessing and task, so that no configuration has to repeat them.
    """
    from nodes.cli.models import run_pack
    from nodes.config import packed
    from pipeline.models.source import named

    if config is not None:
        source, carried = packed.from_section(config, model)
    else:
        source, carried = named(model, weights, input_size, imports or ()), {}
    carried |= packed.from_options(task, labels, preprocess)
    raise typer.Exit(run_pack(source, output, carried))


def bench_engines(
    models: ModelsArgument,
    threads: ThreadsOption = None,
    weights: WeightsOption = None,
    json_path: ReportOption = None,
    input_size: InputSizeOption = "",
    imports: ImportOption = None,
) -> None:
    """Compare all installed engines: compile seconds, unsplit milliseconds, and how far answers differ."""
    from nodes.cli import bench as bench_commands

    raise typer.Exit(
        bench_commands.run(
            models, threads=threads, weights=weights, json_path=json_path, input_size=input_size, imports=imports or ()
        )
    )
