"""A node's own metrics, where its configuration has `metrics: {port}`; otherwise nothing happens."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any

from nodes.protocol.messages import LifeState, NodeInfo

if TYPE_CHECKING:
    from nodes.config.instruments import MetricsSection
    from nodes.instruments.measured import Measured


class NodeMetrics:
    """Takes what one node says of itself, and answers Prometheus while it is entered. Raises ConfigError then."""

    def __init__(self, section: MetricsSection | None, node: str, tier: str) -> None:
        self._section, self._node, self._tier = section, node, tier
        self._measured: Measured | None = None
        self._served = ExitStack()

    def __enter__(self) -> NodeMetrics:
        if self._section is not None:
            from nodes.instruments.measured import Measured
            from nodes.instruments.prometheus import MetricsServer

            measured = Measured()
            self._served.enter_context(MetricsServer(self._section, measured))
            self._measured = measured
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._served.close()

    def info(self, info: NodeInfo) -> None:
        """What the node is."""
        if self._measured is not None:
            self._measured.learn_info(info)

    def report(self, report: Mapping[str, Any], state: LifeState) -> None:
        """The node's newest report, and its state."""
        if self._measured is not None:
            self._measured.set_state(self._node, self._tier, state)
            self._measured.learn_report(self._node, report)

    def frame(self, stream: str, seconds: float) -> None:
        """A frame was answered without an error."""
        if self._measured is not None:
            self._measured.learn_frame(stream, seconds)
