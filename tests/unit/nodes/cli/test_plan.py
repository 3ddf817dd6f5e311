"""`trisect plan MODEL` as a person types it: no broker, no TensorFlow."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from unittest import mock
from xml.etree import ElementTree

import pytest

from nodes.cli import plan as plan_commands
from nodes.config.plan_request import PlanRequest, as_written, constraints_of
from nodes.planner import offline
from pipeline.errors import ConfigError, PlanError
from pipeline.frames.input_blocks import with_input
from pipeline.models.graphs import shipped_graph
from tests import commands

NODES = """
pipeline: lab
nodes:
  pi: {tier: device, profiles: profiles}
  box: {tier: edge, speed: {macs_per_s: 1.0e+11, depthwise_macs_per_s: 1.0e+10, bytes_per_s: 1.0e+10,
                            weight_bytes_per_s: 1.0e+10, operation_s: 1.0e-4}, price_per_s: 0.5, memory_mb: 900}
links:
  device_edge: {bandwidth_mbit_s: 80, latency_ms: 2}
"""


EDGE = """  {name}: {{tier: edge, role: "{role}", link: {{bandwidth_mbit_s: 1000, latency_ms: 0.2}},
           speed: {{macs_per_s: 1.0e+10, depthwise_macs_per_s: 1.0e+9, bytes_per_s: 1.0e+10,
                   weight_bytes_per_s: 1.0e+10, operation_s: 1.0e-5}}}}
"""
TILED = (
    "pipeline: lab\nnodes:\n"
    + EDGE.format(name="pi", role="").replace("edge", "device").replace("e+10", "e+9")
    + EDGE.format(name="box", role="")
    + "".join(EDGE.format(name=f"worker-{n}", role="worker") for n in (1, 2, 3))
    + "links:\n  device_edge: {bandwidth_mbit_s: 1000}\n"
)


@pytest.fixture
def nodes(tmp_path: Path) -> Path:
    """A configuration with a profile for resnet18 on the device."""
    graph = with_input(shipped_graph("resnet18"))
    (tmp_path / "profiles").mkdir()
    profile = {
        "version": 1,
        "model": "resnet18",
        "digest": "d",
        "engine": "tensorflow",
        "engine_version": "2",
        "threads": 1,
        "hardware": "pi",
        "seconds": [0.0] + [0.01] * (len(graph) - 1),
        "spread": [0.0] * len(graph),
        "total_seconds": 0.01 * (len(graph) - 1),
        "measured_ts": 0.0,
        "unscaled_seconds": None,
    }
    report = {"profile": profile, "graph": graph.to_json()}
    (tmp_path / "profiles" / "resnet18.json").write_text(json.dumps(report))
    path = tmp_path / "lab.yaml"
    path.write_text(NODES)
    return path


def trisect(*arguments: str) -> subprocess.CompletedProcess[str]:
    script = (
        f"import sys; from nodes.cli.app import main; sys.argv = ['trisect', *{list(arguments)!r}]\n"
        "try: main()\nfinally: assert not {'tensorflow', 'keras'} & set(sys.modules)"
    )
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)


def refused(*arguments: str) -> str:
    """Stderr of a command that ends with code 1."""
    done = commands.trisect(*arguments)
    assert done.returncode == 1
    return done.stderr


def test_a_plan_is_printed_with_everything_that_explains_it(nodes: Path, tmp_path: Path) -> None:
    done = trisect(
        *("plan", "resnet18", "--nodes", str(nodes), "--raw-stays-on", "device", "--json", str(tmp_path / "plan.json")),
        *("--map", str(tmp_path / "map.svg"), "--pictures", str(tmp_path / "pictures")),
    )
    assert done.returncode == 0, done.stderr
    for said in (
        "resnet18",
        "hpa",
        "dads-heavy",
        "times the best",
        "Splitting over device+edge is best",
        "Without the",
    ):
        assert said in done.stdout
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert plan["best"]["nodes"] == {"device": "pi", "edge": "box"}
    assert plan["constraints"][0]["costs"] > 0
    assert "<svg" in (tmp_path / "map.svg").read_text()
    side = plan_commands._MAP_SIDE
    assert f"map: {side**2} plans, for {side} bandwidths of each link" in done.stdout
    assert re.search(r"map: about \d+ s more", done.stdout)
    assert len(list((tmp_path / "pictures").glob("*.svg"))) == 2


def test_a_front_by_energy_is_shown_as_table_json_and_picture(nodes: Path, tmp_path: Path) -> None:
    request = PlanRequest()
    with pytest.raises(ConfigError, match=r"planned by energy, and no node has power_w"):
        plan_commands.run("resnet18", str(nodes), request, front="latency,energy")
    nodes.write_text(NODES.replace("price_per_s", "power_w: {idle: 40, busy: 90}, price_per_s"))
    found, pictures = tmp_path / "front.json", tmp_path / "pictures"
    done = trisect(
        *("plan", "resnet18", "--nodes", str(nodes), "--front", "energy,latency"),
        *("--json", str(found), "--pictures", str(pictures)),
    )
    assert done.returncode == 0, done.stderr
    assert "plans by latency and energy" in done.stdout
    front = json.loads(found.read_text())["front"]
    assert len(front) > 1
    assert [plan["latency"] for plan in front] == sorted(plan["latency"] for plan in front)
    assert [plan["energy"] for plan in front] == sorted((plan["energy"] for plan in front), reverse=True)
    assert front[-1]["energy"] == 0, "the device's watts are not given, so they do not count"
    assert len(
        list(ElementTree.parse(pictures / "resnet18-front.svg").iter("{http://www.w3.org/2000/svg}circle"))
    ) == len(front)


def test_json_alone_is_printed_and_nothing_else(nodes: Path) -> None:
    done = trisect("plan", "resnet18", "--nodes", str(nodes), "--json")
    assert json.loads(done.stdout)["model"] == "resnet18"


@pytest.mark.parametrize("name", ["d3-wifi", "d3-4g", "d3-5g", "d3-optical"])
def test_d3s_networks_are_there_by_name(name: str) -> None:
    config = offline.find_config(name)
    found = offline.node_sets(config, shipped_graph("mobilenet_v2"))
    assert len(found) == 4


def test_conflicting_wishes_are_named(nodes: Path) -> None:
    asked = ("plan", "resnet18", "--nodes", str(nodes), "--pin", "5=edge", "--pin", "9=device")
    assert "these 2 constraints conflict" in refused(*asked)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--pin", "5=clod"], "'clod' is not allowed; one of device, edge, cloud"),
        (["--pin", "5"], "give NAME=VALUE"),
        (["--pin", "5=edge", "--pin", "5=cloud"], "5 is given as cloud and as edge"),
        (["--pin", "conv99=edge"], "has no block 'conv99'; nearest"),
        (["--time-limit", "device=-1"], "seconds a frame of at least 0"),
        (["--time-limit", "device=130%"], "a share of all computing"),
        (["--upload-limit", "edge_device=1"], "device_edge or edge_cloud"),
        (["--upload-limit", "device_edge=much"], "no number of megabytes"),
        (["--objective", "speed"], "neither latency, throughput"),
        (["--raw-stays-on", "home"], "one of device, edge, cloud"),
    ],
)
def test_a_wrong_wish_is_refused_with_the_mend(nodes: Path, options: list[str], said: str) -> None:
    assert said in refused("plan", "resnet18", "--nodes", str(nodes), *options)


def test_a_refusal_is_a_line_and_no_traceback(nodes: Path) -> None:
    done = trisect("plan", "resnet18", "--nodes", str(nodes), "--pin", "conv99=edge")
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "has no block 'conv99'; nearest" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_profile_that_lacks_a_block_is_named_with_file_and_block(nodes: Path) -> None:
    path = nodes.parent / "profiles" / "resnet18.json"
    report = json.loads(path.read_text())
    gone = report["graph"]["blocks"].pop(7)["name"]
    path.write_text(json.dumps(report))
    with pytest.raises(PlanError, match=rf"resnet18\.json: lacks block '{gone}'"):
        offline.node_sets(offline.find_config(str(nodes)), with_input(shipped_graph("resnet18")))


def test_a_node_without_times_is_named_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "lab.yaml"
    path.write_text(NODES.replace(", profiles: profiles", ", profiles: nowhere"))
    with pytest.raises(
        ConfigError, match=r"nodes\.pi: no resnet18\.json in .*nowhere.*trisect profile resnet18 -o DIR"
    ):
        offline.node_sets(offline.find_config(str(path)), with_input(shipped_graph("resnet18")))


def test_an_unknown_configuration_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="d3-wifi"):
        offline.find_config("d3-6g")


def test_wishes_come_back_as_they_were_written() -> None:
    plan_request = plan_commands.plan_request_of(
        objective="latency=1,backbone=0.1",
        planner="hpa",
        raw_stays_on="edge",
        min_depth=2,
        pin=["3=edge"],
        forbid=["4=cloud", "4=device"],
        exclude=["box-2"],
        upload_limit=["device_edge=0.5"],
        time_limit=["device=30%", "edge=0.1"],
    )
    assert PlanRequest.model_validate(json.loads(json.dumps(as_written(plan_request)))) == plan_request
    assert len(constraints_of(shipped_graph("resnet18"), plan_request.constraints)) == 8


def test_workers_in_the_file_are_given_tiles_that_table_json_and_picture_show(tmp_path: Path) -> None:
    path = tmp_path / "tiled.yaml"
    path.write_text(TILED)
    picture, answer = tmp_path / "tiles.svg", tmp_path / "plan.json"
    asked = ("plan", "vgg16", "--nodes", str(path), "--tiles-picture", str(picture), "--json", str(answer))
    done = trisect(*asked)
    assert done.returncode == 0, done.stderr
    best = json.loads(answer.read_text())["best"]
    tiles, priced = best["tiles"], best["predicted"]["tiles"]
    assert set(tiles["workers"]) == {"box", "worker-1", "worker-2", "worker-3"}
    assert priced["alone_seconds"] / priced["seconds"] > 2
    assert [tile["worker"] for tile in priced["tiles"]] == tiles["workers"]
    assert "worker-3" in done.stdout
    root = ElementTree.fromstring(picture.read_text())
    titles = [title.text or "" for title in root.iter("{http://www.w3.org/2000/svg}title")]
    assert sum("on worker-2" in title for title in titles) == 2  # in the map that is read, and in the one that is made


def test_a_picture_of_tiles_that_no_plan_has_is_refused(nodes: Path) -> None:
    asked = ("plan", "resnet18", "--nodes", str(nodes), "--tiles-picture", "x.svg")
    assert "no tiles to draw" in refused(*asked)


def test_a_worker_without_a_link_is_named(tmp_path: Path) -> None:
    path = tmp_path / "tiled.yaml"
    path.write_text(TILED)
    config = offline.find_config(str(path))
    nodes = {id_: node.model_copy(update={"link": None}) for id_, node in config.nodes.items()}
    config = config.model_copy(update={"nodes": nodes})
    nothing = mock.patch.object(offline, "measured_by", return_value=offline.Measured())
    with nothing, pytest.raises(ConfigError, match=r"nodes\.worker-1: no link is given"):
        offline.node_sets(config, shipped_graph("vgg16"))
