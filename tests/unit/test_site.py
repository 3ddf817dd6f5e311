"""The docs' site: it is built without a warning, and its reference says what the code says."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

import trisect
from broker.topics import ALL
from nodes.config.sections import Config, StreamSection
from nodes.config.task_section import TaskSection

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def reference() -> Any:
    spec = spec_from_file_location("reference", ROOT / "docs" / "site" / "reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_key_of_the_configuration_is_there_with_what_it_may_hold(reference: Any) -> None:
    page = reference.configuration()
    for section in (Config, StreamSection, TaskSection):
        for key, field in section.model_fields.items():
            assert f"| `{key}` |" in page
            assert field.description is None or field.description.split("<")[0][:40] in page
    assert "| `window` | `4` | frames in flight, from 1 to 256 |" in page
    assert "`streams: {name: …}`" in page


def test_every_topic_command_and_public_name_is_there(reference: Any) -> None:
    topics, commands, python = reference.topics(), reference.commands(), reference.python()
    for topic in ALL:
        assert f"| `{topic.template.replace('{', '<').replace('}', '>')}` |" in topics
    for command in ("trisect node", "trisect serve-http", "trisect broker acl", "trisect bench engines"):
        assert f"\n## {command}\n" in commands
    assert "`--edge-from`" in commands
    for name in trisect.__all__:
        assert f"\n## {name}\n" in python or name == "__version__"
    assert "### Client.publish(frame: Frame, *, stream: str | None = None) -> Answer" in python


def test_the_site_is_built_without_a_warning_and_its_links_lead_somewhere(tmp_path: Path) -> None:
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (built.returncode, built.stdout, built.stderr) == (0, "", "")
    assert "Client.publish" in (tmp_path / "site" / "reference" / "python.html").read_text()
