"""Pages of the docs' site that are written by the code: configuration, topics, commands, Python names.

MkDocs calls `on_files` (see mkdocs.yml); the tests call the functions that make a page. No page says anything that the
code does not: keys and what they allow come from the models that check them, topics from their table, commands from the
command line, the client from its docstrings.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

import trisect
from broker.topics import ALL, ROOT
from nodes.cli.app import app
from nodes.config.sections import Config

_MIB = 1 << 20


def configuration() -> str:
    """Every section of a configuration file with its keys, in the order in which they are declared."""
    lines = [
        "# Configuration",
        "",
        "One YAML file describes a pipeline, the same on all machines. "
        "A key that is unknown, or holds what it may not, is refused with its line.",
    ]
    for name, section in _sections(Config, "the file", {}).items():
        lines += ["", f"## {section.__name__.removesuffix('Section') or name}", "", f"`{name}`", ""]
        lines += [_sentences(section), "", "| key | default | what it may hold |", "|---|---|---|"]
        lines += [
            f"| `{key}` | {_default(field)} | {_cell(field.description or _names_of(field))} |"
            for key, field in section.model_fields.items()
        ]
    return "\n".join(lines) + "\n"


def topics() -> str:
    """The table of topics."""
    lines = [
        "# Topics",
        "",
        f"Below `{ROOT}/<pipeline>/`. A message above its size is refused where it comes in; "
        "access lists are made of this table.",
        "",
        "| topic | message | encoding | QoS | retained | written by | read by | at most |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for topic in ALL:
        template = topic.template.replace("{", "<").replace("}", ">")
        size = f"{topic.max_bytes / _MIB:g} MiB" if topic.max_bytes >= _MIB else f"{topic.max_bytes // 1024} KiB"
        retained = "yes" if topic.retain else "no"
        who = f"{', '.join(topic.writers)} | {', '.join(topic.readers)}"
        lines.append(
            f"| `{template}` | {topic.message} | {topic.encoding} | {topic.qos} | {retained} | {who} | {size} |"
        )
    return "\n".join(lines) + "\n"


def commands() -> str:
    """Every command with its arguments and options."""
    lines = ["# Commands", "", "`trisect COMMAND --help` says the same. `--version` prints the version."]
    for name, command in _commands(typer.main.get_command(app), "trisect"):
        lines += ["", f"## {name}", "", *_paragraphs(command.help or "")]
        rows = [_parameter(parameter) for parameter in command.params if parameter.name != "help"]
        if rows:
            lines += ["", "| argument or option | default | |", "|---|---|---|", *rows]
    return "\n".join(lines) + "\n"


def python() -> str:
    """Every public name with its signature, docstring and methods."""
    lines = ["# Python names", "", "What `trisect` exports. What is not listed may change with any version."]
    for name in trisect.__all__:
        value = getattr(trisect, name)
        if inspect.isclass(value):
            lines += ["", f"## {name}", "", *_docstring(value)]
            for method, function in _methods(value):
                lines += ["", f"### {name}.{method}", "", *_docstring(function)]
        elif callable(value):
            lines += ["", f"## {name}", "", f"`{name}{_signature(value)}`", "", *_docstring(value)]
    return "\n".join(lines) + "\n"


PAGES: dict[str, Callable[[], str]] = {
    "reference/configuration.md": configuration,
    "reference/topics.md": topics,
    "reference/commands.md": commands,
    "reference/python.md": python,
}


def on_files(files: Any, config: Any) -> Any:
    """MkDocs' hook: the pages made here, beside those in the folder."""
    from mkdocs.structure.files import File

    for path, page in PAGES.items():
        files.append(File.generated(config, path, content=page()))
    return files


def _sections(model: type[BaseModel], where: str, found: dict[str, type[BaseModel]]) -> dict[str, type[BaseModel]]:
    """Sections by where they stand, each once."""
    if model in found.values():
        return found
    found[where] = model
    for key, field in model.model_fields.items():
        for inner in _models(field.annotation):
            is_table = "Mapping" in str(field.annotation)
            at = f"{key}: {{name: …}}" if is_table else f"{key}:"
            _sections(inner, at if where == "the file" else f"{where} {at}", found)
    return found


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in getattr(annotation, "__args__", ()):
        yield from _models(argument)


def _names_of(field: FieldInfo) -> str:
    found = [model.__name__.removesuffix("Section") for model in _models(field.annotation)]
    return f"a section, see {', '.join(found)}" if found else "see the section's text"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "needed"
    default = field.get_default(call_default_factory=True)
    if (
        isinstance(default, BaseModel)
        or default is None
        or default in ("", ())
        or not isinstance(default, str | int | float | tuple)
    ):
        return ""
    text = (
        str(default).lower()
        if isinstance(default, bool)
        else str(list(default) if isinstance(default, tuple) else default)
    )
    return f"`{text}`"


def _commands(group: Any, name: str) -> Iterator[tuple[str, Any]]:
    for key in sorted(group.commands):
        command = group.commands[key]
        if hasattr(command, "commands"):
            yield from _commands(command, f"{name} {key}")
        else:
            yield f"{name} {key}", command


def _parameter(parameter: Any) -> str:
    is_option = parameter.param_type_name == "option"
    names = ", ".join(
        f"`{one}`" for one in (parameter.opts if is_option else [(parameter.metavar or parameter.name).upper()])
    )
    plain = parameter.default is None or parameter.default in (False, "", ()) or callable(parameter.default)
    default = "needed" if parameter.required else "" if plain else f"`{parameter.default}`"
    return f"| {names} | {_cell(default)} | {_cell(getattr(parameter, 'help', '') or '')} |"


def _methods(value: type) -> Iterator[tuple[str, Any]]:
    for name, member in vars(value).items():
        function = member.fget if isinstance(member, property) else member
        if not name.startswith("_") and callable(function) and inspect.getdoc(function):
            yield (name if isinstance(member, property) else f"{name}{_signature(function)}"), function


def _signature(function: Any) -> str:
    text = str(inspect.signature(function)).replace("'", "")
    return re.sub(r"\(self(, )?", "(", text)


def _docstring(value: Any) -> list[str]:
    """Paragraphs; `Attributes:` and `Args:` become lists."""
    lines: list[str] = []
    for line in (inspect.getdoc(value) or "").splitlines():
        if line in {"Attributes:", "Args:"}:
            lines += ["", f"**{line.removesuffix(':')}**", ""]
        elif found := re.fullmatch(r" {4}([\w, ]+): (.*)", line):
            lines.append(f"- `{found[1]}`: {found[2]}")
        else:
            lines.append(line if not line.startswith(" " * 8) else f"  {line.strip()}")
    return lines


def _sentences(value: Any) -> str:
    return " ".join((inspect.getdoc(value) or "").split())


def _paragraphs(text: str) -> list[str]:
    return inspect.cleandoc(text).splitlines()


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
