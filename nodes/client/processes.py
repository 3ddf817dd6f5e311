"""Starting trisect processes as children, each with its log, and stopping them by their ids."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, TracebackType

from pipeline.errors import TrisectError

STOP_WAIT_S = 20.0
TAIL_LINES = 12


class ProcessEnded(TrisectError):
    """A child ended before it was asked to; carries the end of its log."""

    def __init__(self, name: str, code: int, log: Path) -> None:
        lines = log.read_text(errors="replace").splitlines()[-TAIL_LINES:]
        text = f"{name} ended with code {code}; the end of {log}:\n  " + "\n  ".join(lines)
        super().__init__(text, node=name, file=log)


class Processes:
    """Children by name; all are stopped when the context ends. `check` looks after what else they need, too."""

    def __init__(self, logs: Path, *, also_check: Callable[[], None] = lambda: None) -> None:
        self._logs = logs
        self._also_check = also_check
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def start(
        self,
        name: str,
        arguments: Sequence[str],
        environment: Mapping[str, str] = MappingProxyType({}),
        launcher: Sequence[str] = (),
    ) -> int:
        """Run `trisect ARGUMENTS…`, output to `NAME.log`, appended; returns the process id.

        `environment` is put on top of this process's own, `launcher` is a command that executes the one behind it.
        """
        with self.log(name).open("ab") as log:
            self._children[name] = subprocess.Popen(
                [*launcher, sys.executable, "-m", "nodes.cli", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
                start_new_session=True,  # Ctrl-C goes to the parent, which stops them in order
            )
        return self._children[name].pid

    def log(self, name: str) -> Path:
        """Path of a child's output."""
        return self._logs / f"{name}.log"

    def pid(self, name: str) -> int:
        """The process id of a child."""
        return self._children[name].pid

    def check(self) -> None:
        """Raise ProcessEnded when a child has ended by itself, or what `also_check` raises."""
        self._also_check()
        for name, child in self._children.items():
            code = child.poll()
            if code is not None:
                raise ProcessEnded(name, code, self.log(name))

    def kill(self, name: str) -> None:
        """End a child as a crash would."""
        self._children[name].kill()
        self._children.pop(name).wait()

    def stop(self, *names: str) -> None:
        """End children in order, all of them if none is named; those that do not go are killed."""
        leaving = [self._children.pop(name) for name in (names or tuple(self._children))]
        for child in leaving:
            child.send_signal(signal.SIGTERM)
        for child in leaving:
            try:
                child.wait(STOP_WAIT_S)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()

    def __enter__(self) -> Processes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
