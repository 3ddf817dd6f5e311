"""Options that several commands have."""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, TypedDict, TypeVar, get_type_hints

import typer
from typer.core import TyperCommand

# as in pipeline.models and pipeline.answers.task, whose imports no command needs before it runs
PixelMode: TypeAlias = Literal["tf", "torch", "caffe", "unit", "none"]
_OutputPath = TypeVar("_OutputPath", Path | None, str | None)
TaskKind: TypeAlias = Literal["classify", "detect", "segment", "keypoints", "values", "embedding", "raw"]

ConfigOption = Annotated[
    Path,
    typer.Option(
        *("--config", "-c", "--enrolment"),
        envvar="TRISECT_CONFIG",
        help="The pipeline's YAML file, the same on all machines; or this machine's enrolment.",
    ),
]
StreamOption = Annotated[str | None, typer.Option("--stream", help="The stream; may be left out if there is one.")]
STDOUT = "-"


class Command(TyperCommand):
    """A command whose numbers are finite: ranges of options let NaN pass."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As Click does it. Raises BadParameter for a number that is not finite."""
        rest = super().parse_args(ctx, args)
        for parameter in self.params:
            value = ctx.params.get(parameter.name or "")
            if isinstance(value, float) and not math.isfinite(value):
                raise typer.BadParameter(f"{value} is not a finite number", ctx=ctx, param_hint=parameter.opts)
        return rest


def output_file(value: _OutputPath) -> _OutputPath:
    """The path again. Raises BadParameter for a file that could not be written once the work is done."""
    if value is None or value == STDOUT:
        return value
    path = Path(value)
    if path.is_symlink():
        path = Path(os.path.realpath(path))  # which may be nowhere
    if path.is_dir():
        raise typer.BadParameter(f"{path} is a folder; give a file")
    if not path.parent.is_dir():
        raise typer.BadParameter(f"{path}: there is no folder {path.parent}")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise typer.BadParameter(f"{path} may not be written")
    return value


DEFAULT_CONFIG = Path("configs/demo.yaml")
JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON, or write it into FILE.")]
JsonFile = Annotated[
    str | None, typer.Argument(metavar="FILE", help="The file that --json writes; - prints it.", callback=output_file)
]
ObjectiveOption = Annotated[
    str | None,
    typer.Option(help="latency, throughput, backbone, price, energy, or weights such as latency=1,backbone=0.05."),
]
InputSizeOption = Annotated[
    str, typer.Option(metavar="HxW", help="The input size of a .keras file that leaves it open: 256x256.")
]
ImportOption = Annotated[
    list[str] | None,
    typer.Option("--import", metavar="PACKAGE", help="A package with the layers of a .keras file; may be repeated."),
]
WeightsOption = Annotated[
    str | None, typer.Option(help="seed:N, imagenet, or a weights file; default: seed:0, or a .keras file's own.")
]
EngineOption = Annotated[str, typer.Option(help="litert or tensorflow.")]
ThreadsOption = Annotated[int | None, typer.Option(help="The engine's threads; default: one per core.", min=1)]
ModelsArgument = Annotated[list[str], typer.Argument(metavar="MODEL...", help="Names from the zoo, or .keras files.")]
ReportOption = Annotated[
    Path | None, typer.Option("--json", help="Write the numbers to this file.", callback=output_file)
]
TimeoutOption = Annotated[float, typer.Option(min=0.1, help="Seconds to wait until it is done.")]
TierFilters = Annotated[list[str] | None, typer.Option(help="Filters of the tier; may be repeated.")]
TimeFilter = Annotated[str | None, typer.Option(help="A limit in seconds, or as a share: 30%.")]


class Constraints(TypedDict):
    """What a plan may not do, as options say it; see `nodes.cli.plan.plan_request_of`."""

    raw_stays_on: Annotated[str | None, typer.Option(help="device or edge: raw input goes no further.")]
    min_depth: Annotated[int | None, typer.Option(help="Blocks that compute on the device before anything leaves it.")]
    pin: Annotated[list[str] | None, typer.Option(metavar="BLOCK=TIER", help="Run this block there; may be repeated.")]
    forbid: Annotated[
        list[str] | None, typer.Option(metavar="BLOCK=TIER", help="Never run this block there; may be repeated.")
    ]
    exclude: Annotated[list[str] | None, typer.Option(metavar="NODE", help="No blocks on this node; may be repeated.")]
    upload_limit: Annotated[
        list[str] | None, typer.Option(metavar="LINK=MB", help="Megabytes a frame up device_edge or edge_cloud.")
    ]
    time_limit: Annotated[
        list[str] | None, typer.Option(metavar="TIER=LIMIT", help="Seconds a frame, or a share of all computing: 30%.")
    ]
    energy_limit: Annotated[
        float | None, typer.Option(metavar="JOULES", help="Joules a frame above what idle nodes draw.")
    ]


NO_CONSTRAINTS: Constraints = {
    "raw_stays_on": None,
    "min_depth": None,
    "pin": None,
    "forbid": None,
    "exclude": None,
    "upload_limit": None,
    "time_limit": None,
    "energy_limit": None,
}


def json_target(as_json: bool, file: str | None) -> str | None:
    """Where JSON goes: a path, STDOUT, or None for no JSON. Raises BadParameter for a file without --json."""
    if file is not None and not as_json:
        raise typer.BadParameter(f"{file}: a second name is where JSON goes, with --json", param_hint="FILE")
    return (file or STDOUT) if as_json else None


def with_constraints(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of `Constraints`, in the place of its parameter `constraints`."""
    options = get_type_hints(Constraints, include_extras=True)
    hints = get_type_hints(command, include_extras=True)
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command, eval_str=True).parameters.values():
        if parameter.name == "constraints":
            parameters += [parameter.replace(name=name, default=None, annotation=options[name]) for name in options]
        else:
            parameters.append(parameter)

    def with_options(**given: Any) -> None:
        command(constraints={name: given.pop(name) for name in options}, **given)

    del hints["constraints"]
    for name in ("__name__", "__doc__", "__module__"):
        setattr(with_options, name, getattr(command, name))
    with_options.__annotations__ = hints | options
    with_options.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return with_options
