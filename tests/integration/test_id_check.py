"""One process per id: a living one is found, and one that is gone is not waited for."""

from __future__ import annotations

import pytest

from broker import topics
from broker.server import Server
from broker.session import Address
from broker.topics import Namespace
from nodes.config.sections import Config
from nodes.protocol.messages import LifeState, NodeState, to_bytes
from nodes.session import presence
from nodes.session.presence import IdCheck, IdInUse, Presence, require_free, wait_up
from pipeline.plan import NodeId
from tests.integration.conftest import PATIENCE_S, OpenSession, eventually

NAMES = Namespace("ids")
NODE = NodeId("edge-1")
STATE = NAMES.topic(topics.STATE, node=NODE)
FOREVER_S = 3600.0


def config_of(server: Server) -> Config:
    return Config.model_validate(
        {"pipeline": "ids", "broker": {"port": server.port}, "nodes": {NODE: {"tier": "edge"}}}
    )


def state(life: LifeState) -> bytes:
    return to_bytes(NodeState(NODE, "edge", life, "0123abcd"))


def test_an_id_that_nobody_had_is_free(server: Server) -> None:
    IdCheck(config_of(server), NAMES, NODE).result()


def test_the_id_of_a_living_process_is_in_use(server: Server) -> None:
    with Presence(config_of(server), NAMES, NODE, "edge") as living:
        wait_up(living.session)
        living.enter(LifeState.READY)
        check = IdCheck(config_of(server), NAMES, NODE)
        with pytest.raises(IdInUse, match=r"node id 'edge-1' is in use: process \d+ on"):
            check.result()


def test_the_id_of_one_that_stopped_is_free(
    server: Server, address: Address, open_session: OpenSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presence, "PING_TIMEOUT_S", FOREVER_S)
    open_session(address).publish(STATE, state(LifeState.STOPPED), retain=True, wait_s=PATIENCE_S)
    require_free(config_of(server), NAMES, NODE)


def test_one_that_was_killed_is_waited_for_until_its_will_is_out_and_no_longer(
    server: Server, address: Address, open_session: OpenSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presence, "PING_TIMEOUT_S", FOREVER_S)
    monkeypatch.setattr(presence, "RETAINED_WAIT_S", PATIENCE_S)
    session = open_session(address)
    session.publish(STATE, state(LifeState.READY), retain=True)
    asked: list[object] = []
    session.subscribe([NAMES.topic(topics.PING, node=NODE)], asked.append)
    check = IdCheck(config_of(server), NAMES, NODE)
    eventually(lambda: bool(asked))
    session.publish(STATE, state(LifeState.LOST), retain=True)
    check.result()


def test_one_that_does_not_answer_is_gone(
    server: Server, address: Address, open_session: OpenSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presence, "PING_TIMEOUT_S", 0.2)
    open_session(address).publish(STATE, state(LifeState.READY), retain=True)
    require_free(config_of(server), NAMES, NODE)
