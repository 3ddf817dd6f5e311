"""Versions of the models of a device's streams: which one each is to run, and back when a new one cannot be run."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping

from broker.complaints import shortened
from nodes.config.sections import StreamSection
from nodes.tier.pushed_models import Pushed
from pipeline.models.host_memory import TooLarge
from pipeline.plan import StreamId
from pipeline.ranges import MOST_REASON

PATIENT_REFUSALS = 3
"""Plans of a new version for which this device may lack the memory, before it goes back."""
MOST_REFUSED = 32


class Versions:
    """`model_of` has the name in plans of each stream's model. Thread safe."""

    def __init__(self, streams: Mapping[StreamId, StreamSection], pushed: Iterable[Pushed]) -> None:
        self._family = {name: section.model for name, section in streams.items()}
        names = {one.model: one.name for one in pushed}
        self.model_of = {name: names.get(model, model) for name, model in self._family.items()}
        self.refused: dict[str, str] = {}
        self._before: dict[StreamId, str] = {}
        self._refusals: dict[str, int] = {}
        self._lock = threading.Lock()

    def arrived(self, pushed: Pushed) -> tuple[StreamId, ...]:
        """A version was rolled out: returns the streams that go over to it."""
        with self._lock:
            self.refused.pop(pushed.name, None)
            self._refusals.pop(pushed.name, None)
            moved = [name for name, family in self._family.items() if family == pushed.model]
            for name in moved:
                if self.model_of[name] != pushed.name:
                    self._before[name], self.model_of[name] = self.model_of[name], pushed.name
            return tuple(moved)

    def older(self, pushed: Pushed) -> None:
        """A version that a plan has and that is not the newest: streams go back to it if they cannot run theirs."""
        with self._lock:
            for name, family in self._family.items():
                if family == pushed.model and self.model_of[name] != pushed.name:
                    self._before.setdefault(name, pushed.name)

    def refuse(self, version: str, error: Exception) -> None:
        """Note that this node cannot have a version, which its streams have not gone over to."""
        with self._lock:
            self._note_refused(version, error)

    def _note_refused(self, version: str, error: Exception) -> None:
        while len(self.refused) >= MOST_REFUSED:
            del self.refused[next(iter(self.refused))]
        self.refused[version] = shortened(str(error), MOST_REASON)

    def refuses(self, stream: StreamId, model: str, error: Exception) -> str | None:
        """A plan of this version, which has not run yet, cannot be prepared: returns the version to go back to, if so.

        A package that cannot be run is refused at once. Memory that is lacking may be a matter of the plan, so that
        others are tried first.
        """
        with self._lock:
            before = self._before.get(stream)
            if before is None or self.model_of[stream] != model:
                return None
            self._refusals[model] = self._refusals.get(model, 0) + 1
            if isinstance(error, TooLarge) and self._refusals[model] < PATIENT_REFUSALS:
                return None
            self._note_refused(model, error)
            self.model_of[stream] = before
            del self._before[stream]
            return before
