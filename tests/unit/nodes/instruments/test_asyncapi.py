"""The AsyncAPI document, held against AsyncAPI's own schema and against the topic table."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import zstandard

from broker import topics
from nodes.instruments.asyncapi import document

SCHEMA = Path(__file__).parents[3] / "cases" / "asyncapi" / "3.0.0.schema.json.zst"


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft7Validator:
    text = zstandard.ZstdDecompressor().decompress(SCHEMA.read_bytes())
    return jsonschema.Draft7Validator(json.loads(text))


def references(value: Any) -> set[str]:
    if isinstance(value, dict):
        own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return own.union(*map(references, value.values()))
    return set().union(*map(references, value)) if isinstance(value, list) else set()


def test_it_is_a_document_of_asyncapi_3(validator: jsonschema.Draft7Validator) -> None:
    made = document()
    assert made == json.loads(json.dumps(made))
    assert [error.message for error in validator.iter_errors(made)] == []


def test_the_schema_finds_what_is_wrong(validator: jsonschema.Draft7Validator) -> None:
    wrong = copy.deepcopy(document())
    wrong["operations"]["send-plan"]["action"] = "publish"
    assert list(validator.iter_errors(wrong))


def test_every_reference_leads_somewhere() -> None:
    made = document()
    for reference in references(made):
        found: Any = made
        for part in reference.removeprefix("#/").split("/"):
            found = found[part]


def test_every_topic_is_a_channel_with_its_roles_and_flags() -> None:
    made = document()
    addresses = {channel["address"] for channel in made["channels"].values()}
    assert addresses == {f"trisect/v1/{{pipeline}}/{topic.template}" for topic in topics.ALL}
    for channel in made["channels"].values():
        fields = {part[1:-1] for part in channel["address"].split("/") if part.startswith("{")}
        assert fields == channel["parameters"].keys()
    sent = made["operations"]["send-plan"]
    assert sent["x-roles"] == ["planner"]
    assert sent["bindings"]["mqtt"] == {"qos": 1, "retain": True}
    state = made["components"]["schemas"]["NodeState"]
    assert {"node", "tier", "state", "session"} <= set(state["required"])
