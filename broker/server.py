"""One mosquitto as a child process: found, configured, started, answering, stopped. Knows no client and no topic."""

from __future__ import annotations

import logging
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Final

from broker.errors import MosquittoMissing, PortTaken, ServerFailed
from broker.ports import answers_mqtt, answers_tls, free_port, is_free
from broker.server_log import ServerLog
from broker.settings import EVERYWHERE, ServerSettings, render

__all__ = ["Server", "ServerSettings", "find_mosquitto", "find_plugins", "render"]

_log = logging.getLogger(__name__)
# Debian puts daemons where an ordinary user's PATH does not look; Homebrew keeps them apart, too
_SBIN: Final = ("/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin")
# Debian: lib/<architecture>/mosquitto; built from source: lib
_PLUGIN_DEPTHS: Final = tuple(f"{folders}mosquitto_acl_file.so" for folders in ("", "*/", "*/*/"))
_PORT_ATTEMPTS: Final = 5
# Dies with its parent's end of the pipe, however that parent died, and takes the broker along. PR_SET_PDEATHSIG would
# be shorter, but fires when the *thread* that forked ends, and is forgotten when mosquitto changes its user.
_WATCH: Final = 'read -r _; kill -TERM "$1"'


def find_mosquitto(path: str | None = None) -> str:
    """The mosquitto executable on `path` (default: PATH and the usual sbin directories). Raises MosquittoMissing."""
    searched = path if path is not None else os.pathsep.join([os.environ.get("PATH", os.defpath), *_SBIN])
    found = shutil.which("mosquitto", path=searched)
    if found is None:
        raise MosquittoMissing(searched)
    return found


def find_plugins(executable: str) -> Path | None:
    """The folder with the plugins of mosquitto 2.1 or later; None for 2.0, which has options in their place."""
    said = subprocess.run([executable, "-h"], capture_output=True, text=True, check=False, timeout=10).stdout
    version = re.search(r"version (\d+)\.(\d+)", said)
    if version is None or (int(version[1]), int(version[2])) < (2, 1):
        return None
    libraries = (Path(executable).resolve().parents[1] / "lib", Path("/usr/lib"))
    found = (path for library in libraries for depth in _PLUGIN_DEPTHS for path in sorted(library.glob(depth)))
    return next((path.parent for path in found), None)


class Server:
    """A mosquitto that lives as long as this object's `with` block, and never longer than this process.

    What mosquitto writes is kept in `log_file`, where one is given. Raises on start: MosquittoMissing, PortTaken,
    ServerFailed (with the end of mosquitto's log).
    """

    def __init__(
        self,
        settings: ServerSettings | None = None,
        *,
        executable: str | None = None,
        ready_s: float = 10.0,
        log_file: Path | None = None,
    ) -> None:
        self._settings = settings or ServerSettings()
        self._executable = executable
        self._ready_s = ready_s
        self._port = self._settings.port
        self._process: subprocess.Popen[str] | None = None
        self._watcher: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._log = ServerLog(log_file)

    @property
    def settings(self) -> ServerSettings:
        """What it was started with last."""
        return self._settings

    @property
    def host(self) -> str:
        """The address it listens on."""
        return self._settings.host

    @property
    def _near(self) -> str:
        return "127.0.0.1" if self.host == EVERYWHERE else self.host

    @property
    def port(self) -> int:
        """The TCP port; 0 before the first start when a free one is to be picked."""
        return self._port

    @property
    def pid(self) -> int | None:
        """The process id of the last start."""
        return self._process.pid if self._process else None

    @property
    def returncode(self) -> int | None:
        """None while it runs; the exit status (negative: a signal) once it has ended."""
        return self._process.poll() if self._process else None

    @property
    def is_running(self) -> bool:
        """True while the process lives."""
        return self._process is not None and self._process.poll() is None

    @property
    def log_tail(self) -> str:
        """The last lines that mosquitto wrote."""
        return self._log.tail

    @property
    def log_file(self) -> Path | None:
        """Where all of its lines are; None when none was asked for, or it cannot be written."""
        return self._log.path

    def check(self) -> None:
        """Raise ServerFailed when mosquitto has ended by itself."""
        if self._process is not None and self._process.poll() is not None:
            self._join_reader()
            raise ServerFailed(f"ended by itself with status {self._process.returncode}", self.log_tail, self.log_file)

    def start(self) -> Server:
        """Start mosquitto and wait until it answers a CONNECT."""
        if self.is_running:
            return self
        executable = self._executable or find_mosquitto()
        if self._port:
            self._launch(executable, self._port)
            return self
        for attempt in range(_PORT_ATTEMPTS):
            try:
                self._launch(executable, free_port(self._near))
                return self
            except PortTaken:  # somebody was faster between the choice and mosquitto's bind
                if attempt == _PORT_ATTEMPTS - 1:
                    raise
        raise AssertionError("unreachable")

    def stop(self, *, grace_s: float = 5.0) -> None:
        """SIGTERM, then SIGKILL after `grace_s`. Does nothing when it is not running."""
        self._dismiss_watcher()
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None
        process = self._process
        if process is None:
            return
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(grace_s)
            except subprocess.TimeoutExpired:
                _log.warning("mosquitto %d did not end within %.1f s of SIGTERM; killing it", process.pid, grace_s)
                process.kill()
                process.wait()
        self._join_reader()
        self._log.close()  # opened again by the next line

    def restart(self, settings: ServerSettings | None = None) -> None:
        """Stop, then start on the same port, from now on with other settings if any are given."""
        self.stop()
        self._settings = settings or self._settings
        self.start()

    def reload(self) -> None:
        """Have it read certificates, revocations, passwords and access lists again; connections stay."""
        if self.is_running and self._process:
            self._process.send_signal(signal.SIGHUP)

    def kill(self) -> None:
        """SIGKILL: what a power cut looks like to the clients."""
        self._dismiss_watcher()
        if self._process and self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()

    def __enter__(self) -> Server:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _join_reader(self) -> None:
        if self._reader:
            self._reader.join(timeout=1.0)

    def _launch(self, executable: str, port: int) -> None:
        if not is_free(self._near, port):
            raise PortTaken(self.host, port)
        if self._settings.persistence_dir:
            self._settings.persistence_dir.mkdir(parents=True, exist_ok=True)
        self._log.begin()
        self._process = subprocess.Popen(
            [executable, "-c", str(self._write_config(port))],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,  # Ctrl-C at a terminal is for the nodes; they stop the broker last
        )
        self._reader = self._start_reader(self._process, port)
        self._watcher = self._start_watcher(self._process.pid)
        self._await_answer(self._process, port)
        self._port = port

    def _write_config(self, port: int) -> Path:
        """Mosquitto reads its file again when it reloads, then perhaps as a user of its own."""
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="trisect-broker-")
        config = Path(self._folder.name) / "mosquitto.conf"
        config.write_text(render(replace(self._settings, port=port)))
        if self._settings.tls:
            config.parent.chmod(0o755)  # it names files, and holds no secret
            config.chmod(0o644)
        return config

    def _await_answer(self, process: subprocess.Popen[str], port: int) -> None:
        give_up = time.monotonic() + self._ready_s
        while time.monotonic() < give_up:
            if process.poll() is not None:
                self.stop()
                if "Address already in use" in self.log_tail:
                    raise PortTaken(self.host, port)
                raise ServerFailed(
                    f"ended with status {process.returncode} before it answered", self.log_tail, self.log_file
                )
            if (answers_tls if self._settings.tls else answers_mqtt)(self._near, port, timeout_s=1.0):
                return
            time.sleep(0.01)
        self.stop()
        why = f"did not answer at {self.host}:{port} within {self._ready_s:.1f} s"
        raise ServerFailed(why, self.log_tail, self.log_file)

    def _start_reader(self, process: subprocess.Popen[str], port: int) -> threading.Thread:
        def read() -> None:
            stream = process.stderr
            assert stream is not None
            with stream:
                for line in stream:
                    self._log.add(line)

        reader = threading.Thread(target=read, name=f"mosquitto-{port}.log", daemon=True)
        reader.start()
        return reader

    @staticmethod
    def _start_watcher(pid: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            ["/bin/sh", "-c", _WATCH, "trisect-broker-watch", str(pid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _dismiss_watcher(self) -> None:
        # before the broker ends, so that it can never signal a process that got the broker's number afterwards
        watcher, self._watcher = self._watcher, None
        if watcher is None:
            return
        watcher.kill()
        watcher.wait()
        if watcher.stdin:
            watcher.stdin.close()
