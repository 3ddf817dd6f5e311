"""Answers of a stream, put together from what the broker hands out, in whatever order it does."""

from __future__ import annotations

from queue import SimpleQueue

import numpy as np

from broker import topics
from broker.server import Server
from broker.session import Address
from broker.topics import Namespace
from nodes.client.answers import Answer
from nodes.client.stream_reader import StreamReader
from nodes.protocol.border import Border
from nodes.protocol.messages import to_bytes
from pipeline.placement import Tier
from pipeline.plan import StreamId
from pipeline.wire import FrameKey, encode
from tests.graphs import chain
from tests.integration.conftest import PATIENCE_S, OpenSession
from tests.unit.pipeline.test_plan import plan_of

STREAM = StreamId("camera")
NAMES = Namespace("lab")


def test_outputs_that_come_before_their_model_wait_for_it(server: Server, open_session: OpenSession) -> None:
    """RabbitMQ hands out retained messages to exact topics only: a reader knows the model's when it has the plan."""
    address = Address(server.host, server.port)
    graph = chain(8, 4)
    plan = plan_of(graph, (Tier.DEVICE,) * len(graph))
    tensor, array = graph.outputs[0], np.arange(4, dtype=np.uint8).reshape(1, 4)
    output_topic = NAMES.topic(topics.OUTPUT, stream=STREAM)
    outputs = [{"tensor": tensor, "name": "y", "topic": output_topic}]
    result = {"stream": STREAM, "sequence": 1, "ok": True, "outputs": outputs}
    answers: SimpleQueue[Answer] = SimpleQueue()
    reads, speaks = open_session(address, "reads"), open_session(address, "speaks")
    StreamReader(reads, NAMES, STREAM, Border(NAMES), answers.put)
    speaks.publish(NAMES.topic(topics.PLAN, stream=STREAM), to_bytes(plan.to_json(graph)), retain=True)
    for chunk in encode(FrameKey(STREAM, plan.epoch, 1, 1, oldest_open=0), tensor, array):
        speaks.publish(output_topic, chunk)
    speaks.publish(NAMES.topic(topics.RESULT, stream=STREAM), to_bytes(result))
    speaks.publish(NAMES.topic(topics.MODEL, digest=graph.digest), to_bytes(graph.to_json()), retain=True)
    np.testing.assert_array_equal(answers.get(timeout=PATIENCE_S).outputs["y"], array)
