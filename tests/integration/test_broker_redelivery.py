"""Frames that this node has not finished are kept by the broker, and come again; finished ones do not."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

from broker.server import Server
from broker.session import Address, Channel
from tests.integration.conftest import PATIENCE_S, QUICK, OpenSession, Received, Signal

_NODE = """
import os, sys, threading
from broker.session import Address, Channel, Session
done = threading.Event()
def frame(message):
    if message.payload == b"2":
        done.set()
    else:
        message.ack()
session = Session(Address(port=int(sys.argv[1])), name="device-1", token="t1", takes_frames=True)
session.subscribe(["frame/+"], frame, channel=Channel.FRAMES)
session.start(wait_s=30)
print("up", flush=True)
done.wait()
session.publish("flush", b"")  # one round trip on another channel, then one on this one: the PUBACK has left
session._connections[Channel.FRAMES].subscribe(["flush"], lambda m: None, qos=1, wait_s=30)
print("open", flush=True)
sys.stdin.readline()
"""


def test_an_open_frame_comes_to_the_next_process_and_a_finished_one_does_not(
    address: Address, open_session: OpenSession
) -> None:
    camera, frames = open_session(address, "camera"), Received()
    command = [sys.executable, "-c", _NODE, str(address.port)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as node:
        assert node.stdout is not None
        assert node.stdout.readline() == "up\n"
        for number in (b"1", b"2"):
            camera.publish("frame/cam", number)
        assert node.stdout.readline() == "open\n"
        node.kill()
    camera.publish("frame/cam", b"3")
    device = open_session(address, "device-1", start=False, takes_frames=True)
    device.subscribe(["frame/+"], frames, channel=Channel.FRAMES)
    device.start(PATIENCE_S)
    assert frames.payloads(2) == [b"2", b"3"]


def test_a_frame_that_is_still_open_is_not_handed_over_twice_after_a_blip(
    address: Address, open_session: OpenSession
) -> None:
    up, frames = Signal(), Received()
    device = open_session(address, "device-1", takes_frames=True, on_up=up)
    up.wait()
    device.subscribe(["frame/+"], frames, channel=Channel.FRAMES)
    camera = open_session(address, "camera")
    camera.publish("frame/cam", b"1")
    open_frame = frames.next()
    break_line(device)
    up.wait()
    open_frame.ack()
    camera.publish("frame/cam", b"2")
    assert frames.next().payload == b"2"
    assert frames.empty()


def test_a_frame_finished_during_a_blip_is_not_handed_over_again(address: Address, open_session: OpenSession) -> None:
    up, down, frames = Signal(), Signal(), Received()
    device = open_session(address, "device-1", takes_frames=True, on_up=up, on_down=down)
    up.wait()
    device.subscribe(["frame/+"], frames, channel=Channel.FRAMES)
    camera = open_session(address, "camera")
    camera.publish("frame/cam", b"1")
    open_frame = frames.next()
    break_line(device)
    down.wait()
    open_frame.ack()
    up.wait()
    camera.publish("frame/cam", b"2")
    assert frames.next().payload == b"2"
    device.stop()
    again, later = open_session(address, "device-1", start=False, takes_frames=True), Received()
    again.subscribe(["frame/+"], later, channel=Channel.FRAMES)
    again.start(PATIENCE_S)
    assert later.next().payload == b"2"
    assert later.empty()


def test_an_old_acknowledgement_does_not_touch_the_messages_of_a_broker_that_forgot(
    server: Server, address: Address, open_session: OpenSession
) -> None:
    up, frames = Signal(), Received()
    device = open_session(address, "device-1", takes_frames=True, on_up=up)
    up.wait()
    device.subscribe(["frame/+"], frames, channel=Channel.FRAMES)
    camera_up = Signal()
    camera = open_session(address, "camera", on_up=camera_up)
    camera_up.wait()
    camera.publish("frame/cam", b"1")
    old = frames.next()
    server.restart()
    up.wait()
    camera_up.wait()
    camera.publish("frame/cam", b"2")
    assert frames.next().payload == b"2"
    old.ack()  # its packet id now belongs to frame 2
    device.stop()
    again, later = open_session(address, "device-1", start=False, takes_frames=True), Received()
    again.subscribe(["frame/+"], later, channel=Channel.FRAMES)
    again.start(PATIENCE_S)
    assert later.next().payload == b"2"


def test_the_broker_holds_what_exceeds_the_window(address: Address, open_session: OpenSession) -> None:
    frames = Received()
    device = open_session(address, "device-1", takes_frames=True, limits=replace(QUICK, frames_receive_maximum=2))
    device.subscribe(["frame/+", "end"], frames, channel=Channel.FRAMES)
    camera = open_session(address, "camera")
    for number in range(4):
        camera.publish("frame/cam", bytes([number]))
    first, second = frames.next(), frames.next()
    # QoS 0 is not counted in the window, so this one overtakes what the broker holds
    camera.publish("end", b"end", qos=0)
    assert frames.next().payload == b"end"
    first.ack()
    second.ack()
    assert frames.payloads(2) == [b"\2", b"\3"]


def test_a_frame_that_comes_before_its_subscription_waits_for_it(address: Address, open_session: OpenSession) -> None:
    frames = Received()
    open_session(address, "device-1", takes_frames=True).subscribe(["frame/+"], frames, channel=Channel.FRAMES)
    open_session(address, "device-1", takes_frames=False)  # takes the other channels over; the first one leaves
    open_session(address, "camera").publish("frame/cam", b"1")
    later, up = Received(), Signal()
    device = open_session(address, "device-1", takes_frames=True, on_up=up)
    up.wait()
    device.subscribe(["frame/+"], later, channel=Channel.FRAMES)
    assert later.next().payload == b"1"


def break_line(session: object) -> None:
    """Shut the sockets under a session, as a router that goes away would; the broker keeps the MQTT session."""
    import socket

    for connection in session._connections.values():  # type: ignore[attr-defined]
        sock = connection.sock
        if sock is not None:
            sock.shutdown(socket.SHUT_RDWR)
