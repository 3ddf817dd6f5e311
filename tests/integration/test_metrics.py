"""`trisect metrics` between a real broker and a real scrape."""

from __future__ import annotations

import threading
import urllib.request
from collections.abc import Iterator

import pytest

from broker import topics
from broker.server import Server
from broker.session import Address, Channel, Session
from broker.topics import Namespace, Topic
from nodes.config.instruments import MetricsSection
from nodes.config.sections import Config
from nodes.instruments.listening import MetricsListener
from nodes.protocol.messages import LifeState, NodeState, to_bytes
from tests.integration.conftest import OpenSession, Received, eventually
from tests.unit.nodes.instruments.test_metrics import families_of
from tests.unit.nodes.watch.feed import CONFIG, DEVICE, GRAPH, TELEMETRY, plan_of, result_of

pytestmark = pytest.mark.integration
NAMES = Namespace("demo")


@pytest.fixture
def listener(module_server: Server) -> Iterator[MetricsListener]:
    broker = CONFIG.broker.model_copy(update={"port": module_server.port})
    config: Config = CONFIG.model_copy(update={"broker": broker})
    listener = MetricsListener(config, MetricsSection(port=0))
    thread = threading.Thread(target=listener.run)
    thread.start()
    yield listener
    listener.stop()
    thread.join()


def samples(listener: MetricsListener) -> dict[str, float]:
    request = urllib.request.Request(
        f"http://127.0.0.1:{listener.port}/metrics", headers={"Accept": "application/openmetrics-text"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        families = families_of(answer.read().decode())
    return {sample.name: sample.value for family in families for sample in family.samples}


def test_what_nodes_say_is_scraped_and_what_is_taken_back_is_gone(
    module_server: Server, listener: MetricsListener, open_session: OpenSession
) -> None:
    session: Session = open_session(Address(module_server.host, module_server.port), "device-1")

    def say(kind: Topic, message: object, **fields: str) -> None:
        payload = message if isinstance(message, bytes) else to_bytes(message)
        session.publish(NAMES.topic(kind, **fields), payload, qos=kind.qos, retain=kind.retain)

    eventually(lambda: listener.is_serving and listener.port != 0)
    say(topics.STATE, NodeState(DEVICE, "device", LifeState.READY, "s1", 1, "pi", 42, 1e9), node=DEVICE)
    say(topics.PLAN, plan_of(3).to_json(GRAPH), stream="camera")
    eventually(lambda: {"trisect_node_up", "trisect_plan_epoch"} <= samples(listener).keys())

    def say_what_is_not_retained() -> bool:
        say(topics.TELEMETRY, TELEMETRY, node=DEVICE)
        say(topics.TELEMETRY, b"no JSON", node=DEVICE)
        say(topics.RESULT, result_of(7, 3, seconds=0.06), stream="camera")
        say(topics.RESULT, result_of(8, 3, error="broken"), stream="camera")
        say(topics.RESULT, b'{"stream": "door", "sequence": 1, "ok": true}', stream="camera")
        found = samples(listener)
        return {"trisect_stream_results_total", "trisect_frame_seconds_sum"} <= found.keys()

    eventually(say_what_is_not_retained)
    found = samples(listener)
    assert found["trisect_stream_results_total"] == 100
    mean = found["trisect_frame_seconds_sum"] / found["trisect_frame_seconds_count"]
    assert mean == pytest.approx(0.06)  # not those with an error
    say(topics.STATE, b"", node=DEVICE)
    say(topics.PLAN, b"", stream="camera")
    eventually(lambda: not {"trisect_node_up", "trisect_plan_epoch"} & samples(listener).keys())


@pytest.mark.parametrize("channel", [Channel.CONTROL, Channel.BULK])
def test_a_trace_context_crosses_the_broker_on_either_line(
    channel: Channel, module_server: Server, open_session: OpenSession
) -> None:
    address = Address(module_server.host, module_server.port)
    received = Received()
    session: Session = open_session(address, f"traced-{channel.value}")
    session.subscribe(["traced"], received, channel=channel)
    context = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    session.publish("traced", b"with", channel=channel, traceparent=context)
    session.publish("traced", b"without", channel=channel)
    assert [received.next().traceparent, received.next().traceparent] == [context, None]
