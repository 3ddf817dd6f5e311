"""YAML that somebody else may have written: read within bounds of depth, values and digits, with each key's line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from pipeline.errors import ConfigError

MAX_DEPTH = 32
MAX_DIGITS = 40
MAX_VALUES = 100_000
"""Of a file, aliases counted each time that they stand for something: aliases of aliases grow without bound."""

Key: TypeAlias = tuple[Any, ...]
"""The way to a value: names of sections and entries, numbers in lists."""
Problem: TypeAlias = tuple[Key, str]


class _Loader(yaml.SafeLoader):
    """SafeLoader, with numbers as everyone writes them, and a bound on depth: YAML 1.1 takes `1e-3` for text, and
    `31:23` for 1883.
    """

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """As PyYAML has it, which needs time and stack for every bracket. Raises ValueError."""
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise ValueError(f"sections within sections, more than {MAX_DEPTH} deep")
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def fetch_flow_collection_start(self, kind: type[yaml.Token]) -> None:
        """As PyYAML has it, which looks at all open brackets with every token. Raises ValueError."""
        if self.flow_level > MAX_DEPTH:
            raise ValueError(f"brackets within brackets, more than {MAX_DEPTH} deep")
        super().fetch_flow_collection_start(kind)

    def whole_number(self, node: yaml.ScalarNode) -> int | str:
        """A whole number, of a length that can be printed again; else text, which is refused where it stands."""
        text: str = node.value
        return text if ":" in text or len(text) > MAX_DIGITS else self.construct_yaml_int(node)


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.whole_number)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def read_yaml(text: str, path: Path) -> tuple[Any, dict[Key, int], list[Problem]]:
    """The plain values, the line of each key, and the keys that stand there twice. Raises ConfigError."""
    lines: dict[Key, int] = {}
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        if root is not None and (count := _values_in(root, {})) > MAX_VALUES:
            raise ConfigError(
                f"{path}: {count:,} values with all its aliases, more than the {MAX_VALUES:,} allowed", file=path
            )
        problems = list(_walk(root, (), lines, set())) if root is not None else []
        values = loader.construct_document(root) if root is not None and not problems else None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        what = ", ".join(part for part in (error.context, error.problem) if part)
        raise ConfigError(f"{path}{where}: not YAML: {what}", file=path) from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not YAML: {error}", file=path) from error
    except (ValueError, RecursionError) as error:  # a date that does not exist, brackets without end
        raise ConfigError(f"{path}: not YAML that can be read: {error}", file=path) from error
    return values, lines, problems


def _values_in(node: yaml.Node, known: dict[int, int]) -> int:
    """Number of values in a YAML node, aliases expanded. Raises ValueError for an alias of what contains it."""
    if (count := known.get(id(node))) is not None:
        if not count:
            raise ValueError("an alias within what it stands for")
        return count
    known[id(node)] = 0
    parts = node.value if isinstance(node, yaml.CollectionNode) else []
    flat = [one for part in parts for one in (part if isinstance(part, tuple) else (part,))]
    known[id(node)] = total = 1 + sum(_values_in(one, known) for one in flat)
    return total


def _walk(node: yaml.Node, key: Key, lines: dict[Key, int], seen: set[int]) -> Iterator[Problem]:
    """Note the line of each key below `node`, and yield those that stand twice: PyYAML takes the last in silence."""
    if id(node) in seen:  # an alias, perhaps of something that contains it
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            lines[(*key, index)] = item.start_mark.line + 1
            yield from _walk(item, (*key, index), lines, seen)
    elif isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            here = (*key, name.value if isinstance(name, yaml.ScalarNode) else "?")
            line = name.start_mark.line + 1
            if here in lines and name.value != "<<":
                yield here, f"stands here and again on line {line}; keep one"
            else:
                lines[here] = line
                yield from _walk(value, here, lines, seen)
