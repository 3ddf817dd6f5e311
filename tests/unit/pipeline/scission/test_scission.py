"""Scission's procedure: what it reads, what it refuses, what its filters mean, and that it finds the best."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodes.cli import scission as scission_commands
from pipeline import scission
from pipeline.cost import Link
from pipeline.graph import Block, ModelGraph, Tensor
from pipeline.placement import Tier
from pipeline.profiling.profile import Profile
from pipeline.scission import Answer, Blocks, Network, Query, System, search
from pipeline.scission.filters import tier_filters, time_filter, upload_filter

DEVICE, EDGE, CLOUD = Tier
ROOT = Path(__file__).parents[4]
LAYERS = ((0, 1), (2, 2), (3, 5), (6, 6))
BYTES = (400_000, 100_000, 300_000, 4_000)
SECONDS = {
    (DEVICE, "pi"): (0.1, 0.2, 0.3, 0.4),
    (EDGE, "nuc"): (0.05, 0.05, 0.1, 0.1),
    (EDGE, "42"): (0.06, 0.04, 0.1, 0.2),
    (CLOUD, "big"): (0.01, 0.01, 0.02, 0.02),
}
TABLE = """source, destination, ping(ms), bandwidth(mbps)
pi, nuc, 10, 8
pi, 42, 20, 8

pi, big, 100, 4
nuc, big, 30, 80
42, big, 30, 80
"""


def _blocks(seconds: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4), source: str = "x.json") -> Blocks:
    return Blocks(tuple(a for a, _ in LAYERS), tuple(b for _, b in LAYERS), seconds, BYTES, source)


SYSTEMS = tuple(System(name, tier, {"net": _blocks(seconds, name)}) for (tier, name), seconds in SECONDS.items())


def _json(tier: Tier, name: str, model: str = "net") -> dict[str, Any]:
    keys = ("first_layer", "last_layer", "seconds", "output_bytes")
    rows = zip(*zip(*LAYERS, strict=True), SECONDS[tier, name], BYTES, strict=True)
    return {"system": name, "tier": tier.label, "models": {model: [dict(zip(keys, row, strict=True)) for row in rows]}}


def _placements(answers: list[Answer]) -> list[str]:
    """Such as `pi 0-2 | nuc 3-6 | -`."""
    found = []
    for answer in answers:
        words = [f"{s.system} {s.layers[0]}-{s.layers[1] - 1}" if s.layers else "-" for s in answer.stages.values()]
        found.append(" | ".join(words))
    return found


# The search


def _brute_force(systems: tuple[System, ...], network: Network, input_bytes: float) -> Iterator[tuple[float, str]]:
    """All placements by enumeration: seconds and where each block runs."""
    by_tier = {tier: [s for s in systems if s.tier == tier] for tier in Tier}
    for device in by_tier[DEVICE]:
        blocks = device.models["net"]
        for at in itertools.product(Tier, repeat=len(blocks)):
            used = [tier for tier in (EDGE, CLOUD) if tier in at]
            if list(at) != sorted(at) or not all(by_tier[tier] for tier in used):
                continue
            for chosen in itertools.product(*(by_tier[tier] for tier in used)):
                runs = {DEVICE: device, **dict(zip(used, chosen, strict=True))}
                seconds, here, nbytes = 0.0, device, input_bytes
                for block, tier in enumerate(at):
                    if runs[tier] is not here:
                        link = network.links[here.name, runs[tier].name]
                        seconds += link.latency_s + nbytes / link.bandwidth_bytes_per_s
                        here = runs[tier]
                    seconds += here.models["net"].seconds[block]
                    nbytes = blocks.output_bytes[block]
                yield seconds, device.name + "".join(runs[tier].name for tier in at)


_times = st.one_of(st.sampled_from([0.0, 0.5]), st.floats(0, 10))


@st.composite
def _worlds(draw: st.DrawFn) -> tuple[tuple[System, ...], Network, float]:
    n = draw(st.integers(1, 4))
    starts = [0, *itertools.accumulate(draw(st.integers(1, 3)) for _ in range(n))]
    nbytes = tuple(draw(st.integers(0, 10_000_000)) for _ in range(n))
    systems = []
    for tier, least in ((DEVICE, 1), (EDGE, 0), (CLOUD, 0)):
        for number in range(draw(st.integers(least, 2))):
            seconds = tuple(draw(_times) for _ in range(n))
            blocks = Blocks(tuple(starts[:-1]), tuple(s - 1 for s in starts[1:]), seconds, nbytes)
            systems.append(System(f"<{tier.label}{number}>", tier, {"net": blocks}))
    pairs = ((a.name, b.name) for a in systems for b in systems if a.tier < b.tier)
    links = {pair: Link(draw(st.floats(1e3, 1e9)), draw(_times)) for pair in pairs}
    return tuple(systems), Network(links), draw(st.floats(0, 1e7))


@given(_worlds(), st.integers(1, 200))
def test_the_best_are_those_that_brute_force_finds(world: tuple[tuple[System, ...], Network, float], top: int) -> None:
    systems, network, input_bytes = world
    answers = search(systems, network, Query("net", (), input_bytes, top))
    expected = sorted(seconds for seconds, _ in _brute_force(systems, network, input_bytes))
    assert [answer.seconds for answer in answers] == pytest.approx(expected[:top])
    everything = search(systems, network, Query("net", (), input_bytes, 10_000))
    assert len(everything) == len(expected) == len({str(answer.stages) for answer in everything})


@given(_worlds())
def test_the_parts_of_an_answer_add_up(world: tuple[tuple[System, ...], Network, float]) -> None:
    systems, network, input_bytes = world
    for answer in search(systems, network, Query("net", (), input_bytes)):
        value = answer.to_json()
        parts = value["predicted"]
        hops = [parts[name] for name in ("device_edge", "edge_cloud", "device_cloud")]
        stages = [parts[tier.label] for tier in Tier]
        assert value["seconds"] == pytest.approx(sum(stages) + sum(hop["seconds"] for hop in hops))
        assert value["megabytes"] == pytest.approx(sum(hop["megabytes"] for hop in hops))
        layers = [range(*value[tier.label]["layers"]) for tier in Tier if value[tier.label]["layers"]]
        last = systems[0].models["net"].last_layer[-1]
        assert list(itertools.chain(*layers)) == list(range(last + 1))


def test_a_placement_is_priced_hop_by_hop(network: Network) -> None:
    filters = (*tier_filters(DEVICE, ["2"]), *tier_filters(EDGE, ["3,nuc"]), *tier_filters(CLOUD, ["6"]))
    (answer,) = search(SYSTEMS, network, Query("net", filters))
    assert answer.to_json() == {
        "seconds": pytest.approx(0.3 + (0.01 + 0.1) + 0.1 + (0.03 + 0.03) + 0.02),
        "megabytes": pytest.approx(0.4),
        "device": {"system": "pi", "layers": [0, 3]},
        "edge": {"system": "nuc", "layers": [3, 6]},
        "cloud": {"system": "big", "layers": [6, 7]},
        "predicted": {
            "device": pytest.approx(0.3),
            "edge": pytest.approx(0.1),
            "cloud": pytest.approx(0.02),
            "device_edge": {"seconds": pytest.approx(0.11), "megabytes": pytest.approx(0.1)},
            "edge_cloud": {"seconds": pytest.approx(0.06), "megabytes": pytest.approx(0.3)},
            "device_cloud": {"seconds": 0.0, "megabytes": 0.0},
        },
    }


def test_past_the_edge_one_hop_is_paid_and_an_unused_device_is_the_inputs_source(network: Network) -> None:
    filters = (*tier_filters(DEVICE, ["-1"]), *tier_filters(EDGE, ["-1"]))
    (answer,) = search(SYSTEMS, network, Query("net", filters, input_bytes=1_000_000))
    value = answer.to_json()
    assert value["seconds"] == pytest.approx(0.1 + 2.0 + 0.06)
    assert value["megabytes"] == pytest.approx(1.0)
    assert value["device"] == {"system": "pi", "layers": None}
    assert value["edge"] == {"system": None, "layers": None}
    assert value["cloud"] == {"system": "big", "layers": [0, 7]}


def test_a_device_alone_sends_nothing(network: Network) -> None:
    filters = (*tier_filters(EDGE, ["-1"]), *tier_filters(CLOUD, ["-1"]))
    (answer,) = search(SYSTEMS, network, Query("net", filters))
    assert answer.seconds == pytest.approx(1.0)
    assert answer.megabytes == 0


# Filters


@pytest.mark.parametrize(
    ("filters", "kept"),
    [
        (tier_filters(DEVICE, ["3"]), lambda d, e, c: d[1] >= 5),
        (tier_filters(EDGE, ["!4"]), lambda d, e, c: not (e[0] <= 4 <= e[1])),
        (tier_filters(CLOUD, ["-1"]), lambda d, e, c: c[2] is None),
        (tier_filters(EDGE, ["!-1"]), lambda d, e, c: e[2] is not None),
        (tier_filters(EDGE, ["nuc"]), lambda d, e, c: e[2] == "nuc"),
        (tier_filters(EDGE, ["!nuc"]), lambda d, e, c: e[2] == "42"),
        (tier_filters(EDGE, ["@42"]), lambda d, e, c: e[2] == "42"),
        (tier_filters(EDGE, ["!@42"]), lambda d, e, c: e[2] == "nuc"),
        (tier_filters(EDGE, ["nuc,@42"]), lambda d, e, c: e[2] is not None),
        (tier_filters(EDGE, ["nuc", "!@42, 5"]), lambda d, e, c: e[2] == "nuc" and e[0] <= 5 <= e[1]),
        (tier_filters(DEVICE, ["pi"]), lambda d, e, c: d[1] >= 0),
        (tier_filters(DEVICE, ["-1"]), lambda d, e, c: d[1] < 0),
    ],
)
def test_tier_filters_keep_what_they_say(
    network: Network, filters: tuple[scission.Filter, ...], kept: Callable[..., bool]
) -> None:
    def part(answer: Answer, tier: Tier) -> tuple[int, int, str | None]:
        stage = answer.stages[tier]
        first, stop = stage.layers or (-1, 0)
        return first, stop - 1, stage.system if stage.layers else None

    everything = search(SYSTEMS, network, Query("net", top=1000))
    expected = [a for a in everything if kept(*(part(a, tier) for tier in Tier))]
    assert 0 < len(expected) < len(everything)
    assert search(SYSTEMS, network, Query("net", filters, top=1000)) == expected


@pytest.mark.parametrize(
    ("one", "kept"),
    [
        (upload_filter(DEVICE, 0.1), lambda a: a.hops[DEVICE, EDGE].megabytes + a.hops[DEVICE, CLOUD].megabytes <= 0.1),
        (upload_filter(EDGE, 0.1), lambda a: a.hops[EDGE, CLOUD].megabytes <= 0.1),
        (time_filter(DEVICE, "0.3"), lambda a: a.stages[DEVICE].seconds <= 0.3 + 1e-9),
        (time_filter(EDGE, "0"), lambda a: a.stages[EDGE].layers is None),
        (time_filter(CLOUD, " 50% "), lambda a: _share(a, CLOUD) <= 0.5 + 1e-9),
        (time_filter(DEVICE, "40%"), lambda a: _share(a, DEVICE) <= 0.4 + 1e-9),
    ],
)
def test_limits_are_of_one_hop_of_seconds_and_of_the_share_of_computing(
    network: Network, one: scission.Filter, kept: Callable[[Answer], bool]
) -> None:
    everything = search(SYSTEMS, network, Query("net", top=1000))
    expected = [a for a in everything if kept(a)]
    assert 0 < len(expected) < len(everything)
    assert search(SYSTEMS, network, Query("net", (one,), top=1000)) == expected


def _share(answer: Answer, tier: Tier) -> float:
    return answer.stages[tier].seconds / sum(stage.seconds for stage in answer.stages.values())


# Why nothing is left


_wishes = st.lists(
    st.one_of(
        st.builds(
            lambda tier, text: tier_filters(tier, [text])[0],
            st.sampled_from(list(Tier)),
            st.builds(lambda sign, n: f"{sign}{n}", st.sampled_from(["", "!"]), st.integers(-1, 6)),
        ),
        st.builds(upload_filter, st.sampled_from([DEVICE, EDGE]), st.sampled_from([0.0, 0.1, 0.3])),
        st.builds(time_filter, st.sampled_from(list(Tier)), st.sampled_from(["0.1", "30%", "60%"])),
    ),
    min_size=1,
    max_size=6,
)
_NETWORK = Network(
    {(a.name, b.name): Link(1e6, 0.01) for a in SYSTEMS for b in SYSTEMS if a.tier < b.tier},
)


# Systems that do not fit together


# The network table


# Profiles


def _damaged(**changes: object) -> dict[str, Any]:
    value = _json(DEVICE, "pi")
    value["models"]["net"][1] |= changes
    return value


def _without(key: str) -> dict[str, Any]:
    value = _json(DEVICE, "pi")
    del value["models"]["net"][1][key]
    return value


# trisect's own profiles


def _graph(outputs: tuple[int, ...] = (5,)) -> ModelGraph:
    """Input, a, then b and c in parallel, their sum, and an end."""
    inputs = ((), (0,), (1,), (1,), (2, 3), (4,))
    tensors = tuple(Tensor(i, f"t{i}", (1, 10 * (i + 1)), "float32") for i in range(6))
    blocks = tuple(Block(i, f"b{i}", "Dense" if i else "input", (), reads, (i,)) for i, reads in enumerate(inputs))
    return ModelGraph("net", "d", tensors, blocks, (0,), outputs)


def _profile(seconds: tuple[float, ...] = (0.0, 1.0, 2.0, 3.0, 4.0, 5.0)) -> Profile:
    spread = (0.0,) * len(seconds)
    return Profile("net", "d", "tensorflow", "2", 2, "abacus x2", seconds, spread, sum(seconds), 0.0)


def _own(directory: Path, value: Mapping[str, Any], name: str = "net.json") -> None:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / name).write_text(json.dumps(value))
    (directory / "net.svg").write_text("<svg/>")


# Scission's pickles


class _Measured:
    """Scission's class as its benchmark has it: of a script, so of `__main__`."""

    __module__ = "__main__"
    __qualname__ = "LayerBenchmark"

    def __init__(self, first: object, last: object, seconds: object, nbytes: object) -> None:
        self.model, self.device = "net", ""
        self.input_layer, self.output_layer = first, last
        self.second_prediction, self.output_size = seconds, nbytes


def _rows(measured: type[_Measured], tier: Tier, name: str) -> list[_Measured]:
    rows = zip(LAYERS, SECONDS[tier, name], BYTES, strict=True)
    return [measured(*layers, seconds, nbytes) for layers, seconds, nbytes in rows]


class _Malicious:
    def __init__(self, call: tuple[Any, ...]) -> None:
        self.call = call

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


# The command


def _run(profiles: Path, network: Path, **options: Any) -> int:
    return scission_commands.run(profiles, network, "net", **options)
