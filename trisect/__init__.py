"""The public names of trisect, for programs that feed a pipeline, read its results or steer it.

    with trisect.Client("alice.enrolment", "camera") as client:
        answer = client.publish(Path("photo.jpg"))

What is not listed here may change with any version.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from broker.errors import BrokerError
    from nodes.client.answers import Answer, Box, ClientClosed, FrameFailed, FrameLost, FrameRefused
    from nodes.client.async_client import AsyncClient
    from nodes.client.client import Client
    from nodes.client.publishing import publish
    from nodes.client.requests import RequestRefused, drain, forget, place, running_plans
    from nodes.client.requests import request_plan as plan_for
    from nodes.client.subscription import Subscription
    from nodes.config.loader import load_config
    from nodes.config.sections import Config
    from nodes.watch.app import snapshot
    from pipeline.errors import ConfigError, FrameError, TrisectError

__all__ = [
    "Answer",
    "AsyncClient",
    "Box",
    "BrokerError",
    "Client",
    "ClientClosed",
    "Config",
    "ConfigError",
    "FrameError",
    "FrameFailed",
    "FrameLost",
    "FrameRefused",
    "RequestRefused",
    "Subscription",
    "TrisectError",
    "__version__",
    "drain",
    "forget",
    "load_config",
    "place",
    "plan_for",
    "publish",
    "running_plans",
    "snapshot",
]

__version__ = version("trisect")

_WHERE = {
    "Box": ("nodes.client.answers", "Box"),
    "BrokerError": ("broker.errors", "BrokerError"),
    "Answer": ("nodes.client.answers", "Answer"),
    "AsyncClient": ("nodes.client.async_client", "AsyncClient"),
    "Client": ("nodes.client.client", "Client"),
    "ClientClosed": ("nodes.client.answers", "ClientClosed"),
    "Config": ("nodes.config.sections", "Config"),
    "ConfigError": ("pipeline.errors", "ConfigError"),
    "FrameError": ("pipeline.errors", "FrameError"),
    "FrameFailed": ("nodes.client.answers", "FrameFailed"),
    "FrameLost": ("nodes.client.answers", "FrameLost"),
    "FrameRefused": ("nodes.client.answers", "FrameRefused"),
    "RequestRefused": ("nodes.client.requests", "RequestRefused"),
    "Subscription": ("nodes.client.subscription", "Subscription"),
    "TrisectError": ("pipeline.errors", "TrisectError"),
    "drain": ("nodes.client.requests", "drain"),
    "forget": ("nodes.client.requests", "forget"),
    "load_config": ("nodes.config.loader", "load_config"),
    "place": ("nodes.client.requests", "place"),
    "plan_for": ("nodes.client.requests", "request_plan"),
    "publish": ("nodes.client.publishing", "publish"),
    "running_plans": ("nodes.client.requests", "running_plans"),
    "snapshot": ("nodes.watch.app", "snapshot"),
}


def __getattr__(name: str) -> Any:
    """Import a name when it is first used: `import trisect` alone takes no time."""
    if name not in _WHERE:
        raise AttributeError(f"module 'trisect' has no attribute {name!r}")
    module, attribute = _WHERE[name]
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted(__all__)
