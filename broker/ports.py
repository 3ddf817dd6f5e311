"""Finding a TCP port for a server, and asking whether something that speaks MQTT answers on one."""

from __future__ import annotations

import random
import socket
import ssl
from pathlib import Path
from typing import Final

# MQTT 5 CONNECT: protocol name, version 5, clean start, keep-alive 10 s, no properties, client id "trisect-probe"
_CONNECT_BODY: Final = b"\x00\x04MQTT\x05\x02\x00\x0a\x00\x00\x0dtrisect-probe"
_CONNECT: Final = bytes([0x10, len(_CONNECT_BODY)]) + _CONNECT_BODY
_DISCONNECT: Final = b"\xe0\x00"
_CONNACK_TYPE: Final = 0x20
_LOWEST: Final = 20_000


def is_free(host: str, port: int) -> bool:
    """True when a server could listen on the port now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        # as mosquitto does; otherwise closed connections of a broker that just stopped would look like a server
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
            listener.listen()
        except OSError:
            return False
    return True


def free_port(host: str) -> int:
    """A free port below the ephemeral range.

    One from the ephemeral range, which is what binding to port 0 gives, could be taken by any outgoing connection
    while a broker restarts; a client on loopback that keeps trying it can even connect to itself.
    """
    candidates = range(_LOWEST, _first_ephemeral())
    for port in random.sample(candidates, len(candidates)):
        if is_free(host, port):
            return port
    raise OSError(f"no free TCP port between {candidates.start} and {candidates.stop} on {host}")


def _first_ephemeral() -> int:
    try:
        first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        first = 32_768
    return first if first > _LOWEST + 1_000 else 32_768


def answers_tls(host: str, port: int, *, timeout_s: float) -> bool:
    """Whether a server there speaks TLS. Nothing is verified: one that asks for a certificate is ready, too."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with socket.create_connection((host, port), timeout=timeout_s) as connection:
            context.wrap_socket(connection).close()
    except ssl.SSLError as error:
        return "ALERT" in str(error)
    except OSError:
        return False
    return True


def answers_mqtt(host: str, port: int, *, timeout_s: float) -> bool:
    """True when a CONNECT is answered with a CONNACK, even a refusal: a broker that wants a password is ready, too."""
    try:
        with socket.create_connection((host, port), timeout=timeout_s) as connection:
            connection.sendall(_CONNECT)
            answer = connection.recv(1)
            connection.sendall(_DISCONNECT)
            return answer[:1] == bytes([_CONNACK_TYPE])
    except OSError:
        return False
