"""One tree of errors: one root, its fields, and nothing public outside it."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from pathlib import Path
from types import ModuleType

import broker
import nodes
import pipeline
from broker.errors import BrokerError, BrokerUnreachable, PayloadTooLarge
from pipeline.errors import ConfigError, TrisectError, UnknownModel
from pipeline.models.host_memory import TooLarge


def modules() -> list[ModuleType]:
    names = (
        module.name
        for package in (broker, nodes, pipeline)
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    )
    return [importlib.import_module(name) for name in names if not name.endswith("__main__")]


def test_every_public_error_has_the_one_root() -> None:
    errors = {
        value
        for module in modules()
        for name, value in inspect.getmembers(module, inspect.isclass)
        if issubclass(value, BaseException) and value.__module__ == module.__name__ and not name.startswith("_")
    }
    assert len(errors) > 25
    assert {error for error in errors if not issubclass(error, TrisectError)} == set()


def test_an_error_has_its_numbers_and_its_way_out_as_fields_and_in_its_text() -> None:
    too_large = PayloadTooLarge(topic="a/b", size=2_000, limit=1_000)
    assert isinstance(too_large, BrokerError)
    assert (too_large.size, too_large.limit) == (2_000, 1_000)
    assert str(too_large).endswith(f"; {too_large.hint}")
    memory = TooLarge("to load it takes", 2_000_000, 1_000_000, "use another machine")
    assert (memory.size, memory.limit, memory.hint) == (2_000_000, 1_000_000, "use another machine")
    assert "2 MB" in str(memory)
    assert "known: vgg16" in UnknownModel("vgg", ["vgg16"]).hint


def test_an_error_without_them_is_its_text() -> None:
    plain = ConfigError("x.yaml: no", file=Path("x.yaml"))
    assert (str(plain), plain.file) == ("x.yaml: no", Path("x.yaml"))
    assert (plain.size, plain.limit, plain.node, plain.hint) == (None, None, None, "")
    assert BrokerUnreachable("here", 1883, "refused").hint.startswith("start it")
