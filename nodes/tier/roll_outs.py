"""A node's models as versions of them are rolled out: what comes joins them, what does not fit is refused in words."""

from __future__ import annotations

from collections.abc import Callable

from nodes.session.guard import Guard
from nodes.tier.machine import events as ev
from nodes.tier.pushed_models import Pushed
from nodes.tier.served_models import ServedModels


class RollOuts:
    """Follows the pushed models while the node serves; called in their thread. `say_info` publishes what it can do."""

    def __init__(
        self, models: ServedModels, guard: Guard, emit: Callable[[ev.Event], None], say_info: Callable[[], object]
    ) -> None:
        self._models, self._guard, self._emit, self._say_info = models, guard, emit, say_info

    def version_arrived(self, pushed: Pushed) -> None:
        """Streams go over to it when a plan of it is ready."""
        with self._guard.over(pushed):
            streams = self._models.arrived(pushed)
            self._emit(ev.ModelArrived(pushed.name, self._models.graphs[pushed.name], streams))

    def older_arrived(self, pushed: Pushed) -> None:
        """A plan has it: this node started in the middle of a roll-out."""
        with self._guard.over(pushed):
            self._models.add_older(pushed)
            self._emit(ev.ModelArrived(pushed.name, self._models.graphs[pushed.name], ()))

    def version_refused(self, name: str, error: Exception) -> None:
        """Say so, for `roll-out` to end with it; what runs goes on."""
        with self._guard.over(error):
            self._models.versions.refuse(name, error)
            self._say_info()
