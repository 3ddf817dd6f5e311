"""From nothing to the first result on three machines, as docs/deploy.md says, with the time of each step; needs root.

    python -m benchmarks.ten_minutes --model mobilenet_v2 --json ten-minutes.json

The machines are network namespaces that share nothing but the lines between them: each has a home, a user and a Python
of its own, with the wheel installed into it. Device and cloud see the edge machine under different addresses.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from benchmarks.network import Network
from nodes.cli import sample_images
from pipeline.errors import TrisectError

ROOT = Path(__file__).parents[1]
PI, BOX, SERVER = "pi", "box", "server"
FIRST_USER = 61_001
PORT = 8883
PATIENCE_S = 300.0
LOOK_S = 1.0
"""Between two looks, each of which starts a Python."""


@dataclass(eq=False)
class Machine:
    """One namespace with a user, a home and a Python; `where` enters its network, none for the hub's."""

    name: str
    user: int
    home: Path
    where: Sequence[str] = ()
    children: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.home.mkdir(mode=0o700)
        os.chown(self.home, self.user, self.user)

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command as the user of this machine, in its home. Raises TrisectError with what it said."""
        done = subprocess.run(
            [*self._as_user, *command],
            cwd=self.home,
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_S,
        )
        if check and done.returncode:
            raise TrisectError(f"{self.name}: {' '.join(command)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
        return done

    def start(self, name: str, *command: str) -> None:
        """Start a process; its log is in the machine's home."""
        with (self.home / f"{name}.log").open("wb") as log:
            self.children[name] = subprocess.Popen(
                [*self._as_user, *command], cwd=self.home, env=self._environment, stdout=log, stderr=log
            )

    def give(self, *files: Path) -> None:
        """What `scp` would do: the machine's user gets copies."""
        for file in files:
            target = self.home / file.name
            if file.is_dir():
                shutil.copytree(file, target)
            else:
                shutil.copy(file, target)
            for path in (target, *(target.rglob("*") if target.is_dir() else ())):
                os.chown(path, self.user, self.user)

    def stop(self) -> None:
        """End what was started here, the last first."""
        for child in reversed(self.children.values()):
            child.terminate()
            try:
                child.wait(20)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()

    @property
    def trisect(self) -> str:
        """The program on this machine."""
        return str(self.home / "trisect" / "bin" / "trisect")

    @property
    def _as_user(self) -> list[str]:
        ids = (f"--reuid={self.user}", f"--regid={self.user}", "--clear-groups")
        return [*self.where, "setpriv", *ids, "--inh-caps=-all", "--no-new-privs"]

    @property
    def _environment(self) -> Mapping[str, str]:
        return {"HOME": str(self.home), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}


@dataclass
class Steps:
    """Times, as they are taken."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time one step."""
        began = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - began, 1)
        print(f"{self.seconds[name]:7.1f} s  {name}", flush=True)


def wheels(folder: Path) -> Path:
    """The wheel of this checkout, and all that it needs: made and fetched once, as an index of one's own has them.

    In a folder that has them already only the wheel is made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    no_deps = ["--no-deps"] if any(folder.glob("numpy-*.whl")) else []
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    done = subprocess.run(
        [*pip, "wheel", *no_deps, f"{ROOT}[enrol]", "-w", str(folder)], check=False, capture_output=True, text=True
    )
    if done.returncode:
        raise TrisectError(f"the wheels cannot be made: {done.stderr[-2000:]}")
    for path in (folder, *folder.iterdir()):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return folder


Install: TypeAlias = Callable[[Machine, str], None]
"""Install trisect on a machine, with an extra as pip has it in brackets, or none."""


def by_pip(index: Path) -> Install:
    """As a person does, from a folder of wheels; takes minutes on machines of little processor."""

    def install(machine: Machine, extra: str) -> None:
        machine.run("python3", "-m", "venv", "trisect")
        pip = ("trisect/bin/pip", "install", "-q", "--no-compile", "--no-index", "--find-links", str(index))
        machine.run(*pip, f"trisect{extra}")

    return install


def run(model: Path, base: Path, steps: Steps, prepare: Callable[[], Install]) -> dict[str, object]:
    """Take all steps; returns the first result as the pipeline gave it. Raises TrisectError."""
    base.chmod(0o755)
    with steps.step("make or fetch the wheels (once for all machines)"):
        install = prepare()
    with ExitStack() as stack:
        network = stack.enter_context(Network([PI, SERVER]))
        pi, server = (
            Machine(name, FIRST_USER + number, base / name, network.launcher(name))
            for number, name in enumerate((PI, SERVER))
        )
        box = Machine(BOX, FIRST_USER + 2, base / BOX)
        for machine in (pi, server, box):
            stack.callback(machine.stop)
        with steps.step("install on all three, at once"), ThreadPoolExecutor() as people:
            extras = {box: "[enrol]", pi: "", server: ""}
            list(people.map(lambda one: install(*one), extras.items()))
        return _from_enrolment(pi, box, server, network, model, steps)


def _from_enrolment(
    pi: Machine, box: Machine, server: Machine, network: Network, model: Path, steps: Steps
) -> dict[str, object]:
    with steps.step("box: init and enrol"):
        box.give(model)
        hosts = [option for name in (PI, SERVER) for option in ("--broker", network.hub_address(name))]
        nodes = ("--device", PI, "--edge", BOX, "--cloud", SERVER)
        box.run(box.trisect, "init", "workshop", *hosts, "--port", str(PORT), "--model", model.name, *nodes)
        box.run(box.trisect, "enrol", PI, BOX, SERVER, "planner", "-f", "workshop")
        box.run(box.trisect, "enrol", "cam", "--role", "camera", "-f", "workshop")
    with steps.step("copy one file to each machine, and the model"):
        for machine, name in ((pi, PI), (server, SERVER)):
            (machine.home / "member" / "models").mkdir(parents=True)
            shutil.copy(model, machine.home / "member" / "models")
            shutil.copy(box.home / "workshop" / "enrolments" / f"{name}.enrolment", machine.home / "member")
        photo = pi.home / "photo.jpg"
        photo.write_bytes(sample_images.frames(1)[0])
        shutil.copy(box.home / "workshop" / "enrolments" / "cam.enrolment", pi.home / "member")
        for machine in (pi, server):
            for path in machine.home.rglob("*"):
                if not path.is_relative_to(machine.home / "trisect"):
                    os.chown(path, machine.user, machine.user, follow_symlinks=False)
    enrolments = "workshop/enrolments"
    with steps.step("start broker, planner and three nodes, until all serve"):
        box.start("broker", box.trisect, "broker", "--folder", "workshop")
        box.run("sh", "-c", f"mkdir member && cp -r {enrolments}/*.enrolment workshop/models member/")
        box.start("planner", box.trisect, "planner", "--enrolment", "member/planner.enrolment")
        for machine, name in ((box, BOX), (server, SERVER), (pi, PI)):
            machine.start("node", machine.trisect, "node", "--enrolment", f"member/{name}.enrolment")
        for machine, name in ((box, BOX), (server, SERVER), (pi, PI)):
            _until_healthy(machine, name)
        _until_watched(box)
    with steps.step("the first result"):
        said = pi.run(pi.trisect, "publish", "-c", "member/cam.enrolment", "photo.jpg", "--timeout-s", "120").stdout
        result: dict[str, object] = json.loads(said)
    with steps.step("doctor on every machine"):
        for machine, name in ((pi, PI), (box, BOX), (server, SERVER), (box, "operator")):
            machine.run(machine.trisect, "doctor", "-c", f"member/{name}.enrolment")
    return result


def _until_healthy(machine: Machine, name: str) -> None:
    give_up = time.monotonic() + PATIENCE_S
    while True:
        done = machine.run(machine.trisect, "health", "--enrolment", f"member/{name}.enrolment", check=False)
        if done.returncode == 0:
            return
        for child_name, child in machine.children.items():
            if child.poll() is not None or time.monotonic() > give_up:
                log = (machine.home / f"{child_name}.log").read_text(errors="replace")
                raise TrisectError(f"{machine.name}: {child_name}: {done.stderr}\n{log[-3000:]}")
        time.sleep(LOOK_S)


def _until_watched(box: Machine) -> None:
    give_up = time.monotonic() + PATIENCE_S
    while (done := box.run(box.trisect, "watch", "--once", "-c", "member/operator.enrolment", check=False)).returncode:
        if time.monotonic() > give_up:
            raise TrisectError(f"no plan:\n{done.stdout}")
        time.sleep(LOOK_S)


def main() -> None:
    """Run it as a program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mobilenet_v2", help="a package, or a name of the zoo to pack")
    parser.add_argument("--json", type=Path, help="write the seconds of each step here")
    parser.add_argument("--wheels", type=Path, help="a folder to keep the wheels in, for the next time")
    arguments = parser.parse_args()
    steps = Steps()
    base = Path(tempfile.mkdtemp(prefix="trisect-machines-"))
    try:
        model = Path(arguments.model)
        if model.suffix != ".trisect":
            model = base / f"{arguments.model}.trisect"
            with steps.step(f"pack {arguments.model}"):
                pack = [sys.executable, "-m", "nodes.cli", "pack", arguments.model, "-o", str(model)]
                subprocess.run(pack, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
        result = run(model, base, steps, lambda: by_pip(wheels(arguments.wheels or base / "wheels")))
        print(json.dumps(result))
        print(f"{sum(steps.seconds.values()):7.1f} s  in all")
        if arguments.json:
            arguments.json.write_text(json.dumps(steps.seconds, indent=2) + "\n")
    finally:
        shutil.rmtree(base, ignore_errors=True)


if __name__ == "__main__":
    main()
