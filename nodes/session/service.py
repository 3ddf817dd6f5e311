"""What a service tells its supervisor, as sd_notify(3) has it: ready, alive, stopping. Nothing where there is none.

One datagram to a socket that systemd (or podman) names in the environment; the protocol is stable, and a library for it
would be larger than this.
"""

from __future__ import annotations

import os
import socket
import time

_said_at = 0.0


def ready(status: str = "") -> None:
    """Serving now."""
    _notify("READY=1" + (f"\nSTATUS={status}" if status else ""))


def stopping() -> None:
    """About to end in order."""
    _notify("STOPPING=1")


def alive() -> None:
    """Say that the main loop turns, when it is time to: call it in each turn."""
    global _said_at  # noqa: PLW0603  # of the process, as the environment is
    interval_s = watchdog_s()
    now = time.monotonic()
    if interval_s is not None and now - _said_at >= interval_s / 3:
        _said_at = now
        _notify("WATCHDOG=1")


def watchdog_s() -> float | None:
    """Seconds without a word after which the supervisor kills this process; None when it does not."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    text = os.environ.get("WATCHDOG_USEC", "")
    return int(text) / 1e6 if text.isdecimal() and int(text) > 0 else None


def _notify(message: str) -> None:
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notifier:
        try:
            notifier.connect("\0" + address[1:] if address[0] == "@" else address)
            notifier.send(message.encode())
        except OSError:
            return  # a supervisor that is gone cannot be told
