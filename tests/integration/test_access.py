"""Every member against every topic, published and subscribed, at a running broker with the list written for it."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue

import pytest

from broker.acl import STATISTICS, Member, may
from broker.errors import BrokerRefused
from broker.session import Channel, Message
from broker.topics import (
    ALL,
    COMMAND,
    FETCH,
    FRAME,
    MODEL,
    OUT,
    PACKAGE,
    PING,
    PLAN,
    REPLY,
    RESULT,
    STREAM_OWNER,
    TAKEN,
    TELEMETRY,
    VERSION,
    Namespace,
    Topic,
)
from nodes.config.credentials import Credentials
from nodes.config.loader import load_config
from nodes.config.sections import Config
from nodes.enrolment.folder import PipelineFolder
from nodes.enrolment.seal import sign
from nodes.packages import publishing
from nodes.protocol.border import Border
from nodes.protocol.messages import to_bytes
from nodes.protocol.packages import Seal, Version
from nodes.session.presence import reply_topic
from nodes.tier.pushed_models import PushedModels
from pipeline.lite.sketch import Layer, Sketch, save
from pipeline.plan import NodeId
from tests.integration.conftest import eventually
from tests.integration.enrolled import CONFIGURATION, Enrolled, running

PATIENCE_S = 30.0
NAMES = Namespace("lab")
VALUES = {
    "node": ("device-1", "edge-1", "planner"),
    "client": ("alice", "eve", "device-1"),
    "worker": ("edge-1",),
    "stream": ("camera", "door"),
    "epoch": ("3",),
    "tensor": ("0",),
    "index": ("0",),
    "model": ("resnet",),
    "digest": ("9f3a",),
    "verb": ("drain",),
}
TOPICS = tuple(
    NAMES.topic(kind, **dict(zip(kind.fields, values, strict=True)))
    for kind in ALL
    for values in itertools.product(*(VALUES[field] for field in kind.fields))
)
FOREIGN = ("trisect/v1/other/plan/camera", "trisect/v1/lab/nothing", "elsewhere")
MEMBERS = ("device-1", "device-2", "edge-1", "planner", "alice", "cam", "eve", "both")


@pytest.fixture(scope="module")
def enrolled() -> Iterator[tuple[Enrolled, dict[str, Config], dict[str, Member]]]:
    with running() as lab:
        configs = {name: lab.enrol(name) for name in ("device-1", "device-2", "edge-1", "planner")}
        configs["alice"] = lab.enrol("alice", "operator")
        configs["cam"] = lab.enrol("cam", "camera", streams=["camera"])
        configs["eve"] = lab.enrol("eve", "viewer")
        configs["both"] = lab.enrol("both", "camera", "viewer")
        yield lab, configs, {member.name: member for member in lab.folder.members()}


Lab = tuple[Enrolled, dict[str, Config], dict[str, Member]]


@pytest.mark.integration
@pytest.mark.parametrize("name", MEMBERS)
def test_what_a_member_may_not_publish_is_refused_by_the_broker(enrolled: Lab, name: str) -> None:
    lab, configs, members = enrolled
    taken: dict[str, bool] = {}
    settled = threading.Semaphore(0)

    def note(topic: str, accepted: bool) -> None:
        taken[topic] = accepted
        settled.release()

    with lab.session(configs[name]).start(PATIENCE_S) as session:
        for topic in (*TOPICS, *FOREIGN):
            session.publish(topic, b"", settled=lambda accepted, topic=topic: note(topic, accepted))  # type: ignore[misc]
        for _ in (*TOPICS, *FOREIGN):
            assert settled.acquire(timeout=PATIENCE_S)
    assert taken == {topic: may(members[name], "write", topic, NAMES) for topic in (*TOPICS, *FOREIGN)}
    assert not any(taken[topic] for topic in FOREIGN)


@pytest.mark.integration
def test_a_request_without_the_right_to_it_fails_at_once(enrolled: Lab) -> None:
    lab, configs, _ = enrolled
    with lab.session(configs["eve"]).start(PATIENCE_S) as session, pytest.raises(BrokerRefused, match="0x87"):
        session.request(
            NAMES.topic(COMMAND, node="planner", verb="place"),
            b"{}",
            reply_topic=reply_topic(configs["eve"], session),
            timeout_s=2 * PATIENCE_S,
        )


@pytest.mark.integration
@pytest.mark.parametrize("filters", [list(TOPICS), ["trisect/v1/lab/#"]], ids=["each", "all-at-once"])
def test_what_a_member_may_not_read_is_not_delivered(enrolled: Lab, filters: list[str]) -> None:
    lab, configs, members = enrolled
    writers = {t: next((m for m in MEMBERS if may(members[m], "write", t, NAMES)), None) for t in TOPICS}
    nobodys = {"trisect/v1/lab/node/planner/packages", "trisect/v1/lab/node/planner/piece/9f3a/0"}
    assert {topic for topic, writer in writers.items() if writer is None} == nobodys
    written = {topic: writer for topic, writer in writers.items() if writer is not None}
    readers = {name: lab.session(configs[name], "reader").start(PATIENCE_S) for name in MEMBERS}
    sessions = {name: lab.session(configs[name], "writer").start(PATIENCE_S) for name in MEMBERS}
    arrived: dict[str, SimpleQueue[Message]] = {name: SimpleQueue() for name in MEMBERS}
    try:
        for name, session in readers.items():
            # each message once, without a limit to those in flight, so that a SUBACK comes behind all of them
            session.subscribe(filters, arrived[name].put, channel=Channel.BULK, qos=0)
        acknowledged = threading.Semaphore(0)
        for topic, writer in written.items():
            sessions[writer].publish(topic, b"x", settled=lambda _: acknowledged.release())
        for _ in written:
            assert acknowledged.acquire(timeout=PATIENCE_S)
        for name, session in readers.items():
            session.subscribe(["fence"], lambda _: None, channel=Channel.BULK, qos=0)
            got = {arrived[name].get().topic for _ in range(arrived[name].qsize())}
            assert got == {topic for topic in written if may(members[name], "read", topic, NAMES)}, name
    finally:
        for session in (*readers.values(), *sessions.values()):
            session.stop()


# What the decision itself has to be, said once more in the words of its purpose.


def topics_of(*kinds: Topic) -> set[str]:
    return {topic for topic in TOPICS if (parsed := NAMES.parse(topic)) is not None and parsed[0] in kinds}


def allowed(member: Member, access: str) -> set[str]:
    return {topic for topic in TOPICS if may(member, access, topic, NAMES)}  # type: ignore[arg-type]


EDGE, DEVICE = Member("edge-1", ("node",)), Member("device-1", ("node",), ("camera",))
PLANNER, OPERATOR = Member("planner", ("planner",)), Member("alice", ("operator",))
CAMERA, VIEWER = Member("cam", ("camera",)), Member("eve", ("viewer",))


def test_a_node_writes_below_its_own_name_and_answers() -> None:
    below = {topic for topic in TOPICS if topic.startswith("trisect/v1/lab/node/edge-1/")}
    assert allowed(EDGE, "write") == below | topics_of(FETCH, MODEL, PING, REPLY)


def test_a_device_also_writes_frames_and_results_of_its_own_stream() -> None:
    below = {topic for topic in TOPICS if topic.startswith("trisect/v1/lab/node/device-1/")}
    stream_metric = {f"trisect/v1/lab/{kind}/camera" for kind in ("frame", "owner", "result", "output", "preview")}
    own = stream_metric | {"trisect/v1/lab/output/camera/map"}
    assert allowed(DEVICE, "write") == below | topics_of(FETCH, MODEL, PING, REPLY) | own


def test_plans_are_the_planners_alone() -> None:
    for member in (EDGE, DEVICE, OPERATOR, CAMERA, VIEWER):
        assert not allowed(member, "write") & topics_of(PLAN)
    assert topics_of(PLAN) <= allowed(PLANNER, "write")


def test_commands_are_the_operators_alone() -> None:
    for member in (EDGE, DEVICE, PLANNER, CAMERA, VIEWER):
        assert not allowed(member, "write") & topics_of(COMMAND)
    assert allowed(OPERATOR, "write") == topics_of(COMMAND, PACKAGE, PING, TAKEN, VERSION)


def test_frames_are_written_by_cameras_and_read_by_the_streams_device_alone() -> None:
    assert allowed(CAMERA, "write") == topics_of(FRAME, TAKEN)
    assert allowed(Member("cam", ("camera",), ("door",)), "write") == {"trisect/v1/lab/frame/door"} | topics_of(TAKEN)
    for member in (EDGE, PLANNER, OPERATOR, CAMERA, VIEWER):
        assert not allowed(member, "read") & topics_of(FRAME)
    assert allowed(DEVICE, "read") & topics_of(FRAME) == {"trisect/v1/lab/frame/camera"}


def test_a_stream_is_claimed_by_its_device_alone_and_all_who_plan_or_watch_see_it() -> None:
    assert allowed(DEVICE, "write") & topics_of(STREAM_OWNER) == {"trisect/v1/lab/owner/camera"}
    for member in (EDGE, PLANNER, OPERATOR, CAMERA, VIEWER):
        assert not allowed(member, "write") & topics_of(STREAM_OWNER)
    for member in (EDGE, DEVICE, PLANNER, OPERATOR, VIEWER):
        assert topics_of(STREAM_OWNER) <= allowed(member, "read")


def test_who_publishes_frames_may_ask_what_has_come_and_command_nothing() -> None:
    assert topics_of(TAKEN) <= allowed(CAMERA, "write")
    assert not allowed(CAMERA, "write") & topics_of(COMMAND, PING)
    for member in (EDGE, DEVICE, PLANNER, VIEWER):
        assert not allowed(member, "write") & topics_of(TAKEN)
    assert allowed(DEVICE, "read") & topics_of(TAKEN) == {"trisect/v1/lab/taken/device-1"}


def test_tensors_are_read_by_nodes_alone() -> None:
    for member in (PLANNER, OPERATOR, CAMERA, VIEWER):
        assert not allowed(member, "read") & topics_of(OUT)
    assert topics_of(OUT) <= allowed(EDGE, "read")


def test_a_viewer_reads_results_and_telemetry_and_writes_nothing() -> None:
    assert topics_of(RESULT, TELEMETRY) <= allowed(VIEWER, "read")
    assert allowed(VIEWER, "write") == set()
    assert may(VIEWER, "read", STATISTICS, NAMES)
    assert not may(VIEWER, "write", STATISTICS, NAMES)


def test_answers_are_read_by_whoever_asked_alone() -> None:
    for member in (EDGE, DEVICE, PLANNER, OPERATOR, CAMERA, VIEWER):
        assert allowed(member, "read") & topics_of(REPLY) <= {f"trisect/v1/lab/reply/{member.name}"}


@pytest.mark.integration
def test_a_node_takes_a_version_that_an_operator_of_its_pipeline_has_sealed_and_no_other(
    enrolled: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    lab, configs, _ = enrolled
    caplog.set_level("INFO", "nodes")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    layers = (Layer("conv", "conv", ("image",), 3, 8), Layer("mean", "mean", ("conv",)))
    save(Sketch("net", (16, 16, 3), (*layers, Layer("head", "dense", ("mean",), 1, 2))), tmp_path / "net.trisect")
    other = PipelineFolder.create(tmp_path / "other", CONFIGURATION, ["localhost"], port=8883)
    mallory = load_config(other.enrol("mallory", ["operator"])).broker.credentials
    alice, device = configs["alice"].broker.credentials, configs["device-1"].broker.credentials
    assert alice is not None
    assert mallory is not None
    assert device is not None
    border = Border(NAMES)
    models = PushedModels(
        configs["edge-1"], NodeId("edge-1"), ["net"], border, check=lambda _: None, on_whole=lambda _: None
    )
    with models, lab.session(configs["alice"], "operator") as session:
        session.start(PATIENCE_S)
        manifest = publishing.push(configs["alice"], tmp_path / "net.trisect", name="net")  # until the node has it all

        def publish(number: int, sealed_by: Credentials | None) -> None:
            version = Version("net", manifest.digest, number)
            seal = None
            if sealed_by is not None:
                seal = Seal(sealed_by.certificate, sign(version.text("lab"), sealed_by.key))
            version = replace(version, seal=seal)
            session.publish(NAMES.topic(VERSION, model="net"), to_bytes(version), retain=True)

        for number, stranger in ((2, None), (3, mallory), (4, device)):
            before = border.total
            publish(number, stranger)
            eventually(lambda before=before: border.total == before + 1)  # type: ignore[misc]
        assert "no operator has sealed it" in caplog.text
        publish(1, alice)
        (pushed,) = models.first()
    assert pushed.digest == manifest.digest
    assert f"version 1 of net is package {manifest.digest}" in caplog.text
