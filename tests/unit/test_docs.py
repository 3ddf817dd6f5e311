"""The docs say what the code says."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer

from broker.topics import ALL
from nodes.cli.app import app
from nodes.planner.machine.publish_rules import table_of_rules
from nodes.tier.machine.frame_life import diagram_of_life

ROOT = Path(__file__).parents[2]


def test_the_table_of_topics_is_that_of_the_declarations() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    for topic in ALL:
        template = topic.template.replace("{", "<").replace("}", ">")
        row = f"| `{template}` | {topic.message} | {topic.encoding} | {topic.qos} | {'yes' if topic.retain else 'no'} |"
        assert f"{row} {', '.join(topic.writers)} | {', '.join(topic.readers)} |" in page


def test_the_rules_for_publishing_a_plan_are_those_of_the_planner() -> None:
    assert table_of_rules() in (ROOT / "docs" / "architecture.md").read_text()


def test_the_life_of_a_frame_is_that_of_its_table() -> None:
    assert f"```mermaid\n{diagram_of_life()}\n```" in (ROOT / "docs" / "architecture.md").read_text()


def commands() -> list[str]:
    pages = [ROOT / "README.md", ROOT / "docs" / "tutorial.md", *sorted((ROOT / "docs" / "how-to").glob("*.md"))]
    text = "\n".join(page.read_text() for page in pages)
    return [line.partition("#")[0].strip() for line in text.splitlines() if line.startswith("trisect ")]


@pytest.mark.parametrize("command", [line for line in commands() if not line.startswith("trisect watch  demo")])
def test_readme_tutorial_and_how_tos_name_commands_and_options_that_exist(command: str) -> None:
    _, name, *arguments = shlex.split(command)
    known = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    assert name in known
    options = {option for parameter in known[name].params for option in parameter.opts}
    assert {argument for argument in arguments if re.match(r"--?[a-z]", argument)} <= options


def test_the_readme_has_the_two_commands_of_the_makefile() -> None:
    readme, makefile = ((ROOT / name).read_text() for name in ("README.md", "Makefile"))
    for target in ("demo", "test"):
        assert f"make {target}" in readme
        assert f"\n{target}: setup" in makefile
