"""Renews the libraries in `static/vendor`: `make vendor`, or `python -m nodes.web.vendoring`. Needs npm.

Each package is fetched by `npm pack` in the version written here, held against its digest, and the files that the page
uses are copied as they are, with the licence. The page itself is served from these copies only.
"""

from __future__ import annotations

import base64
import hashlib
import io
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pipeline.errors import TrisectError

VENDOR: Final = Path(__file__).parent / "static" / "vendor"
LIST: Final = "VENDORED.txt"


@dataclass(frozen=True, slots=True)
class Library:
    """One npm package: `files` are those of it that are copied, by the name that they get."""

    name: str
    version: str
    integrity: str
    licence: str
    files: dict[str, str]
    why: str


LIBRARIES: Final = (
    Library(
        "mqtt",
        "5.16.0",
        "sha512-G0VsEtuJz5sJUgZJaaADMVfW7SIFPzkIuHR+d6rk+tBeSwdCfd9BaIRycRfd2AbyFDEmLlFM+SDQeti/+IbOnw==",
        "LICENSE.md",
        {"dist/mqtt.esm.js": "mqtt.esm.js"},
        "MQTT 5 over websockets",
    ),
    Library(
        "@msgpack/msgpack",
        "3.1.3",
        "sha512-47XIizs9XZXvuJgoaJUIE2lFoID8ugvc0jzSHP+Ptfk8nTbnR8g788wv48N03Kx0UkAv559HWRQ3yzOgzlRNUA==",
        "LICENSE",
        {"dist.umd/msgpack.min.js": "msgpack.min.js"},
        "reads previews and outputs",
    ),
    Library(
        "@dagrejs/dagre",
        "3.1.3",
        "sha512-X4aUTwOReZvthaZWOVHqlJ52/ZdhZFEM4+Lh/uR4XooUSLE6p71bcy7MPGzYnNUcNh+nj+i/qJQpCMIdQnSmrg==",
        "LICENSE",
        {"dist/dagre.esm.js": "dagre.esm.js"},
        "places the blocks of a network's graph",
    ),
    Library(
        "uplot",
        "1.6.32",
        "sha512-KIMVnG68zvu5XXUbC4LQEPnhwOxBuLyW1AHtpm6IKTXImkbLgkMy+jabjLgSLMasNuGGzQm/ep3tOkyTxpiQIw==",
        "LICENSE",
        {"dist/uPlot.esm.js": "uPlot.esm.js", "dist/uPlot.min.css": "uPlot.min.css"},
        "draws series over time",
    ),
)


class Tampered(TrisectError):
    """A package is not the one that was looked at."""


def renew(folder: Path = VENDOR) -> None:
    """Fetch all libraries and write their files, licences and the list of them. Raises Tampered."""
    (folder / "LICENSES").mkdir(parents=True, exist_ok=True)
    lines = ["Made by `make vendor` (nodes/web/vendoring.py) from packages of the npm registry; do not edit.", ""]
    for library in LIBRARIES:
        members = _members(_packed(library))
        lines += [f"{library.name} {library.version}: {library.why}", f"  package {library.integrity}"]
        for source, name in library.files.items():
            body = _without_map(members[source])
            (folder / name).write_bytes(body)
            lines.append(f"  {name} sha256 {hashlib.sha256(body).hexdigest()}")
        licence = f"{library.name.split('/')[-1]}.txt"
        (folder / "LICENSES" / licence).write_bytes(members[library.licence])
        lines += [f"  licence LICENSES/{licence}", ""]
    (folder / LIST).write_text("\n".join(lines))


def _packed(library: Library) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        command = ["npm", "pack", "--silent", "--pack-destination", folder, f"{library.name}@{library.version}"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=folder)
        body = next(Path(folder).glob("*.tgz")).read_bytes()
    found = f"sha512-{base64.b64encode(hashlib.sha512(body).digest()).decode()}"
    if found != library.integrity:
        raise Tampered(f"{library.name} {library.version} has the digest {found}, not {library.integrity}")
    return body


def _members(packed: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(packed), mode="r:gz") as archive:
        found = {}
        for member in archive:
            file = archive.extractfile(member) if member.isfile() else None
            if file is not None:
                found[member.name.removeprefix("package/")] = file.read()
        return found


def _without_map(body: bytes) -> bytes:
    """Take off the last line's reference to a source map, which is not served."""
    head, found, _ = body.rpartition(b"//# sourceMappingURL=")
    return head if found else body


if __name__ == "__main__":
    renew()
