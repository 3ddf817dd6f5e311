"""An arm64 Python without an arm64 machine: a Debian root, aarch64 wheels of trisect's base, and QEMU in user mode.

Everything lies in the cache folder and is made once. XNNPACK chooses its kernels by /proc/cpuinfo, so each core has a
root of its own, which differs from the others in that file only. Knows no network.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType

import tomllib

CHECKOUT = Path(__file__).resolve().parents[1]
PYTHON = "3.11"
"""Of Debian bookworm."""
PYTHONS = ("3.11", "3.12", "3.13")
_SUITE, _PACKAGES = "bookworm", "python3,libpython3-stdlib,libstdc++6,zlib1g"
_PLATFORMS = tuple(f"{name}_aarch64" for name in ("manylinux2014", *(f"manylinux_2_{n}" for n in (17, 27, 28, 31, 34))))
_TOOLS = {"mmdebstrap": "mmdebstrap", "qemu-aarch64": "qemu-user"}
_ENGINE = ("ai-edge-litert", "flatbuffers")
_PROCESSORS = 2


@dataclass(frozen=True, slots=True)
class Core:
    """A processor to play: its part number and features as /proc/cpuinfo has them, and QEMU's name of it."""

    name: str
    part: int
    features: str

    @property
    def cpuinfo(self) -> str:
        """The text of /proc/cpuinfo."""
        lines = {
            "BogoMIPS": "108.00",
            "Features": f"fp asimd evtstrm {self.features}",
            "CPU implementer": "0x41",
            "CPU architecture": "8",
            "CPU variant": "0x0",
            "CPU part": f"{self.part:#05x}",
            "CPU revision": "3",
        }
        text = "".join(f"{key}\t: {value}\n" for key, value in lines.items())
        return "".join(f"processor\t: {number}\n{text}\n" for number in range(_PROCESSORS))


_FIRST = "crc32 cpuid"
_SECOND = "crc32 cpuid atomics fphp asimdhp asimdrdm asimddp"
CORES = {
    "a53": Core("cortex-a53", 0xD03, _FIRST),
    "a72": Core("cortex-a72", 0xD08, _FIRST),
    "a76": Core("cortex-a76", 0xD0B, _SECOND),
    "n1": Core("neoverse-n1", 0xD0C, _SECOND),
}


class ArmMachine:
    """The root and the wheels in `folder`; `make` them before anything else."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def _root(self) -> Path:
        return self.folder / "root"

    @cached_property
    def site(self) -> Path:
        """Where the wheels are unpacked; another folder for other requirements."""
        key = hashlib.sha256("\n".join(_pinned(base_requirements())).encode()).hexdigest()[:12]
        return self.folder / f"site-{key}"

    def make(self) -> None:
        """Make what is not there yet. Raises CalledProcessError."""
        self.folder.mkdir(parents=True, exist_ok=True)
        _install([package for tool, package in _TOOLS.items() if shutil.which(tool) is None])
        _once(self._root, self._make_root)
        _once(self.site, self._make_site)
        about = self.site / f"trisect-{version('trisect')}.dist-info"  # the checkout itself is not installed there
        about.mkdir(exist_ok=True)
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: trisect\nVersion: {version('trisect')}\n")

    def _make_root(self, path: Path) -> None:
        options = ["--variant=extract", "--architectures=arm64", f"--include={_PACKAGES}"]
        subprocess.run(["mmdebstrap", "--quiet", *options, _SUITE, str(path)], check=True)

    def _make_site(self, path: Path) -> None:
        wheels = path.with_suffix(".wheels")
        shutil.rmtree(wheels, ignore_errors=True)
        download(_pinned(base_requirements()), PYTHON, wheels).check_returncode()
        for wheel in sorted(wheels.glob("*.whl")):
            with zipfile.ZipFile(wheel) as packed:
                packed.extractall(path)
        shutil.rmtree(wheels)

    def command(
        self, core: str, arguments: Sequence[str], environment: Mapping[str, str] = MappingProxyType({})
    ) -> list[str]:
        """What runs this checkout's Python on a core: `arguments` as python3 takes them."""
        given = {
            "PYTHONPATH": f"{CHECKOUT}:{self.site}",
            "PYTHONHOME": str(self._root / "usr"),
            "PYTHONPYCACHEPREFIX": str(self.folder / "bytecode"),
            **environment,
        }
        settings = [part for key, value in given.items() for part in ("-E", f"{key}={value}")]
        python = self._root / "usr" / "bin" / f"python{PYTHON}"
        emulator = ["qemu-aarch64", "-cpu", CORES[core].name, "-L", str(self._root_of(core))]
        return [*emulator, *settings, str(python), *arguments]

    def _root_of(self, core: str) -> Path:
        """Links to the root, and a /proc/cpuinfo."""
        path = self.folder / "cores" / core
        (path / "proc").mkdir(parents=True, exist_ok=True)
        (path / "proc" / "cpuinfo").write_text(CORES[core].cpuinfo)
        for name in ("usr", "lib", "etc"):
            if not (path / name).is_symlink():
                (path / name).symlink_to(self._root / name)
        return path


def base_requirements() -> list[str]:
    """What `pip install trisect` brings: all that a node needs which loads packages."""
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    return sorted(project["dependencies"])


def _name(requirement: str) -> str:
    return requirement.partition(">")[0].partition("=")[0].strip()


def _pinned(requirements: Sequence[str]) -> list[str]:
    """The engine in the version that is installed here: others may give other bits."""
    return [f"{_name(one)}=={version(_name(one))}" if _name(one) in _ENGINE else one for one in requirements]


def download(requirements: Sequence[str], python: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Fetch wheels for aarch64, and no sources, with all that they depend on; pip says on stderr what there is not."""
    platforms = [part for name in _PLATFORMS for part in ("--platform", name)]
    options = ["--only-binary=:all:", "--python-version", python, *platforms, "--dest", str(folder)]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", *options]
    return subprocess.run([*command, *requirements], capture_output=True, text=True, check=False)


def lacking(python: str, folder: Path) -> list[str]:
    """Base requirements without a wheel for aarch64 and this version of Python, each with pip's last word."""
    wanted = base_requirements()
    if download(wanted, python, folder / python).returncode == 0:
        return []
    tried = {one: download([one], python, folder / python) for one in wanted}
    return [f"{one}: {done.stderr.strip().rpartition(chr(10))[2]}" for one, done in tried.items() if done.returncode]


def _install(packages: Sequence[str]) -> None:
    if packages:
        if os.geteuid() != 0:
            raise SystemExit(f"please install as root: apt-get install {' '.join(packages)}")
        subprocess.run(["apt-get", "update", "-qq"], check=True)
        quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "install", "-y", "-qq", *packages], check=True, env=quiet, stdout=subprocess.DEVNULL)


def _once(path: Path, make: Callable[[Path], None]) -> None:
    """Made beside its place and moved there when it is whole."""
    if path.exists():
        return
    unfinished = path.with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    make(unfinished)
    unfinished.replace(path)
