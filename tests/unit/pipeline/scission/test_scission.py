"""Scission's procedure: what it reads, what it refuses, what its filters mean, and that it finds the best."""

from __future__ import annotations

import itertools
import json
import pickle  # noqa: TID251  (writes what Scission writes; nothing is ever read with it)
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodes.cli import scission as scission_commands
from nodes.cli.profile import describe
from pipeline import scission
from pipeline.cost import Link
from pipeline.errors import ConfigError, PlanError
from pipeline.graph import Block, ModelGraph, Tensor
from pipeline.placement import Tier
from pipeline.profiling.profile import Profile
from pipeline.scission import Answer, Blocks, Network, Query, System, explain, load_systems, notes, search
from pipeline.scission import pickled as scission_pickle
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


@pytest.fixture
def network(tmp_path: Path) -> Network:
    path = tmp_path / "network.csv"
    path.write_text(TABLE)
    return scission.read_network(path)


@pytest.fixture
def profiles(tmp_path: Path) -> Path:
    directory = tmp_path / "profiles"
    directory.mkdir()
    for tier, name in SECONDS:
        (directory / f"{tier.label}-{name}.json").write_text(json.dumps(_json(tier, name)))
    return directory


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


def test_a_model_that_takes_no_time_passes_every_share(network: Network) -> None:
    idle = [replace(s, models={"net": replace(s.models["net"], seconds=(0.0,) * 4)}) for s in SYSTEMS]
    assert search(idle, network, Query("net", (time_filter(DEVICE, "0%"),)))


@pytest.mark.parametrize("text", ["", ",", "3,", "!", "@", "!!3", "-2", "!-2", "+1", "-nuc"])
def test_an_unreadable_filter_is_refused(text: str) -> None:
    with pytest.raises(PlanError, match=r"is no filter; give a layer"):
        tier_filters(EDGE, [text])


@pytest.mark.parametrize("text", ["", "%", "fast", "-1", "nan", "inf", "-5%", "101%", "nan%", "1e99"])
def test_an_unreadable_time_limit_is_refused(text: str) -> None:
    with pytest.raises(PlanError, match=r"--edge-time .*give seconds"):
        time_filter(EDGE, text)


@pytest.mark.parametrize("megabytes", [-1.0, float("nan"), float("inf")])
def test_an_unreadable_upload_limit_is_refused(megabytes: float) -> None:
    with pytest.raises(PlanError, match=r"--device-upload .*give megabytes"):
        upload_filter(DEVICE, megabytes)


@pytest.mark.parametrize("input_bytes", [-1.0, float("nan"), float("inf")])
def test_an_impossible_query_is_refused(input_bytes: float) -> None:
    with pytest.raises(PlanError, match="input"):
        Query("net", input_bytes=input_bytes)
    with pytest.raises(PlanError, match="at least 1, not 0"):
        Query("net", top=0)


@pytest.mark.parametrize(
    ("tier", "text", "message"),
    [
        (DEVICE, "7", r"no layer 7: they are 0 to 6$"),
        (DEVICE, "!7", r"no layer 7: they are 0 to 6$"),
        (DEVICE, "42", r"no layer 42: they are 0 to 6$"),
        (EDGE, "42", r"no layer 42: they are 0 to 6; the system of that name is @42"),
        (EDGE, "nux", r"no edge system 'nux': known: nuc, 42"),
        (EDGE, "!pi", r"no edge system 'pi': known: nuc, 42"),
        (CLOUD, "1.5", r"no cloud system '1.5': known: big; give a layer"),
    ],
)
def test_a_layer_or_system_that_is_not_there_is_an_error(network: Network, tier: Tier, text: str, message: str) -> None:
    query = Query("net", tier_filters(tier, [text]))
    for asked in (search, explain):
        with pytest.raises(PlanError, match=message):
            asked(SYSTEMS, network, query)


def test_a_forbidden_number_that_only_a_system_has_forbids_nothing_and_is_noted(network: Network) -> None:
    query = Query("net", tier_filters(EDGE, ["!42"]))
    assert search(SYSTEMS, network, query) == search(SYSTEMS, network, Query("net"))
    assert notes(SYSTEMS, query) == ["--edge !42 is read as layer 42; the system of that name is !@42"]


# Why nothing is left


@pytest.mark.parametrize(
    ("filters", "conflict"),
    [
        ([*tier_filters(DEVICE, ["3", "!0"]), *tier_filters(CLOUD, ["6"])], ["--device 3", "--device !0"]),
        ([*tier_filters(EDGE, ["5"]), *tier_filters(DEVICE, ["5"])], ["--edge 5", "--device 5"]),
        ([*tier_filters(CLOUD, ["2"]), *tier_filters(DEVICE, ["5,0"])], ["--cloud 2", "--device 5"]),
        ([*tier_filters(DEVICE, ["!pi,0"]), time_filter(EDGE, "1")], ["--device !pi"]),
        (list(tier_filters(EDGE, ["!nuc,!@42,3"])), ["--edge !nuc", "--edge !@42"]),
        (
            [*tier_filters(DEVICE, ["-1"]), *tier_filters(EDGE, ["-1"]), *tier_filters(CLOUD, ["-1", "!-1"])],
            ["--cloud -1", "--cloud !-1"],
        ),
        (
            [*tier_filters(DEVICE, ["-1"]), *tier_filters(EDGE, ["-1"]), *tier_filters(CLOUD, ["-1"])],
            ["--device -1", "--edge -1", "--cloud -1"],
        ),
        ([*tier_filters(EDGE, ["3"]), time_filter(EDGE, "0.05")], ["--edge 3", "--edge-time 0.05"]),
    ],
)
def test_an_explanation_is_a_smallest_conflict(
    network: Network, filters: list[scission.Filter], conflict: list[str]
) -> None:
    query = Query("net", tuple(filters))
    assert search(SYSTEMS, network, query) == []
    assert [one.text for one in explain(SYSTEMS, network, query)] == conflict


def test_hundreds_of_filters_are_explained_too(network: Network) -> None:
    filters = (*[time_filter(EDGE, "1")] * 200, *tier_filters(CLOUD, ["6"]), *tier_filters(DEVICE, ["6"]))
    conflict = explain(SYSTEMS, network, Query("net", filters))
    assert [one.text for one in conflict] == ["--cloud 6", "--device 6"]


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


@given(_wishes)
def test_no_smaller_set_than_the_explanation_leaves_nothing(filters: list[scission.Filter]) -> None:
    def leaves_nothing(some: tuple[scission.Filter, ...]) -> bool:
        return not search(SYSTEMS, _NETWORK, Query("net", some))

    query = Query("net", tuple(filters))
    if not leaves_nothing(query.filters):
        with pytest.raises(ValueError, match="passes"):
            explain(SYSTEMS, _NETWORK, query)
        return
    conflict = explain(SYSTEMS, _NETWORK, query)
    assert leaves_nothing(conflict)
    assert not any(leaves_nothing(some) for some in itertools.combinations(filters, len(conflict) - 1))


# Systems that do not fit together


def test_an_unknown_model_is_an_error_with_the_nearest_names(network: Network) -> None:
    with pytest.raises(PlanError, match="no profile of model 'nett': did you mean net"):
        search(SYSTEMS, network, Query("nett"))


def test_a_system_without_a_profile_of_the_model_is_left_out_and_said_to_be(network: Network) -> None:
    systems = (*SYSTEMS, System("late", EDGE, {"other": _blocks()}))
    assert len(search(systems, network, Query("net", top=1000))) == len(search(SYSTEMS, network, Query("net", top=999)))
    assert notes(systems, Query("net")) == ["without a profile of net, so left out: edge late"]
    with pytest.raises(PlanError, match="no device has a profile of 'other'"):
        search(systems, network, Query("other"))


@pytest.mark.parametrize(
    "other",
    [
        replace(_blocks(source="edge.json"), output_bytes=(1, 2, 3, 4)),
        replace(_blocks(source="edge.json"), last_layer=(0, 2, 5, 6), first_layer=(0, 1, 3, 6)),
        Blocks((0,), (6,), (1.0,), (4000,), "edge.json"),
    ],
)
def test_systems_whose_blocks_differ_are_an_error(network: Network, other: Blocks) -> None:
    systems = (*SYSTEMS[:1], System("nuc", EDGE, {"net": other}))
    with pytest.raises(PlanError, match=r"edge.json has other layers or sizes .* than pi "):
        search(systems, network, Query("net"))


def test_a_pair_that_the_network_lacks_is_an_error_that_gives_the_row(tmp_path: Path) -> None:
    path = tmp_path / "network.csv"
    path.write_text(TABLE.replace("nuc, big, 30, 80\n", ""))
    with pytest.raises(ConfigError, match=r"network.csv: no row from 'nuc' to 'big'; add nuc,big,PING,BANDWIDTH"):
        search(SYSTEMS, scission.read_network(path), Query("net"))


# The network table


def test_a_table_may_have_its_columns_in_any_order_and_more_of_them(tmp_path: Path) -> None:
    path = tmp_path / "n.csv"
    path.write_bytes(b'\xef\xbb\xbf\n"Bandwidth(Mbps)",source,note,PING(ms),destination\r\n1.6,"a, b",x,100,c\r\n')
    assert scission.read_network(path).links == {("a, b", "c"): Link(200_000.0, 0.1)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"row 1 names no source, destination, ping\(ms\), bandwidth\(mbps\)"),
        ("source,destination,ping(ms)\n", r"row 1 names no bandwidth\(mbps\); begin with source,"),
        (TABLE + "a,b,1", r"row 8 \(a,b,1\) has 3 cells for 4 columns"),
        (TABLE + "a,b,1,2,3", r"row 8 .* has 5 cells for 4 columns"),
        (TABLE + "a,,1,2", r"row 8 .* lacks a system's name"),
        (TABLE + "pi,nuc,1,2", r"row 8 .* gives pi to nuc again, after row 2; keep one"),
        (TABLE + "a,b,1,0", r"row 8 .*: bandwidth\(mbps\) '0' is not a number from 1e-06 to 1e\+09; measure it again"),
        (TABLE + "a,b,1,-5", r"bandwidth\(mbps\) '-5'"),
        (TABLE + "a,b,1,inf", r"bandwidth\(mbps\) 'inf'"),
        (TABLE + "a,b,1,nan", r"bandwidth\(mbps\) 'nan'"),
        (TABLE + "a,b,1,fast", r"bandwidth\(mbps\) 'fast'"),
        (TABLE + "a,b,-1,1", r"ping\(ms\) '-1' is not a number from 0"),
        (TABLE + "a,b,nan,1", r"ping\(ms\) 'nan'"),
        (TABLE + "a,b,inf,1", r"ping\(ms\) 'inf'"),
        (TABLE + "a,b,,1", r"ping\(ms\) ''"),
        (TABLE + 'a,"b,1,1', r"give a network table"),
        ("\udcff", r"give a network table"),
    ],
)
def test_a_bad_table_is_an_error_with_file_row_and_mend(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "n.csv"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ConfigError, match=message) as error:
        scission.read_network(path)
    assert str(error.value).startswith(str(path))


def test_a_table_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none.csv: No such file"):
        scission.read_network(tmp_path / "none.csv")


# Profiles


def test_scissions_json_is_read_beside_tables_pictures_and_queries(profiles: Path) -> None:
    (profiles / "network_stats.csv").write_text(TABLE)
    (profiles / "net.svg").write_text("<svg/>")
    (profiles / ".hidden").write_text("")
    query = {"model": "net", "network": "network_stats.csv", "args": [], "top": [], "no_result": True}
    (profiles / "queries.json").write_text(json.dumps([query]))
    assert sorted(load_systems(profiles), key=lambda s: s.name) == sorted(SYSTEMS, key=lambda s: s.name)


def _damaged(**changes: object) -> dict[str, Any]:
    value = _json(DEVICE, "pi")
    value["models"]["net"][1] |= changes
    return value


def _without(key: str) -> dict[str, Any]:
    value = _json(DEVICE, "pi")
    del value["models"]["net"][1][key]
    return value


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (_damaged(seconds=float("nan")), r"model 'net': block 1 \(layers 2 to 2\): seconds nan is not .* profile it"),
        (_damaged(seconds=-0.1), r"block 1 .*seconds -0.1 is not a number from 0"),
        (_damaged(seconds=float("inf")), r"block 1 .*seconds inf"),
        (_damaged(seconds=None), r"block 1 .*seconds None"),
        (_damaged(seconds=True), r"block 1 .*seconds True"),
        (_damaged(seconds=[[[]]]), r"block 1 .*seconds \[\[\[\]\]\]"),
        (_damaged(output_bytes=-1), r"block 1 .*bytes -1"),
        (_damaged(output_bytes=0.5), r"block 1 .*not whole numbers"),
        (_damaged(first_layer=3, last_layer=3), r"block 1 begins at layer 3: layers 2 to 2 are missing"),
        (_damaged(first_layer=1), r"block 1 begins at layer 1, but layers up to 1 are in blocks before it"),
        (_damaged(last_layer=1), r"block 1 ends at layer 1, before its first, 2"),
        (_damaged(last_layer=10**30), r"block 1 ends at layer 10+\.*0+; no network has more than 1e\+09"),
        (_damaged(last_layer="2"), r"block 1 has layers .*not whole numbers"),
        (_without("seconds"), r"block 1 has no seconds; profile it again"),
        ({"system": "pi", "tier": "device", "models": {"net": []}}, r"model 'net': has no blocks"),
        ({"system": "pi", "tier": "device", "models": {"net": {}}}, r"its blocks are a dict, not a list"),
        ({"system": "pi", "tier": "device", "models": {"net": [3]}}, r"block 0 has no first_layer"),
        ({"system": "pi", "tier": "device", "models": {}}, r"needs a system's name and its models"),
        ({"system": 3, "tier": "device", "models": {"net": []}}, r"needs a system's name and its models"),
        ({"system": "pi", "tier": "fog", "models": {"net": []}}, r"unknown tier 'fog': device, edge or cloud"),
        ({"system": "pi", "tier": [], "models": {"net": []}}, r"unknown tier"),
        ({"a": 1}, r"neither a profile of trisect nor Scission's data as JSON or .dat; take it out"),
        ([], r"neither a profile"),
        ({"profile": {}, "graph": {}}, r"neither tier nor system; move it to DIR/TIER/SYSTEM/MODEL.json"),
    ],
)
def test_a_bad_json_file_is_an_error_with_file_row_and_mend(profiles: Path, value: object, message: str) -> None:
    path = profiles / "device-pi.json"
    path.write_text(json.dumps(value))
    with pytest.raises(ConfigError, match=message) as error:
        load_systems(profiles)
    assert str(error.value).startswith(str(path))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("notes.txt", "hello", "neither a profile"),
        ("a.json", "{", "no JSON"),
        ("a.json", "[" * 100_000, "no JSON"),
        ("fog/pi/net.json", "{}", "a directory here is called device, edge or cloud"),
        ("edge/net.json", "{}", "which system is it of"),
        ("edge/nuc/notes.txt", "{}", "neither a profile"),
        ("edge/nuc/net.svg", "", "no profiles; run `trisect profile MODEL -o"),
        ("edge/nuc/net.json", '{"profile": {}, "graph": {}}', "not a profile.*; profile it again"),
        ("again.json", json.dumps(_json(EDGE, "nuc")), "edge 'nuc' is in .* already; remove one"),
    ],
)
def test_what_is_none_of_the_three_kinds_is_an_error(profiles: Path, name: str, content: str, message: str) -> None:
    (profiles / name).parent.mkdir(parents=True, exist_ok=True)
    (profiles / name).write_text(content)
    with pytest.raises(ConfigError, match=message) as error:
        load_systems(profiles)
    assert str(profiles) in str(error.value)


def test_an_empty_or_absent_directory_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no profiles; run `trisect profile MODEL -o .*/TIER/SYSTEM`"):
        load_systems(tmp_path)
    with pytest.raises(ConfigError, match="No such file or directory; give a directory of profiles"):
        load_systems(tmp_path / "none")


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


def test_own_profiles_are_read_as_ranges_between_boundaries_that_one_tensor_crosses(tmp_path: Path) -> None:
    for tier in Tier:
        _own(tmp_path / tier.label / f"my {tier.label}", describe(_profile(), _graph()))
    systems = load_systems(tmp_path)
    assert [(system.tier, system.name) for system in systems] == [(tier, f"my {tier.label}") for tier in Tier]
    expected = Blocks((0, 2, 5), (1, 4, 5), (1.0, 9.0, 5.0), (80, 200, 240))
    assert all(system.models == {"net": expected} for system in systems)


def test_an_output_made_early_must_reach_the_end_too(tmp_path: Path) -> None:
    _own(tmp_path / "device" / "pi", describe(_profile(), _graph(outputs=(2, 5))))
    (system,) = load_systems(tmp_path)
    assert system.models["net"] == Blocks((0, 2), (1, 5), (1.0, 14.0), (80, 120 + 240))


def test_an_own_profile_that_lacks_a_block_or_is_there_twice_is_an_error(tmp_path: Path) -> None:
    report = describe(_profile(), _graph())
    _own(tmp_path / "device" / "pi", report | {"profile": _profile((0.0, 1.0)).to_json()})
    with pytest.raises(ConfigError, match=r"net.json: 2 block times for 6 blocks of 'net'; profile it again"):
        load_systems(tmp_path)
    _own(tmp_path / "device" / "pi", report)
    _own(tmp_path / "device" / "pi", report, "same.json")
    with pytest.raises(ConfigError, match=r"same.json: .*net.json: model 'net' is of the same model; remove one"):
        load_systems(tmp_path)
    report["profile"]["seconds"] = (0.0, 1.0, 2.0, float("nan"), 4.0, 5.0)
    _own(tmp_path / "device" / "pi", report)
    with pytest.raises(ConfigError, match=r"net.json: not a profile: seconds.3: .*finite number.*profile it again"):
        load_systems(tmp_path)


# Scission's pickles


class _Measured:
    """Scission's class as its benchmark has it: of a script, so of `__main__`."""

    __module__ = "__main__"
    __qualname__ = "LayerBenchmark"

    def __init__(self, first: object, last: object, seconds: object, nbytes: object) -> None:
        self.model, self.device = "net", ""
        self.input_layer, self.output_layer = first, last
        self.second_prediction, self.output_size = seconds, nbytes


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> type[_Measured]:
    monkeypatch.setattr(sys.modules["__main__"], "LayerBenchmark", _Measured, raising=False)
    return _Measured


def _rows(measured: type[_Measured], tier: Tier, name: str) -> list[_Measured]:
    rows = zip(LAYERS, SECONDS[tier, name], BYTES, strict=True)
    return [measured(*layers, seconds, nbytes) for layers, seconds, nbytes in rows]


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_dat_files_hold_the_same_systems(tmp_path: Path, measured: type[_Measured], protocol: int) -> None:
    for tier, name in SECONDS:
        models = {"net": _rows(measured, tier, name), "more": _rows(measured, tier, name)}
        (tmp_path / f"{tier.label}-{name}.dat").write_bytes(pickle.dumps(models, protocol))
    systems = load_systems(tmp_path)
    expected = [System(s.name, s.tier, {"net": s.models["net"], "more": s.models["net"]}) for s in SYSTEMS]
    assert sorted(systems, key=lambda s: s.name) == sorted(expected, key=lambda s: s.name)


def test_a_dat_file_may_be_of_hundreds_of_blocks_and_shared_values(measured: type[_Measured]) -> None:
    rows = [measured(i, i, 0.5, 2**40) for i in range(600)]
    value = scission_pickle.read(pickle.dumps({"net": rows, "same": rows}))
    assert [row.attributes["input_layer"] for row in value["net"]] == list(range(600))
    assert value["same"] is value["net"]


class _Malicious:
    def __init__(self, call: tuple[Any, ...]) -> None:
        self.call = call

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


@pytest.mark.parametrize("protocol", range(6))
def test_a_malicious_dat_file_runs_nothing_and_its_class_is_named(tmp_path: Path, protocol: int) -> None:
    import os

    proof = tmp_path / "executed"
    bad = pickle.dumps({"net": [_Malicious((os.system, (f"touch {proof}",)))]}, protocol)
    (tmp_path / "device-pi.dat").write_bytes(bad)
    with pytest.raises(
        ConfigError, match=r"device-pi.dat: not Scission's: it (names posix.system; only __main__|does )"
    ):
        load_systems(tmp_path)
    assert not proof.exists()


def test_a_dat_file_that_would_take_for_ever_is_refused_and_its_largest_own_is_not() -> None:
    """Each byte is a step at least: five megabytes of them took half a minute."""
    most = scission_pickle.MAX_STEPS
    assert scission_pickle.read(b"]" + b"K\x01a" * 10_000 + b".") == [1] * 10_000
    with pytest.raises(scission_pickle.ForeignPickle, match=f"more than {most:,} steps"):
        scission_pickle.read(b"]" + b"K\x01a" * 2_500_000 + b".")


@pytest.mark.parametrize(
    "content",
    [
        b"cos\nsystem\n(S'touch executed'\ntR.",
        b"(S'touch executed'\nios\nsystem\n.",
        b"c__main__\nLayerBenchmark\n(tR.",
        b"c__main__\nLayerBenchmark.__init__\n.",
        b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93.",
        b"\x80\x02\x82\x01.",
        b"Pid\n.",
    ],
)
def test_any_other_class_or_call_in_a_dat_file_is_said_and_refused(content: bytes) -> None:
    with pytest.raises(scission_pickle.ForeignPickle, match=r"^it (names|does) "):
        scission_pickle.read(content)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no pickle",
        b"\x80\x04.",
        b"\x80\x04}",
        b"}u.",
        b"}(K\x01u.",
        b"}]K\x01s.",
        b"]K\x01K\x02s.",
        b"K\x01a.",
        b"h\x05.",
        b"}}.",
        b"}}b.",
        b"]]\x81.",
        b"r\xff\xff\xff\xff.",
        b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.",
    ],
)
def test_a_damaged_dat_file_is_no_pickle(content: bytes) -> None:
    with pytest.raises(ValueError, match="not a whole pickle"):
        scission_pickle.read(content)


@given(st.binary(max_size=60))
def test_any_bytes_are_values_or_an_error(content: bytes) -> None:
    try:
        scission_pickle.read(content)
    except ValueError:
        pass


def test_every_beginning_of_a_dat_file_is_an_error(measured: type[_Measured]) -> None:
    content = pickle.dumps({"net": _rows(measured, DEVICE, "pi")})
    for length in range(len(content)):
        with pytest.raises(ValueError, match="not a whole pickle"):
            scission_pickle.read(content[:length])


@pytest.mark.parametrize(
    ("name", "models", "message"),
    [
        ("pi.dat", {}, "call it TIER-SYSTEM.dat"),
        ("device-.dat", {}, "call it TIER-SYSTEM.dat"),
        ("fog-pi.dat", {"net": []}, "unknown tier 'fog'"),
        ("device-pi.dat", {}, "no dictionary of models"),
        ("device-pi.dat", ["net"], "no dictionary of models"),
        ("device-pi.dat", {3: []}, "no dictionary of models"),
        ("device-pi.dat", {"net": 3}, "model 'net': its blocks are a int, not a list"),
        ("device-pi.dat", {"net": [{"a": 1}]}, "model 'net': block 0 has no input_layer"),
        ("device-pi.dat", {"net": []}, "model 'net': has no blocks"),
    ],
)
def test_a_dat_file_that_holds_something_else_is_an_error(
    tmp_path: Path, name: str, models: object, message: str
) -> None:
    (tmp_path / name).write_bytes(pickle.dumps(models))
    with pytest.raises(ConfigError, match=message) as error:
        load_systems(tmp_path)
    assert str(error.value).startswith(str(tmp_path / name))


def test_bad_values_in_a_dat_file_are_found_as_in_json(tmp_path: Path, measured: type[_Measured]) -> None:
    for value, message in ((float("nan"), "seconds nan"), (None, "seconds None"), ("1", "seconds '1'")):
        (tmp_path / "edge-nuc.dat").write_bytes(pickle.dumps({"net": [measured(0, 1, value, 1)]}))
        with pytest.raises(ConfigError, match=rf"model 'net': block 0 \(layers 0 to 1\): {message}"):
            load_systems(tmp_path)


def test_a_list_in_a_list_in_a_list_is_shown_shortly(tmp_path: Path, measured: type[_Measured]) -> None:
    content = pickle.dumps({"net": [measured(0, 1, "HERE", 1)]}, protocol=2)
    nested = b"]" * 100_000 + b"a" * 99_999
    place = b"X\x04\x00\x00\x00HERE"
    assert place in content
    (tmp_path / "edge-nuc.dat").write_bytes(content.replace(place, nested))
    with pytest.raises(ConfigError, match=r"block 0 .*: seconds \[\[\[\[\[\[\[...\]"):
        load_systems(tmp_path)


# The command


def _run(profiles: Path, network: Path, **options: Any) -> int:
    return scission_commands.run(profiles, network, "net", **options)


def test_the_command_prints_a_table_and_writes_json(
    profiles: Path, network: Network, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = _run(
        profiles,
        Path(network.source),
        device=["!-1"],
        edge=["3", "nuc"],
        cloud=["6"],
        top=2,
        input_mb=0.5,
        device_upload=0.4,
        edge_upload=1.0,
        device_time="90%",
        edge_time="1",
        cloud_time="1",
        json_path=tmp_path / "answers.json",
    )
    assert code == 0
    answers = json.loads((tmp_path / "answers.json").read_text())
    assert len(answers) == 2
    assert answers == sorted(answers, key=lambda answer: answer["seconds"])
    assert {answer["edge"]["system"] for answer in answers} == {"nuc"}
    printed = capsys.readouterr().out
    for word in ("2 best of net", f"{answers[0]['seconds']:.4f}", "→ edge", "→ cloud", "3 to 5", "6 to 6", "big"):
        assert word in printed


def test_the_command_says_which_filters_leave_nothing(
    profiles: Path, network: Network, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "answers.json"
    assert _run(profiles, Path(network.source), device=["0"], edge=["!42", "0"], json_path=path) == 1
    assert json.loads(path.read_text()) == []
    printed = capsys.readouterr().out
    assert "no result for net: `--device 0` and `--edge 0` together exclude every placement" in printed
    assert "note: --edge !42 is read as layer 42" in printed
    assert _run(profiles, Path(network.source), device=["!pi"]) == 1
    assert "no result for net: `--device !pi` alone excludes every placement" in capsys.readouterr().out


def test_an_unused_device_is_in_the_table_and_names_are_no_markup(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "network.csv"
    table.write_text(TABLE.replace("big", "[red]big"))
    directory = tmp_path / "profiles"
    directory.mkdir()
    for number, (tier, name) in enumerate(SECONDS):
        value = _json(tier, name)
        value["system"] = name.replace("big", "[red]big")
        (directory / f"{number}.json").write_text(json.dumps(value))
    assert _run(directory, table, device=["-1"], edge=["-1"]) == 0
    printed = capsys.readouterr().out
    assert "[red]big" in printed
    assert "unused" in printed


def test_json_that_cannot_be_written_is_an_error(profiles: Path, network: Network, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="give --json a file that can be written"):
        _run(profiles, Path(network.source), json_path=tmp_path / "none" / "answers.json")


def test_the_command_needs_no_tensorflow() -> None:
    script = "import nodes.cli.scission, sys; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False).returncode == 0
