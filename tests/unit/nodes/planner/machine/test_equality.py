"""Nodes whose answers differ are not mixed in a plan, unless close ones were asked for."""

from __future__ import annotations

import base64

import numpy as np
import pytest

from nodes.planner.machine.equality import Equality
from nodes.protocol.messages import NodeInfo
from pipeline.plan import NodeId


def info(node: str, bits: str, *answers: float) -> NodeInfo:
    text = base64.b64encode(np.array(answers, "<f4").tobytes()).decode()
    held = {"net": text} if answers else {}
    return NodeInfo(NodeId(node), "edge", "s", "1", "e", "1", 1, "x", {}, bits=bits, answers=held)


LITERT, TENSORFLOW = "litert 2.3.0 everywhere", "tensorflow 2.21.0 x86_64 fma"


def test_equal_bits_are_mixed_and_the_device_goes_with_itself() -> None:
    device = info("device-1", LITERT)
    assert not Equality().why_apart(device, info("edge-1", LITERT), "net")
    assert not Equality().why_apart(device, device, "net")
    assert not Equality().why_apart(None, info("edge-1", TENSORFLOW), "net")


def test_other_bits_are_refused_with_both_named() -> None:
    why = Equality().why_apart(info("device-1", LITERT), info("edge-1", TENSORFLOW), "net")
    assert why.startswith(f"edge-1 computes with {TENSORFLOW}, device-1 with {LITERT}: their answers differ in bits")
    assert "an older trisect" in Equality().why_apart(info("device-1", LITERT), info("edge-1", ""), "net")


@pytest.mark.parametrize(
    ("theirs", "said"),
    [
        ((1.0, 3.0, 4.0, 2.0), ""),
        ((1.0, 3.00001, 4.0, 2.0), ""),
        ((1.0, 3.1, 4.0, 2.0), "differ by 2.5e-02, the tolerance is 1.0e-04"),
        ((3.00001, 3.0, 4.0, 2.0), "with another top class"),
        ((1.0, 3.0), "4 and 2 values cannot be compared"),
        ((float("nan"),) * 4, "not finite"),
        ((), "0 values cannot be compared"),
    ],
)
def test_close_answers_are_mixed_within_the_tolerance(theirs: tuple[float, ...], said: str) -> None:
    device, other = info("device-1", LITERT, 1.0, 3.0, 4.0, 2.0), info("edge-1", TENSORFLOW, *theirs)
    why = Equality("close", 1e-4 if "another top" not in said else 1.0).why_apart(device, other, "net")
    assert (said in why) if said else not why


def test_the_largest_difference_of_a_plans_nodes_is_told() -> None:
    nodes = [info("a", LITERT, 1.0, 2.0), info("b", LITERT, 1.0, 2.0), info("c", TENSORFLOW, 1.0, 2.0002)]
    assert Equality("close").largest_difference(nodes, "net") == pytest.approx(1e-4, rel=0.01)
    assert Equality("close").largest_difference(nodes[:2], "net") == 0.0
