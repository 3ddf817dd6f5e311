"""The rules for publishing a plan: each is there once, the first that speaks decides, the last always does."""

from __future__ import annotations

from typing import Any

import pytest

from nodes.planner.machine import publish_rules
from nodes.planner.machine.publish_rules import RULES, Publish, Rule, Stay, Verdict, table_of_rules, verdict


def rule(name: str, says: Verdict | None) -> Rule:
    return Rule(name, "", "", lambda situation: says)


def test_the_first_rule_that_says_something_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    situation: Any = object()
    rules = (rule("A", None), rule("B", Stay("b")), rule("C", Publish("c")))
    monkeypatch.setattr(publish_rules, "RULES", rules)
    assert verdict(situation) == Stay("b")
    monkeypatch.setattr(publish_rules, "RULES", rules[::2])
    assert verdict(situation) == Publish("c")
    monkeypatch.setattr(publish_rules, "RULES", rules[:1])
    with pytest.raises(AssertionError, match="the last rule"):
        verdict(situation)


def test_the_table_has_each_rule_once_in_the_order_in_which_they_are_asked() -> None:
    rows = table_of_rules().splitlines()[2:]
    assert [row.split("`")[1] for row in rows] == [rule.name for rule in RULES]
    assert len({rule.judge for rule in RULES}) == len(RULES)
