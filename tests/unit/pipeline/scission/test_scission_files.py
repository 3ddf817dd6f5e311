"""Scission's job: files that are damaged, foreign or hostile."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipeline import scission
from pipeline.errors import PlanError
from pipeline.placement import Tier
from pipeline.scission import Network, Query, explain, notes, search
from pipeline.scission.filters import tier_filters, time_filter, upload_filter
from tests.unit.pipeline.scission.test_scission import CLOUD, DEVICE, EDGE, SYSTEMS


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
