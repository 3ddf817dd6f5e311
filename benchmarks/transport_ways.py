"""Ways of bytes from process to process: through mosquitto on a session's channels, directly, or as raw TCP."""

from __future__ import annotations

import multiprocessing
import os
import socket
import ssl
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection as Pipe
from pathlib import Path

import psutil

from broker.direct.listener import DirectListener
from broker.direct.ways import Destination, DirectWays
from broker.inbox import Inbox
from broker.messages import Payload
from broker.mqtt.reader import Placement
from broker.ports import free_port
from broker.server import find_mosquitto
from broker.session import Address, Channel, Limits, Message, Session

TIMES = struct.Struct("dd")
CHANNELS = {"bulk": Channel.BULK, "paho": Channel.CONTROL}
_LIMITS = Limits(control_queue_bytes=256 << 20)
_PATIENCE_S = 60.0


class Kept:
    """A handler that has large payloads written into memory of its own, as a tensor's are."""

    def __init__(self, most: int, handle: Callable[[bool], None]) -> None:
        self._memory = memoryview(bytearray(most + 1))
        self._handle = handle

    def place(self, topic: str, first: memoryview, nbytes: int) -> Placement | None:
        """Behind the first byte, which says whether this is the last chunk."""
        return Placement(1, self._memory[: nbytes - 1], self)

    def __call__(self, message: Message) -> None:
        """A chunk is here."""
        self._handle(message.payload[0] == 1)


def chunks_of(nbytes: int, chunk_bytes: int) -> list[Payload]:
    """The payloads of one message; the first byte of the last one marks its end."""
    sizes = [min(chunk_bytes, nbytes - start) for start in range(0, nbytes, chunk_bytes)]
    memory = memoryview(bytes(chunk_bytes))
    return [(bytes([number == len(sizes) - 1]), memory[: size - 1]) for number, size in enumerate(sizes)]


def watch_reads(session: Session, channel: Channel) -> list[float]:
    """When the newest read of a connection began: changes in place."""
    line, at = session._connections[channel]._line, [0.0]
    read = line.read

    def timed() -> int:
        at[0] = time.perf_counter()
        return read()

    line.read = timed  # type: ignore[method-assign]
    return at


def serve_session(address: Address, way: str, chunk_bytes: int, pipe: Pipe) -> None:
    """The subscribing process: answers each whole message with when its read began and when it was there."""
    channel = CHANNELS[way]
    with Session(address, name=f"receiver-{way}", token="r", limits=_LIMITS) as session:
        began = watch_reads(session, channel)

        def handle(is_last: bool) -> None:
            if is_last:
                session.publish(f"bench/echo/{way}", TIMES.pack(began[0], time.perf_counter()), channel=channel)

        session.subscribe([f"bench/data/{way}"], Kept(chunk_bytes, handle), channel=channel)
        session.start(wait_s=_PATIENCE_S)
        answer_cpu(pipe)


class DirectEnd:
    """One end of direct ways to and from another process: a session's bulk routes, a port, and a way to the other's."""

    def __init__(self, stack: ExitStack, address: Address, me: str, other: str, ports: tuple[int, int]) -> None:
        self.session = stack.enter_context(Session(address, name=me, token=me, limits=_LIMITS))
        tls, self._other = address.tls, other
        routes = self.session.bulk.inbox.routes
        inbox = Inbox(Channel.BULK, receive_maximum=None, manual_ack=False, send_ack=lambda _: None, routes=routes)
        self._listener = DirectListener(
            f"{me}.direct",
            inbox,
            tls=tls,
            admit=lambda hello, _: hello.client_id,
            may_write=lambda node, topic: True,
            limits=_LIMITS,
            most_bytes=1 << 25,
        )
        self._listener.start("127.0.0.1", ports[0])
        stack.callback(self._listener.stop)
        users = ("127.0.0.1",)
        self._ways = DirectWays(self.session, name=me, tls=tls, users=lambda node: users, limits=_LIMITS)
        stack.callback(self._ways.stop)
        self._ways.reach(other, Destination((("127.0.0.1", ports[1]),), other))

    def publish(self, topic: str, payload: Payload) -> None:
        """Send to the other end."""
        self._ways.publish(topic, payload, to=self._other, expiry_s=None, wait_s=None)

    def wait(self) -> None:
        """Wait until the way to the other end stands."""
        self.session.start(wait_s=_PATIENCE_S)
        give_up = time.monotonic() + _PATIENCE_S
        while not self._ways.standing()[self._other]:
            if time.monotonic() > give_up:
                raise RuntimeError("there is no direct way")
            time.sleep(0.01)


def serve_direct(address: Address, ports: tuple[int, int], chunk_bytes: int, pipe: Pipe) -> None:
    """The receiving process of the direct way."""
    with ExitStack() as stack:
        end = DirectEnd(stack, address, "receiver-direct", "sender-direct", ports)
        began = [0.0]

        def place(topic: str, first: memoryview, nbytes: int) -> Placement | None:
            began[0] = time.perf_counter()
            return kept_place(topic, first, nbytes)

        def handle(is_last: bool) -> None:
            if is_last:
                end.publish("bench/echo/direct", TIMES.pack(began[0], time.perf_counter()))

        handler = Kept(chunk_bytes, handle)
        kept_place, handler.place = handler.place, place  # type: ignore[method-assign]
        end.session.subscribe(["bench/data/direct"], handler, channel=Channel.BULK)
        end.wait()
        answer_cpu(pipe)


def serve_raw(port: int, context: tuple[str, str] | None, pipe: Pipe) -> None:
    """The receiving process without a broker: each message is a length and that many bytes."""
    listener = socket.create_server(("127.0.0.1", port))
    threading.Thread(target=answer_cpu, args=(pipe,), daemon=True).start()
    sock, _ = listener.accept()
    tuned(sock)
    if context is not None:
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(*context)
        sock = server.wrap_socket(sock, server_side=True)
    memory, head = memoryview(bytearray(1 << 25)), memoryview(bytearray(8))
    while receive(sock, head):
        began = time.perf_counter()
        receive(sock, memory[: int.from_bytes(head, "big")])
        sock.sendall(TIMES.pack(began, time.perf_counter()))


def receive(sock: socket.socket, view: memoryview) -> bool:
    """Fill the view; False at the end of the stream."""
    while view:
        nbytes = sock.recv_into(view)
        if not nbytes:
            return False
        view = view[nbytes:]
    return True


def tuned(sock: socket.socket) -> socket.socket:
    """As the session's sockets are."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        sock.setsockopt(socket.SOL_SOCKET, option, _LIMITS.socket_buffer_bytes)
    return sock


def answer_cpu(pipe: Pipe) -> None:
    """Say this process's seconds of processor whenever asked, until told to end."""
    pipe.send(os.getpid())
    while pipe.recv():
        pipe.send(time.process_time())


@contextmanager
def child(serve: Callable[..., None], *args: object) -> Iterator[Pipe]:
    """A receiving process that is up, by its pipe."""
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    process = spawn.Process(target=serve, args=(*args, there), daemon=True)
    process.start()
    try:
        if not here.poll(_PATIENCE_S):
            raise RuntimeError("the receiver did not come up")
        here.recv()
        yield here
    finally:
        here.send(False)
        process.join(5)
        process.kill()


@contextmanager
def mosquitto(files: tuple[str, str, str] | None, folder: Path) -> Iterator[tuple[int, psutil.Process]]:
    """A broker of this benchmark's, with TLS if there are files (CA, certificate, key)."""
    port = free_port("127.0.0.1")
    lines = [f"listener {port} 127.0.0.1", "allow_anonymous true", "set_tcp_nodelay true", "max_packet_size 33554432"]
    lines += ["max_inflight_messages 64", "max_queued_bytes 536870912", "persistence false", "log_dest none"]
    if files is not None:
        lines += [f"cafile {files[0]}", f"certfile {files[1]}", f"keyfile {files[2]}", "user root"]
    path = folder / "mosquitto.conf"
    path.write_text("\n".join(lines) + "\n")
    process = subprocess.Popen([find_mosquitto(), "-c", str(path)], stderr=subprocess.DEVNULL)
    try:
        yield port, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(10)


def make_certificate(folder: Path) -> tuple[str, str, str]:
    """A self-signed certificate for 127.0.0.1, which is its own authority."""
    key, cert = str(folder / "key.pem"), str(folder / "cert.pem")
    asked = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1"
    subprocess.run([*asked.split(), "-keyout", key, "-out", cert], check=True, capture_output=True)
    return cert, cert, key


class Way:
    """One way to move bytes: `send(nbytes)` begins, `wait()` gives when it was read and there, in order."""

    def __init__(self, name: str, pipe: Pipe, send: Callable[[int], None], wait: Callable[[], tuple[float, float]]):
        self.name, self.send, self.wait, self._pipe = name, send, wait, pipe

    def receiver_cpu(self) -> float:
        """Seconds of processor of the other process so far."""
        self._pipe.send(True)
        return float(self._pipe.recv())


def session_way(stack: ExitStack, name: str, address: Address, chunk_bytes: int) -> tuple[Way, Session]:
    """Through the broker."""
    pipe = stack.enter_context(child(serve_session, address, name, chunk_bytes))
    session = stack.enter_context(Session(address, name=f"sender-{name}", token="s", limits=_LIMITS))
    channel, echoes, payloads = CHANNELS[name], list[bytes](), dict[int, list[Payload]]()
    arrived = threading.Semaphore(0)

    def on_echo(message: Message) -> None:
        echoes.append(message.payload)
        arrived.release()

    def send(nbytes: int) -> None:
        if nbytes not in payloads:
            payloads[nbytes] = chunks_of(nbytes, chunk_bytes)
        for payload in payloads[nbytes]:
            session.publish(f"bench/data/{name}", payload, channel=channel)

    def wait() -> tuple[float, float]:
        if not arrived.acquire(timeout=_PATIENCE_S):
            raise RuntimeError(f"{name}: no answer")
        began, there = TIMES.unpack(echoes.pop(0))
        return began, there

    session.subscribe([f"bench/echo/{name}"], on_echo, channel=channel)
    session.start(wait_s=_PATIENCE_S)
    return Way(name, pipe, send, wait), session


def direct_way(stack: ExitStack, address: Address, chunk_bytes: int) -> Way:
    """From node to node, as with `transport.direct`; the broker is there, and carries nothing of it."""
    ports = free_port("127.0.0.1"), free_port("127.0.0.1")
    end = DirectEnd(stack, address, "sender-direct", "receiver-direct", ports)
    pipe = stack.enter_context(child(serve_direct, address, (ports[1], ports[0]), chunk_bytes))
    echoes, arrived, payloads = list[bytes](), threading.Semaphore(0), dict[int, list[Payload]]()

    def on_echo(message: Message) -> None:
        echoes.append(message.payload)
        arrived.release()

    def send(nbytes: int) -> None:
        if nbytes not in payloads:
            payloads[nbytes] = chunks_of(nbytes, chunk_bytes)
        for payload in payloads[nbytes]:
            end.publish("bench/data/direct", payload)

    def wait() -> tuple[float, float]:
        if not arrived.acquire(timeout=_PATIENCE_S):
            raise RuntimeError("direct: no answer")
        began, there = TIMES.unpack(echoes.pop(0))
        return began, there

    end.session.subscribe(["bench/echo/direct"], on_echo, channel=Channel.BULK)
    end.wait()
    return Way("direct", pipe, send, wait)


def raw_way(stack: ExitStack, files: tuple[str, str, str] | None) -> Way:
    """Without a broker."""
    port = free_port("127.0.0.1")
    pipe = stack.enter_context(child(serve_raw, port, None if files is None else files[1:]))
    sock = stack.enter_context(tuned(socket.create_connection(("127.0.0.1", port))))
    if files is not None:
        context = ssl.create_default_context(cafile=files[0])
        sock = stack.enter_context(context.wrap_socket(sock, server_hostname="127.0.0.1"))
    memory, answer = memoryview(bytes(1 << 25)), memoryview(bytearray(TIMES.size))

    def send(nbytes: int) -> None:
        sock.sendall(nbytes.to_bytes(8, "big"))
        sock.sendall(memory[:nbytes])

    def wait() -> tuple[float, float]:
        receive(sock, answer)
        began, there = TIMES.unpack(answer)
        return began, there

    return Way("raw", pipe, send, wait)
