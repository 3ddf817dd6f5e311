"""Machines on one computer: network namespaces around a hub, each behind a line of a bandwidth of its own; needs root.

Lines are veth pairs with a token bucket at both ends (`tc … tbf`). The process that makes the network moves into the
hub.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from pipeline.errors import TrisectError

_NEW_NETWORK = 0x40000000  # CLONE_NEWNET of <sched.h>
_RUN = Path("/run/netns")
_BURST = "3200"
"""Bytes, two packets: what fits into the bucket passes at once after each pause, so of 64 kB a whole photo would."""
_LONGEST_QUEUE = "200ms"


class Network:
    """A hub, in which this process then is, and a machine for each name. A context. Raises TrisectError without root.

    Threads that ran before stay outside; those started inside, and child processes, are in the hub.
    """

    def __init__(self, machines: Sequence[str]) -> None:
        self._machines = list(machines)
        self._prefix = f"trisect-{os.getpid()}"
        self._outside = -1

    def __enter__(self) -> Network:
        if os.geteuid() != 0:
            raise TrisectError("network namespaces need root: run this with sudo")
        try:
            _run("ip", "netns", "add", self._name("hub"))
            self._outside = os.open("/proc/self/ns/net", os.O_RDONLY)
            with (_RUN / self._name("hub")).open() as hub:
                _enter(hub.fileno())
            _run("ip", "link", "set", "lo", "up")
            for number, machine in enumerate(self._machines):
                self._connect(number, machine)
        except (OSError, TrisectError):
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._outside >= 0:
            _enter(self._outside)
            os.close(self._outside)
            self._outside = -1
        for name in ("hub", *self._machines):
            if (_RUN / self._name(name)).exists():
                with contextlib.suppress(TrisectError):
                    _run("ip", "netns", "del", self._name(name))

    def launcher(self, machine: str) -> list[str]:
        """What to put before a command that shall run on the machine."""
        return ["nsenter", f"--net={_RUN / self._name(machine)}"]

    def hub_address(self, machine: str) -> str:
        """The hub as the machine sees it."""
        return f"10.77.{self._machines.index(machine)}.1"

    def limit(self, machine: str, mbit_s: float) -> None:
        """Give the machine's line this bandwidth, both ways, from now on."""
        bucket = ("root", "tbf", "rate", f"{mbit_s * 1e6:.0f}bit", "burst", _BURST, "latency", _LONGEST_QUEUE)
        line = f"line{self._machines.index(machine)}"
        _run("tc", "qdisc", "replace", "dev", line, *bucket)
        _run(*self.launcher(machine), "tc", "qdisc", "replace", "dev", line, *bucket)

    def _connect(self, number: int, machine: str) -> None:
        name, line = self._name(machine), f"line{number}"
        _run("ip", "netns", "add", name)
        _run("ip", "link", "add", line, "type", "veth", "peer", "name", line, "netns", name)
        _run("ip", "address", "add", f"10.77.{number}.1/30", "dev", line)
        _run("ip", "link", "set", line, "up")
        for command in (
            ("ip", "address", "add", f"10.77.{number}.2/30", "dev", line),
            ("ip", "link", "set", line, "up"),
            ("ip", "link", "set", "lo", "up"),
        ):
            _run(*self.launcher(machine), *command)

    def _name(self, machine: str) -> str:
        return f"{self._prefix}-{machine}"


def _enter(namespace: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, _NEW_NETWORK) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def _run(*command: str) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise TrisectError(f"{command[0]} is not there: apt install iproute2 util-linux") from error
    except subprocess.CalledProcessError as error:
        raise TrisectError(f"{' '.join(command)}: {error.stderr.strip()}") from error
