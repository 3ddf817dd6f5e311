"""The topic table as an AsyncAPI 3 document: channels, who sends and receives there, and what messages hold."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any, Final

from pydantic import TypeAdapter
from rich.table import Table

from broker import topics
from broker.topics import ROOT, Topic
from nodes.protocol.messages import Applied, LinkReport, NodeInfo, NodeState, Owner, ResultKeys
from pipeline.plan import WrittenPlan

SCHEMAS: Final[Mapping[str, type[Any]]] = {
    "NodeState": NodeState,
    "NodeInfo": NodeInfo,
    "LinkReport": LinkReport,
    "Applied": Applied,
    "Owner": Owner,
    "Plan": WrittenPlan,
    "Result": ResultKeys,
}
"""Of messages whose fields are declared as types; the others are described in words."""
_CONTENT: Final = {
    "json": "application/json",
    "msgpack": "application/msgpack",
    "image": "image/jpeg",
    "raw": "application/octet-stream",
}
_WORDS: Final[Mapping[str, str]] = {
    "OwnershipToken": "Names the process that holds a client id.",
    "Manifest": "A model's graph: blocks, tensors and their bytes. What needs no weights reads this.",
    "Profile": "A node's seconds for each block of a model.",
    "Telemetry": "One flat object of numbers, base units in their names: docs/instruments.md.",
    "TensorChunk": "An array of a header map and bytes of one tensor of one frame.",
    "NodeResult": "An output tensor of one frame, with what nodes did for it.",
    "Probe": "Bytes by which a node measures its line; cleared afterwards.",
    "Fence": "Marks the end of what a device has published before.",
    "Frame": "An encoded image (JPEG, PNG), an array as NPY, or a msgpack map of arrays.",
    "Output": "A frame's output tensor in chunks, as TensorChunk.",
    "ClassMap": "A map of classes as a grey PNG whose pixels are the classes, with stream and sequence as text in it.",
    "PublishedPackage": "A package that an operator has published, by its digest.",
    "Version": "The version of a model that nodes should hold.",
    "Holdings": "The packages that a node holds.",
    "Preview": "A map with a small JPEG of a frame, its sequence, and the frame's width and height in pixels.",
    "Ping": "Asks whether a process lives; the answer goes to the response topic.",
    "Taken": "Asks a device how many frames of whoever asks have come.",
    "Command": "A person's request, such as place, objective or drain.",
    "Reply": "The answer to a request, or a frame's result for its publisher.",
}
_FIELDS: Final[Mapping[str, str]] = {
    "pipeline": "The pipeline's name in the configuration.",
    "node": "A node's id.",
    "worker": "The id of the node that computes the tile.",
    "client": "An enrolled member's name, or the name of a session.",
    "stream": "A stream's id.",
    "epoch": "The number of a stream's plan.",
    "tensor": "The number of a tensor in the model's manifest.",
    "digest": "The digest of a prepared model.",
    "model": "A model's digest.",
    "verb": "What is asked for.",
    "index": "A number.",
}
_SCHEMAS_AT: Final = "#/components/schemas/"


def document() -> dict[str, Any]:
    """The document, as plain JSON values."""
    schemas: dict[str, Any] = {}
    messages = {topic.message: _message(topic, schemas) for topic in topics.ALL}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "trisect",
            "version": version("trisect"),
            "description": "One deep neural network across device, edge and cloud, over an MQTT 5 broker.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": {_id(topic): _channel(topic) for topic in topics.ALL},
        "operations": {
            f"{action}-{_id(topic)}": _operation(topic, action)
            for topic in topics.ALL
            for action in ("send", "receive")
        },
        "components": {"messages": messages, "schemas": schemas},
    }


def table() -> Table:
    """The table for people."""
    made = Table(box=None, header_style="dim", pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("topic", "message", "encoding", "QoS", "retained", "writers", "readers", "at most"):
        made.add_column(heading, overflow="fold")
    for topic in topics.ALL:
        retained = "yes" if topic.retain else ""
        size = (
            f"{topic.max_bytes / topics.MIB:g} MiB" if topic.max_bytes >= topics.MIB else f"{topic.max_bytes >> 10} KiB"
        )
        about = (topic.template, topic.message, topic.encoding, str(topic.qos), retained)
        made.add_row(*about, ", ".join(topic.writers), ", ".join(topic.readers), size)
    return made


def _id(topic: Topic) -> str:
    """`node-out` for `node/{node}/out/{stream}/{epoch}/{tensor}`."""
    return "-".join(part for part in topic.template.split("/") if not part.startswith("{"))


def _channel(topic: Topic) -> dict[str, Any]:
    return {
        "address": f"{ROOT}/{{pipeline}}/{topic.template}",
        "messages": {topic.message: {"$ref": f"#/components/messages/{topic.message}"}},
        "parameters": {name: {"description": _FIELDS[name]} for name in ("pipeline", *topic.fields)},
    }


def _operation(topic: Topic, action: str) -> dict[str, Any]:
    is_sent = action == "send"
    return {
        "action": action,
        "channel": {"$ref": f"#/channels/{_id(topic)}"},
        "messages": [{"$ref": f"#/channels/{_id(topic)}/messages/{topic.message}"}],
        "bindings": {"mqtt": {"qos": topic.qos} | ({"retain": topic.retain} if is_sent else {})},
        "x-roles": list(topic.writers if is_sent else topic.readers),
    }


def _message(topic: Topic, schemas: dict[str, Any]) -> dict[str, Any]:
    kind = SCHEMAS.get(topic.message)
    found: dict[str, Any] = {
        "name": topic.message,
        "contentType": _CONTENT[topic.encoding],
        "x-max-bytes": topic.max_bytes,
    }
    if kind is None:
        found["summary"] = _WORDS[topic.message]
        return found | ({"payload": {"type": "object"}} if topic.encoding == "json" else {})
    schema = TypeAdapter(kind).json_schema(ref_template=f"{_SCHEMAS_AT}{{model}}")
    schemas.update(schema.pop("$defs", {}))
    schemas[topic.message] = schema
    found["summary"] = (kind.__doc__ or topic.message).split("\n\n")[0].replace("\n", " ").strip()
    return found | {"payload": {"$ref": f"{_SCHEMAS_AT}{topic.message}"}}
