"""What others learn about a node that is gone: `lost` after a crash, `stopped` after a clean stop."""

from __future__ import annotations

import subprocess
import sys

from broker.session import Address
from tests.integration.conftest import OpenSession, Received

_NODE = """
import sys, time
from broker.session import Address, Session, Will
session = Session(Address(port=int(sys.argv[1])), name="node-1", token="t1",
                  will=Will(topic="state", payload=b"lost t1", delay_s=0.0))
session.keep("state", b"ready t1")
session.start(wait_s=30)
print("up", flush=True)
if sys.stdin.readline():
    session.stop({"state": b"stopped t1"})
"""


def start_node(address: Address) -> subprocess.Popen[str]:
    node = subprocess.Popen(
        [sys.executable, "-c", _NODE, str(address.port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert node.stdout is not None
    assert node.stdout.readline() == "up\n"
    return node


def test_a_killed_node_is_reported_lost(address: Address, open_session: OpenSession) -> None:
    watcher, states = open_session(address, "watcher"), Received()
    watcher.subscribe(["state"], states)
    with start_node(address) as node:
        assert states.next().payload == b"ready t1"
        node.kill()
        assert states.next().payload == b"lost t1"
    late, seen = open_session(address, "late"), Received()
    late.subscribe(["state"], seen)
    message = seen.next()
    assert (message.payload, message.retain) == (b"lost t1", True)


def test_a_node_that_stops_says_so_and_leaves_no_will(address: Address, open_session: OpenSession) -> None:
    watcher, states = open_session(address, "watcher"), Received()
    watcher.subscribe(["state"], states)
    with start_node(address) as node:
        assert node.stdin is not None
        node.stdin.write("stop\n")
        node.stdin.flush()
        assert node.wait(30) == 0
    # the will has no delay: it would stand in front of this message
    watcher.publish("state", b"end")
    assert states.until(b"end") == [b"ready t1", b"stopped t1"]
