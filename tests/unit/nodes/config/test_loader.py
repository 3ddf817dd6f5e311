"""A configuration is read whole or refused with every problem's file, line, key, value and remedy."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nodes.config.loader import Config, load_config, parse_config, with_node
from pipeline.errors import ConfigError
from pipeline.placement import Tier
from pipeline.plan import NodeId, StreamId
from tests.effort import examples

ROOT = Path(__file__).parents[4]
FILE = Path("/etc/trisect/here.yaml")

GOOD = """\
pipeline: demo
models:
  net: {source: mobilenet_v2, weights: 'seed:0'}
streams:
  camera:
    device: device-1
    model: net
nodes:
  device-1: {tier: device}
  edge-1:
    tier: edge
"""


def refusal(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_config(text, FILE)
    return str(caught.value)


def changed(old: str, new: str) -> str:
    assert GOOD.count(old) == 1
    return GOOD.replace(old, new)


@pytest.mark.parametrize("name", ["demo.yaml", "three-machines.yaml"])
def test_every_configuration_that_ships_can_be_read(name: str) -> None:
    config = load_config(ROOT / "configs" / name)
    assert config.streams[StreamId("camera")].model in config.models
    assert config.nodes_of(Tier.DEVICE) == (NodeId("device-1"),)


def test_the_commented_configuration_has_every_key_there_is() -> None:
    text = (ROOT / "configs" / "three-machines.yaml").read_text()
    schema = Config.model_json_schema()
    keys = {key for section in (schema, *schema["$defs"].values()) for key in section.get("properties", {})}
    assert {key for key in keys if f"{key}:" not in text} == set()


def test_what_is_left_out_has_a_default() -> None:
    config = parse_config(GOOD, FILE)
    assert (config.broker.host, config.broker.port) == ("127.0.0.1", 1883)
    stream = config.streams[StreamId("camera")]
    assert (stream.window, stream.frame_timeout_s, stream.outputs, stream.source) == (4, 5.0, False, None)
    assert config.transport.chunk_bytes == 1 << 20
    assert parse_config(GOOD + "planner:\n#  margin: 0.2\n", FILE).planner.margin == 0.1


def test_a_configuration_cannot_be_changed() -> None:
    config = parse_config(GOOD, FILE)
    with pytest.raises(ValueError, match="frozen"):
        config.pipeline = "other"  # type: ignore[misc]  # the type checker says so too
    with pytest.raises(TypeError, match="assignment"):
        config.nodes[NodeId("x")] = config.nodes[NodeId("edge-1")]  # type: ignore[index]  # and here


def test_paths_are_relative_to_the_file() -> None:
    text = changed("source: mobilenet_v2, weights: 'seed:0'", "source: nets/my.keras, labels: labels.txt")
    model = parse_config(text, FILE).models["net"]
    assert model.source == "/etc/trisect/nets/my.keras"
    assert model.labels == Path("/etc/trisect/labels.txt")
    assert model.is_file
    assert model.weights is None
    text = changed("    model: net\n", "    model: net\n    source: {images: photos/, rate_hz: 10}\n")
    source = parse_config(text, FILE).streams[StreamId("camera")].source
    assert source is not None
    assert (source.images, source.rate_hz, source.policy) == (Path("/etc/trisect/photos"), 10.0, "block")


def test_weights_of_a_zoo_model_are_seeded_unless_told_otherwise() -> None:
    assert parse_config(changed(", weights: 'seed:0'", ""), FILE).models["net"].weights == "seed:0"


def test_a_camera_drops_old_frames_and_a_url_stays_a_url() -> None:
    live = changed("    model: net\n", "    model: net\n    source: {camera: 0}\n")
    source = parse_config(live, FILE).streams[StreamId("camera")].source
    assert source is not None
    assert source.policy == "freshest"
    url = changed("    model: net\n", "    model: net\n    source: {video: 'rtsp://cam/1'}\n")
    source = parse_config(url, FILE).streams[StreamId("camera")].source
    assert source is not None
    assert source.video == "rtsp://cam/1"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("tier: edge", "tier: egde", ":11: nodes.edge-1.tier: 'egde' is not allowed; one of device, edge, cloud"),
        ("tier: edge", "teir: edge", ":11: nodes.edge-1.teir: unknown key; did you mean tier? allowed here: tier, "),
        ("tier: edge", "threads: 2", ":10: nodes.edge-1.tier: is missing; one of device, edge, cloud"),
        ("{tier: device}", "", ":9: nodes.device-1: is empty; a section with the keys tier, engine"),
        (
            "tier: edge",
            "tier: edge\n    threads: two",
            ":12: nodes.edge-1.threads: 'two' is not allowed; threads from 1",
        ),
        ("tier: edge", "tier: edge\n    threads: true", ":12: nodes.edge-1.threads: True is not allowed; threads from"),
        ("edge-1:", "Edge 1:", ":10: nodes.Edge 1: 'Edge 1' is not allowed as a name"),
        ("edge-1:", "1:", ":10: nodes.1: 1 is not allowed as a name"),
        (
            "pipeline: demo",
            "pipeline: demo\nlinks: {edge-1: {bandwidth_mbit_s: 20}}",
            ":2: links.edge-1: 'edge-1' is not allowed as a name; give device_edge or edge_cloud",
        ),
        ("pipeline: demo", "pipeline: De mo", ":1: pipeline: 'De mo' is not allowed; a name of a-z, 0-9 and -"),
        ("pipeline: demo\n", "", ": pipeline: is missing; a name of"),
        (
            "device: device-1",
            "device: device-2",
            ":6: streams.camera.device: no node is named 'device-2'; did you mean",
        ),
        ("device: device-1", "device: edge-1", "'edge-1' is of tier edge, and frames enter on a device; nodes of tier"),
        ("model: net", "model: nett", ":7: streams.camera.model: no model is named 'nett'; did you mean net?"),
        ("'seed:0'", "'sead:0'", ":3: models.net: weights 'sead:0': seed:N"),
        ("mobilenet_v2,", "my.keras,", ":3: models.net: a .keras file or a package brings its own weights"),
        ("model: net", "model: net\n    source: {loop: true}", "streams.camera.source: exactly one of images, video"),
        (
            "model: net",
            "model: net\n    source: {camera: 0, video: x}",
            "exactly one of images, video, camera; here video and camera",
        ),
        ("model: net", "model: net\n    frame_timeout_s: .inf", "frame_timeout_s: inf is not allowed; seconds above 0"),
        (
            "model: net",
            "model: net\n    window: 0",
            "streams.camera.window: 0 is not allowed; frames in flight, from 1",
        ),
        (
            "pipeline: demo",
            "pipeline: demo\ntransport: {chunk_bytes: 10}",
            "transport.chunk_bytes: 10 is not allowed; b",
        ),
        ("pipeline: demo", "pipeline: demo\nbroker: {port: 70000}", "broker.port: 70000 is not allowed; a port from 1"),
        ("pipeline: demo", "pipeline: demo\nplanner: {id: edge-1}", "planner.id: 'edge-1' is the id of a node already"),
        (
            "weights: 'seed:0'",
            "preprocess: {size: [224], mode: tf}",
            "models.net.preprocess.size[1]: is missing; [height",
        ),
        ("weights: 'seed:0'", "preprocess: {size: big, mode: tf}", "'big' is not allowed; [height, width]"),
        ("weights: 'seed:0'", "labels: 7", "models.net.labels: 7 is not allowed; a path, relative to this file"),
    ],
)
def test_a_mistake_is_told_with_line_key_value_and_remedy(old: str, new: str, said: str) -> None:
    assert said in refusal(changed(old, new))


def test_all_mistakes_are_told_at_once_each_with_the_file() -> None:
    text = changed("tier: edge", "tier: up\n    thread: 1").replace("pipeline: demo", "pipeline: A")
    told = refusal(text).splitlines()
    assert len(told) == 3
    assert all(line.startswith(f"{FILE}:") for line in told)


def test_a_password_is_never_shown() -> None:
    told = refusal("broker: {username: me, password: 31337}\n" + GOOD)
    assert "31337" not in told
    assert "broker.password" in told
    config = parse_config("broker: {username: me, password: s3cret}\n" + GOOD, FILE)
    assert "s3cret" not in repr(config)
    orphan = refusal("broker: {password: s3cret}\n" + GOOD)
    assert "a password without a username" in orphan
    assert "s3cret" not in orphan


def test_a_key_that_stands_twice_is_an_error_and_not_the_last_one() -> None:
    assert refusal(GOOD + "  edge-1: {tier: cloud}\n") == (
        f"{FILE}:10: nodes.edge-1: stands here and again on line 12; keep one"
    )


def test_yaml_that_is_none_is_told_with_line_and_column() -> None:
    assert refusal("pipeline: [demo\nmodels: }").startswith(f"{FILE}:2:7: not YAML: ")
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        load_config("/no/such.yaml")
    assert "a section with the keys pipeline, engine" in refusal("")
    assert "a section with the keys pipeline, engine" in refusal("- a list")


def test_aliases_are_welcome_even_those_that_contain_themselves() -> None:
    text = changed("{tier: device}", "&one {tier: device}") + "  device-2: *one\n  device-3: {<<: *one, threads: 2}\n"
    nodes = parse_config(text, FILE).nodes
    assert nodes[NodeId("device-2")].tier == nodes[NodeId("device-3")].tier == Tier.DEVICE
    refusal("pipeline: &a [*a]")


def test_numbers_may_be_written_as_everyone_writes_them() -> None:
    assert parse_config("planner: {margin: 5e-2}\n" + GOOD, FILE).planner.margin == 0.05


@given(st.text(max_size=60), st.integers(0, len(GOOD)), st.integers(0, 12))
@settings(max_examples=examples(75))
def test_any_text_is_a_configuration_or_a_config_error(text: str, at: int, dropped: int) -> None:
    for candidate in (text, GOOD[:at] + text + GOOD[at + dropped :]):
        try:
            assert isinstance(parse_config(candidate, FILE), Config)
        except ConfigError:
            pass


def test_what_needs_no_tensors_loads_neither_tensorflow_nor_scipy() -> None:
    heavy = "{'tensorflow', 'keras', 'scipy'}"
    code = f"import sys, nodes.config.loader, pipeline.partition; sys.exit(bool({heavy} & {{*sys.modules}}))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_a_node_may_join_that_the_configuration_lacks() -> None:
    config = parse_config(GOOD, FILE)
    joined = with_node(config, NodeId("edge-9"), {"tier": "edge", "role": "worker", "threads": None})
    assert joined.nodes[NodeId("edge-9")].is_worker
    assert joined.nodes.items() >= config.nodes.items()
    for id_, values, said in (
        ("edge-9", {"tier": "fog"}, "node edge-9: tier: 'fog' is not allowed; one of device, edge, cloud"),
        ("edge-9", {"tier": "cloud", "role": "worker"}, "tiles are the edge's: give tier edge, or no role"),
        ("edge-9", {"tier": "edge", "role": "boss"}, "role: 'boss' is not allowed; worker"),
        (
            "Edge 9",
            {"tier": "edge"},
            "'Edge 9' is no node's id; allowed: 1 to 128 of a-z, 0-9 and -; give another --id",
        ),
        (next(iter(config.nodes)), {"tier": "edge"}, "is in the configuration already"),
    ):
        with pytest.raises(ConfigError, match=re.escape(said)):
            with_node(config, NodeId(id_), values)


def test_aliases_of_aliases_are_refused_at_once() -> None:
    import time

    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    bomb += "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12))
    began = time.perf_counter()
    with pytest.raises(ConfigError, match=r"values with all its aliases, more than the 100,000 allowed"):
        parse_config(bomb, FILE)
    with pytest.raises(ConfigError, match="an alias within what it stands for"):
        parse_config("models: &m {a: *m}\n", FILE)
    assert time.perf_counter() - began < 1.0


@pytest.mark.parametrize(
    "broker",
    [
        "[{host: h, username: u, password: geheim}]",
        "mqtt://u:geheim@h",
        "{username: [geheim]}",
        "{password: [geheim]}",
        "{username: {password: geheim}}",
        "{host: {password: geheim}}",
        "{port: [geheim]}",
    ],
)
def test_no_error_prints_a_password(broker: str) -> None:
    with pytest.raises(ConfigError) as found:
        parse_config(f"{GOOD}broker: {broker}\n", FILE)
    assert "geheim" not in str(found.value)


def test_a_configuration_with_a_password_that_others_may_read_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "lab.yaml"
    path.write_text(f"{GOOD}broker: {{username: u, password: geheim}}\n")
    path.chmod(0o644)
    load_config(path)
    assert "chmod 600" in caplog.text
    caplog.clear()
    path.chmod(0o600)
    load_config(path)
    assert not caplog.text


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("deep: " + "[" * 20_000, "brackets within brackets, more than"),
        ("deep:\n" + "\n".join(" " * n + "- " for n in range(1, 100)) + "1", "sections within sections, more than"),
        ("tolerance: 0x" + "f" * 100_000, "tolerance: '0xfff"),
        ("tolerance: " + "9" * 100_000, "tolerance: '999"),
        ("broker: {port: 31:23}", "broker.port: '31:23' is not allowed"),
        ("broker: {host: 'broker:1883'}", "the port has a key of its own"),
        ("broker: {host: '[::1]'}", "no brackets around it"),
        ("broker: {host: " + "x" * 300 + "}", "a host name or address alone"),
        ("tolerance: .nan", "tolerance: nan is not allowed"),
        ("? " + "k" * 5_000 + "\n: 1", "unknown key"),
        ("more: {" + ", ".join(f"k{n}" for n in range(2_000)) + "}", "unknown key"),
    ],
)
def test_what_is_made_to_cost_much_is_refused_in_few_words(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "trisect.yaml"
    path.write_text(f"{line}\npipeline: lab\nnodes: {{d: {{tier: device}}}}\n")
    with pytest.raises(ConfigError) as found:
        load_config(path, runs=False)
    assert said in str(found.value)
    assert len(str(found.value)) < 3_000


def test_a_thousand_wrong_keys_are_counted_and_not_listed(tmp_path: Path) -> None:
    path = tmp_path / "trisect.yaml"
    path.write_text("\n".join(f"wrong{n}: 1" for n in range(1_000)))
    with pytest.raises(ConfigError, match="and 982 more"):
        load_config(path)


@pytest.mark.timeout(30)
def test_a_pipe_and_a_device_are_no_configurations(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(ConfigError, match="no ordinary file"):
            load_config(path)


def test_a_replay_has_to_be_asked_for_twice_and_for_all_nodes() -> None:
    section = "replay:\n  recording: times.json\n  machines: {device-1: raspi4, edge-1: i7}\n"
    asked = parse_config(f"{GOOD}engine: replay\n{section}", FILE).replay
    assert asked is not None
    assert (asked.recording, asked.machines[NodeId("edge-1")]) == (Path("/etc/trisect/times.json"), "i7")
    assert "section replay is missing" in refusal(f"{GOOD}engine: replay\n")
    assert "section replay is there" in refusal(f"{GOOD}{section}")
    assert "mean nothing" in refusal(f"{GOOD}engine: replay\nexact: close\n{section}")
    lacking = section.replace(", edge-1: i7", "")
    assert "lacks node edge-1" in refusal(f"{GOOD}engine: replay\n{lacking}")
    edge = GOOD.replace("    tier: edge\n", "    tier: edge\n    engine: litert\n")
    assert "edge-1 has engine litert, the pipeline replay" in refusal(f"{edge}engine: replay\n{section}")
