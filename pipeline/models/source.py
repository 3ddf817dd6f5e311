"""Where a model comes from, as a configuration names it. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A model to load under `name`.

    `source` is a name of the zoo, or the path of a .keras file or of a package (.trisect), which has all in it.
    `weights` is `seed:N` (drawn, the same bits on every machine), `imagenet` (downloaded by Keras), or the path of a
    weights file. A .keras file brings its own weights: there, only a path replaces them.
    """

    name: str
    source: str
    weights: str = "seed:0"

    @property
    def is_file(self) -> bool:
        """Whether `source` is a path and no name of the zoo."""
        return self.source.endswith((".keras", ".h5", ".hdf5", ".trisect")) or "/" in self.source

    @property
    def is_package(self) -> bool:
        """Whether `source` is the path of a package."""
        return self.source.endswith(".trisect")
