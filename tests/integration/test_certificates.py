"""Who gets in: the right certificate, and nothing else, at a running broker; and whom a client believes."""

from __future__ import annotations

import os
import pwd
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from broker.acl import Role
from broker.errors import BrokerError, BrokerUnreachable
from broker.examination import examine
from broker.messages import Address
from broker.server import Server
from broker.session import Channel, Session
from broker.settings import ServerSettings, ServerTls
from broker.tls import Tls
from broker.topics import PLAN, STATE, TELEMETRY, Namespace
from nodes.cli.health import run as health
from nodes.config.sections import Config
from nodes.enrolment import broker_files
from nodes.enrolment.authority import new_authority
from nodes.session.presence import address_of
from pipeline.errors import ConfigError
from tests.integration.conftest import QUICK, OpenSession, Signal, eventually
from tests.integration.enrolled import Enrolled, reachable_folder, running

pytestmark = pytest.mark.integration
NAMES = Namespace("lab")
PATIENCE_S = 30.0


@pytest.fixture(scope="module")
def lab() -> Iterator[Enrolled]:
    with running() as made:
        yield made


def refusal(address: Address) -> str:
    with pytest.raises(BrokerError) as caught:
        examine(address, "trisect.lab.test", timeout_s=10.0)
    return str(caught.value)


def credentials(config: Config) -> Tls:
    tls = address_of(config).tls
    assert tls is not None
    return tls


def test_the_broker_does_not_stay_root(lab: Enrolled) -> None:
    assert lab.server.pid is not None
    owner = Path(f"/proc/{lab.server.pid}").stat().st_uid
    assert owner == (pwd.getpwnam("mosquitto").pw_uid if os.geteuid() == 0 else os.geteuid())


def test_a_member_gets_in_encrypted(lab: Enrolled) -> None:
    seen = examine(address_of(lab.enrol("m-1", "viewer")), "trisect.lab.x", timeout_s=10.0)
    assert seen.tls == "TLSv1.3"
    assert seen.certificate_ends is not None
    assert seen.certificate_ends > time.time() + 800 * 86_400


def test_without_a_certificate_nobody_gets_in(lab: Enrolled) -> None:
    address = address_of(lab.enrol("m-2", "viewer"))
    assert "asks for a certificate" in refusal(
        replace(address, tls=Tls(credentials(lab.folder_config("m-2")).authority))
    )


def test_without_encryption_nobody_gets_in(lab: Enrolled) -> None:
    refusal(Address("localhost", lab.server.port))


def test_a_certificate_of_another_authority_is_refused(lab: Enrolled) -> None:
    address = address_of(lab.enrol("m-3", "viewer"))
    assert address.tls is not None
    other = new_authority("lab").issue_member("lab.m-3")
    tls = Tls(address.tls.authority, other.certificate, other.key)
    assert "authority that the broker does not know" in refusal(replace(address, tls=tls))


def test_an_expired_certificate_is_refused_and_said_how_to_renew(lab: Enrolled) -> None:
    config = lab.enrol("m-4", "viewer", days=-0.5)
    assert "trisect renew" in refusal(address_of(config))
    assert config.broker.credentials is not None
    assert "ended on" in (config.broker.credentials.warning() or "")
    lab.folder.renew("m-4")
    examine(address_of(lab.folder_config("m-4")), "trisect.lab.x", timeout_s=10.0)


def test_the_brokers_own_certificate_lets_nobody_in(lab: Enrolled) -> None:
    address = address_of(lab.enrol("m-5", "viewer"))
    assert address.tls is not None
    certificate, key = ((lab.folder.broker / name).read_text() for name in (broker_files.CERTIFICATE, broker_files.KEY))
    refusal(replace(address, tls=Tls(address.tls.authority, certificate, key)))


def test_a_revoked_member_is_refused_at_once_and_others_are_not(lab: Enrolled, open_session: OpenSession) -> None:
    gone, stays = lab.enrol("edge-1"), lab.enrol("cloud-1")
    sessions = [
        open_session(address_of(config), name, scope="lab", secret=name) for config, name in ((gone, "g"), (stays, "s"))
    ]
    accepted: list[bool] = []

    def publish(session: Session, node: str) -> None:
        session.publish(NAMES.topic(STATE, node=node), b"", settled=accepted.append)

    publish(sessions[0], "edge-1")
    eventually(lambda: accepted == [True])
    lab.folder.revoke("edge-1")
    lab.server.reload()

    def is_refused() -> bool:
        accepted.clear()
        publish(sessions[0], "edge-1")
        eventually(lambda: bool(accepted) or not sessions[0].is_up)
        return accepted == [False] or not sessions[0].is_up

    eventually(is_refused)
    assert "revoked" in refusal(address_of(gone))
    accepted.clear()
    publish(sessions[1], "cloud-1")
    eventually(lambda: accepted == [True])
    assert sessions[1].connects_total(Channel.CONTROL) == 1
    with pytest.raises(ConfigError, match="was revoked"):
        lab.folder.enrol("edge-1")
    examine(address_of(lab.enrol("edge-1", again=True)), "trisect.lab.x", timeout_s=10.0)


def test_two_revocations_within_a_second_both_hold(lab: Enrolled) -> None:
    configs = [lab.enrol(name, "viewer") for name in ("m-6", "m-7", "m-8")]
    for name in ("m-6", "m-7"):
        lab.folder.revoke(name)
        lab.server.reload()
    eventually(lambda: "revoked" in _refusal_or_none(configs[1]))
    assert "revoked" in refusal(address_of(configs[0]))
    examine(address_of(configs[2]), "trisect.lab.x", timeout_s=10.0)


def _refusal_or_none(config: Config) -> str:
    try:
        examine(address_of(config), "trisect.lab.x", timeout_s=10.0)
    except BrokerError as error:
        return str(error)
    return ""


def test_another_members_place_cannot_be_taken(lab: Enrolled) -> None:
    """A client id ends in a secret, so that the one that is known of a node is not the one that it has."""
    victim, thief = lab.enrol("device-1"), lab.enrol("device-2")
    down, taken = Signal(), Signal()
    session = Session(
        address_of(victim),
        name="device-1",
        scope="lab",
        secret=victim.broker.credentials.secret if victim.broker.credentials else "",
        token="t",
        limits=QUICK,
        on_down=down,
        on_taken=taken,
    )
    with session.start(PATIENCE_S):
        impostor = Session(address_of(thief), name="device-1", scope="lab", token="u", limits=QUICK)
        with impostor.start(PATIENCE_S):
            accepted: list[bool] = []
            topic = NAMES.topic(TELEMETRY, node="device-1")
            impostor.publish(topic, b"{}", settled=accepted.append)
            eventually(lambda: accepted == [False])
        assert session.is_up
        assert not down.called()
        assert not taken.called()


def test_a_taken_over_node_is_refused_what_is_anothers(lab: Enrolled, open_session: OpenSession) -> None:
    session = open_session(address_of(lab.enrol("edge-1", again=True)), "edge-1", scope="lab")
    accepted: list[bool] = []
    for topic in (NAMES.topic(STATE, node="cloud-1"), NAMES.topic(PLAN, stream="camera")):
        session.publish(topic, b"{}", retain=True, settled=accepted.append)
    eventually(lambda: accepted == [False, False])


@pytest.mark.parametrize(
    ("name", "roles", "why"), [("m-9", ["viewer"], "for clients only"), ("m-13", ["node"], "not for this host name")]
)
def test_a_member_that_poses_as_the_broker_is_not_believed(
    lab: Enrolled, name: str, roles: list[Role], why: str
) -> None:
    base = reachable_folder()
    config = lab.enrol(name, *roles)
    tls = credentials(config)
    for file, text in (("a.pem", tls.authority), ("c.pem", tls.certificate), ("c.key", tls.key)):
        (base / file).write_text(text or "")
        (base / file).chmod(0o644)
    files = ServerTls(
        authority=base / "a.pem",
        certificate=base / "c.pem",
        key=base / "c.key",
        revoked=lab.folder.broker / broker_files.REVOKED,
    )
    with Server(ServerSettings(tls=files)) as impostor:
        address = Address("localhost", impostor.port, tls=tls)
        assert why in refusal(address)


def test_a_broker_of_another_name_or_authority_is_not_believed(lab: Enrolled) -> None:
    address = address_of(lab.enrol("m-10", "viewer"))
    assert address.tls is not None
    assert "not for this" in refusal(replace(address, host="127.0.0.2"))
    stranger = replace(address.tls, authority=new_authority("lab").pem)
    assert "another authority" in refusal(replace(address, tls=stranger))


def test_addresses_are_tried_in_turn(lab: Enrolled, open_session: OpenSession) -> None:
    address = address_of(lab.enrol("m-11", "viewer"))
    nowhere = replace(address, host="127.0.0.1", port=1, alternatives=(("localhost", lab.server.port),))
    assert open_session(nowhere, scope="lab").is_up
    session = open_session(replace(nowhere, alternatives=(("localhost", 2),)), start=False)
    with pytest.raises(BrokerUnreachable, match=r"127.0.0.1:1: .*; nor at localhost:2: "):
        session.start(3.0)


def test_health_is_no_when_the_node_was_never_there(lab: Enrolled, capsys: pytest.CaptureFixture[str]) -> None:
    assert health(lab.enrol("device-2", again=True), None, timeout_s=3.0) == 1
    assert "never heard of device-2" in capsys.readouterr().err


def test_a_new_broker_certificate_is_taken_up_without_a_restart(lab: Enrolled) -> None:
    address = address_of(lab.enrol("m-12", "viewer"))
    assert "not for this" in refusal(replace(address, host="127.0.0.3"))
    lab.folder.renew_broker(["localhost", "127.0.0.3"])
    lab.server.reload()
    give_up = time.monotonic() + PATIENCE_S
    while time.monotonic() < give_up:
        with suppress(BrokerUnreachable):
            examine(replace(address, host="127.0.0.3"), "trisect.lab.x", timeout_s=10.0)
            return
        time.sleep(0.1)
    pytest.fail("the broker went on with its old certificate")
