"""Scission's job: filters and the best answers."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given

from pipeline import scission
from pipeline.cost import Link
from pipeline.errors import ConfigError, PlanError
from pipeline.scission import Blocks, Network, Query, System, explain, load_systems, notes, search
from pipeline.scission.filters import tier_filters, time_filter
from tests.unit.pipeline.scission.test_scission import (
    _NETWORK,
    CLOUD,
    DEVICE,
    EDGE,
    SYSTEMS,
    TABLE,
    _blocks,
    _damaged,
    _wishes,
    _without,
)


def test_hundreds_of_filters_are_explained_too(network: Network) -> None:
    filters = (*[time_filter(EDGE, "1")] * 200, *tier_filters(CLOUD, ["6"]), *tier_filters(DEVICE, ["6"]))
    conflict = explain(SYSTEMS, network, Query("net", filters))
    assert [one.text for one in conflict] == ["--cloud 6", "--device 6"]


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


def test_scissions_json_is_read_beside_tables_pictures_and_queries(profiles: Path) -> None:
    (profiles / "network_stats.csv").write_text(TABLE)
    (profiles / "net.svg").write_text("<svg/>")
    (profiles / ".hidden").write_text("")
    query = {"model": "net", "network": "network_stats.csv", "args": [], "top": [], "no_result": True}
    (profiles / "queries.json").write_text(json.dumps([query]))
    assert sorted(load_systems(profiles), key=lambda s: s.name) == sorted(SYSTEMS, key=lambda s: s.name)


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
