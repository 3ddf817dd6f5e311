"""What networks and engines with blocks of our own around them share: the input's before, a task's decoder after."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.engines.base import Engine, Loaded

if TYPE_CHECKING:
    from pipeline.lite.package import Package
    from pipeline.lite.sketch import Sketch


@dataclass(frozen=True)
class WrappedNetwork:
    """A loaded network with blocks of our own, which have no weights and are in no package."""

    network: Loaded

    @property
    def package(self) -> Package:
        """The network as a package, without the blocks of our own. Raises ModelError."""
        return self.network.package

    @property
    def nbytes(self) -> int:
        """Bytes of all weights."""
        return self.network.nbytes


class WrappedEngine:
    """An engine that also runs blocks of our own; `_engine` runs the rest."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.name, self.version, self.threads = engine.name, engine.version, engine.threads

    def sketched(self, sketch: Sketch) -> Loaded:
        """A small network, ready to be compiled."""
        return self._engine.sketched(sketch)
