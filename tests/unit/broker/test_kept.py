"""What is kept, and when it is said again."""

from __future__ import annotations

from unittest.mock import Mock, call

from broker.kept import Kept


def test_what_is_not_for_a_connect_is_said_at_once_and_repeated_only() -> None:
    now, again, at_connect = Mock(), Mock(), Mock()
    kept = Kept(now)
    kept.put("info", b"i")
    kept.put("state", b"s", at_connect=False)
    kept.at_connect(at_connect)
    kept.publish_all(again)
    assert now.mock_calls == again.mock_calls == [call("info", b"i"), call("state", b"s")]
    assert at_connect.mock_calls == [call("info", b"i")]
    kept.drop("state")
    kept.put("state", b"t")
    kept.at_connect(at_connect)
    assert at_connect.mock_calls[-1] == call("state", b"t")
