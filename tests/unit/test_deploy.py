"""What `configs/deploy` has for clusters: rendered as kubectl does it, and held against the schemas of Kubernetes."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

KUBERNETES = Path(__file__).parents[2] / "configs" / "deploy" / "kubernetes"
OVERLAYS = {"edge": "node", "cloud": "node", "planner": "planner"}
"""Folders, and the command of each one's pod."""
VERSIONS = ("1.28", "1.37")


def check(document: dict[str, Any]) -> None:
    for version in VERSIONS:
        kubernetes_validate.validate(document, version, strict=True)


@pytest.mark.parametrize("name", ["node", "network"])
def test_what_pods_are_made_of_is_as_kubernetes_has_it(name: str) -> None:
    document = yaml.safe_load((KUBERNETES / "base" / f"{name}.yaml").read_text())
    check(document)
    with pytest.raises(kubernetes_validate.ValidationError):  # and that it looks at all
        check({**document, "spec": {**document["spec"], "replica": 1}})


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed, which renders overlays")
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_with_its_enrolment_is_a_whole_pod(overlay: str, tmp_path: Path) -> None:
    shutil.copytree(KUBERNETES, tmp_path / "kubernetes")
    (tmp_path / "kubernetes" / overlay / "enrolment").write_text("# A trisect enrolment\n")
    command = ["kubectl", "kustomize", str(tmp_path / "kubernetes" / overlay)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    documents = {one["kind"]: one for one in yaml.safe_load_all(done.stdout)}
    assert documents.keys() == {"StatefulSet", "NetworkPolicy", "Secret"}
    for document in documents.values():
        check(document)
    pod = documents["StatefulSet"]["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    assert container["args"] == [OVERLAYS[overlay], "--enrolment", "/run/trisect/enrolment"]
    (secret,) = (volume["secret"] for volume in pod["spec"]["volumes"] if "secret" in volume)
    assert secret["secretName"] == documents["Secret"]["metadata"]["name"]
    chosen = documents["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"]
    assert chosen.items() <= pod["metadata"]["labels"].items()
