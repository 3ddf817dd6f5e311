"""Sources of models, as a configuration names them. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import ModelError

MAX_SIZE = 65_536


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A model to load under `name`.

    `source` is a name of the zoo, or the path of a .keras file or of a package (.trisect), which has all in it.
    `weights` is `seed:N` (drawn, the same bits on every machine), `imagenet` (downloaded by Keras), or the path of a
    weights file. A .keras file brings its own weights: there, only a path replaces them. `input_size` stands where a
    file's inputs leave theirs open (None), in order; `imports` are Python packages whose layers it uses.
    """

    name: str
    source: str
    weights: str = "seed:0"
    input_size: tuple[int, ...] = ()
    imports: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("input_size", "imports"):  # lists, where it comes from JSON
            object.__setattr__(self, name, tuple(getattr(self, name)))

    @property
    def is_file(self) -> bool:
        """True when `source` is a path and no name of the zoo."""
        return self.source.endswith((".keras", ".h5", ".hdf5", ".trisect")) or "/" in self.source

    @property
    def is_package(self) -> bool:
        """True when `source` is the path of a package."""
        return self.source.endswith(".trisect")


def named(name: str, weights: str | None = None, input_size: str = "", imports: Sequence[str] = ()) -> ModelSource:
    """The source that a command line names: a file goes by its stem. Raises ModelError for a size that is none."""
    called = Path(name).stem if ModelSource(name, name).is_file else name
    return ModelSource(called, name, weights or "seed:0", parse_size(input_size), tuple(imports))


def parse_size(text: str) -> tuple[int, ...]:
    """The sizes in `256x256`. Raises ModelError."""
    parts = text.lower().split("x") if text else []
    if not all(part.isascii() and part.isdigit() and 0 < int(part) <= MAX_SIZE for part in parts):
        raise ModelError(f"input size {text!r}: numbers from 1 to {MAX_SIZE} with x between, as in 256x256")
    return tuple(map(int, parts))
