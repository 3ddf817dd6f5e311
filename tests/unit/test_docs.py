"""The docs say what the code says."""

from __future__ import annotations

from pathlib import Path

from broker.topics import ALL

ROOT = Path(__file__).parents[2]


def test_the_table_of_topics_is_that_of_the_declarations() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    for topic in ALL:
        template = topic.template.replace("{", "<").replace("}", ">")
        row = f"| `{template}` | {topic.message} | {topic.encoding} | {topic.qos} | {'yes' if topic.retain else 'no'} |"
        assert row in page
