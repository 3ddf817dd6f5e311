"""Scission's `.dat` files, read without running them.

They are pickles: a dictionary of lists of `__main__.LayerBenchmark`, as `scission_benchmark.py` dumps it. The standard
unpickler would import and call whatever a file names. This one walks the opcodes as `pickletools` lists them, which
executes nothing, and knows only those of plain values and of that one class, which stays a name here.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pipeline.errors import ModelError

CLASS = ("__main__", "LayerBenchmark")

MAX_STEPS = 500_000
"""A second or two."""

_LITERALS = frozenset(
    {
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
        *("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
    }
)
_MAKERS: dict[str, Callable[[], object]] = {
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
}
_PUTS = frozenset({"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"})
_GETS = frozenset({"GET", "BINGET", "LONG_BINGET"})
_SILENT = frozenset({"PROTO", "FRAME", "STOP"})


class ForeignPickle(ModelError, ValueError):
    """The file has a class or an opcode that Scission's files do not have."""


@dataclass
class LayerBenchmark:
    """One measured block as the pickle has it: its attributes, not checked."""

    attributes: dict[str, Any] = field(default_factory=dict)


class _Mark:
    """Marks the beginning of a run of items on the stack."""


def read(content: bytes) -> Any:
    """Read plain values and `LayerBenchmark`s. Raises ForeignPickle, and ValueError for damaged files or no pickle."""
    machine = _Machine()
    try:
        for count, (opcode, argument, position) in enumerate(pickletools.genops(content)):
            if count >= MAX_STEPS:
                raise ForeignPickle(f"it takes more than {MAX_STEPS:,} steps; Scission's longest has some thousands")
            machine.step(opcode.name, argument, position or 0)
        (value,) = machine.stack
    except ForeignPickle:
        raise
    except (ValueError, TypeError, IndexError, KeyError) as error:
        raise ValueError(f"not a whole pickle: {error}") from None
    return value


class _Machine:
    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def step(self, name: str, argument: Any, position: int) -> None:
        if name in _LITERALS:
            self.stack.append(argument)
        elif name in _MAKERS:
            self.stack.append(_MAKERS[name]())
        elif name in _PUTS:
            self.memo[len(self.memo) if name == "MEMOIZE" else argument] = self.stack[-1]
        elif name in _GETS:
            self.stack.append(self.memo[argument])
        elif name in _ACTIONS:
            _ACTIONS[name](self, argument)
        elif name not in _SILENT:
            raise ForeignPickle(f"it does {name} at byte {position}, which Scission's files never do; not read further")

    def mark(self, _: Any) -> None:
        self.stack.append(_Mark())

    def name_class(self, argument: Any) -> None:
        if argument is None:
            name, module = self.stack.pop(), self.stack.pop()
        else:
            module, _, name = argument.partition(" ")
        if (module, name) != CLASS:
            shown = f"{module}.{name}"[:100]
            raise ForeignPickle(
                f"it names {shown}; only {'.'.join(CLASS)}, Scission's own, is admitted; nothing was run"
            )
        self.stack.append(LayerBenchmark)

    def new(self, _: Any) -> None:
        arguments, made = self.stack.pop(), self.stack.pop()
        if made is not LayerBenchmark or arguments != ():
            raise TypeError("an object is made of what is no class")
        self.stack.append(LayerBenchmark())

    def build(self, _: Any) -> None:
        state = self.stack.pop()
        self._top(LayerBenchmark).attributes.update(self._is(dict, state))

    def append(self, _: Any) -> None:
        item = self.stack.pop()
        self._top(list).append(item)

    def extend(self, _: Any) -> None:
        items = self._since_mark()
        self._top(list).extend(items)

    def set_item(self, _: Any) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._top(dict)[key] = value

    def set_items(self, _: Any) -> None:
        items = self._since_mark()
        self._top(dict).update(zip(items[::2], items[1::2], strict=True))

    def _since_mark(self) -> list[Any]:
        items: list[Any] = []
        while not isinstance(item := self.stack.pop(), _Mark):
            items.append(item)
        return items[::-1]

    def _top(self, kind: type[Any]) -> Any:
        return self._is(kind, self.stack[-1])

    @staticmethod
    def _is(kind: type[Any], value: Any) -> Any:
        if type(value) is not kind:
            raise TypeError(f"a {kind.__name__} was due, not a {type(value).__name__}")
        return value


_ACTIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "MARK": _Machine.mark,
    "GLOBAL": _Machine.name_class,
    "STACK_GLOBAL": _Machine.name_class,
    "NEWOBJ": _Machine.new,
    "BUILD": _Machine.build,
    "APPEND": _Machine.append,
    "APPENDS": _Machine.extend,
    "SETITEM": _Machine.set_item,
    "SETITEMS": _Machine.set_items,
}
