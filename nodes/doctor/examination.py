"""Looks at everything, and prints each finding as it comes; checks files without running them."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from rich.text import Text

from nodes.config.loader import load_config
from nodes.config.sections import Config
from nodes.display.screen import Screen
from nodes.display.text import json_line, plain
from nodes.doctor.findings import Finding, Level, ok, wrong
from pipeline.errors import ConfigError, TrisectError

_STYLES: dict[Level, str] = {"ok": "green", "warning": "yellow", "wrong": "bold red"}


def run(path: Path, *, as_json: bool, timeout_s: float) -> int:
    """Look at everything and print it; returns the exit code, 1 if something is wrong."""
    from nodes.doctor import broker, machine, pipeline

    found: list[Finding] = []

    def note(findings: Iterator[Finding]) -> None:
        for finding in findings:
            found.append(finding)
            _show(finding, as_json=as_json)

    try:
        config = load_config(path)
    except ConfigError as error:
        note(iter([wrong("configuration", str(error), "correct it, or enrol this machine again")]))
        note(machine.without_configuration())
        return 1
    note(iter([ok("configuration", f"{path} is read")]))
    note(machine.with_configuration(config))
    reachable = False
    for finding in broker.look(config, timeout_s=timeout_s):
        reachable = reachable or (finding.about == "broker" and finding.level == "ok")
        note(iter([finding]))
    if reachable:
        note(pipeline.look(config, timeout_s=timeout_s))
    return 1 if any(finding.level == "wrong" for finding in found) else 0


def _show(finding: Finding, *, as_json: bool) -> None:
    if as_json:
        print(json_line(asdict(finding)), flush=True)
        return
    line = Text(f"{finding.level:8}", _STYLES[finding.level])
    line.append(f"{finding.about}: ", "bold").append(plain(finding.text, 2_000))
    screen = Screen()
    screen.print(line, soft_wrap=True)
    if finding.remedy:
        screen.print(Text(f"         {plain(finding.remedy, 2_000)}", "dim"), soft_wrap=True)


def check_files(paths: Sequence[Path]) -> int:
    """Check configurations and what they name on this machine; returns the exit code."""
    code = 0
    for path in paths:
        try:
            config = load_config(path)
            missing = list(_missing(config))
        except TrisectError as error:
            print(plain(str(error), 4_000), file=sys.stderr)
            code = 1
            continue
        for line in missing:
            print(f"{path}: {plain(line)}")
        models, streams, nodes = (", ".join(map(plain, part)) for part in (config.models, config.streams, config.nodes))
        print(f"{path}: good; pipeline {config.pipeline}; models {models}; streams {streams}; nodes {nodes}")
    return code


def _missing(config: Config) -> Iterator[str]:
    """Files that are named and not on this machine. Raises UnknownModel for a network that the zoo lacks."""
    from pipeline.models import lookup

    for name, model in config.models.items():
        if model.is_pushed:
            continue
        if not model.is_file:
            lookup(model.source)
        elif not Path(model.source).exists():
            yield f"models.{name}.source: {model.source} is not on this machine, and each node needs it"
        if model.labels is not None and not model.labels.exists():
            yield f"models.{name}.labels: {model.labels} is not on this machine, and the device needs it"
    for name, stream in config.streams.items():
        images = stream.source.images if stream.source is not None else None
        if images is not None and not images.exists():
            yield f"streams.{name}.source.images: {images} is not on this machine; {stream.device} needs it"
