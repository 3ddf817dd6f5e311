"""Scission's job, continued."""

from __future__ import annotations

import json
import pickle  # noqa: TID251  (writes what Scission writes; nothing is ever read with it)
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodes.cli.profile import describe
from pipeline.errors import ConfigError
from pipeline.placement import Tier
from pipeline.scission import Blocks, Network, System, load_systems
from pipeline.scission import pickled as scission_pickle
from tests.unit.pipeline.scission.test_scission import (
    DEVICE,
    EDGE,
    ROOT,
    SECONDS,
    SYSTEMS,
    TABLE,
    _graph,
    _json,
    _Malicious,
    _Measured,
    _own,
    _profile,
    _rows,
    _run,
)


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
