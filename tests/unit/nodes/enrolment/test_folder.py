"""A pipeline's folder: whom it lets in, what it writes and for whom, and what it refuses with which words."""

from __future__ import annotations

import stat
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from broker.server import find_plugins
from broker.settings import render
from nodes.config import enrolment
from nodes.config.broker_section import BrokerSection
from nodes.config.credentials import WARN_DAYS
from nodes.config.loader import identity_of, load_config
from nodes.config.values import endpoint_of
from nodes.enrolment import broker_files, starting
from nodes.enrolment.folder import PipelineFolder
from pipeline.errors import ConfigError

NODES = {"device": ["device-1"], "edge": ["edge-1"], "cloud": ["cloud-1"]}


@pytest.fixture
def folder(tmp_path: Path) -> PipelineFolder:
    text = starting.configuration("lab", "mobilenet_v2", "seed:0", NODES)
    return PipelineFolder.create(tmp_path / "lab", text, ["192.0.2.1", "vpn.example.org"], port=8883)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def certificate(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(enrolment.parse(path.read_text(), path).certificate.encode())


def test_an_enrolment_is_a_whole_configuration(folder: PipelineFolder) -> None:
    config = load_config(folder.enrol("edge-1"))
    assert config.broker.endpoints == (("192.0.2.1", 8883), ("vpn.example.org", 8883))
    assert config.broker.tls
    assert set(config.nodes) == {"device-1", "edge-1", "cloud-1"}
    member = config.broker.credentials
    assert member is not None
    assert (member.name, member.roles) == ("edge-1", ("node",))
    assert identity_of(config, "") == "edge-1"
    with pytest.raises(ConfigError, match="the enrolment of 'edge-1'"):
        identity_of(config, "cloud-1")


def test_what_is_secret_is_for_its_owner_only(folder: PipelineFolder) -> None:
    path = folder.enrol("edge-1")
    assert mode(path) == 0o600
    assert mode(folder.enrolments) == 0o700
    assert mode(folder.path / "authority") == 0o700
    for file in (folder.path / "authority" / "authority.key", folder.broker / broker_files.KEY):
        assert mode(file) == 0o600


def test_a_file_that_others_may_read_is_mentioned(folder: PipelineFolder, caplog: pytest.LogCaptureFixture) -> None:
    path = folder.enrol("edge-1")
    path.chmod(0o644)
    load_config(path)
    assert "chmod 600" in caplog.text


def test_a_member_names_no_host_and_only_a_node_may_be_a_server_besides_the_broker(folder: PipelineFolder) -> None:
    node, member = certificate(folder.enrol("edge-1")), certificate(folder.enrol("anna", ["viewer"]))
    broker = x509.load_pem_x509_certificate((folder.broker / broker_files.CERTIFICATE).read_bytes())
    usages = [
        list(one.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) for one in (node, member, broker)
    ]
    client, server = ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH
    assert usages == [[client, server], [client], [server]]
    for one in (node, member):
        with pytest.raises(x509.ExtensionNotFound):
            one.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert node.subject.rfc4514_string() == "CN=lab.edge-1,OU=node"
    assert member.subject.rfc4514_string() == "CN=lab.anna,OU=viewer"
    names = broker.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "vpn.example.org" in names.get_values_for_type(x509.DNSName)
    assert "192.0.2.1" in map(str, names.get_values_for_type(x509.IPAddress))


def test_roles_come_from_the_configuration_or_have_to_be_given(folder: PipelineFolder) -> None:
    folder.enrol("planner")
    with pytest.raises(ConfigError, match="give --role, one of node, planner, operator, camera, viewer"):
        folder.enrol("alice")
    folder.enrol("alice", ["operator"])
    assert {member.name: member.roles for member in folder.members()} == {
        "planner": ("planner",),
        "alice": ("operator",),
    }


def test_a_device_has_its_streams_and_others_none(folder: PipelineFolder) -> None:
    for name in ("device-1", "edge-1"):
        folder.enrol(name)
    assert {member.name: member.streams for member in folder.members()} == {"device-1": ("camera",), "edge-1": ()}


@pytest.mark.parametrize(
    ("name", "roles", "streams", "words"),
    [
        ("Alice", ["viewer"], None, "no name for a member"),
        ("alice", ["planner"], None, "the planner of this pipeline is 'planner'"),
        ("planner", ["node"], None, "the planner of this pipeline is 'planner'"),
        ("alice", ["viewer"], ["camera"], "streams are a camera's"),
        ("cam", ["camera"], ["garage"], "unknown stream 'garage'; streams here: camera"),
        ("a" * 61, ["viewer"], None, "a certificate's common name at most 64"),
    ],
)
def test_what_cannot_be_enrolled_is_refused_in_words(
    folder: PipelineFolder, name: str, roles: list[str], streams: list[str] | None, words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        folder.enrol(name, roles, streams=streams)  # type: ignore[arg-type]
    assert folder.members() == []


def test_a_renewal_keeps_the_client_ids_and_takes_the_configuration_along(folder: PipelineFolder) -> None:
    before = enrolment.parse(folder.enrol("edge-1").read_text(), Path("x"))
    with pytest.raises(ConfigError, match="`trisect renew edge-1` makes a new file"):
        folder.enrol("edge-1")
    folder.configuration.write_text(folder.configuration.read_text() + "telemetry: {interval_s: 2.0}\n")
    path = folder.renew("edge-1")
    after = enrolment.parse(path.read_text(), path)
    assert after.secret == before.secret
    assert after.key != before.key
    assert load_config(path).telemetry.interval_s == 2.0


def test_a_revoked_member_is_in_the_list_and_out_of_the_access(folder: PipelineFolder) -> None:
    first = certificate(folder.enrol("edge-1"))
    second = certificate(folder.renew("edge-1"))
    folder.enrol("cloud-1")
    folder.revoke("edge-1")
    revoked = x509.load_pem_x509_crl((folder.broker / broker_files.REVOKED).read_bytes())
    assert {one.serial_number for one in revoked} == {first.serial_number, second.serial_number}
    access = (folder.broker / broker_files.ACCESS).read_text()
    assert "user lab.cloud-1" in access
    assert "user lab.edge-1" not in access
    assert not (folder.enrolments / "edge-1.enrolment").exists()
    with pytest.raises(ConfigError, match="was revoked"):
        folder.renew("edge-1")


def test_each_list_of_the_revoked_is_later_than_the_one_before(folder: PipelineFolder) -> None:
    dates = []
    for name in ("device-1", "edge-1", "cloud-1"):
        folder.enrol(name)
        dates.append(x509.load_pem_x509_crl((folder.broker / broker_files.REVOKED).read_bytes()).last_update_utc)
    assert dates[0] < dates[1] < dates[2] < datetime.now(timezone.utc)


def test_the_end_of_a_certificate_is_mentioned_a_month_before(folder: PipelineFolder) -> None:
    member = load_config(folder.enrol("edge-1")).broker.credentials
    assert member is not None
    assert member.warning() is None
    month = member.expires - timedelta(days=WARN_DAYS - 1)
    assert "in 29 days: make another with `trisect renew edge-1`" in (member.warning(month) or "")
    assert "clock wrong" in (member.warning(member.expires + timedelta(days=1)) or "")


def test_the_pipelines_name_cannot_change(folder: PipelineFolder) -> None:
    folder.configuration.write_text(folder.configuration.read_text().replace("pipeline: lab", "pipeline: other"))
    with pytest.raises(ConfigError, match="certificates are for 'lab'"):
        folder.enrol("edge-1")


def test_a_folder_in_use_is_left_alone(folder: PipelineFolder) -> None:
    with pytest.raises(ConfigError, match="there and not empty"):
        PipelineFolder.create(folder.path, "", ["x"], port=8883)
    with pytest.raises(ConfigError, match="no folder of `trisect init`"):
        PipelineFolder(folder.path / "enrolments").members()


def test_nothing_of_a_broken_enrolment_is_shown(folder: PipelineFolder) -> None:
    path = folder.enrol("edge-1")
    path.write_text(path.read_text().replace("certificate:", "certificat:"))
    with pytest.raises(ConfigError, match="certificate: Field required") as caught:
        load_config(path)
    assert "PRIVATE" not in str(caught.value)


def test_a_password_in_the_configuration_reaches_no_member(folder: PipelineFolder) -> None:
    text = folder.configuration.read_text() + "broker: {username: u, password: hunter2}\n"
    folder.configuration.write_text(text)
    assert "hunter2" not in folder.enrol("edge-1").read_text()


def test_two_brokers_get_a_bridge_and_nodes_go_to_the_nearer_one(tmp_path: Path) -> None:
    text = starting.configuration("lab", "mobilenet_v2", "seed:0", NODES, bridged=True)
    folder = PipelineFolder.create(tmp_path / "lab", text, ["site"], port=8883, cloud_hosts=["far"])
    hosts = {name: load_config(folder.enrol(name)).broker.host for name in ("device-1", "edge-1", "cloud-1", "planner")}
    assert hosts == {"device-1": "site", "edge-1": "site", "cloud-1": "far", "planner": "site"}
    lines = render(broker_files.settings_of(folder.broker)).splitlines()
    assert "address far:8883" in lines
    assert "bridge_protocol_version mqttv50" in lines
    assert "topic trisect/v1/lab/node/+/out/+/+/+ both 1" in lines
    assert not any("claim" in line or "probe" in line or "fence" in line for line in lines)
    assert "user lab.bridge_" in (folder.cloud_broker / broker_files.ACCESS).read_text()
    assert "user lab.bridge_" not in (folder.broker / broker_files.ACCESS).read_text()


def test_mosquitto_2_1_gets_plugins_in_the_place_of_options(folder: PipelineFolder) -> None:
    lines = render(broker_files.settings_of(folder.broker, plugins=Path("/usr/lib"))).splitlines()
    assert "global_plugin /usr/lib/mosquitto_acl_file.so" in lines
    assert f"plugin_opt_acl_file {folder.broker / 'acl'}" in lines
    assert not any(line.startswith("acl_file") for line in lines)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("broker", ("broker", None)),
        ("broker:8884", ("broker", 8884)),
        ("2001:db8::1", ("2001:db8::1", None)),
        ("[2001:db8::1]:8884", ("2001:db8::1", 8884)),
    ],
)
def test_an_alternative_is_a_host_or_host_and_port(text: str, expected: tuple[str, int | None]) -> None:
    assert endpoint_of(text) == expected
    assert BrokerSection(alternatives=(text,)).endpoints[1] == (expected[0], expected[1] or 1883)


@pytest.mark.parametrize(
    "text",
    [
        "a0: &a0 {x: 1}\n" + "".join(f"a{n}: &a{n} {{<<: [{', '.join(8 * [f'*a{n - 1}'])}]}}\n" for n in range(1, 9)),
        "[" * 20_000,
        "name: " + "9" * 6_000,
    ],
)
def test_an_enrolment_that_would_take_for_ever_is_refused_at_once(text: str) -> None:
    with pytest.raises(ConfigError, match="no enrolment of this version"):
        enrolment.parse(f"{enrolment.MARK}\n{text}", Path("x"))


def test_a_configuration_that_is_wrong_leaves_no_folder(tmp_path: Path) -> None:
    text = starting.configuration("lab", "mobilenet_v2", "seed:0", NODES | {"edge": ["device-1"]})
    with pytest.raises(ConfigError, match="keep one"):
        PipelineFolder.create(tmp_path / "lab", text, ["site"], port=8883)
    assert not (tmp_path / "lab").exists()


@pytest.mark.parametrize(
    "host",
    ["bad host", "", "site:8883", "http://site", "192.168.1.300", "-site", "a..b", "s\u00eete", "a" * 64, "site\n"],
)
def test_what_is_no_host_leaves_no_folder(tmp_path: Path, folder: PipelineFolder, host: str) -> None:
    text = starting.configuration("lab", "mobilenet_v2", "seed:0", NODES)
    for hosts in ({"hosts": ["site", host]}, {"hosts": ["site"], "cloud_hosts": [host]}):
        with pytest.raises(ConfigError, match="neither a host's name nor an address"):
            PipelineFolder.create(tmp_path / "new", text, **hosts, port=8883)  # type: ignore[arg-type]
    assert not (tmp_path / "new").exists()
    with pytest.raises(ConfigError, match="neither a host's name nor an address"):
        folder.renew_broker([host])


def test_two_equal_ports_leave_no_folder(tmp_path: Path) -> None:
    text = starting.configuration("lab", "mobilenet_v2", "seed:0", NODES)
    with pytest.raises(ConfigError, match="8883 is asked for twice"):
        PipelineFolder.create(tmp_path / "new", text, ["site"], port=8883, websockets_port=8883)
    assert not (tmp_path / "new").exists()


def test_a_file_is_no_folder_to_create(tmp_path: Path) -> None:
    (tmp_path / "lab").write_text("")
    with pytest.raises(ConfigError, match="give another folder"):
        PipelineFolder.create(tmp_path / "lab", "", ["site"], port=8883)


@pytest.mark.parametrize("place", ["lib", "lib/mosquitto", "lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu/mosquitto"])
def test_plugins_of_mosquitto_2_1_are_found_where_they_are_installed(tmp_path: Path, place: str) -> None:
    executable = tmp_path / "sbin" / "mosquitto"
    executable.parent.mkdir()
    executable.write_text("#!/bin/sh\necho mosquitto version 2.1.2\n")
    executable.chmod(0o755)
    (tmp_path / place).mkdir(parents=True)
    (tmp_path / place / "mosquitto_acl_file.so").touch()
    assert find_plugins(str(executable)) == tmp_path / place
    executable.write_text("#!/bin/sh\necho mosquitto version 2.0.22\n")
    assert find_plugins(str(executable)) is None
